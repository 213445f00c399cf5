"""Step 2: fetch, compress and store the images of one shard."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

import msgspec
from imageprocessing_contract import names, redact, report
from imageprocessing_contract.reasons import Reason
from imageprocessing_contract.task import Task

from imageprocessing_worker import results, sample
from imageprocessing_worker.children import Codec
from imageprocessing_worker.download import Downloader
from imageprocessing_worker.encoded import Crops, Encoded
from imageprocessing_worker.errors import StepError
from imageprocessing_worker.pipeline import UPLOADS, Clock, Pipeline
from imageprocessing_worker.plan import Plan
from imageprocessing_worker.records import ImageRecord, Records
from imageprocessing_worker.results import Result
from imageprocessing_worker.schedule import OUTAGE_SECONDS, Schedule
from imageprocessing_worker.stores import Store, StoreError
from imageprocessing_worker.work import Packed, Work, host_of, read_work, unpack

CHECKPOINT_IMAGES = 500  # also a full Firestore batch
CHECKPOINT_SECONDS = 2.0
_CHECKPOINTS_A_LINE = 5  # of the log: ten seconds or more
_LOGGED = report.MAX_SAMPLES  # failures that a Pod tells of in its log
LAST_CHECKPOINT_SECONDS = 20.0
"""After SIGTERM, of the 30 that a Pod has; a store that is down may take minutes to say so."""

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


class InterruptedShardError(Exception):
    """SIGTERM: what was done is in a checkpoint, the rest is left to another Pod."""


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
        clock: Clock | None = None,
    ) -> None:
        """`clock` is for waits between attempts, not for the checkpoints."""
        self._task, self._index, self._pod_uid = task, index, pod_uid
        self._store, self._records = store, records
        self._downloader, self._codec, self._stop = downloader, codec, stop
        self._clock = clock or Clock()
        self._fresh: list[tuple[Work, Result]] = []
        self._samples: list[sample.Sample] = []  # of these
        # All results as JSON lines: 170 bytes an image, and 15 for each variant.
        self._texts: list[bytes] = []
        self._images = self._tried = self._failed = self._said = 0
        self._settled = 0  # results that no other attempt would change
        self._passing: Result | None = None  # one that failed and may pass
        self._parts = 0
        self._due, self._last_checkpoint = asyncio.Event(), False
        self._room = asyncio.Event()
        self._room.set()
        # Not asyncio's own threads: those are few, and the resolver of names needs them.
        self._threads = ThreadPoolExecutor(1, "shard")
        # Of their own, so that a checkpoint never waits for them.
        self._uploads = ThreadPoolExecutor(UPLOADS, "upload")

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
            self._uploads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, plan: Plan) -> None:
        if await self._unless_stopped(results.is_committed, self._store, self._index):
            logger.info("shard %d is done already", self._index)
            return
        schedule = await self._unless_stopped(self._open_schedule, plan)
        self._say_how_far()
        pipeline = Pipeline(
            schedule,
            downloader=self._downloader,
            codec=self._codec,
            upload=self._upload,
            is_sampled=partial(sample.is_chosen, images=plan.catalogue.images),
            keep_sample=self._keep_sample,
            record=self._record,
            clock=self._clock,
            room=self._room,
        )
        checkpoints = asyncio.create_task(self._checkpoint_regularly())
        try:
            await pipeline.run(self._stop, checkpoints)
        finally:
            # Not cancelled: its thread would write on, and nobody would wait for it.
            self._last_checkpoint = True
            self._due.set()
            await self._while_there_is_time(checkpoints)
        if self._stop.is_set():
            raise InterruptedShardError
        self._refuse_outage(lost=not schedule.done)
        text = await self._blocking(results.in_order, self._texts)
        path = names.shard_results(self._index)
        await self._unless_stopped(self._store.create, path, text, "application/jsonl")
        self._say_how_far()

    def _say_how_far(self) -> None:
        numbers = self._index, self._tried, self._images, self._failed
        logger.info("shard %d: %d of %d images tried, %d failed", *numbers)

    async def _blocking(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a call to the store or the records in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(call, *args, **kwargs))

    async def _unless_stopped(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same; raises InterruptedShardError at once where SIGTERM comes first."""
        running = asyncio.create_task(self._blocking(call, *args, **kwargs))
        await self._ended_or_stopped(running)
        if not running.done():
            raise InterruptedShardError
        return running.result()

    async def _ended_or_stopped(self, task: asyncio.Task[Any]) -> None:
        """Waits for the end of the task or for SIGTERM, whichever is first."""
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()

    async def _while_there_is_time(self, checkpoints: asyncio.Task[None]) -> None:
        """Waits for the last checkpoint: after SIGTERM, only as long as a Pod has."""
        await self._ended_or_stopped(checkpoints)
        done, _ = await asyncio.wait((checkpoints,), timeout=LAST_CHECKPOINT_SECONDS)
        if done:
            checkpoints.result()

    def _open_schedule(self, plan: Plan) -> Schedule[Packed]:
        """What is left to do; takes over what earlier Pods did."""
        earlier = results.read_parts(self._store, self._index)
        done = {place: result for place, result in earlier.items() if not result.transient}
        self._texts.append(results.encode(done.values()))
        self._settled += len(done)
        self._images, self._tried = plan.shards[self._index].images, len(done)
        self._failed = sum(result.object is None for result in done.values())
        packed = read_work(self._store, plan, self._index, done)
        download = self._task.download
        return Schedule(
            ((host_of(unpack(work).url), work) for work in packed),
            per_host=download.max_connections_per_host,
            retries=download.retries,
            chance=random.random,
        )

    async def _upload(self, path: str, data: bytes, content_type: str) -> None:
        call = partial(self._store.add, path, data, content_type)
        await asyncio.get_running_loop().run_in_executor(self._uploads, call)

    def _keep_sample(self, work: Work, original: int, image: Encoded) -> None:
        """Its crops go out with the next checkpoint, which has its result, too."""
        if not isinstance(image.crops, Crops):
            logger.info("no sample of %s: %s", redact.url(work.url), image.crops)
            return
        self._samples.append(
            sample.Sample(
                url=work.url,
                product=work.images[0].product,
                original=original,
                compressed=len(image.data),
                unchanged=image.unchanged,
                width=image.width,
                height=image.height,
                before=image.crops.before,
                after=image.crops.after,
            )
        )

    def _record(self, work: Work, result: Result) -> None:
        self._fresh.append((work, result))
        self._tried += len(work.images)
        if result.object is None:
            self._failed += len(work.images)
            self._say_failed(work, result)
        if not result.transient:
            self._settled += 1
        elif self._passing is None:
            self._passing = msgspec.structs.replace(result, line=work.images[0].line)
        if len(self._fresh) >= CHECKPOINT_IMAGES:
            # While the last checkpoint still hangs, no more is done that a kill would undo.
            self._due.set()
            self._room.clear()

    def _say_failed(self, work: Work, result: Result) -> None:
        if self._said == _LOGGED:
            return
        self._said += 1
        failure = report.Failure(
            line=work.images[0].line,
            url=redact.url(work.url),
            reason=result.reason or "",
            message=redact.shorten(result.message or ""),
        )
        logger.warning("%s%s", report.FAILED_IMAGE, report.failure_line(failure))

    async def _checkpoint_regularly(self) -> None:
        """Until the last one is asked for; ends early only with an error."""
        last = False
        while not last:
            await Clock().wait(self._due, CHECKPOINT_SECONDS)
            self._due.clear()
            last = self._last_checkpoint
            fresh, self._fresh = self._fresh, []
            samples, self._samples = self._samples, []
            self._room.set()
            if fresh:
                await self._blocking(self._write_checkpoint, fresh, samples)
                if self._parts % _CHECKPOINTS_A_LINE == 0:
                    self._say_how_far()

    def _write_checkpoint(
        self, fresh: list[tuple[Work, Result]], samples: list[sample.Sample]
    ) -> None:
        self._store.settle()
        for one in samples:
            self._store_sample(one)
        self._records.put_images(
            [
                record
                for work, result in fresh
                if result.object is not None
                for record in self._image_records(work, result)
            ]
        )
        text = results.encode(
            msgspec.structs.replace(
                result,
                line=image.line,
                position=image.position,
                milliseconds=result.milliseconds if number == 0 else 0,
            )
            for work, result in fresh
            for number, image in enumerate(work.images)
        )
        written = False
        while not written:  # a number is taken where this Pod's container started anew
            path = names.shard_part(self._index, self._pod_uid, self._parts)
            written = self._store.create(path, text, "application/jsonl")
            self._parts += 1
        self._texts.append(text)

    def _image_records(self, work: Work, result: Result) -> Iterator[ImageRecord]:
        widths = self._task.compression.widths
        output_url, *variants = results.output_urls(self._store, result, widths)
        for image in work.images:
            yield ImageRecord(
                key=names.image_document(self._task.request_id, image.serial, image.position),
                request_id=self._task.request_id,
                product_name=image.product,
                input_url=work.url,
                output_url=output_url,
                variants=dict(zip(map(names.variant, widths), variants, strict=True)),
            )

    def _store_sample(self, one: sample.Sample) -> None:
        """Without it the report shows an image less, which is no reason to fail."""
        try:
            self._store.create(names.sample(one.url), sample.encode(one), "application/json")
        except StoreError as error:
            logger.warning("no sample of %s: %s", redact.url(one.url), error)

    def _refuse_outage(self, *, lost: bool) -> None:
        """When nothing can be reached, the network is at fault and not the images."""
        if not lost and (self._settled or self._passing is None):
            return
        what = (
            f"no host has answered for {OUTAGE_SECONDS:.0f} s, so shard {self._index} is not done"
            if lost
            else f"no image of shard {self._index} could be fetched"
        )
        if example := self._passing:
            what += f"; for example line {example.line}: {example.reason}: {example.message}"
        raise StepError(Reason.SHARD_FAILED, what, transient=True)
