"""SIGKILL of the operator before and after each write that it makes to the API."""

from __future__ import annotations

import signal
import uuid
from functools import partial
from itertools import count, cycle
from typing import Any, NamedTuple

import pytest
from imageprocessing_contract import report

from tests.apiserver import kubelet
from tests.apiserver.kube import Object, eventually
from tests.apiserver.proxy import Call, Cut, Fault, Proxy
from tests.apiserver.shop import SHARDED, Shop, hook
from tests.e2e.receiver import Receiver

WAYS: dict[str, tuple[dict[str, Any], dict[str, bytes]]] = {
    "whole": ({}, {"plan": kubelet.whole(5)}),
    "sharded": (
        SHARDED,
        {
            "plan": kubelet.planned(20, 2),
            "shards": b"",
            "finalize": kubelet.finalized(20, 2),
        },
    ),
    "failing": ({}, {"plan": kubelet.refused("plan", "SourceNotReadable", "404 Not Found")}),
}
"""Spec of a request, and the reports of its steps."""


@pytest.fixture(scope="module", autouse=True)
def secret(proxied_shop: Shop) -> None:
    proxied_shop.make_secret()


def play(shop: Shop, name: str, reports: dict[str, bytes]) -> None:
    """Ends the Pods that are there."""
    for job in shop.jobs(name):
        step = job["metadata"]["labels"]["imageprocessing.dev/step"]
        for pod in shop.kubelet.pods(job["metadata"]["name"]):
            code = report.EXIT_FINAL if b'"error"' in reports[step] else report.EXIT_DONE
            shop.kubelet.end(pod, reports[step], code)


def outcome(shop: Shop, name: str) -> Object:
    """The status without what differs from run to run."""
    status = shop.status(name)
    times = {"startTime", "completionTime", "requestID", "specHash"}
    fields = {key: value for key, value in status.items() if key not in times}
    fields["webhook"] = set(fields["webhook"])
    fields["conditions"] = {
        c["type"]: (c["status"], c["reason"], c["message"]) for c in fields["conditions"]
    }
    return fields


def settle(shop: Shop, name: str, reports: dict[str, bytes], made: dict[str, str]) -> bool:
    """Plays until the operator is dead or the request settled; notes the Jobs that it made."""

    def over() -> bool:
        play(shop, name, reports)
        made.update({job["metadata"]["uid"]: job["metadata"]["name"] for job in shop.jobs(name)})
        return not shop.operator.running or shop.status(name).get("settled") is True

    eventually(over, f"a write, or the end of {name}")
    return shop.operator.running


def killing(shop: Shop, number: int, *, after: bool) -> Fault:
    """Kills the operator at its n-th write, before or after the API server has it."""
    writes = count(1)
    kill = partial(shop.operator.send, signal.SIGKILL)

    def fault(call: Call) -> Cut | None:
        return Cut(after, first=kill) if call.is_write and next(writes) == number else None

    return fault


class Undisturbed(NamedTuple):
    """What a run without a kill comes to."""

    spec: dict[str, Any]
    reports: dict[str, bytes]
    outcome: Object
    writes: int


@pytest.fixture(params=WAYS)
def undisturbed(
    proxied_shop: Shop, proxy: Proxy, receiver: Receiver, request: pytest.FixtureRequest
) -> Undisturbed:
    spec, reports = WAYS[request.param]
    spec = {**spec, "webhook": hook(receiver.url)}
    name = f"undisturbed-{uuid.uuid4().hex[:8]}"
    proxied_shop.apply(name, **spec)
    proxy.fault = lambda _: None
    proxy.calls.clear()
    proxied_shop.operator.start()
    assert settle(proxied_shop, name, reports, {})
    proxied_shop.operator.kill()
    receiver.received.get_nowait()
    return Undisturbed(spec, reports, outcome(proxied_shop, name), len(proxy.writes()))


def check(
    shop: Shop, name: str, undisturbed: Undisturbed, made: dict[str, str], receiver: Receiver
) -> None:
    """That a run with kills came to the same, with one Job a step and one webhook-id."""
    assert outcome(shop, name) == undisturbed.outcome
    assert len(made) == len(set(made.values())) == len(undisturbed.reports)
    ids = {receiver.received.get()[0]["webhook-id"] for _ in range(receiver.received.qsize())}
    assert len(ids) == 1


def test_killed_before_and_after_each_write_of_one_request(
    proxied_shop: Shop, proxy: Proxy, receiver: Receiver, undisturbed: Undisturbed
) -> None:
    """Each operator lives until its first write, and every second one makes it."""
    shop, name = proxied_shop, f"killed-{uuid.uuid4().hex[:8]}"
    shop.apply(name, **undisturbed.spec)
    made: dict[str, str] = {}
    kills = 0
    for after in cycle((False, True)):
        proxy.fault = killing(shop, 1, after=after)
        shop.operator.start()
        if settle(shop, name, undisturbed.reports, made):
            break
        kills += 1
    shop.operator.kill()
    assert kills > undisturbed.writes
    check(shop, name, undisturbed, made, receiver)


@pytest.mark.long
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_the_nth_write(
    proxied_shop: Shop, proxy: Proxy, receiver: Receiver, undisturbed: Undisturbed, *, after: bool
) -> None:
    """One kill a request, from the first write on until there is no n-th one."""
    shop = proxied_shop
    for number in count(1):
        name = f"nth-{number}-{uuid.uuid4().hex[:8]}"
        shop.apply(name, **undisturbed.spec)
        made: dict[str, str] = {}
        proxy.fault = killing(shop, number, after=after)
        shop.operator.start()
        unkilled = settle(shop, name, undisturbed.reports, made)
        if not unkilled:
            proxy.fault = lambda _: None
            shop.operator.start()
            assert settle(shop, name, undisturbed.reports, made)
        shop.operator.kill()
        check(shop, name, undisturbed, made, receiver)
        if unkilled:
            break
    assert number >= undisturbed.writes
