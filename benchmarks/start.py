"""CPU that the worker takes from its start to its first download."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import msgspec
from imageprocessing_contract.task import Task

from benchmarks.cloud import emulated
from benchmarks.table import Row
from tests import photos
from tests.unit.processes import Worker
from tests.unit.raw_server import Exchange, served
from tests.unit.tasks import csv_of, make_task


def measure(full: bool) -> Iterator[Row]:
    """The shard step, with the folder store and with Cloud Storage and Firestore."""
    runs = 15 if full else 5
    with tempfile.TemporaryDirectory() as folder:
        task = make_task(Path(folder))
        task = msgspec.structs.replace(
            task, output=msgspec.structs.replace(task.output, sqlite=None)
        )
        yield Row("folder", _cpu(task, {}, runs), "<= 0.4 s CPU")
    with emulated() as (output, environment):
        task = make_task(Path("/none"), output=output)
        yield Row("Cloud Storage and Firestore", _cpu(task, environment, runs), "<= 0.8 s CPU")


def _cpu(task: Task, environment: dict[str, str], runs: int) -> str:
    with tempfile.TemporaryDirectory() as bytecode:
        # The image ships it; here the first worker writes it, whose figure does not count.
        cached = {"PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""}
        seconds = _starts(task, environment | cached, runs + 1)[1:]
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


def _starts(task: Task, environment: dict[str, str], runs: int) -> list[float]:
    photo = next(photos.crops(1, 320, 240))[1]
    seconds: list[float] = []
    started: Queue[int] = Queue()

    async def answer(exchange: Exchange) -> None:
        seconds.append(_used(started.get()))
        await exchange.reply(photo, Content_Type="image/jpeg")

    with served(answer) as server:
        # One image a shard, and more than one shard: plan leaves them to other Pods.
        task = msgspec.structs.replace(task, images_per_shard=1)
        catalogue = csv_of([str(n), "Mug", f"{server.url}/{n}"] for n in range(runs))
        _done(Worker(task, inline=catalogue, environment=environment))
        for index in range(runs):
            worker = Worker(task, "shards", index, environment=environment)
            started.put(worker.process.pid)
            _done(worker)
    return seconds


def _done(worker: Worker) -> None:
    ended = worker.ended()
    if ended.code:
        raise RuntimeError(ended.log)


def _used(pid: int) -> float:
    """Seconds of CPU of a process and of those that it has started."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(_used(int(child)) for child in children)
