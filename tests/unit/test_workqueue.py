"""Keys come once, one at a time, and later each time that they fail."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from imageprocessing_operator.workqueue import WorkQueue


@pytest.fixture
def queue() -> WorkQueue[str]:
    return WorkQueue()


async def is_empty(queue: WorkQueue[str]) -> bool:
    try:
        await asyncio.wait_for(queue.get(), 0.05)
    except TimeoutError:
        return True
    return False


async def test_twice_is_once(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.add("a")
    assert await queue.get() == "a"
    assert await is_empty(queue)


async def test_a_key_in_work_waits_its_turn(queue: WorkQueue[str]) -> None:
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("b")
    assert await queue.get() == "b"
    assert await is_empty(queue)
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert await is_empty(queue)


async def test_later_and_earlier(queue: WorkQueue[str]) -> None:
    queue.add_after("a", 60)
    queue.add_after("a", 0.01)
    queue.add_after("a", 60)
    assert await asyncio.wait_for(queue.get(), 1) == "a"
    queue.done("a")
    assert await is_empty(queue), "the time of an earlier visit is not kept"


async def test_work_takes_a_time_away(queue: WorkQueue[str]) -> None:
    queue.add_after("a", 0.03)
    queue.add("a")
    await queue.get()
    queue.done("a")
    await asyncio.sleep(0.05)
    assert await is_empty(queue)


async def test_failures_wait_longer_each_time(
    queue: WorkQueue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(queue, "add_after", lambda key, seconds: waited.append(seconds))
    for _ in range(12):
        queue.retry("a")
    for before, after in itertools.pairwise(waited[:7]):
        assert after > before
    assert all(48 <= seconds <= 72 for seconds in waited[8:])
    queue.succeeded("a")
    queue.retry("a")
    assert waited[-1] < 1


async def test_what_is_forgotten_does_not_come(queue: WorkQueue[str]) -> None:
    queue.add_after("a", 0.01)
    queue.forget("a")
    assert await is_empty(queue)


async def test_how_long_keys_wait_and_are_worked_on() -> None:
    now = 0.0
    queue: WorkQueue[str] = WorkQueue(lambda: now)
    assert (queue.depth(), queue.age(), queue.longest_work()) == (0, 0, 0)
    queue.add("a")
    now = 1
    queue.add("b")
    queue.add("a")
    now = 3
    assert (queue.depth(), queue.age(), queue.longest_work()) == (2, 3, 0)
    await queue.get()
    now = 7
    assert (queue.depth(), queue.age(), queue.longest_work()) == (1, 6, 4)
    await queue.get()
    queue.done("a")
    assert (queue.depth(), queue.age(), queue.longest_work()) == (0, 0, 0)
    now = 8
    assert queue.longest_work() == 1
