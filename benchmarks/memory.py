"""The most memory that a shard takes, all its processes together, as its number of images grows."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterable

import psutil

from benchmarks.photo_server import Server, photo_server
from benchmarks.shard_run import COMMAND, shard
from benchmarks.table import Row

_DISTINCT = 60
_EVERY = 0.25
"""Seconds between looks; the kernel walks all pages of a process for each."""


def measure(full: bool) -> Iterable[Row]:
    """One run of each size."""
    with photo_server(_DISTINCT) as server:
        for images in (1_000, 10_000, 100_000) if full else (1_000, 3_000):
            peak = _peak(server, images) / 1e6
            yield Row(f"{images:,} images", f"{peak:.0f} MB", "<= 300 MB, flat")


def _peak(server: Server, images: int) -> int:
    """Bytes: PSS, which counts a page that processes share once, over the whole tree."""
    with shard(server.url(number) for number in range(images)) as (_, environ):
        process = subprocess.Popen(COMMAND, env=environ, stderr=subprocess.DEVNULL)
        with process:
            try:
                peak = 0
                while process.poll() is None:
                    peak = max(peak, _memory(psutil.Process(process.pid)))
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_EVERY)
            finally:
                process.kill()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, COMMAND)
    return peak


def _memory(root: psutil.Process) -> int:
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):  # it ended as we looked
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
    return total
