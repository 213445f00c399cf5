"""Catalogues of any size, and the worker's steps over them in processes that are measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
from imageprocessing_contract import names, task
from imageprocessing_contract.request import ClaimPath, Source
from imageprocessing_contract.task import Step, Task
from imageprocessing_worker.plan import Plan, read_plan
from imageprocessing_worker.stores import open_store

from tests.unit.tasks import commit, make_task

FILE = "products.csv"
IMAGES_PER_ROW = 3
_FAILED = ("HTTPError", "404 Not Found")


class Used(msgspec.Struct, frozen=True):
    """What a process took: seconds, seconds of processor time, bytes of memory at its peak."""

    wall: float
    cpu: float
    peak: int


def write_catalogue(folder: Path, rows: int) -> None:
    """Rows of three URLs; every tenth serial number has 200 characters."""
    with (folder / FILE).open("w") as file:
        file.write("Serial Number,Product Name,Input Image Urls\n")
        for n in range(rows):
            serial = f"SKU-{n:0{200 if n % 10 == 0 else 12}d}"
            base = f"https://images-{n % 50}.shop.example/catalogue/{n:08d}"
            urls = f"{base}/front.jpg,{base}/back.jpg,{base}/detail.jpg?width=1000"
            file.write(f'{serial},Product number {n} in blue,"{urls}"\n')


def task_of(folder: Path, images_per_shard: int = 1000) -> Task:
    """The plan of that catalogue, into the same folder."""
    source = Source(persistent_volume_claim=ClaimPath(claim_name="c", path=FILE))
    return make_task(folder, source=source, images_per_shard=images_per_shard)


def run_step(step: Step, of: Task, folder: Path) -> Used:
    """The worker's own process; its Python and all that it imports count."""
    log = folder / "termination-log"
    environ = {
        **os.environ,
        names.ENV_TASK: task.encode(msgspec.structs.replace(of, step=step)),
        names.ENV_POD_UID: "pod",
        names.ENV_SHARD_INDEX: "0",
        names.ENV_TERMINATION_LOG: os.fspath(log),
        names.ENV_SOURCE_MOUNT: os.fspath(folder),
    }
    started = time.monotonic()
    # Another process in between: a child's peak begins with that of the process it comes from.
    said = subprocess.run(
        [sys.executable, "-c", _MEASURE], env=environ, stdout=subprocess.PIPE, check=True
    ).stdout
    wall = time.monotonic() - started
    status, cpu, peak = json.loads(said)
    if status:
        message = f"{step} ended with status {status}: {log.read_text()[:500]}"
        raise RuntimeError(message)
    return Used(wall, cpu, peak << 10)


_MEASURE = """
import json, os, sys
command = [sys.executable, "-m", "imageprocessing_worker"]
_, status, used = os.wait4(os.posix_spawn(sys.executable, command, os.environ), 0)
print(json.dumps([status, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""


def do_all_shards(of: Task) -> Plan:
    """Commits every shard without any work; the second image of each fiftieth row failed."""
    store = open_store(of.output)
    plan = read_plan(store, of.spec_hash)
    if plan is None:
        message = "there is no plan"
        raise RuntimeError(message)
    for index in range(len(plan.shards)):
        commit(store, plan, index, _EveryFiftieth())
    return plan


class _EveryFiftieth(dict[str, tuple[str, str]]):
    """Why URLs failed, without a list of them."""

    def __contains__(self, url: object) -> bool:
        return str(url).endswith(("25/back.jpg", "75/back.jpg"))

    def __missing__(self, url: str) -> tuple[str, str]:
        return _FAILED
