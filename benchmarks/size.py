"""What history, many requests and many shards cost the operator."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from imageprocessing_contract import names

from benchmarks.driver import WIDE_SHARDS, Event
from benchmarks.plane import Plane, since
from benchmarks.table import Row

_AT_ONCE = 32
_WIDE_EVENTS = 10
_STARTING = 100
"""Requests that are not settled when the operator starts."""
_QUIET = 6.0
"""Seconds after which Kopf has ended the tasks that it keeps for each object that changed."""


async def size(plane: Plane, settled: int, active: int) -> list[Row]:
    """A start with so many settled requests, then so many at work, then one of 100,000 shards."""
    driver = plane.driver
    plane.start_operator()
    await plane.ready()
    await asyncio.sleep(_QUIET)
    none = plane.memory()
    plane.stop_operator()

    await _all(lambda n: driver.apply_settled(f"old-{n}"), settled)
    await _all(lambda n: driver.apply(f"new-{n}"), _STARTING)
    driver.running = True
    at_work = 0
    all_at_work = asyncio.Event()

    def see(event: Event) -> None:
        nonlocal at_work
        if event.type == "ADDED" and event.object.metadata.labels[names.LABEL_STEP] == "plan":
            at_work += 1
            all_at_work.set()

    async def wait(count: int) -> None:
        while at_work < count:
            all_at_work.clear()
            await all_at_work.wait()

    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(driver.watch("pods", see, "status.phase=Running"))
        begun = time.monotonic()
        plane.start_operator()
        await plane.ready()
        seconds = time.monotonic() - begun
        await wait(_STARTING)
        await asyncio.sleep(_QUIET)
        calls, few = await plane.calls(), plane.memory()
        await _all(lambda n: driver.apply(f"more-{n}"), active - _STARTING)
        await wait(active)
        await asyncio.sleep(_QUIET)
        many = plane.memory()
        watch.cancel()
    writes = calls["create"] + calls["patch"]
    a_request = (many - few) / (active - _STARTING)
    return [
        Row(
            f"start with {settled + _STARTING:,} requests, {settled:,} settled",
            f"ready in {seconds:.1f} s, {writes} writes and {calls.get('get', 0)} reads",
            f"5 s, writes only for the {_STARTING}",
        ),
        Row("memory with none", f"{none / 1e6:.0f} MB", "<= 110 MB"),
        Row(
            f"memory with {settled:,} settled and {_STARTING} at work",
            f"{few / 1e6:.0f} MB",
            "nothing for a settled one",
        ),
        Row(
            f"memory with {active:,} at work",
            f"{many / 1e6:.0f} MB, {a_request / 1e3:.1f} kB a request",
            "<= 50 kB a request",
        ),
    ]


async def wide(plane: Plane) -> list[Row]:
    """A Job of 100,000 shards of which every second one has failed, and others are done."""
    driver = plane.driver
    driver.running = False
    job = await driver.apply_wide()
    failed = ",".join(str(n) for n in range(1, WIDE_SHARDS, 2))
    used = []
    await asyncio.sleep(_QUIET)
    for count in range(_WIDE_EVENTS):
        done = ",".join(str(n) for n in range(0, WIDE_SHARDS // 2 + 2 * count, 2))
        before = plane.cpu()
        await driver.set_indexes(job, done, failed)
        await asyncio.sleep(1)
        used.append(since(before, plane.cpu())["operator"])
    status = await driver.wide_status()
    return [
        Row(
            f"a Job of {WIDE_SHARDS:,} shards, every second one failed",
            f"{max(used) * 1000:.0f} ms CPU of the operator in the worst second with a change",
            "no event handled in more than 50 ms",
        ),
        Row("its request's status", f"{status:,} bytes", "under 8 KiB"),
    ]


async def _all(make: Callable[[int], Awaitable[object]], count: int) -> None:
    free = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> None:
        async with free:
            await make(number)

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(one(number))
