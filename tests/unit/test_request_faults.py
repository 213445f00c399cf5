"""A whole request while Cloud Storage and Firestore fail: nothing lost, nothing double."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable

import pytest
from imageprocessing_contract import report

from tests.unit.forked_workers import ForkedWorkers
from tests.unit.processes import GRACE
from tests.unit.raw_server import RawServer
from tests.unit.store_proxies import (
    Call,
    Damaged,
    Fault,
    Hang,
    RecordsCall,
    Refused,
    Reset,
    StorageCall,
)
from tests.unit.test_kills import LARGE, server, workers
from tests.unit.test_kills_emulators import Request, addresses, end_state

__all__ = ["addresses", "server", "workers"]  # fixtures
PODS = 4  # sharding.retriesPerShard and the first
BROKEN = [Reset(after=False), Reset(after=True)]
REFUSED = [Refused(429), Refused(500), Refused(503)]
RECORDS = [Refused(4), Refused(8), Refused(10), Refused(14)]  # codes of gRPC


class Rate:
    """Gives that part of all calls a fault; the same ones to the same calls in the same order."""

    def __init__(self, rate: float, seed: int) -> None:
        self._rate, self._random, self.given = rate, random.Random(seed), 0

    def __call__(self, call: Call) -> Fault | None:
        if self._random.random() >= self._rate:
            return None
        self.given += 1
        if isinstance(call, RecordsCall):
            return self._random.choice([*BROKEN, *RECORDS])
        assert isinstance(call, StorageCall)
        damage = []
        if b"alt=media" in call.head and b"\r\nrange:" not in call.head.lower():
            damage = [Damaged(back=True)]  # a part of a file has no checksum
        if b"uploadType=multipart" in call.head:
            damage = [Refused(400, "Provided CRC32C doesn't match calculated CRC32C")]
        return self._random.choice([*BROKEN, *REFUSED, *damage])


@pytest.mark.parametrize(("rate", "seed"), [(0.05, 1), (0.2, 2), (0.2, 3)])
def test_some_calls_fail(
    addresses: tuple[str, str],
    workers: ForkedWorkers,
    server: RawServer,
    monkeypatch: pytest.MonkeyPatch,
    rate: float,
    seed: int,
) -> None:
    expected = end_state(Request(addresses, workers, server, images=LARGE), monkeypatch)
    request = Request(addresses, workers, server, images=LARGE, per_host=16)
    faults = Rate(rate, seed)
    for _ in range(PODS):
        ended = request.run(rule=faults)
        if ended.code != report.EXIT_RETRY:
            break
    assert ended.code == report.EXIT_DONE, ended.log
    assert faults.given
    assert request.state(monkeypatch) == expected


class Outage:
    """From the n-th write on nothing arrives, until enough was refused or it has been long enough."""

    def __init__(self, begins: int, *, calls: int = 0, seconds: float = 0) -> None:
        self._begins, self._calls, self._seconds = begins, calls, seconds
        self._writes, self.refused, self._since = 0, 0, 0.0

    def __call__(self, call: Call) -> Fault | None:
        self._writes += call.writes
        if self._writes < self._begins:
            return None
        self._since = self._since or time.monotonic()
        if self.refused >= self._calls and time.monotonic() - self._since >= self._seconds:
            return None
        self.refused += 1
        return Reset(after=False)


OUTAGES = [
    *(pytest.param(Outage(begins, calls=3), id=str(begins)) for begins in (1, 4, 12)),
    pytest.param(Outage(8, seconds=60), id="minute", marks=pytest.mark.long),
]


@pytest.mark.parametrize("outage", OUTAGES)
def test_the_stores_are_gone_for_a_while(
    addresses: tuple[str, str],
    workers: ForkedWorkers,
    server: RawServer,
    monkeypatch: pytest.MonkeyPatch,
    outage: Outage,
) -> None:
    """One Pod waits for them."""
    expected = end_state(Request(addresses, workers, server, images=LARGE), monkeypatch)
    request = Request(addresses, workers, server, images=LARGE, per_host=16)
    ended = request.run(rule=outage)
    assert ended.code == report.EXIT_DONE, ended.log
    assert outage.refused
    assert request.state(monkeypatch) == expected


class HangsAtSigterm:
    """Nothing is answered from one call on, when SIGTERM comes; then what the kubelet does."""

    def __init__(self, at: Callable[[Call], bool]) -> None:
        self._at, self.pid = at, 0
        self._kubelet: threading.Timer | None = None

    def started(self, pid: int) -> None:
        self.pid = pid

    def __call__(self, call: Call) -> Fault | None:
        if self._kubelet is None and self._at(call):
            os.kill(self.pid, signal.SIGTERM)
            self._kubelet = threading.Timer(GRACE, os.kill, (self.pid, signal.SIGKILL))
            self._kubelet.start()
        return Hang() if self._kubelet else None

    def ended(self) -> None:
        assert self._kubelet
        self._kubelet.cancel()


def stored(name: bytes) -> Callable[[Call], bool]:
    return lambda call: isinstance(call, StorageCall) and call.writes and name in call.body


def recorded(number: int) -> Callable[[Call], bool]:
    numbers = iter(range(1, 1000))
    return lambda call: isinstance(call, RecordsCall) and next(numbers) == number


PLACES = {
    "catalogue": stored(b"/catalogue"),
    "plan": stored(b"/plan.json"),
    "request": recorded(1),
    "image": stored(b"/compressed_images/"),
    "records": recorded(2),
    "part": stored(b"/results/0/"),
    "results": stored(b"/results/0.jsonl"),
    "csv": stored(b"/processed_csvs/"),
    "done": stored(b"/done.json"),
}


@pytest.mark.parametrize("place", PLACES)
def test_sigterm_while_a_store_hangs(
    addresses: tuple[str, str],
    workers: ForkedWorkers,
    server: RawServer,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    """In each phase of the one Pod; nobody waits for the store."""
    request = Request(addresses, workers, server)
    rule = HangsAtSigterm(PLACES[place])
    ended = request.run(rule=rule, started=rule.started)
    rule.ended()
    assert ended.code == report.EXIT_INTERRUPTED, ended.log
    expected = end_state(Request(addresses, workers, server), monkeypatch)
    assert end_state(request, monkeypatch) == expected
