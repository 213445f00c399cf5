"""How soon the operator acts, by the watches of somebody else."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import defaultdict

from imageprocessing_contract import names

from benchmarks.driver import Event
from benchmarks.plane import Plane
from benchmarks.table import Row

_A_SECOND = 5
"""Requests; one of them has shards."""
_LATE = 0.5
"""Seconds that the last watch event may come after the last request has settled."""

Moments = dict[str, dict[str, float]]
"""When what was first seen of each request, in seconds."""


async def reactions(plane: Plane, seconds: float) -> list[Row]:
    """Requests at a steady rate for so long, until the last has ended."""
    moments: Moments = defaultdict(dict)
    requests: dict[str, str] = {}  # names by UID
    left = asyncio.Semaphore(0)

    def note(name: str, what: str) -> None:
        moments[name].setdefault(what, time.monotonic())

    def see_job(event: Event) -> None:
        labels = event.object.metadata.labels
        uid, step = labels.get(names.LABEL_REQUEST_UID, ""), labels.get(names.LABEL_STEP)
        note(uid, f"{step} created")
        if event.object.status.is_true("Complete"):
            note(uid, f"{step} complete")

    def see_request(event: Event) -> None:
        requests[event.object.metadata.uid] = event.object.metadata.name
        if event.object.status.is_true("Finished"):
            note(event.object.metadata.uid, "finished")

    plane.driver.settled = lambda _: left.release()
    async with asyncio.TaskGroup() as tasks:
        watches = [
            tasks.create_task(plane.driver.watch("jobs", see_job)),
            tasks.create_task(plane.driver.watch("ipr", see_request)),
        ]
        applied: dict[str, float] = {}
        count = round(seconds * _A_SECOND)
        for number in range(count):
            name = f"{'paced' if number % _A_SECOND else 'sharded-paced'}-{number}"
            applied[name] = time.monotonic()
            tasks.create_task(plane.driver.apply(name))
            await asyncio.sleep(1 / _A_SECOND)
        for _ in range(count):
            await left.acquire()
        await asyncio.sleep(_LATE)
        for watch in watches:
            watch.cancel()
    seen = [m | {"applied": applied[requests[uid]]} for uid, m in moments.items()]
    one_pod = [m for m in seen if "shards created" not in m]

    def row(times: list[float], what: str, target: str) -> Row:
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        measured = f"p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms of {len(times)}"
        return Row(f"{what}, {_A_SECOND} requests a second", measured, target)

    quick, ended = "p50 <= 100 ms, p99 <= 500 ms", "p50 <= 200 ms"
    return [
        row(_times(seen, "applied", "plan created"), "apply -> Job created", quick),
        row(_times(seen, "shards complete", "finalize created"), "last shard -> finalize", ended),
        row(_times(seen, "finalize complete", "finished"), "finalize done -> Finished", ended),
        row(_times(one_pod, "plan complete", "finished"), "one Pod done -> Finished", ended),
    ]


def _times(seen: list[dict[str, float]], begin: str, end: str) -> list[float]:
    """Milliseconds between two moments of the requests that had both."""
    return [(m[end] - m[begin]) * 1000 for m in seen if begin in m and end in m]
