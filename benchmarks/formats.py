"""What each output format costs, and what it saves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import msgspec
from imageprocessing_contract.request import Format

from benchmarks.photo_server import photo_server
from benchmarks.shard_run import run_shard
from benchmarks.table import Row
from tests.unit.tasks import COMPRESSION

_DISTINCT = 60


def measure(full: bool) -> Iterable[Row]:
    """One run of a shard for each format, at its default quality."""
    images = 1000 if full else 100
    with photo_server(_DISTINCT) as server:
        original = sum(file.stat().st_size for file in server.folder.iterdir()) / _DISTINCT
        yield Row("originals", f"{original / 1000:.0f} kB an image (JPEG, quality 90)", "")
        for name in get_args(Format):
            run = run_shard(server, images, msgspec.structs.replace(COMPRESSION, format=name))
            stored = run.stored / images / 1000
            figures = f"{run.rate:.0f} images/s, {run.cpu / images * 1000:.1f} ms CPU an image"
            yield Row(name, f"{figures}, {stored:.1f} kB", "reported")
