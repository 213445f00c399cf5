"""Plan and finalize of large catalogues fit the memory that docs/design.md says."""

from __future__ import annotations

from pathlib import Path

import pytest
from imageprocessing_worker.finalize import read_done
from imageprocessing_worker.stores import open_store

from tests.large import IMAGES_PER_ROW, do_all_shards, run_step, task_of, write_catalogue

# Rows, and images of a shard: its default and its most.
SIZES = [
    (2_000, 1000),
    pytest.param(1_000_000, 1000, marks=pytest.mark.long),
    pytest.param(1_000_000, 100_000, marks=pytest.mark.long),
]


@pytest.mark.parametrize(("rows", "images_per_shard"), SIZES)
def test_memory(tmp_path: Path, rows: int, images_per_shard: int) -> None:
    write_catalogue(tmp_path, rows)
    task = task_of(tmp_path, images_per_shard)
    planned = run_step("plan", task, tmp_path)
    plan = do_all_shards(task)
    assert len(plan.shards) >= rows * IMAGES_PER_ROW // images_per_shard
    finished = run_step("finalize", task, tmp_path)

    done = read_done(open_store(task.output), task.spec_hash)
    assert done is not None
    assert (done.catalogue.rows, done.catalogue.invalid_rows) == (rows, 0)
    assert done.done.images.total == rows * IMAGES_PER_ROW
    assert done.done.images.failed == rows // 50
    assert planned.peak <= 100e6
    assert finished.peak <= 150e6
