"""The pipeline of one shard, with everything around it in the test's hands."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from imageprocessing_worker.encoded import Encoded, Variant
from imageprocessing_worker.pipeline import UPLOADS, Clock, Pipeline
from imageprocessing_worker.results import Result
from imageprocessing_worker.schedule import Schedule
from imageprocessing_worker.work import Image, Work, _pack

IMAGES = 200
CHILDREN = 2
TURNS = 2000
"""Of the loop, by far enough for all that can go on without an upload that ends."""


class Fast(Clock):
    """Time flies, so that as many downloads as ever begin."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        self._now += 0.1
        return self._now

    async def wait(self, wake: asyncio.Event, seconds: float | None) -> None:
        await asyncio.sleep(0)


class Store:
    """Bodies that come all at once, a codec that takes no time, a store that stands still."""

    children = CHILDREN

    def __init__(self) -> None:
        self.asked = self.encoded = self.under_way = self.most = 0
        self.all_asked, self.moving = asyncio.Event(), asyncio.Event()

    async def fetch(self, _url: str, _held: AsyncExitStack) -> bytes:
        self.asked += 1
        if self.asked == IMAGES:
            self.all_asked.set()
        await self.all_asked.wait()
        return b"body"

    async def compress(self, _data: bytes, *, sample: bool) -> Encoded:
        self.encoded += 1
        variants = [Variant(width, b"v") for width in range(8)]
        return Encoded(b"image", "jpg", "image/jpeg", 9, 9, False, None, variants)

    async def upload(self, _path: str, _data: bytes, _content_type: str) -> None:
        await self.moving.wait()


async def test_a_store_that_stands_still_holds_up_the_codec() -> None:
    """Encoded images wait in memory: not all that were downloaded meanwhile."""
    store = Store()
    room = asyncio.Event()
    room.set()
    recorded: list[Result] = []
    items = [
        ("host", _pack(Work(f"http://host/{n}", [Image(n, 0, str(n), "p")]))) for n in range(IMAGES)
    ]
    pipeline = Pipeline(
        Schedule(items, per_host=IMAGES, retries=0, chance=lambda: 0.5),
        downloader=store,  # type: ignore[arg-type]
        codec=store,  # type: ignore[arg-type]
        upload=store.upload,
        is_sampled=lambda _: False,
        keep_sample=lambda *_: None,
        record=lambda _, result: recorded.append(result),
        clock=Fast(),
        room=room,
    )
    beside: asyncio.Task[Any] = asyncio.create_task(asyncio.Event().wait())  # type: ignore[arg-type]
    running = asyncio.create_task(pipeline.run(asyncio.Event(), beside))
    for _ in range(TURNS):
        await asyncio.sleep(0)
    assert store.asked == IMAGES
    assert store.encoded == UPLOADS + 2 * CHILDREN
    store.moving.set()
    await running
    beside.cancel()
    assert len(recorded) == store.encoded == IMAGES
    assert all(len(result.variants) == 8 for result in recorded)
