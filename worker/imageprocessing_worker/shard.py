"""Step 2: fetch, compress and store the images of one shard."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

import msgspec
from imageprocessing_contract import names
from imageprocessing_contract.reasons import Reason
from imageprocessing_contract.task import Task

from imageprocessing_worker import results
from imageprocessing_worker.children import Codec
from imageprocessing_worker.download import Downloader, DownloadFailure
from imageprocessing_worker.encoded import Refused
from imageprocessing_worker.errors import StepError
from imageprocessing_worker.plan import Plan, read_rows
from imageprocessing_worker.records import ImageRecord, Records
from imageprocessing_worker.results import Result
from imageprocessing_worker.stores import Store

CONCURRENCY = 64
"""Images under way at once: enough to hide the network's latency, tried with 64."""
CHECKPOINT_IMAGES = 500  # also a full Firestore batch
CHECKPOINT_SECONDS = 2.0
LAST_CHECKPOINT_SECONDS = 20.0
"""After SIGTERM, of the 30 that a Pod has; a store that is down may take minutes to say so."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between passes over transient failures


P = ParamSpec("P")
T = TypeVar("T")


class InterruptedShardError(Exception):
    """SIGTERM: what was done is in a checkpoint, the rest is left to another Pod."""


class Image(msgspec.Struct, frozen=True):
    """One place in the catalogue where a URL stands."""

    line: int
    position: int
    serial: str
    product: str


class Work(msgspec.Struct, frozen=True):
    """One URL and every place where it stands: it is downloaded once."""

    url: str
    images: list[Image]


class Outcome(msgspec.Struct, frozen=True):
    """What became of one URL; retry_after in seconds, if its server asked for it."""

    work: Work
    template: Result
    retry_after: float | None = None

    def results(self) -> Iterator[Result]:
        """The same result for each place."""
        for image in self.work.images:
            yield msgspec.structs.replace(self.template, line=image.line, position=image.position)


class ShardRun:
    """One Pod's work on one shard."""

    def __init__(
        self,
        task: Task,
        index: int,
        pod_uid: str,
        *,
        store: Store,
        records: Records,
        downloader: Downloader,
        codec: Codec,
        stop: asyncio.Event,
    ) -> None:
        self._task, self._index, self._pod_uid = task, index, pod_uid
        self._store, self._records = store, records
        self._downloader, self._codec, self._stop = downloader, codec, stop
        self._done: dict[results.Place, Result] = {}
        self._fresh: list[Outcome] = []
        self._parts = 0
        self._due, self._last_checkpoint = asyncio.Event(), False
        self._room = asyncio.Event()
        self._room.set()
        # Not asyncio's own threads: those are few, and the resolver of names needs them.
        # One more than uploads, so that a checkpoint never waits for them.
        self._threads = ThreadPoolExecutor(CONCURRENCY + 1, "store")

    async def run(self, plan: Plan) -> None:
        """Ends with results/<i>.jsonl written.

        Raises InterruptedShardError after SIGTERM, StepError when no host could be
        reached, StoreError.
        """
        try:
            await self._run(plan)
        finally:
            # Not waited for: after SIGTERM, or an error, nothing they do is needed.
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, plan: Plan) -> None:
        if await self._unless_stopped(results.is_committed, self._store, self._index):
            return
        work = await self._unless_stopped(self._open_work, plan)
        checkpoints = asyncio.create_task(self._checkpoint_regularly())
        try:
            await self._passes(work, checkpoints)
        finally:
            # Not cancelled: its thread would write on, and nobody would wait for it.
            self._last_checkpoint = True
            self._due.set()
            await self._while_there_is_time(checkpoints)
        if self._stop.is_set():
            raise InterruptedShardError
        self._refuse_outage()
        ordered = (self._done[place] for place in sorted(self._done))
        text = await self._blocking(results.encode, ordered)
        path = names.shard_results(self._index)
        await self._unless_stopped(self._store.create, path, text, "application/jsonl")

    async def _blocking(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a call to the store or the records in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(call, *args, **kwargs))

    async def _unless_stopped(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same; raises InterruptedShardError at once where SIGTERM comes first."""
        running = asyncio.ensure_future(self._blocking(call, *args, **kwargs))
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not running.done():
            raise InterruptedShardError
        return running.result()

    async def _while_there_is_time(self, checkpoints: asyncio.Task[None]) -> None:
        """Waits for the last checkpoint: after SIGTERM, only as long as a Pod has."""
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait((checkpoints, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        done, _ = await asyncio.wait((checkpoints,), timeout=LAST_CHECKPOINT_SECONDS)
        if done:
            checkpoints.result()

    def _open_work(self, plan: Plan) -> list[Work]:
        """What is left to do; fills in what earlier Pods did."""
        self._done = {
            place: result
            for place, result in results.read_parts(self._store, self._index).items()
            if not result.transient
        }
        work: dict[str, Work] = {}
        for row in read_rows(self._store, plan, self._index):
            serial = row.cells[plan.header.serial].strip()
            product = row.cells[plan.header.product]
            for position, url in enumerate(row.urls):
                if (row.line, position) not in self._done:
                    image = Image(row.line, position, serial, product)
                    work.setdefault(url, Work(url, [])).images.append(image)
        return list(work.values())

    async def _passes(self, work: list[Work], checkpoints: asyncio.Task[None]) -> None:
        """One pass over everything, then up to `retries` over what may yet succeed."""
        for number in range(self._task.download.retries + 1):
            again = await self._one_pass(work, checkpoints)
            if not again or self._stop.is_set():
                return
            work = [outcome.work for outcome in again]
            if number < self._task.download.retries:
                asked = max((outcome.retry_after or 0.0 for outcome in again), default=0.0)
                pause = min(max(_FIRST_PAUSE * 2**number, asked), _LONGEST_PAUSE)
                await _wait(self._stop, pause)

    async def _one_pass(
        self, work: Sequence[Work], checkpoints: asyncio.Task[None]
    ) -> list[Outcome]:
        """Tries each URL once; returns those whose failure may pass."""
        queue = _HostQueue(work, self._task.download.max_connections_per_host)
        stopping = asyncio.create_task(self._stop.wait())
        running: dict[asyncio.Task[Any], str] = {}
        # asyncio.wait over all of them would cost 64 callbacks an image.
        finished: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()
        stopping.add_done_callback(finished.put_nowait)
        checkpoints.add_done_callback(finished.put_nowait)
        again: list[Outcome] = []
        try:
            while True:
                while len(running) < CONCURRENCY and (chosen := queue.take()):
                    host, item = chosen
                    started = asyncio.create_task(self._process(item))
                    started.add_done_callback(finished.put_nowait)
                    running[started] = host
                if not running:
                    break
                task = await finished.get()
                if task is stopping:
                    break
                outcome = task.result()  # of checkpoints: it ended, so it raises
                queue.release(running.pop(task))
                self._record(outcome)
                if outcome.template.transient:
                    again.append(outcome)
        finally:
            for unfinished in (stopping, *running):
                unfinished.cancel()
            await asyncio.gather(stopping, *running, return_exceptions=True)
        return again

    async def _process(self, work: Work) -> Outcome:
        """Effects in order: the object here, record and checkpoint with the next batch."""
        await self._room.wait()
        async with AsyncExitStack() as held:
            data = await self._downloader.fetch(work.url, held)
            if isinstance(data, DownloadFailure):
                failed = _failed(data.reason, data.message, transient=data.transient)
                return Outcome(work, failed, data.retry_after)
            encoded = await self._codec.compress(data)
            original = len(data)
            del data
        if isinstance(encoded, Refused):
            return Outcome(work, _failed(encoded.reason, encoded.message, transient=False))
        path = names.image_object(work.url, encoded.extension)
        await self._blocking(self._store.add, path, encoded.data, encoded.content_type)
        stored = Result(
            line=0,
            position=0,
            object=path,
            original=original,
            compressed=len(encoded.data),
            unchanged=encoded.unchanged,
            message=encoded.warning,
        )
        return Outcome(work, stored)

    def _record(self, outcome: Outcome) -> None:
        self._fresh.append(outcome)
        self._done.update((result.place, result) for result in outcome.results())
        if len(self._fresh) >= CHECKPOINT_IMAGES:
            # While the last checkpoint still hangs, no more is done that a kill would undo.
            self._due.set()
            self._room.clear()

    async def _checkpoint_regularly(self) -> None:
        """Until the last one is asked for; ends early only with an error."""
        last = False
        while not last:
            await _wait(self._due, CHECKPOINT_SECONDS)
            self._due.clear()
            last = self._last_checkpoint
            fresh, self._fresh = self._fresh, []
            self._room.set()
            if fresh:
                await self._blocking(self._write_checkpoint, fresh)

    def _write_checkpoint(self, fresh: list[Outcome]) -> None:
        self._store.settle()
        self._records.put_images(
            [
                ImageRecord(
                    key=names.image_document(self._task.request_id, image.serial, image.position),
                    request_id=self._task.request_id,
                    product_name=image.product,
                    input_url=outcome.work.url,
                    output_url=self._store.url(outcome.template.object),
                )
                for outcome in fresh
                if outcome.template.object is not None
                for image in outcome.work.images
            ]
        )
        text = results.encode(result for outcome in fresh for result in outcome.results())
        written = False
        while not written:  # a number is taken where this Pod's container started anew
            path = names.shard_part(self._index, self._pod_uid, self._parts)
            written = self._store.create(path, text, "application/jsonl")
            self._parts += 1

    def _refuse_outage(self) -> None:
        """When nothing could be reached, the network is at fault and not the images."""
        if self._done and all(result.transient for result in self._done.values()):
            result = next(iter(self._done.values()))
            message = (
                f"none of the {len(self._done)} images of shard {self._index} could be fetched; "
                f"for example line {result.line}: {result.reason}: {result.message}"
            )
            raise StepError(Reason.SHARD_FAILED, message, transient=True)


class _HostQueue:
    """Hands out work host by host in turn, so that a slow host holds up only itself."""

    def __init__(self, work: Sequence[Work], per_host: int) -> None:
        self._per_host = per_host
        self._waiting: dict[str, deque[Work]] = {}
        self._running: dict[str, int] = {}
        for item in work:
            host = urlsplit(item.url).netloc.lower()
            self._waiting.setdefault(host, deque()).append(item)
        self._turn = deque(self._waiting)

    def take(self) -> tuple[str, Work] | None:
        """The next host that has work and a free place, None where there is none now."""
        for _ in range(len(self._turn)):
            host = self._turn.popleft()
            running = self._running.get(host, 0)
            if running >= self._per_host:
                self._turn.append(host)
                continue
            self._running[host] = running + 1
            item = self._waiting[host].popleft()
            if self._waiting[host]:
                self._turn.append(host)
            return host, item
        return None

    def release(self, host: str) -> None:
        """One of the host's items is done."""
        self._running[host] -= 1


def _failed(reason: str, message: str, *, transient: bool) -> Result:
    return Result(line=0, position=0, reason=reason, message=message, transient=transient)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, at most so long."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
