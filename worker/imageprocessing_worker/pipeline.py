"""Fetches, compresses and stores what a schedule says, as much at once as it pays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack

from imageprocessing_contract import names

from imageprocessing_worker.children import Codec
from imageprocessing_worker.download import Downloader, DownloadFailure
from imageprocessing_worker.encoded import Encoded, Refused
from imageprocessing_worker.host import Attempt, Failed
from imageprocessing_worker.results import Made, Result
from imageprocessing_worker.schedule import Schedule
from imageprocessing_worker.window import GROW_SECONDS, Window
from imageprocessing_worker.work import Packed, Work, unpack

UPLOADS = 64
"""Files that are stored at once: enough to hide a store's latency, tried with 64."""
FINISH_SECONDS = 5.0
"""For what has been downloaded when SIGTERM comes: most of a Pod's 30 s are for checkpoints."""


class Clock:
    """The time that a schedule sees; tests bring their own."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    async def wait(self, wake: asyncio.Event, seconds: float | None) -> None:
        """Until the event is set, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await wake.wait()
        except TimeoutError:
            return


class Pipeline:
    """The images of one shard under way: downloads, those at the codec, and uploads."""

    def __init__(
        self,
        schedule: Schedule[Packed],
        *,
        downloader: Downloader,
        codec: Codec,
        upload: Callable[[str, bytes, str], Awaitable[object]],
        is_sampled: Callable[[str], bool],
        keep_sample: Callable[[Work, int, Encoded], None],
        record: Callable[[Work, Result], None],
        clock: Clock,
        room: asyncio.Event,
    ) -> None:
        """`upload` stores bytes of a content type under a path; `record` is told what became of
        each URL.

        Of those that `is_sampled` names `keep_sample` gets the size of the original in bytes
        and, beside the image, its crops.

        No download begins while `room` is not set.
        """
        self._schedule, self._clock = schedule, clock
        self._downloader, self._codec = downloader, codec
        self._upload, self._record, self._room = upload, record, room
        self._is_sampled, self._keep_sample = is_sampled, keep_sample
        self._window = Window(codec.children, clock.now())
        self._at_codec = self._uploads = 0
        # Encoded images wait for a slow store in memory: not more of them than it can take, and
        # a few that keep the children at work.
        self._encoded = asyncio.Semaphore(UPLOADS + 2 * codec.children)
        self._tasks: set[asyncio.Task[None]] = set()
        self._downloads: set[asyncio.Task[None]] = set()  # of these
        self._wake = asyncio.Event()
        self._broken: BaseException | None = None

    async def run(self, stop: asyncio.Event, beside: asyncio.Task[None]) -> None:
        """Until all is done, `stop` is set, or no host answers; raises what `beside` does.

        What has been downloaded by then is still finished, for some seconds. Where no host
        answers, what is left has been recorded as far as it has a reason.
        """
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(lambda _: self._wake.set())
        beside.add_done_callback(lambda _: self._wake.set())
        try:
            while not stopping.done() and await self._go_on():
                if beside.done():
                    beside.result()
            for task in self._downloads:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=FINISH_SECONDS)
            if self._broken is not None:
                raise self._broken
        finally:
            stopping.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(stopping, *self._tasks, return_exceptions=True)

    async def _go_on(self) -> bool:
        """Starts what can start, and waits for news; False when there is nothing left to do."""
        self._wake.clear()
        if self._broken is not None:
            raise self._broken
        now = self._clock.now()
        while (room := self._has_room(now)) and (attempt := self._schedule.take(now)):
            task = asyncio.create_task(self._process(attempt))
            self._tasks.add(task)
            self._downloads.add(task)
            task.add_done_callback(self._ended)
        if self._schedule.lost(now):
            self._fail(self._schedule.unfinished())
            return False
        if self._schedule.done and not self._at_codec and not self._uploads:
            return False
        if room:
            seconds = self._schedule.wait(now)
        else:
            seconds = GROW_SECONDS if self._window.starves(self._at_codec) else None
        await self._clock.wait(self._wake, seconds)
        return True

    def _has_room(self, now: float) -> bool:
        downloads = len(self._downloads)
        return self._uploads < UPLOADS and self._window.has_room(downloads, self._at_codec, now)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._downloads.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._broken = self._broken or error
        self._wake.set()

    async def _process(self, attempt: Attempt[Packed]) -> None:
        """One attempt; for a body the object, too, so that a record follows its object."""
        work = unpack(attempt.item)
        await self._room.wait()
        # A large body's memory stands for what is made of it until that is stored.
        async with AsyncExitStack() as held:
            began = self._clock.now()
            data = await self._downloader.fetch(work.url, held)
            took = max(1, round((self._clock.now() - began) * 1000))
            self._downloads.difference_update([asyncio.current_task()])
            failure = data if isinstance(data, DownloadFailure) else None
            given_up = self._schedule.ended(attempt, failure, self._clock.now())
            self._fail(given_up, attempt.item, took)
            self._wake.set()  # its host has a free connection
            if isinstance(data, DownloadFailure) or attempt.canary:
                return
            self._at_codec += 1
            await held.enter_async_context(self._encoded)
            original = len(data)
            sample = self._is_sampled(work.url)
            encoded = await self._codec.compress(data, sample=sample)
            del data
            self._at_codec -= 1
            self._window.encoded(self._at_codec)
            if isinstance(encoded, Refused):
                refused = failed(
                    encoded.reason, encoded.message, transient=False, milliseconds=took
                )
                self._record(work, refused)
                return
            path = names.image_object(work.url, encoded.extension)
            self._uploads += 1
            self._wake.set()
            await self._upload(path, encoded.data, encoded.content_type)
            if encoded.variants:
                await asyncio.gather(
                    *(
                        self._upload(
                            names.variant_of(path, one.width), one.data, encoded.content_type
                        )
                        for one in encoded.variants
                    )
                )
            if sample:
                self._keep_sample(work, original, encoded)
            self._uploads -= 1
        stored = Result(
            line=0,
            position=0,
            object=path,
            original=original,
            compressed=len(encoded.data),
            unchanged=encoded.unchanged,
            message=encoded.warning,
            milliseconds=took,
            variants=tuple(Made(one.width, len(one.data)) for one in encoded.variants),
        )
        self._record(work, stored)

    def _fail(
        self, given_up: Iterable[Failed[Packed]], tried: Packed | None = None, took: int = 0
    ) -> None:
        for item, failure in given_up:
            result = failed(
                failure.reason,
                failure.message,
                transient=failure.transient,
                milliseconds=took if item is tried else 0,
            )
            self._record(unpack(item), result)


def failed(reason: str, message: str, *, transient: bool, milliseconds: int) -> Result:
    """The result of a URL that has no image, not yet at a place."""
    return Result(
        line=0,
        position=0,
        reason=reason,
        message=message,
        transient=transient,
        milliseconds=milliseconds,
    )
