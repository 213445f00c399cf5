"""Shards as processes of their own, against a real server, folder and SQLite file."""

import asyncio
import io
import logging
import os
import re
import shutil
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from imageprocessing_contract import names, report
from imageprocessing_contract import task as tasks
from imageprocessing_contract.guard import Guard
from imageprocessing_contract.task import Task
from imageprocessing_worker import results
from imageprocessing_worker.children import Codec
from imageprocessing_worker.download import Downloader
from imageprocessing_worker.finalize import finalize
from imageprocessing_worker.pipeline import UPLOADS
from imageprocessing_worker.plan import Plan
from imageprocessing_worker.records import open_records
from imageprocessing_worker.stores import Store, open_store
from imageprocessing_worker.stores.folder import FolderStore
from PIL import Image

from tests import photos
from tests.apiserver.kube import eventually
from tests.unit.processes import GRACE, Ended, Worker, children_of, run
from tests.unit.raw_server import Exchange, RawServer, served
from tests.unit.tasks import cells_of, committed, csv_of, make_task, outcomes, planned, run_shard

PHOTO = next(photos.crops(1, 320, 240))[1]
Step = Callable[[Exchange], Awaitable[None]]


async def photo(exchange: Exchange) -> None:
    await exchange.reply(PHOTO, Content_Type="image/jpeg")


async def missing(exchange: Exchange) -> None:
    await exchange.reply(status="404 Not Found")


async def busy(exchange: Exchange) -> None:
    await exchange.reply(status="503 Service Unavailable")


def paths(server: RawServer) -> Counter[str]:
    """How often each path was asked for."""
    return Counter(line.split(b" ")[1].decode() for line in server.lines)


def shard(
    root: Path, server: RawServer, count: int, *, retries: int = 0, per_host: int = 16
) -> tuple[Task, Store, Plan]:
    """A planned catalogue with one image a row: /0, /1, ..."""
    task = make_task(root)
    download = msgspec.structs.replace(
        task.download, retries=retries, max_connections_per_host=per_host
    )
    task = msgspec.structs.replace(task, download=download)
    data = csv_of([str(n), f"Product {n}", f"{server.url}/{n}"] for n in range(count))
    return task, *planned(task, data)


def finished(ended: Ended) -> None:
    assert ended.code == report.EXIT_DONE, ended.log


def said(ended: Ended) -> list[str]:
    """What the log has of the shard."""
    return re.findall("INFO (shard .*)", ended.log)


def end_state(task: Task) -> tuple[object, ...]:
    """What users see after finalize, without what differs between Pods."""
    store = open_store(task.output)
    done = finalize(task, store, open_records(task.output)).done
    assert task.output.sqlite is not None
    with sqlite3.connect(task.output.sqlite) as connection:
        records = connection.execute("SELECT * FROM processed_images ORDER BY id").fetchall()
    top = Path(task.output.root or "") / task.output.path
    objects = {
        str(path.relative_to(top)): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file() and path.relative_to(top).parts[0] == "compressed_images"
    }
    left = [path for path in top.rglob("*") if ".incoming" in path.parts]
    return done, records, objects, store.read(names.processed_csv("spring")), left


def test_objects_records_and_commit(tmp_path: Path) -> None:
    with served(photo) as server:
        task, _, _ = shard(tmp_path, server, 3)
        finished(run(task, "shards"))
    done, records, objects, csv, left = end_state(task)
    urls = [f"{server.url}/{n}" for n in range(3)]
    objects_of = {url: names.image_object(url, "jpg") for url in urls}
    assert isinstance(done, report.Done)
    assert (done.images.succeeded, done.bytes.original) == (3, 3 * len(PHOTO))
    assert isinstance(objects, dict)
    assert set(objects) == set(objects_of.values())
    assert done.bytes.compressed == sum(map(len, objects.values()))
    assert isinstance(records, list)
    assert sorted(records, key=lambda r: r[2]) == [
        (
            names.image_document("spring", str(n), 0),
            "spring",
            f"Product {n}",
            url,
            f"out/spring/{objects_of[url]}",
        )
        for n, url in enumerate(urls)
    ]
    assert isinstance(csv, bytes)
    assert left == []


