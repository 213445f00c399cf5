"""The operator beside a whole control plane on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from benchmarks.plane import control_plane
from benchmarks.reactions import reactions
from benchmarks.size import size, wide
from benchmarks.table import Row
from benchmarks.throughput import Throughput, throughput
from tests.cluster.control_plane import FAST_JOBS

_IN_FLIGHT, _SHARDED = 100, 25
"""Requests under way at once: each waits some seconds for the Job controller, who batches."""


def measure(full: bool) -> Iterable[Row]:
    """Three control planes, one after the other."""
    return asyncio.run(_measure(full))


async def _measure(full: bool) -> list[Row]:
    seconds, paced = (60, 60) if full else (5, 6)
    async with control_plane(FAST_JOBS) as plane:
        plane.start_operator()
        await plane.ready()
        reacted = await reactions(plane, paced)
        fast = await throughput(plane, "one", seconds, _IN_FLIGHT)
        warm = plane.memory()
        again = await throughput(plane, "again", seconds, _IN_FLIGHT)
        grown = (plane.memory() - warm) / again.finished
        shards = await throughput(plane, "sharded", seconds, _SHARDED)
    async with control_plane(()) as plane:
        plane.start_operator()
        await plane.ready()
        slow = await throughput(plane, "one", seconds, _IN_FLIGHT)
    async with control_plane(FAST_JOBS) as plane:
        sizes = await size(plane, *((9_900, 5_000) if full else (400, 200)))
        sizes += await wide(plane)
    return [
        _rate("one Pod, Job controller with 500 calls a second", fast, ">= 1,000 a minute"),
        _rate("one Pod, Job controller with its defaults", slow, "reported"),
        _rate("three shards, 500 calls a second", shards, "reported"),
        _cost("one Pod", fast, "<= 20 ms CPU, <= 10 calls"),
        _cost("three shards", shards, "<= 18 calls"),
        Row("CPU, one Pod", fast.shares, ""),
        *reacted,
        Row(
            f"growth after the first {fast.finished:,} requests while {again.finished:,} settled",
            f"{grown / 1e3:.1f} kB a request",
            "nothing",
        ),
        *sizes,
    ]


def _rate(what: str, run: Throughput, target: str) -> Row:
    return Row(what, f"{run.a_minute:,.0f} requests a minute, {run.busy:.2f} cores busy", target)


def _cost(what: str, run: Throughput, target: str) -> Row:
    calls = sum(run.calls.values()) / run.finished
    cost = f"{run.each('operator'):.1f} ms CPU of the operator, {calls:.1f} calls a request"
    return Row(f"{what}, with a webhook", cost, target)
