"""Ties it together: events feed the queue, workers reconcile one request at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from imageprocessing_contract import names

from imageprocessing_operator.api import API, APIError, jobs_path, requests_path
from imageprocessing_operator.cache import Cache, Key
from imageprocessing_operator.freshness import Freshness
from imageprocessing_operator.logs import request_in_log
from imageprocessing_operator.metrics import Metrics
from imageprocessing_operator.settings import Settings
from imageprocessing_operator.state import Job, Seen, read_job, read_request
from imageprocessing_operator.visitor import Visitor
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
_LIST_AGAIN = 5.0  # seconds after a list that failed


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
        self._api, self._settings, self._metrics = api, settings, metrics
        self._cache = Cache(clock)
        self._listed, self._gap = asyncio.Event(), asyncio.Event()
        self._unlisted: APIError | None = None
        self._queue: WorkQueue[Key] = WorkQueue()
        self._visitor = Visitor(
            api, courier, settings, metrics, cache=self._cache, queue=self._queue, clock=clock
        )

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
        request = read_request(body)
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
        requests: list[Seen] = []
        jobs: list[Job] = []
        everywhere: list[str | None] = [None]
        for namespace in self._settings.namespaces or everywhere:
            selector = {"fieldSelector": UNSETTLED}
            async for body in self._api.list(requests_path(namespace), selector):
                requests.append(read_request(body))
            label = {"labelSelector": UNFINISHED}
            async for body in self._api.list(jobs_path(namespace), label):
                if (job := read_job(body)) is not None:
                    jobs.append(job)
        self._cache.replace(requests, jobs)
        living = {request.uid for request in self._cache.requests()}
        self._visitor.keep(living)
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
                    await self._visitor.visit(key)
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
