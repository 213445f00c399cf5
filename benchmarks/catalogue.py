"""Plan and finalize of a large catalogue: rows a second, and the memory of the whole process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.table import Row
from tests.large import IMAGES_PER_ROW, Used, do_all_shards, run_step, task_of, write_catalogue

_IMAGES_PER_SHARD = (1000, 100_000, 1)
"""The default of sharding.imagesPerShard, its most and its least (100,000 shards)."""


def measure(full: bool) -> Iterable[Row]:
    """A million rows, or 100,000 without the many shards; each step in a process of its own."""
    rows = 1_000_000 if full else 100_000
    for images_per_shard in _IMAGES_PER_SHARD if full else _IMAGES_PER_SHARD[:2]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_catalogue(folder, rows)
            task = task_of(folder, images_per_shard)
            planned = run_step("plan", task, folder)
            shards = len(do_all_shards(task).shards)
            finished = run_step("finalize", task, folder)
        yield _row("plan", rows, shards, planned, "≥ 50,000 rows/s, ≤ 100 MB")
        yield _row("finalize", rows, shards, finished, "≤ 150 MB")


def _row(step: str, rows: int, shards: int, used: Used, target: str) -> Row:
    what = f"{step} of {rows:,} rows, {rows * IMAGES_PER_ROW:,} URLs, {shards:,} shards"
    measured = (
        f"{rows / used.wall:,.0f} rows/s, {rows / used.cpu:,.0f} a second of CPU, "
        f"{used.peak / 1e6:.0f} MB"
    )
    return Row(what, measured, target)
