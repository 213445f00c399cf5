"""Tasks, stores and catalogues for the tests of the worker's steps."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from imageprocessing_contract import names
from imageprocessing_contract.request import Compression, Download, Source
from imageprocessing_contract.task import Output, Task
from imageprocessing_worker import results
from imageprocessing_worker.children import Codec
from imageprocessing_worker.download import Downloader
from imageprocessing_worker.pipeline import Clock
from imageprocessing_worker.plan import Plan, make_plan, read_rows
from imageprocessing_worker.records import NoRecords
from imageprocessing_worker.results import Made, Place, Result
from imageprocessing_worker.shard import ShardRun
from imageprocessing_worker.stores import Store, open_store

HEADER = ["Serial Number", "Product Name", "Input Image Urls"]

COMPRESSION = Compression(
    format="JPEG",
    progressive=False,
    background="#ffffff",
    keep_original_if_smaller=True,
    metadata="Strip",
)
"""As the CRD's defaults have it."""


def make_task(root: Path, request_id: str = "spring", **changes: Any) -> Task:
    """A plan's task with a folder and SQLite, for servers on loopback."""
    fields: dict[str, Any] = {
        "step": "plan",
        "namespace": "shop",
        "name": "spring",
        "request_id": request_id,
        "spec_hash": "hash",
        "source": Source(inline=""),
        "output": Output(
            path=f"out/{request_id}",
            base_url="",
            root=os.fspath(root),
            sqlite=os.fspath(root / names.RECORDS_FILE),
        ),
        "compression": msgspec.structs.replace(COMPRESSION, quality=50),
        "download": Download(
            timeout_seconds=20,
            max_size="50Mi",
            max_pixels=50_000_000,
            retries=0,
            max_connections_per_host=16,
        ),
        "images_per_shard": 1000,
        "invalid_rows": "Fail",
        "allowed_networks": ["127.0.0.1/32"],
    }
    return Task(**(fields | changes))


def csv_of(rows: Iterable[Sequence[str]], header: Sequence[str] = HEADER, **form: Any) -> bytes:
    """A CSV with a header."""
    text = io.StringIO()
    csv.writer(text, **({"lineterminator": "\n"} | form)).writerows([header, *rows])
    return text.getvalue().encode()


def cells_of(data: bytes | None, delimiter: str = ",") -> list[list[str]]:
    """All cells of a CSV, read by Python's own reader."""
    assert data is not None
    text = io.StringIO(data.decode("utf-8-sig"), newline="")
    return list(csv.reader(text, delimiter=delimiter, strict=True))


def planned(task: Task, data: bytes) -> tuple[Store, Plan]:
    """The task's store with the plan of a catalogue in it."""
    store = open_store(task.output)
    return store, make_plan(task, store, [data])


def commit(
    store: Store,
    plan: Plan,
    index: int,
    failing: dict[str, tuple[str, str]],
    variants: tuple[Made, ...] = (),
) -> None:
    """Writes a shard's results: the URLs in `failing` failed with (reason, message)."""
    found = (
        result if result.reason else msgspec.structs.replace(result, variants=variants)
        for result in outcomes(store, plan, index, failing)
    )
    store.create(names.shard_results(index), results.encode(found), "application/jsonl")


def outcomes(
    store: Store, plan: Plan, index: int, failing: dict[str, tuple[str, str]]
) -> Iterable[Result]:
    """What became of each image of a shard; those that succeed have 100 bytes, then 40.

    Each took 20 ms to fetch.
    """
    for row in read_rows(store, plan, index):
        for position, url in enumerate(row.urls):
            if url in failing:
                reason, message = failing[url]
                yield Result(
                    line=row.line,
                    position=position,
                    reason=reason,
                    message=message,
                    milliseconds=20,
                )
            else:
                path = names.image_object(url, "jpg")
                yield Result(
                    line=row.line,
                    position=position,
                    object=path,
                    original=100,
                    compressed=40,
                    milliseconds=20,
                )


def without_times(file: bytes) -> bytes:
    """Results or the report, but for how long downloads took: all else is the same each time."""
    file = re.sub(rb',"ms":[0-9]+', b"", file)
    return re.sub(rb'(?s)<section aria-labelledby="hosts">.*?</section>', b"", file)


async def run_shard(
    task: Task,
    store: Store,
    plan: Plan,
    *,
    codec: Codec,
    downloader: Downloader,
    clock: Clock | None = None,
) -> None:
    """The first shard in this process, without records."""
    await ShardRun(
        task,
        0,
        "pod",
        store=store,
        records=NoRecords(),
        downloader=downloader,
        codec=codec,
        stop=asyncio.Event(),
        clock=clock,
    ).run(plan)


def committed(store: Store, index: int) -> dict[Place, Result]:
    """All results of a shard that is done."""
    found = results.committed(store, index)
    assert found is not None
    return {result.place: result for result in found}
