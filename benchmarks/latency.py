"""How far a distant server slows a shard down: images a second by the latency of each answer."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from benchmarks.photo_server import photo_server
from benchmarks.shard_run import run_shard
from benchmarks.table import Row

_DISTINCT = 60
_DELAYS = (0, 50, 200)
"""Milliseconds."""


def measure(full: bool) -> Iterable[Row]:
    """Alternating runs of each latency, with 256 connections allowed to the one host."""
    images, repetitions = (4000, 5) if full else (1200, 2)
    rates: dict[int, list[float]] = {delay: [] for delay in _DELAYS}
    with photo_server(_DISTINCT) as server:
        for _ in range(repetitions):
            for delay, seen in rates.items():
                seen.append(run_shard(server, images, delay=delay, per_host=256).rate)
    without, *others = (statistics.median(seen) for seen in rates.values())
    yield Row("no latency", f"{without:.0f} images/s", "")
    for delay, rate in zip(_DELAYS[1:], others, strict=True):
        share = f"{rate:.0f} images/s, {rate / without:.2f} of that without"
        yield Row(f"{delay} ms", share, ">= 0.9")