def test_variants_are_stored_and_recorded(tmp_path: Path) -> None:
    """One download; 320 px are as wide as the image, which then stands for its variant."""
    with served(photo) as server:
        task = make_task(tmp_path)
        compression = msgspec.structs.replace(task.compression, widths=(320, 160, 80))
        task = msgspec.structs.replace(task, compression=compression)
        url = f"{server.url}/1"
        store, _ = planned(task, csv_of([["1", "a", url], ["2", "b", url]]))
        finished(run(task, "shards"))
        assert paths(server) == {"/1": 1}
    done, _, objects, csv, _ = end_state(task)
    image = names.image_object(url, "jpg")
    narrower = [names.variant_of(image, width) for width in (160, 80)]
    assert isinstance(objects, dict)
    assert set(objects) == {image, *narrower}
    for path, width in zip(narrower, (160, 80), strict=True):
        with Image.open(io.BytesIO(objects[path])) as opened:
            assert opened.size == (width, width * 3 // 4)
    assert isinstance(done, report.Done)
    assert done.bytes.compressed == 2 * len(objects[image])
    sizes = [(made.width, made.compressed) for made in committed(store, 0)[3, 0].variants]
    assert sizes == [(160, len(objects[narrower[0]])), (80, len(objects[narrower[1]]))]
    urls = [f"out/spring/{path}" for path in (image, image, *narrower)]
    assert [row[3:] for row in cells_of(csv)[1:]] == [urls] * 2  # type: ignore[arg-type]
    assert task.output.sqlite is not None
    with sqlite3.connect(task.output.sqlite) as connection:
        found = connection.execute("SELECT * FROM processed_image_variants").fetchall()
    keys = [names.image_document("spring", serial, 0) for serial in "12"]
    variants = zip(("320w", "160w", "80w"), urls[1:], strict=True)
    assert sorted(found) == sorted((key, *one) for one in variants for key in keys)


def test_a_shard_that_is_done_does_nothing(tmp_path: Path) -> None:
    with served(photo) as server:
        task, _, _ = shard(tmp_path, server, 3)
        finished(run(task, "shards"))
        server.heads.clear()
        # The commit alone says so: parts are an earlier Pod's, which may have had none.
        shutil.rmtree(tmp_path / "out/spring/results/0")
        finished(run(task, "shards"))
        assert server.heads == []


def test_a_url_that_is_listed_many_times_is_fetched_once(tmp_path: Path) -> None:
    async def answer(exchange: Exchange) -> None:
        await (missing if exchange.target == b"/bad" else photo)(exchange)

    with served(answer) as server:
        task = make_task(tmp_path)
        good, bad = f"{server.url}/good", f"{server.url}/bad"
        rows = [[str(n), f"Product {n}", f"{good},{bad},{good}"] for n in range(5)]
        planned(task, csv_of(rows))
        finished(run(task, "shards"))
        assert paths(server) == {"/good": 1, "/bad": 1}
    done, records, objects, _, _ = end_state(task)
    assert isinstance(done, report.Done)
    assert (done.images.succeeded, done.images.failed) == (10, 5)
    assert isinstance(objects, dict)
    assert len(objects) == 1
    assert isinstance(records, list)
    assert Counter(record[2] for record in records) == {f"Product {n}": 2 for n in range(5)}


@pytest.mark.parametrize(("refusals", "retries", "succeeds"), [(2, 2, True), (2, 1, False)])
def test_transient_failures_are_tried_again(
    tmp_path: Path, refusals: int, retries: int, succeeds: bool
) -> None:
    async def answer(exchange: Exchange) -> None:
        refuse = exchange.target == b"/1" and paths(server)["/1"] <= refusals
        await (busy if refuse else photo)(exchange)

    with served(answer) as server:
        task, store, _ = shard(tmp_path, server, 3, retries=retries)
        finished(run(task, "shards"))
        assert paths(server) == {"/0": 1, "/1": min(refusals, retries) + 1, "/2": 1}
    found = committed(store, 0)
    assert [found[n + 2, 0].object is not None for n in range(3)] == [True, succeeds, True]


def test_a_final_failure_is_not_tried_again(tmp_path: Path) -> None:
    async def answer(exchange: Exchange) -> None:
        await (missing if exchange.target == b"/1" else photo)(exchange)

    with served(answer) as server:
        task, _, _ = shard(tmp_path, server, 2, retries=3)
        finished(run(task, "shards"))
        assert paths(server) == {"/0": 1, "/1": 1}


def test_an_outage_is_not_a_thousand_bad_images(tmp_path: Path) -> None:
    with served(busy) as server:
        task, store, _ = shard(tmp_path, server, 3)
        ended = run(task, "shards")
    assert ended.code == report.EXIT_RETRY
    error = ended.report.error
    assert error is not None
    assert error.reason == "ShardFailed"
    assert error.message.startswith("no image of shard 0 could be fetched; for example line ")
    assert not results.is_committed(store, 0)


def test_after_an_outage_everything_is_tried_again(tmp_path: Path) -> None:
    async def answer(exchange: Exchange) -> None:
        await (photo if back else busy)(exchange)

    back = False
    with served(answer) as server:
        task, _, _ = shard(tmp_path, server, 3)
        assert run(task, "shards").code == report.EXIT_RETRY
        back = True
        finished(run(task, "shards"))
        assert paths(server) == {"/0": 2, "/1": 2, "/2": 2}
    done = end_state(task)[0]
    assert isinstance(done, report.Done)
    assert (done.images.succeeded, done.failed_shards) == (3, 0)


class Gate:
    """Photographs, but the first request for one path hangs until its client is gone."""

    def __init__(self, path: str) -> None:
        self._path = path.encode()
        self.reached = threading.Event()

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.target == self._path and not self.reached.is_set():
            self.reached.set()
            await exchange.reader.read()
            raise EOFError
        await photo(exchange)


def test_sigterm_checkpoints_and_the_next_pod_ends_it(tmp_path: Path) -> None:
    # One connection: what was asked for before /5 is done when /5 is asked for.
    gate = Gate("/5")
    with served(gate) as server:
        task, store, _ = shard(tmp_path, server, 10, per_host=1)
        worker = Worker(task, "shards")
        assert gate.reached.wait(60)
        worker.signal(signal.SIGTERM)
        ended = worker.ended()
        assert ended.code == report.EXIT_INTERRUPTED, ended.log
        assert ended.report.error is None
        assert not results.is_committed(store, 0)
        assert len(results.read_parts(store, 0)) == 5
        assert said(ended) == ["shard 0: 0 of 10 images tried, 0 failed"]
        ended = run(task, "shards")
        finished(ended)
        assert said(ended) == [
            "shard 0: 5 of 10 images tried, 0 failed",
            "shard 0: 10 of 10 images tried, 0 failed",
        ]
        assert said(run(task, "shards")) == ["shard 0 is done already"]
        assert paths(server) == {f"/{n}": 1 + (n == 5) for n in range(10)}
    done = end_state(task)[0]
    assert isinstance(done, report.Done)
    assert done.images.succeeded == 10


def test_sigterm_does_not_wait_for_an_image_that_takes_long(tmp_path: Path) -> None:
    frozen = threading.Event()
    reached = threading.Event()

    async def answer(exchange: Exchange) -> None:
        if exchange.target == b"/1":
            reached.set()
            await asyncio.to_thread(frozen.wait)
        await photo(exchange)

    with served(answer) as server:
        task, store, _ = shard(tmp_path, server, 2, per_host=1)
        worker = Worker(task, "shards")
        assert reached.wait(60)
        (nursery,) = worker.children()
        # The connection was free for /1 before /0 was at the codec.
        eventually(lambda: results.read_parts(store, 0), "the first image is done")
        (child,) = children_of(nursery)
        os.kill(child, signal.SIGSTOP)
        frozen.set()
        worker.signal(signal.SIGTERM)
        ended = worker.ended(GRACE)
    assert ended.code == report.EXIT_INTERRUPTED, ended.log
    assert len(results.read_parts(store, 0)) == 1
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.parametrize("at", [0, 3, 9])
def test_a_kill_anywhere_gives_the_same_end(tmp_path: Path, at: int) -> None:
    gate = Gate(f"/{at}")
    with served(gate) as server:
        undisturbed, _, _ = shard(tmp_path / "undisturbed", server, 10)
        gate.reached.set()
        finished(run(undisturbed, "shards"))
        gate.reached.clear()
        task, _, _ = shard(tmp_path / "killed", server, 10, per_host=1)
        worker = Worker(task, "shards")
        assert gate.reached.wait(60)
        worker.signal(signal.SIGKILL)
        assert worker.ended().code == -signal.SIGKILL
        finished(run(task, "shards"))
    assert end_state(task) == end_state(undisturbed)


def test_two_pods_on_one_index(tmp_path: Path) -> None:
    """Each asks for everything at the same time, and of each pair one is refused."""
    seen: Counter[bytes] = Counter()
    both: dict[bytes, asyncio.Event] = {}

    async def answer(exchange: Exchange) -> None:
        path = exchange.target
        seen[path] += 1
        mine = seen[path]
        here = both.setdefault(path, asyncio.Event())
        if mine == 2:
            here.set()
        await here.wait()
        await (missing if (mine + int(path[1:])) % 2 else photo)(exchange)

    with served(answer) as server:
        task, _, _ = shard(tmp_path, server, 8)
        for worker in [Worker(task, "shards"), Worker(task, "shards")]:
            finished(worker.ended())
        assert set(seen.values()) == {2}
    done, records, objects, _, left = end_state(task)
    assert isinstance(done, report.Done)
    assert (done.images.succeeded, done.failed_shards) == (8, 0)
    assert isinstance(records, list)
    assert isinstance(objects, dict)
    assert len(records) == len(objects) == 8
    assert left == []


@pytest.mark.parametrize("step", ["shards", "plan"])
def test_a_pod_that_was_frozen_until_another_had_ended(tmp_path: Path, step: tasks.Step) -> None:
    """Its node was thought lost. With the plan's step the other one has tidied up as well."""
    reached, released = threading.Event(), threading.Event()

    async def answer(exchange: Exchange) -> None:
        if exchange.target == b"/5" and not reached.is_set():
            reached.set()
            await asyncio.to_thread(released.wait)
        await photo(exchange)

    with served(answer) as server:
        one, _, _ = shard(tmp_path / "one", server, 10)
        reached.set()
        finished(run(one, step))
        expected = end_state(one)
        reached.clear()
        task, store, _ = shard(tmp_path / "two", server, 10, per_host=1)
        frozen = Worker(task, step)
        assert reached.wait(60)
        frozen.signal(signal.SIGSTOP)
        finished(run(task, step))
        ended = [name for name in (names.shard_results(0), names.DONE) if store.version(name)]
        released.set()
        frozen.signal(signal.SIGCONT)
        finished(frozen.ended())
    assert ended == [names.shard_results(0), names.DONE][: 1 + (step == "plan")]
    assert end_state(task) == expected
    assert requests(task) == requests(one)


def requests(task: Task) -> list[tuple[object, ...]]:
    assert task.output.sqlite is not None
    with sqlite3.connect(task.output.sqlite) as connection:
        return connection.execute(f"SELECT * FROM {names.COLLECTION_REQUESTS}").fetchall()


async def run_here(task: Task, store: Store, plan: Plan, *, children: int) -> None:
    async with (
        Codec(
            task.compression, 10**6, children=children, memory_limit=None, time_limit=60
        ) as codec,
        Downloader(task.download, Guard(task.allowed_networks)) as downloader,
    ):
        await run_shard(task, store, plan, codec=codec, downloader=downloader)


class Slow(FolderStore):
    """Uploads end when 64 are under way."""

    barrier = threading.Barrier(UPLOADS)

    def add(self, path: str, data: bytes, content_type: str) -> None:
        if path.startswith(names.IMAGES):
            self.barrier.wait(60)
        super().add(path, data, content_type)


async def test_slow_uploads_are_all_under_way_at_once(tmp_path: Path) -> None:
    async with RawServer(photo) as server:
        task, store, plan = shard(tmp_path, server, UPLOADS, per_host=UPLOADS)
        await run_here(task, Slow(str(tmp_path), task.output.path, ""), plan, children=2)
    found = committed(store, 0)
    assert all(result.object for result in found.values())


async def test_a_container_that_starts_anew_keeps_its_first_parts(tmp_path: Path) -> None:
    """The same Pod, so the same names of parts."""
    async with RawServer(photo) as server:
        task, store, plan = shard(tmp_path, server, 2)
        first, _ = outcomes(store, plan, 0, {})
        store.create(names.shard_part(0, "pod", 0), results.encode([first]), "application/jsonl")
        await run_here(task, store, plan, children=1)
        assert paths(server) == {"/1": 1}
    assert len(results.read_parts(store, 0)) == 2


async def test_the_log_says_how_far_a_shard_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Products that share a picture count each; there is a line every so many checkpoints."""
    monkeypatch.setattr("imageprocessing_worker.shard.CHECKPOINT_IMAGES", 1)
    monkeypatch.setattr("imageprocessing_worker.shard._CHECKPOINTS_A_LINE", 1)
    caplog.set_level(logging.INFO)

    async def answer(exchange: Exchange) -> None:
        await (missing if exchange.target == b"/2" else photo)(exchange)

    async with RawServer(answer) as server:
        task = make_task(tmp_path)
        pictures = [0, 1, 2, 2, 3, 4, 0]
        data = csv_of([str(n), "x", f"{server.url}/{path}"] for n, path in enumerate(pictures))
        store, plan = planned(task, data)
        await run_here(task, store, plan, children=1)
    lines = re.findall("shard 0: (.*) of 7 images tried, (.*) failed", caplog.text)
    counts = [(int(tried), int(failed)) for tried, failed in lines]
    assert (counts[0], counts[-1]) == ((0, 0), (7, 2))
    assert len(counts) > 2  # of a checkpoint, too
    assert counts == sorted(counts)
    # Once, by its first place; the first ten of a Pod.
    failed = f"{report.FAILED_IMAGE}line 4: {server.url}/2: HTTPError: 404 Not Found"
    assert caplog.text.count(report.FAILED_IMAGE) == caplog.text.count(failed) == 1


def test_a_pod_logs_its_first_failures(tmp_path: Path) -> None:
    with served(missing) as server:
        task, _, _ = shard(tmp_path, server, 30)
        ended = run(task, "shards")
    assert ended.log.count(report.FAILED_IMAGE) == report.MAX_SAMPLES
