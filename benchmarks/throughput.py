"""How many requests a control plane on this machine finishes, and what that costs whom."""

from __future__ import annotations

import asyncio
import itertools
import time

import msgspec

from benchmarks.plane import Plane, since

_WARM_UP = 3.0  # seconds


class Throughput(msgspec.Struct, frozen=True):
    """The rate is of a while with the same number of requests under way, the costs of all."""

    rate: float
    """Requests a second."""
    finished: int
    cpu: dict[str, float]
    """Seconds, of each process."""
    calls: dict[str, float]
    """Of the operator, by verb."""
    busy: float
    """Cores, all processes together."""

    @property
    def a_minute(self) -> float:
        """Requests."""
        return self.rate * 60

    def each(self, process: str) -> float:
        """Milliseconds of CPU a request."""
        return self.cpu[process] / self.finished * 1000

    @property
    def shares(self) -> str:
        """Who used which part of the CPU."""
        whole = sum(self.cpu.values())
        parts = sorted(self.cpu.items(), key=lambda item: -item[1])
        return ", ".join(f"{name} {used / whole:.0%}" for name, used in parts)


async def throughput(plane: Plane, prefix: str, seconds: float, in_flight: int) -> Throughput:
    """Requests of that prefix, each with a webhook, so many at once; in the end all are settled."""
    settled, free, stopped = 0, asyncio.Semaphore(in_flight), False
    changed = asyncio.Event()

    def count(_: str) -> None:
        nonlocal settled
        settled += 1
        free.release()
        changed.set()

    async def make() -> int:
        for number in itertools.count():
            await free.acquire()
            if stopped:
                return number
            await plane.driver.apply(f"{prefix}-{number}")
        raise AssertionError

    plane.driver.settled = count
    cpu, calls = plane.cpu(), await plane.calls()
    making = asyncio.create_task(make())
    await asyncio.sleep(_WARM_UP)
    before = settled, plane.cpu(), time.monotonic()
    await asyncio.sleep(seconds)
    after = settled, plane.cpu(), time.monotonic()
    stopped = True
    free.release()
    made = await making
    while settled < made:
        changed.clear()
        await changed.wait()
    finished, elapsed = after[0] - before[0], after[2] - before[2]
    return Throughput(
        rate=finished / elapsed,
        finished=made,
        cpu=since(cpu, plane.cpu()),
        calls=since(calls, await plane.calls()),
        busy=sum(since(before[1], after[1]).values()) / elapsed,
    )
