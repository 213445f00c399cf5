"""Runs the step that a task asks for, and says how it ended."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec
from imageprocessing_contract import names, report
from imageprocessing_contract.guard import Guard
from imageprocessing_contract.reasons import Reason
from imageprocessing_contract.report import Report
from imageprocessing_contract.task import Task

from imageprocessing_worker.children import Codec
from imageprocessing_worker.download import Downloader
from imageprocessing_worker.errors import StepError
from imageprocessing_worker.finalize import Finished, finalize, read_done
from imageprocessing_worker.limits import memory, processors, share
from imageprocessing_worker.plan import InvalidCatalogueError, Plan, make_plan, read_plan
from imageprocessing_worker.records import Records, RequestRecord, open_records
from imageprocessing_worker.shard import InterruptedShardError, ShardRun
from imageprocessing_worker.source import open_source
from imageprocessing_worker.stores import Store, StoreError, open_store

IMAGE_SECONDS = 30.0
"""Most that one image may take to decode and encode, and each of its variants on top; a 50 MP
AVIF takes about 10."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Ended(msgspec.Struct, frozen=True):
    """How a step ended: the exit code of the Pod and its report."""

    code: int
    report: Report


class Step:
    """One step in one Pod (or, for `ipr run`, in one process)."""

    def __init__(self, task: Task, environ: Mapping[str, str], mount: str) -> None:
        """`mount` is where the source's ConfigMap or claim is."""
        self._task, self._environ, self._mount = task, environ, mount
        self._report = Report(step=task.step)

    def run(self) -> Ended:
        """Every outcome as a value; only bugs raise."""
        try:
            store = open_store(self._task.output)
            self._run(store)
        except InterruptedShardError:
            return self._end(report.EXIT_INTERRUPTED)
        except StepError as error:
            if isinstance(error, InvalidCatalogueError):
                self._add(catalogue=error.catalogue)
            self._add(error=report.Error(error.reason, error.message))
            return self._end(report.EXIT_RETRY if error.transient else report.EXIT_FINAL)
        except StoreError as error:
            self._add(error=report.Error(Reason.OUTPUT_NOT_WRITABLE, error.message))
            return self._end(report.EXIT_RETRY if error.transient else report.EXIT_FINAL)
        return self._end(report.EXIT_DONE)

    def _run(self, store: Store) -> None:
        task = self._task
        if task.step == "finalize":
            self._finished(finalize(task, store, open_records(task.output)))
            return
        if task.step == "shards":
            plan = read_plan(store, task.spec_hash)
            if plan is None:
                message = f"{names.PLAN} is gone from the output"
                raise StepError(Reason.NOT_PLANNED, message, transient=False)
            index = int(self._environ[names.ENV_SHARD_INDEX])
            self._shard(plan, index, store, open_records(task.output))
            return
        if finished := read_done(store, task.spec_hash):
            store.tidy()  # the Pod that wrote it may have been killed before it could
            self._finished(finished)
            return
        plan = read_plan(store, task.spec_hash)
        if plan is None:
            chunks = open_source(task, self._environ, self._mount)
            plan = make_plan(task, store, chunks)
        self._add(catalogue=plan.catalogue, shards=len(plan.shards))
        records = open_records(task.output)
        # A Pod that was held up here must not take back what another one completed.
        records.begin_request(
            RequestRecord(task.request_id, "processing", "", plan.catalogue.images, 0, 0)
        )
        # Most requests are small, and another Pod costs three seconds.
        if len(plan.shards) == 1:
            self._shard(plan, 0, store, records)
            self._finished(finalize(task, store, records))

    def _shard(self, plan: Plan, index: int, store: Store, records: Records) -> None:
        runner = asyncio.Runner()
        runner.run(self._shard_async(plan, index, store, records))
        # Not after an error or an interrupt, which end the process: closing waits for names
        # that are being resolved, which may take longer than a Pod has left.
        runner.close()

    async def _shard_async(self, plan: Plan, index: int, store: Store, records: Records) -> None:
        task = self._task
        shares = share(memory(), processors())
        async with (
            interruptible() as stop,
            Codec(
                task.compression,
                task.download.max_pixels,
                children=shares.children,
                memory_limit=shares.codec,
                time_limit=IMAGE_SECONDS * (1 + len(task.compression.widths)),
            ) as codec,
            Downloader(
                task.download, Guard(task.allowed_networks), memory=shares.bodies
            ) as downloader,
        ):
            run = ShardRun(
                task,
                index,
                self._environ[names.ENV_POD_UID],
                store=store,
                records=records,
                downloader=downloader,
                codec=codec,
                stop=stop,
            )
            await run.run(plan)

    def _finished(self, finished: Finished) -> None:
        self._add(catalogue=finished.catalogue, shards=finished.shards, done=finished.done)

    def _add(
        self,
        *,
        catalogue: report.Catalogue | None = None,
        shards: int | None = None,
        done: report.Done | None = None,
        error: report.Error | None = None,
    ) -> None:
        known = self._report
        self._report = Report(
            step=known.step,
            catalogue=catalogue or known.catalogue,
            shards=shards or known.shards,
            done=done or known.done,
            error=error or known.error,
        )

    def _end(self, code: int) -> Ended:
        return Ended(code, self._report)


@asynccontextmanager
async def interruptible() -> AsyncIterator[asyncio.Event]:
    """An event for SIGTERM or SIGINT; raises InterruptedShardError where one came too late for it.

    Not by loop.add_signal_handler(): where that ends, a signal would for a moment have its
    default effect, which is none in a container's first process.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    came: list[int] = []

    def interrupt(number: int, _: object) -> None:
        came.append(number)
        loop.call_soon_threadsafe(stop.set)

    handlers = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if came:
        raise InterruptedShardError
