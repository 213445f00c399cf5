"""The same for Cloud Storage and Firestore: killed at each write, before and after it arrives."""

from __future__ import annotations

import json
import signal
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
from tests.unit.store_proxies import Call, Fault, Kill, records_proxy, storage_proxy
from tests.unit.tasks import make_task
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


class Request:
    """One request in a bucket and a project of its own."""

    def __init__(
        self,
        addresses: tuple[str, str],
        workers: ForkedWorkers,
        server: RawServer,
        *,
        shards: int = 1,
    ) -> None:
        self._workers, self._server = workers, server
        self.storage = emulators.new_bucket(addresses[0])
        self.firestore = emulators.new_project(addresses[1])
        where = Where(
            project=self.firestore.project, database="(default)", collection="processed-images"
        )
        task = make_task(Path("/none"), images_per_shard=SHARD // shards)
        self.task = replace(
            task,
            output=Output(
                path="spring", base_url="x:", bucket=self.storage.bucket, firestore=where
            ),
            download=replace(task.download, max_connections_per_host=1),
        )
        self.asked: set[bytes] = set()

    def run(
        self,
        step: Step = "plan",
        index: int = 0,
        rule: Writes | None = None,
    ) -> Ended:
        rule = rule or Writes(0, after=False)
        self._server.heads.clear()
        with (
            storage_proxy(self.storage, rule) as storage,
            records_proxy(self.firestore, rule) as firestore,
        ):
            ended = self._workers.run(
                self.task,
                step,
                index,
                inline=catalogue(self._server, SHARD),
                environment=storage.environment | firestore.environment,
                checkpoint_images=CHECKPOINT,
                started=rule.started,
            )
        asked = {line.split()[1] for line in self._server.lines}
        assert len(asked) == len(self._server.lines)
        assert len(asked & self.asked) <= REDONE
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
            blob.name.removeprefix("spring/"): (blob.content_type, blob.download_as_bytes())
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
    undisturbed = Request(addresses, workers, server)
    undisturbed.finish()
    expected = undisturbed.state(monkeypatch)
    for number in count(1):
        request = Request(addresses, workers, server)
        ended = request.run(rule=Writes(number, after=after))
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
    undisturbed = Request(addresses, workers, server, shards=2)
    for step, index in STEPS:
        undisturbed.finish(step, index)
    expected = undisturbed.state(monkeypatch)
    for number in count(1):
        request = Request(addresses, workers, server, shards=2)
        for step, index in STEPS[:at]:
            request.finish(step, index)
        ended = request.run(*STEPS[at], rule=Writes(number, after=after))
        if ended.code == report.EXIT_DONE:
            break
        assert ended.code == -signal.SIGKILL, ended.log
        for step, index in STEPS[at:]:
            request.finish(step, index)
        assert request.state(monkeypatch) == expected, number
    assert number > 3
