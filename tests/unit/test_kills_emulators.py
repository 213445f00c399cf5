"""The same for Cloud Storage and Firestore: killed at each write, before and after it arrives."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore as firestore_client
from google.cloud import storage as storage_client
from imageprocessing_contract import names, report
from imageprocessing_contract.request import Firestore as Where
from imageprocessing_contract.task import Output, Step
from msgspec.structs import replace

from tests.cluster import emulators
from tests.unit.forked_workers import ForkedWorkers
from tests.unit.processes import Ended
from tests.unit.raw_server import RawServer
from tests.unit.store_proxies import Call, Fault, Kill, Rule, records_proxy, storage_proxy
from tests.unit.tasks import make_task, without_times
from tests.unit.test_kills import (
    CHECKPOINT,
    REDONE,
    SHARD,
    State,
    catalogue,
    is_lasting,
    server,
    workers,
)

__all__ = ["server", "workers"]  # fixtures


class Writes:
    """Kills a worker at its n-th write."""

    def __init__(self, kill_at: int, *, after: bool) -> None:
        self._number, self._kill_at, self._after = count(1), kill_at, after
        self.pid = 0

    def __call__(self, call: Call) -> Fault | None:
        if call.writes and next(self._number) == self._kill_at:
            return Kill(self.pid, self._after)
        return None

    def started(self, pid: int) -> None:
        self.pid = pid


def undisturbed(_: Call) -> Fault | None:
    return None


class Request:
    """One request in a bucket and a project of its own."""

    def __init__(
        self,
        addresses: tuple[str, str],
        workers: ForkedWorkers,
        server: RawServer,
        *,
        images: int = SHARD,
        shards: int = 1,
        per_host: int = 1,
    ) -> None:
        """Only where images are fetched one by one is it known how many a kill may cost."""
        self._workers, self._server, self._images = workers, server, images
        self._redone = REDONE if per_host == 1 else images
        self.storage = emulators.new_bucket(addresses[0])
        self.firestore = emulators.new_project(addresses[1])
        where = Where(
            project=self.firestore.project, database="(default)", collection="processed-images"
        )
        task = make_task(Path("/none"), images_per_shard=images // shards)
        self.task = replace(
            task,
            output=Output(
                path="spring", base_url="x:", bucket=self.storage.bucket, firestore=where
            ),
            download=replace(task.download, max_connections_per_host=per_host),
        )
        self.asked: set[bytes] = set()

    def run(
        self,
        step: Step = "plan",
        index: int = 0,
        rule: Rule = undisturbed,
        *,
        started: Callable[[int], None] = lambda _: None,
    ) -> Ended:
        self._server.heads.clear()
        with (
            storage_proxy(self.storage, rule) as storage,
            records_proxy(self.firestore, rule) as firestore,
        ):
            ended = self._workers.run(
                self.task,
                step,
                index,
                inline=catalogue(self._server, self._images),
                environment=storage.environment | firestore.environment,
                checkpoint_images=CHECKPOINT,
                last_checkpoint_seconds=1,
                started=started,
            )
        asked = {line.split()[1] for line in self._server.lines}
        assert len(asked) == len(self._server.lines)
        assert len(asked & self.asked) <= self._redone
        self.asked |= asked
        return ended

    def finish(self, step: Step = "plan", index: int = 0) -> None:
        ended = self.run(step, index)
        assert ended.code == report.EXIT_DONE, ended.log

    def state(self, monkeypatch: pytest.MonkeyPatch) -> State:
        for key, value in (self.storage.environment | self.firestore.environment).items():
            monkeypatch.setenv(key, value)
        client = storage_client.Client(project="test", credentials=AnonymousCredentials())
        objects = {
            blob.name.removeprefix("spring/"): (
                blob.content_type,
                without_times(blob.download_as_bytes()),
            )
            for blob in client.list_blobs(self.storage.bucket)
        }
        found: State = {name: o for name, o in objects.items() if is_lasting(Path(name))}
        plan = json.loads(objects[names.PLAN][1])
        found["catalogue"] = objects[plan.pop("catalogue_path")]
        del plan["catalogue_version"]
        found[names.PLAN] = plan
        records = firestore_client.Client(project=self.firestore.project)
        for collection in ("processed-images", names.COLLECTION_REQUESTS):
            found[collection] = {d.id: d.to_dict() for d in records.collection(collection).stream()}
        return found


def end_state(request: Request, monkeypatch: pytest.MonkeyPatch) -> State:
    """Of a request that one Pod does."""
    request.finish()
    return request.state(monkeypatch)


@pytest.fixture(scope="module")
def addresses(gcs_address: str, firestore_address: str) -> tuple[str, str]:
    return gcs_address, firestore_address


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_write(
    addresses: tuple[str, str],
    workers: ForkedWorkers,
    server: RawServer,
    monkeypatch: pytest.MonkeyPatch,
    after: bool,
) -> None:
    """Plan, shard and finalize in one Pod."""
    expected = end_state(Request(addresses, workers, server), monkeypatch)
    for number in count(1):
        request = Request(addresses, workers, server)
        rule = Writes(number, after=after)
        ended = request.run(rule=rule, started=rule.started)
        if ended.code == report.EXIT_DONE:
            break
        assert ended.code == -signal.SIGKILL, ended.log
        request.finish()
        assert request.state(monkeypatch) == expected, number
    assert number > 15


STEPS: list[tuple[Step, int]] = [("plan", 0), ("shards", 0), ("shards", 1), ("finalize", 0)]


@pytest.mark.long
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(len(STEPS)))
def test_a_kill_at_any_write_of_each_step(
    addresses: tuple[str, str],
    workers: ForkedWorkers,
    server: RawServer,
    monkeypatch: pytest.MonkeyPatch,
    after: bool,
    at: int,
) -> None:
    """A Pod each."""
    first = Request(addresses, workers, server, shards=2)
    for step, index in STEPS:
        first.finish(step, index)
    expected = first.state(monkeypatch)
    for number in count(1):
        request = Request(addresses, workers, server, shards=2)
        for step, index in STEPS[:at]:
            request.finish(step, index)
        rule = Writes(number, after=after)
        ended = request.run(*STEPS[at], rule, started=rule.started)
        if ended.code == report.EXIT_DONE:
            break
        assert ended.code == -signal.SIGKILL, ended.log
        for step, index in STEPS[at:]:
            request.finish(step, index)
        assert request.state(monkeypatch) == expected, number
    assert number > 3
