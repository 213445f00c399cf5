"""Ties it together: events feed the queue, workers reconcile one request at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from imageprocessing_contract import names
from imageprocessing_contract.reasons import Condition

from imageprocessing_operator.actions import (
    Action,
    CreateJob,
    Decision,
    DeleteJob,
    Deliver,
    FindTrouble,
    ReadReport,
    UpdateJob,
)
from imageprocessing_operator.api import API, APIError, jobs_path, requests_path
from imageprocessing_operator.cache import Cache, Key
from imageprocessing_operator.executor import Executor
from imageprocessing_operator.freshness import Freshness
from imageprocessing_operator.logs import request_in_log
from imageprocessing_operator.metrics import Metrics
from imageprocessing_operator.reconcile import QUIET, reconcile
from imageprocessing_operator.reports import read_report
from imageprocessing_operator.settings import Settings
from imageprocessing_operator.state import Delivery, Job, Request, Trouble, read_job, read_request
from imageprocessing_operator.status import changes, is_progress
from imageprocessing_operator.trouble import find_trouble
from imageprocessing_operator.webhook import Courier
from imageprocessing_operator.workqueue import WorkQueue

logger = logging.getLogger(__name__)

WORKERS = 16
"""Requests that are worked on at once; the work is waiting for the API server."""
UNSETTLED = "status.settled!=true"
"""Field selector: settled requests are history, and are neither watched nor listed."""
UNFINISHED = f"{names.LABEL_REQUEST_UID},!{names.LABEL_FINISHED}"
"""Label selector: the same for Jobs, which stay for an hour after their request by default."""
RESYNC = 300.0
"""Seconds between full lists, which find what a watch has lost."""
STUCK = 300.0
"""Seconds, which no visit takes: each of its few calls ends after 30 s."""
PROGRESS = 2.0
"""Seconds between writes that only count: a Job's status may change every second."""
_LONGEST_PAUSE = 60.0
"""Seconds between writes of a status that somebody else writes, too."""
_LIST_AGAIN = 5.0  # seconds after a list that failed
_LONGEST_LOOK = timedelta(seconds=60)
"""Time between looks at a Job whose Pods do not run."""


def utc_now() -> datetime:
    """Now, in whole seconds, as Kubernetes writes times."""
    return datetime.now(UTC).replace(microsecond=0)


