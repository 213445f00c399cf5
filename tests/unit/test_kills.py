"""A worker that is killed at any of its writes leaves nothing lost and nothing double."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import msgspec
import pytest
from imageprocessing_contract import names, report
from imageprocessing_contract.task import Step

from tests import photos
from tests.unit.forked_workers import ForkedWorkers, forked_workers
from tests.unit.processes import Ended
from tests.unit.raw_server import Exchange, RawServer, served
from tests.unit.tasks import csv_of, make_task, without_times

CHECKPOINT = 2  # images
SHARD = 4  # images
LARGE = 16  # images
REDONE = 2 * CHECKPOINT + 3
"""Images that one kill may cost: those in the part being written, in the next one, and those
under way: one that is fetched or encoded, and two that are stored."""
PHOTOS = [data for _, data in photos.crops(LARGE, 120, 80)]

State = dict[str, object]


async def answer(exchange: Exchange) -> None:
    if exchange.target == b"/bad":
        await exchange.reply(status="404 Not Found")
    else:
        await exchange.reply(PHOTOS[int(exchange.target[1:])], Content_Type="image/jpeg")


@pytest.fixture(scope="module")
def server() -> Iterator[RawServer]:
    with served(answer) as running:
        yield running


@pytest.fixture(scope="module")
def workers() -> Iterator[ForkedWorkers]:
    with forked_workers() as running:
        yield running


def catalogue(server: RawServer, images: int) -> bytes:
    """The last row has two images, and one of those is not there."""
    rows = [[f"s-{n}", f"Müsli {n}", f"{server.url}/{n}"] for n in range(images - 1)]
    rows[-1][2] += f",{server.url}/bad"
    return csv_of(rows)


class Request:
    """One request in a folder of its own, and what its Pods asked of the image server."""

    def __init__(
        self, root: Path, workers: ForkedWorkers, server: RawServer, *, images: int, shards: int = 1
    ) -> None:
        self.root, self._workers, self._server = root, workers, server
        self._images, self._shards = images, shards
        task = make_task(root, images_per_shard=images // shards)
        one_by_one = msgspec.structs.replace(task.download, max_connections_per_host=1)
        variants = msgspec.structs.replace(task.compression, widths=(60,))
        self.task = msgspec.structs.replace(task, download=one_by_one, compression=variants)
        self.asked: set[bytes] = set()

    def copy(self, root: Path) -> Request:
        shutil.copytree(self.root, root)
        return Request(root, self._workers, self._server, images=self._images, shards=self._shards)

    def run(
        self,
        step: Step,
        index: int = 0,
        kill_at: int = 0,
        kill_by: signal.Signals = signal.SIGKILL,
    ) -> Ended:
        """One Pod; checks that little of what the last one did is done again."""
        self._server.forget_the_dead()
        ended = self._workers.run(
            self.task,
            step,
            index,
            inline=catalogue(self._server, self._images),
            checkpoint_images=CHECKPOINT,
            kill_at=kill_at,
            kill_by=kill_by,
        )
        asked = {line.split()[1] for line in self._server.lines}
        assert len(asked) == len(self._server.lines)
        assert len(asked & self.asked) <= REDONE
        self.asked |= asked
        return ended

    def finish(self, step: Step, index: int = 0) -> None:
        ended = self.run(step, index)
        assert ended.code == report.EXIT_DONE, ended.log

    def state(self) -> State:
        """All that lasts: not parts, nor what was never named."""
        top = self.root / self.task.output.path
        found: State = {
            str(path.relative_to(top)): without_times(path.read_bytes())
            for path in top.rglob("*")
            if path.is_file() and is_lasting(path.relative_to(top))
        }
        plan = msgspec.json.decode((top / names.PLAN).read_bytes())
        found["catalogue"] = (top / plan.pop("catalogue_path")).read_bytes()
        del plan["catalogue_version"]
        assert self.task.output.sqlite
        with sqlite3.connect(self.task.output.sqlite) as connection:
            for table in (names.TABLE_IMAGES, names.TABLE_VARIANTS, names.COLLECTION_REQUESTS):
                rows = connection.execute(f"SELECT * FROM {table} ORDER BY 1")
                found[table] = rows.fetchall()
        return found | {names.PLAN: plan}

    def left_aside(self) -> list[Path]:
        return [path for path in self.root.rglob("*") if ".incoming" in path.parts]


def is_lasting(path: Path) -> bool:
    if path.parts[0] == "results":
        return len(path.parts) == 2
    return path.parts[0] != ".incoming" and not path.name.startswith("catalogue")


@pytest.fixture(scope="module")
def stages(
    tmp_path_factory: pytest.TempPathFactory, workers: ForkedWorkers, server: RawServer
) -> dict[str, Request]:
    """An undisturbed request before each step, and at its end."""
    folder = tmp_path_factory.mktemp("stages")
    first = Request(folder / "plan", workers, server, images=2 * SHARD, shards=2)
    first.root.mkdir()
    stages = {"plan": first}
    for step, following in (("plan", "shards"), ("shards", "finalize"), ("finalize", "end")):
        stages[following] = stages[step].copy(folder / following)
        for index in range(1 + (step == "shards")):
            stages[following].finish(step, index)
    return stages


FOLLOWING: dict[Step, str] = {"plan": "shards", "shards": "finalize", "finalize": "end"}


@pytest.mark.parametrize("step", FOLLOWING)
def test_a_kill_at_any_write(tmp_path: Path, stages: dict[str, Request], step: Step) -> None:
    expected = stages[FOLLOWING[step]].state()
    before = stages[step].copy(tmp_path / "before")
    if step == "shards":
        before.finish(step, 1)
    for number in count(1):
        request = before.copy(tmp_path / str(number))
        killed = request.run(step, kill_at=number)
        if killed.code == report.EXIT_DONE:
            break
        assert killed.code == -signal.SIGKILL, killed.log
        request.finish(step)
        assert request.state() == expected, number
        if step == "finalize":
            assert request.left_aside() == []
        shutil.rmtree(request.root)
    assert number > 10


@pytest.mark.long
@pytest.mark.parametrize("step", FOLLOWING)
def test_a_second_kill_at_any_write(tmp_path: Path, stages: dict[str, Request], step: Step) -> None:
    """Every third write of the first Pod, and of the one that takes its place."""
    expected = stages[FOLLOWING[step]].state()
    before = stages[step].copy(tmp_path / "before")
    if step == "shards":
        before.finish(step, 1)
    for first in count(1, 3):
        once = before.copy(tmp_path / f"{first}")
        if once.run(step, kill_at=first).code == report.EXIT_DONE:
            break
        for second in count(1, 3):
            request = once.copy(tmp_path / f"{first}-{second}")
            if request.run(step, kill_at=second).code == report.EXIT_DONE:
                break
            request.finish(step)
            assert request.state() == expected, (first, second)
            shutil.rmtree(request.root)
    assert first > 10


# What ends a Pod, and its exit code.
ENDS = [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, report.EXIT_INTERRUPTED)]


@pytest.mark.parametrize(("kill_by", "code"), ENDS)
def test_ends_that_follow_each_other_in_one_pod(
    tmp_path: Path,
    workers: ForkedWorkers,
    server: RawServer,
    kill_by: signal.Signals,
    code: int,
) -> None:
    """The n-th Pod is ended at its n-th write: in the plan, its shard, or finalize."""
    undisturbed = Request(tmp_path / "undisturbed", workers, server, images=LARGE)
    undisturbed.finish("plan")
    request = Request(tmp_path / "ended", workers, server, images=LARGE)
    logs = ""
    for number in count(1):
        ended = request.run("plan", kill_at=number, kill_by=kill_by)
        if ended.code == report.EXIT_DONE:
            break
        assert ended.code == code, ended.log
        logs += ended.log
    assert kill_by == signal.SIGKILL or "Traceback" not in logs
    assert ("what is done is in a checkpoint" in logs) is (kill_by == signal.SIGTERM)
    assert ("begins this step anew" in logs) is (kill_by == signal.SIGTERM)
    request.finish("plan")
    assert request.state() == undisturbed.state()
    assert request.left_aside() == []
