"""The operator beside a whole control plane on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from benchmarks.plane import Plane, control_plane
from benchmarks.reactions import reactions
from benchmarks.size import size, wide
from benchmarks.table import Row
from benchmarks.throughput import Throughput, throughput
from tests.cluster.control_plane import FAST_JOBS

_IN_FLIGHT, _SHARDED = 100, 25
"""Requests under way at once: each waits some seconds for the Job controller, who batches."""


def measure(full: bool) -> Iterable[Row]:
    """Control planes one after the other; what takes longest is left out of the small version."""
    return asyncio.run(_measure(full))


async def _measure(full: bool) -> list[Row]:
    seconds, paced = (60, 60) if full else (5, 6)
    async with control_plane(FAST_JOBS) as plane:
        plane.start_operator()
        await plane.ready()
        rows = await reactions(plane, paced)
        run = await throughput(plane, "one", seconds, _IN_FLIGHT)
        rows += [
            _rate("one Pod, Job controller with 500 calls a second", run, ">= 1,000 a minute"),
            _cost("one Pod", run, "<= 20 ms CPU, <= 10 calls"),
            Row("CPU, one Pod", run.shares, ""),
        ]
        if full:
            rows.append(await _growth(plane, seconds))
        run = await throughput(plane, "sharded", seconds, _SHARDED)
        rows += [
            _rate("three shards, 500 calls a second", run, "reported"),
            _cost("three shards", run, "<= 18 calls"),
        ]
    if full:
        async with control_plane(()) as plane:
            plane.start_operator()
            await plane.ready()
            run = await throughput(plane, "one", seconds, _IN_FLIGHT)
            rows.append(_rate("one Pod, Job controller with its defaults", run, "reported"))
    async with control_plane(FAST_JOBS) as plane:
        rows += await size(plane, *((9_900, 5_000) if full else (400, 200)))
        rows += await wide(plane)
    return rows


async def _growth(plane: Plane, seconds: float) -> Row:
    """Of an operator that is warm: no request is at work before and after."""
    before = plane.memory()
    run = await throughput(plane, "again", seconds, _IN_FLIGHT)
    grown = (plane.memory() - before) / run.finished
    what = f"memory of {run.finished:,} requests that have settled since"
    return Row(what, f"{grown / 1e3:.1f} kB each", "nothing")


def _rate(what: str, run: Throughput, target: str) -> Row:
    return Row(what, f"{run.a_minute:,.0f} requests a minute, {run.busy:.2f} cores busy", target)


def _cost(what: str, run: Throughput, target: str) -> Row:
    calls = sum(run.calls.values()) / run.finished
    cost = f"{run.each('operator'):.1f} ms CPU of the operator, {calls:.1f} calls a request"
    return Row(f"{what}, with a webhook", cost, target)