class Controller:
    """The operator without its watches; `clock` is passed in."""

    def __init__(
        self,
        api: API,
        courier: Courier,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._api, self._courier, self._clock = api, courier, clock
        self._settings, self._metrics = settings, metrics
        self._executor = Executor(api, settings)
        self._cache = Cache(clock)
        self._listed, self._gap = asyncio.Event(), asyncio.Event()
        self._unlisted: APIError | None = None
        self._queue: WorkQueue[Key] = WorkQueue()
        self._deliveries: dict[str, Delivery] = {}
        self._delivering: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, Trouble] = {}
        self._looks: dict[str, _Look] = {}
        self._written: dict[str, _Written] = {}

    # -- how it is -----------------------------------------------------------------

    def show(self, freshness: Freshness) -> None:
        """Lets the metrics ask for what is true at the moment."""
        self._metrics.ask(
            requests=self._cache.requests,
            depth=self._queue.depth,
            age=self._queue.age,
            watches=freshness.ages,
            tasks=lambda: len(asyncio.all_tasks()),
        )

    def not_ready(self) -> str | None:
        """What is not known yet, None once everything was listed."""
        if self._unlisted is not None:
            return f"cannot list requests and Jobs: {self._unlisted}"
        return None if self._listed.is_set() else "requests and Jobs are not listed yet"

    def stuck(self) -> str | None:
        """What work does not go on, None while all does."""
        if (seconds := self._queue.longest_work()) > STUCK:
            return f"a visit has taken {seconds:.0f} s"
        if (seconds := self._queue.age()) > STUCK:
            return f"a request has waited for {seconds:.0f} s"
        return None

    # -- what is seen --------------------------------------------------------------

    def see_request(self, kind: str | None, body: dict[str, Any]) -> None:
        """An event of the requests' watch; settling arrives as DELETED."""
        key = self._take(kind, body)
        if key is not None:
            self._queue.add(key)

    def _take(self, kind: str | None, body: dict[str, Any]) -> Key | None:
        """Brings a request into the cache, or out of it; the key of one that is to be visited."""
        try:
            request = read_request(body)
        except msgspec.ValidationError as error:
            logger.error("request %s is not readable: %s", body["metadata"]["name"], error)
            return None
        if kind != "DELETED" and not request.status.settled:
            return self._cache.put_request(request)
        self._cache.drop_request(request)
        key = (request.namespace, request.name)
        # Another one may have its name already.
        if self._cache.request(key) is None:
            self._queue.forget(key)
        return None

    def see_job(self, kind: str | None, body: dict[str, Any]) -> None:
        """An event of the Jobs' watch."""
        job = read_job(body)
        if job is None:
            return
        key = self._cache.drop_job(job) if kind == "DELETED" else self._cache.put_job(job)
        if key is not None:
            self._queue.add(key)

    def see_gap(self) -> None:
        """A watch may have lost deletions: list everything now."""
        self._gap.set()

    async def resync(self) -> None:
        """Lists everything and replaces the cache; raises APIError."""
        self._cache.expect_list()
        requests: list[Request] = []
        jobs: list[Job] = []
        everywhere: list[str | None] = [None]
        for namespace in self._settings.namespaces or everywhere:
            selector = {"fieldSelector": UNSETTLED}
            async for body in self._api.list(requests_path(namespace), selector):
                try:
                    requests.append(read_request(body))
                except msgspec.ValidationError as error:
                    name = body["metadata"]["name"]
                    logger.error("request %s is not readable: %s", name, error)
            label = {"labelSelector": UNFINISHED}
            async for body in self._api.list(jobs_path(namespace), label):
                if (job := read_job(body)) is not None:
                    jobs.append(job)
        self._cache.replace(requests, jobs)
        living = {request.uid for request in self._cache.requests()}
        self._looks = {uid: look for uid, look in self._looks.items() if uid in living}
        self._refused = {uid: why for uid, why in self._refused.items() if uid in living}
        self._written = {uid: when for uid, when in self._written.items() if uid in living}
        self._deliveries = {uid: d for uid, d in self._deliveries.items() if uid in living}
        for request in self._cache.requests():
            self._queue.add((request.namespace, request.name))

    # -- what is done ---------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled; ends with an error only for a bug."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._resync_regularly())
            for _ in range(WORKERS):
                tasks.create_task(self._work())

    async def _resync_regularly(self) -> None:
        while True:
            self._gap.clear()
            try:
                await self.resync()
            except APIError as error:
                self._unlisted = error
                logger.warning("cannot list requests and Jobs: %s", error)
                await asyncio.sleep(_LIST_AGAIN)
            else:
                self._unlisted = None
                self._listed.set()
                # Not wait_for: in Python 3.11 it makes a task, which Kopf waits for at its end.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RESYNC):
                        await self._gap.wait()

    async def _work(self) -> None:
        # Without the Jobs, every request would seem to lack its own.
        await self._listed.wait()
        while True:
            key = await self._queue.get()
            self._say(key)
            try:
                with self._metrics.reconcile_seconds.time():
                    await self._visit(key)
            except APIError as error:
                self._metrics.count_error("api")
                await self._failed(key, error)
            except Exception:
                # A bug that one request meets must not stop all others.
                self._metrics.count_error("bug")
                logger.exception("%s/%s cannot be reconciled", *key)
                self._queue.retry(key)
            else:
                self._queue.succeeded(key)
            finally:
                self._queue.done(key)

    def _say(self, key: Key) -> None:
        """Puts the request into this worker's log lines."""
        request = self._cache.request(key)
        uid = {"uid": request.uid} if request else {}
        request_in_log.set({"namespace": key[0], "name": key[1], **uid})

    async def _failed(self, key: Key, error: APIError) -> None:
        """Later again; after a conflict with the newest version."""
        level = logging.INFO if error.status in (404, 409) else logging.WARNING
        logger.log(level, "%s/%s: %s", *key, error)
        if error.status in (404, 409):
            await self._refresh(key)
        self._queue.retry(key, error.retry_after)

    async def _refresh(self, key: Key) -> None:
        try:
            body = await self._api.call("GET", requests_path(*key))
        except APIError as error:
            known = self._cache.request(key)
            if error.status == 404 and known is not None:
                self._cache.drop_request(known)
            return
        # Not into the queue: what fails again and again has to wait longer each time.
        self._take(None, body)

    async def _visit(self, key: Key) -> None:
        """Reconciles until nothing more is learnt by it."""
        learnt = True
        while learnt and (known := self._cache.request(key)) is not None:
            now = self._clock()
            delivery, refused = self._deliveries.get(known.uid), self._refused.get(known.uid)
            request = msgspec.structs.replace(
                known,
                delivery=delivery,
                refused=refused,
                parallelism_cap=self._settings.worker_max_parallelism,
            )
            decision = reconcile(request, self._cache.jobs(request.uid), now)
            learnt, left = False, None
            for action in decision.actions:
                try:
                    learnt = await self._perform(key, request, action, now) or learnt
                except APIError as error:
                    if not decision.status.is_true(Condition.FINISHED):
                        raise
                    # Only Jobs are left to be cleared up, and the end waits for none of them.
                    logger.warning("%s/%s: cannot let its Jobs go: %s", *key, error)
                    if error.transient:
                        left, decision = error, _unsettled(decision)
            await self._write(request, decision, now)
            if delivery is not None and self._deliveries.get(known.uid) is delivery:
                del self._deliveries[known.uid]
            if left is not None:
                raise left
            if decision.again is not None and decision.again <= now:
                learnt = True
            elif decision.again is not None:
                self._queue.add_after(key, (decision.again - now).total_seconds())

    async def _write(self, request: Request, decision: Decision, now: datetime) -> None:
        clock = asyncio.get_running_loop().time
        patch = changes(request.status, decision.status)
        ended = decision.status.is_true(Condition.FINISHED)
        last = self._written.get(request.uid)
        disputed = last is not None and last.disputed(request)
        if patch and last is not None and not ended:
            pause = last.pause if disputed else PROGRESS if is_progress(patch) else 0.0
            if (wait := last.when + pause - clock()) > 0:
                self._queue.add_after((request.namespace, request.name), wait)
                return
        written = await self._executor.write_status(request, patch)
        if written is not None:
            pause = min(2 * last.pause, _LONGEST_PAUSE) if last and disputed else PROGRESS
            version = written.resource_version
            self._written[request.uid] = _Written(clock(), version, request.generation, pause)
        if written is not None and ended and not request.status.is_true(Condition.FINISHED):
            self._metrics.count_end(written.status)
        if written is not None and written.status.settled:
            self._cache.drop_request(written)
            # What is left of it until the next list is its UID.
            for known in (self._written, self._looks):
                known.pop(request.uid, None)
        elif written is not None:
            self._cache.put_request(written)
        for event in decision.events:
            await self._executor.post_event(request, event, now)

    async def _perform(self, key: Key, request: Request, action: Action, now: datetime) -> bool:
        """Whether it found out something that may change the decision at once."""
        match action:
            case CreateJob():
                return await self._create(request, action, now)
            case UpdateJob():
                updated = await self._executor.update_job(action)
                if updated is None:
                    self._cache.drop_job(action.job)
                else:
                    found_out = {"report": action.job.report, "trouble": action.job.trouble}
                    self._cache.put_job(msgspec.structs.replace(updated, **found_out))
            case DeleteJob():
                await self._executor.delete_job(action.job, wait=action.wait)
            case ReadReport():
                self._cache.learn(action.job, report=await read_report(self._api, action.job))
                return True
            case FindTrouble():
                return await self._look(key, action.job, now)
            case Deliver():
                self._deliver(key, request, action.attempt)
        return False

    async def _create(self, request: Request, action: CreateJob, now: datetime) -> bool:
        made = await self._executor.create_job(request, action, now)
        before = self._refused.pop(request.uid, None)
        if isinstance(made, Job):
            self._cache.put_job(made)
            # One from before a crash may have ended, and no event tells of one that was let go.
            return before is not None or made.ended is not None
        if before is not None and before.reason == made.reason:
            made = msgspec.structs.replace(made, since=before.since)
        self._refused[request.uid] = made
        return before is None or before.message != made.message

    async def _look(self, key: Key, job: Job, now: datetime) -> bool:
        """Looks for trouble when it is time to, less and less often."""
        look = self._looks.get(job.request_uid)
        if look is None or look.job != job.uid:
            look = _Look(job.uid, max(now, job.created + QUIET), QUIET)
        elif now - look.due > QUIET:
            # Nobody asked when it was due: that trouble is over, and this is another.
            look = _Look(job.uid, now + QUIET, QUIET)
        if now >= look.due:
            trouble = await find_trouble(self._api, job, now)
            self._cache.learn(job, trouble=trouble)
            # Whether a Pod ends in time shows within its grace period.
            ending = job.terminating and trouble is None
            interval = QUIET if ending else min(2 * look.interval, _LONGEST_LOOK)
            look = _Look(job.uid, now + look.interval, interval)
        else:
            trouble = job.trouble
        self._looks[job.request_uid] = look
        self._queue.add_after(key, (look.due - now).total_seconds())
        return trouble != job.trouble

    def _deliver(self, key: Key, request: Request, attempt: int) -> None:
        """Sends in the background: a slow receiver delays nobody else."""
        # One that ended since the decision was made comes into status first.
        if request.uid in self._delivering or request.uid in self._deliveries:
            return

        async def send() -> None:
            try:
                delivery = await self._courier.deliver(request, attempt)
                self._metrics.count_attempt(delivery.outcome)
                self._deliveries[request.uid] = delivery
            finally:
                del self._delivering[request.uid]
                self._queue.add(key)

        self._delivering[request.uid] = asyncio.create_task(send())


def _unsettled(decision: Decision) -> Decision:
    """The same for a request that is visited again."""
    status = msgspec.structs.replace(decision.status, settled=False)
    return msgspec.structs.replace(decision, status=status)


class _Look(msgspec.Struct, frozen=True):
    """When a Job's trouble is looked for next, and how long after that again."""

    job: str
    due: datetime
    interval: timedelta


class _Written(msgspec.Struct, frozen=True):
    """The last status that we wrote; `when` is by the loop's clock, in seconds."""

    when: float
    version: str
    generation: int
    pause: float
    """Seconds until the next one where somebody else wrote meanwhile.

    Another operator that has not seen the same, or is of another version, would write the
    opposite at once, and so on (tried: 500 writes in 20 s).
    """

    def disputed(self, request: Request) -> bool:
        """Whether somebody has written since, and did not edit the spec."""
        return request.generation == self.generation and request.resource_version != self.version
