"""The images that the report shows: few, the same after any kill, and no reason to fail."""

from __future__ import annotations

import signal
from pathlib import Path

import msgspec
import pytest
from imageprocessing_contract import names, report
from imageprocessing_contract.task import Task
from imageprocessing_worker import sample
from imageprocessing_worker.finalize import finalize
from imageprocessing_worker.records import open_records
from imageprocessing_worker.sample import Sample, is_chosen, read_shown
from imageprocessing_worker.stores import Store, open_store

from tests import photos
from tests.unit.processes import Worker, run
from tests.unit.raw_server import Exchange, RawServer, served
from tests.unit.tasks import csv_of, make_task, planned
from tests.unit.test_shard import Gate

PHOTO = next(photos.crops(1, 640, 600))[1]


async def photo(exchange: Exchange) -> None:
    await exchange.reply(PHOTO, Content_Type="image/jpeg")


@pytest.mark.parametrize("images", [1, 12, 13, 1000, 100_000])
def test_about_twelve_are_chosen(images: int) -> None:
    urls = [f"https://cdn.example/catalogue/{n}.jpg" for n in range(images)]
    chosen = [url for url in urls if is_chosen(url, images)]
    assert len(chosen) == images if images <= sample.EXPECTED else 4 < len(chosen) < 24
    # Those with the lowest hashes, which is the order of their files.
    paths = sorted(map(names.sample, urls))
    assert sorted(map(names.sample, chosen)) == paths[: len(chosen)]


def request(root: Path, server: RawServer, count: int, **changes: object) -> tuple[Task, Store]:
    task = make_task(root, **changes)
    rows = [[str(n), f"Mug <{n}>", f"{server.url}/{n}"] for n in range(count)]
    return task, planned(task, csv_of(rows))[0]


def files(store: Store) -> dict[str, bytes | None]:
    return {path: store.read(path) for path in store.list(names.SAMPLES)}


def test_shards_keep_them_and_the_report_shows_the_lowest(tmp_path: Path) -> None:
    with served(photo) as server:
        task, store = request(tmp_path, server, 12, images_per_shard=6)
        for index in range(2):
            assert run(task, "shards", index).code == report.EXIT_DONE
        urls = sorted((f"{server.url}/{n}" for n in range(12)), key=names.sample)
    assert list(files(store)) == [names.sample(url) for url in urls]
    shown = list(read_shown(store))
    assert [found.url for found in shown] == urls[: sample.SHOWN]
    first = shown[0]
    assert first.product == f"Mug <{first.url.rpartition('/')[2]}>"
    assert (first.original, first.width, first.height) == (len(PHOTO), 640, 600)
    assert first.compressed < first.original
    finalize(task, store, open_records(task.output))
    page = store.read(names.REPORT_HTML) or b""
    assert page.count(b'<img class="before"') == sample.SHOWN
    assert b"Slowest hosts" in page


def test_a_shard_that_is_killed_and_done_again_has_the_same_ones(tmp_path: Path) -> None:
    gate = Gate("/5")
    with served(gate) as server:
        undisturbed, expected = request(tmp_path / "undisturbed", server, 10)
        gate.reached.set()
        assert run(undisturbed, "shards").code == report.EXIT_DONE
        gate.reached.clear()
        task, store = request(tmp_path / "killed", server, 10)
        worker = Worker(task, "shards")
        assert gate.reached.wait(60)
        worker.signal(signal.SIGKILL)
        worker.ended()
        assert run(task, "shards").code == report.EXIT_DONE
    assert files(store) == files(expected)
    assert len(files(store)) == 10


def test_where_they_cannot_be_made_or_stored_the_shard_goes_on(tmp_path: Path) -> None:
    async def answer(exchange: Exchange) -> None:
        animated = exchange.target == b"/1"
        await exchange.reply(ANIMATION if animated else PHOTO, Content_Type="image/jpeg")

    with served(answer) as server:
        task, store = request(tmp_path, server, 3)
        (open_path(task) / names.SAMPLES.rstrip("/")).touch()
        ended = run(task, "shards")
    assert ended.code == report.EXIT_DONE
    assert "/1: it has more than one frame" in ended.log
    assert "File exists" in ended.log
    done = finalize(task, store, open_records(task.output)).done
    assert done.images.succeeded == 3
    page = store.read(names.REPORT_HTML) or b""
    assert b"Failed images" not in page
    assert b"Before and after" not in page


def open_path(task: Task) -> Path:
    return Path(task.output.root or "") / task.output.path


def frames() -> bytes:
    import io

    pictures = [photos.photograph().resize((60, 60), reducing_gap=gap) for gap in (1.0, 3.0)]
    pictures[1].paste("red", (0, 0, 30, 30))
    buffer = io.BytesIO()
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:])
    return buffer.getvalue()


ANIMATION = frames()


def test_a_file_of_another_version_is_left_out(tmp_path: Path) -> None:
    store = open_store(make_task(tmp_path).output)
    one = Sample(
        url="https://cdn.example/1",
        product="Mug",
        original=1,
        compressed=1,
        unchanged=False,
        width=1,
        height=1,
        before=b"1",
        after=b"2",
    )
    store.create(f"{names.SAMPLES}1.json", b'{"url": 1}', "application/json")
    store.create(f"{names.SAMPLES}2.json", sample.encode(one), "application/json")
    store.create(f"{names.SAMPLES}3.json", b"{", "application/json")
    assert list(read_shown(store)) == [one]
    assert msgspec.json.decode(sample.encode(one))["before"] == "MQ=="
