"""One visit to one request: decide, act, write status, and say when to come again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container
from datetime import datetime

import msgspec
from imageprocessing_contract.reasons import Condition

from imageprocessing_operator import looks, pacing
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
from imageprocessing_operator.api import API, APIError
from imageprocessing_operator.cache import Cache, Key
from imageprocessing_operator.deliveries import Deliveries
from imageprocessing_operator.executor import Executor
from imageprocessing_operator.metrics import Metrics
from imageprocessing_operator.reconcile import reconcile
from imageprocessing_operator.reports import read_report
from imageprocessing_operator.settings import Settings
from imageprocessing_operator.state import Job, Request, Seen, Trouble
from imageprocessing_operator.status import changes
from imageprocessing_operator.trouble import find_trouble
from imageprocessing_operator.unreadable import unreadable
from imageprocessing_operator.webhook import Courier
from imageprocessing_operator.workqueue import WorkQueue

logger = logging.getLogger(__name__)


class _Notes(msgspec.Struct):
    """What is remembered of a request from visit to visit; a new process begins without."""

    written: pacing.Written | None = None
    look: looks.Look | None = None
    refused: Trouble | None = None
    """Why the last write to one of its Jobs was refused."""

    def take_refusal(self, refused: Trouble | None) -> bool:
        """Whether it is news; the same cause keeps the time at which it was first seen."""
        before = self.refused
        if before is not None and refused is not None and before.reason == refused.reason:
            refused = msgspec.structs.replace(refused, since=before.since)
        self.refused = refused
        # Not by its words, in which a policy may count or date its refusals.
        return (before and before.reason) != (refused and refused.reason)


class Visitor:
    """Takes requests from the cache; the queue is told when they are to be visited again."""

    def __init__(
        self,
        api: API,
        courier: Courier,
        settings: Settings,
        metrics: Metrics,
        *,
        cache: Cache,
        queue: WorkQueue[Key],
        clock: Callable[[], datetime],
    ) -> None:
        self._api, self._settings, self._metrics, self._clock = api, settings, metrics, clock
        self._cache, self._queue = cache, queue
        self._executor = Executor(api, settings)
        self._deliveries = Deliveries(courier, metrics)
        self._notes: dict[str, _Notes] = {}

    def keep(self, living: Container[str]) -> None:
        """Forgets what was remembered of requests that are gone; `living` are UIDs."""
        self._notes = {uid: notes for uid, notes in self._notes.items() if uid in living}
        self._deliveries.keep(living)

    async def visit(self, key: Key) -> None:
        """Reconciles until nothing more is learnt by it; raises APIError."""
        learnt = True
        while learnt and (known := self._cache.request(key)) is not None:
            now, notes = self._clock(), self._notes.setdefault(known.uid, _Notes())
            if isinstance(known, Request):
                learnt = await self._reconcile(key, known, notes, now)
            else:
                await self._write(key, known, notes, unreadable(known, now), now)
                return

    async def _reconcile(self, key: Key, known: Request, notes: _Notes, now: datetime) -> bool:
        """Whether there is more to decide at once."""
        delivery = self._deliveries.last(known.uid)
        request = msgspec.structs.replace(
            known,
            delivery=delivery,
            refused=notes.refused,
            parallelism_cap=self._settings.worker_max_parallelism,
        )
        decision = reconcile(request, self._cache.jobs(request.uid), now)
        learnt, left, refused = False, None, None
        ended = decision.status.is_true(Condition.FINISHED)
        for action in decision.actions:
            try:
                found = await self._perform(key, request, notes, action, now)
            except APIError as error:
                if not ended:
                    raise
                # Only Jobs are left to be cleared up, and the end waits for none of them.
                logger.warning("%s/%s: cannot let its Jobs go: %s", *key, error)
                if error.transient:
                    left, decision = error, _unsettled(decision)
                continue
            if not isinstance(found, Trouble):
                learnt = found or learnt
            elif ended:
                logger.warning("%s/%s: cannot let its Jobs go: %s", *key, found.message)
            else:
                refused = refused or found
        learnt = notes.take_refusal(refused) or learnt
        await self._write(key, request, notes, decision, now)
        self._deliveries.is_in_status(known.uid, delivery)
        if left is not None:
            raise left
        if decision.again is None:
            return learnt
        if decision.again > now:
            self._queue.add_after(key, (decision.again - now).total_seconds())
        return learnt or decision.again <= now

    async def _write(
        self, key: Key, request: Seen, notes: _Notes, decision: Decision, now: datetime
    ) -> None:
        """Status when it may be written, and then the events."""
        clock = asyncio.get_running_loop().time
        patch = changes(request.status, decision.status, request.unreadable_status)
        ended = decision.status.is_true(Condition.FINISHED)
        last = None if ended or not patch else notes.written
        if last is not None and (wait := last.wait(request, patch, clock())) > 0:
            self._queue.add_after(key, wait)
            return
        if request.unreadable_status:
            names = ", ".join(request.unreadable_status)
            logger.warning("%s/%s: cannot read %s of status, taken as absent", *key, names)
        written = await self._executor.write_status(request, patch)
        if written is not None:
            notes.written = pacing.note(notes.written, request, written, clock())
            if ended and not request.status.is_true(Condition.FINISHED):
                self._metrics.count_end(written.status)
            if written.status.settled:
                self._cache.drop_request(written)
                self._notes.pop(request.uid, None)
            else:
                self._cache.put_request(written)
        for event in decision.events:
            await self._executor.post_event(request, event, now)

    async def _perform(
        self, key: Key, request: Request, notes: _Notes, action: Action, now: datetime
    ) -> bool | Trouble:
        """Whether it found out something that may change the decision at once, or a refusal."""
        match action:
            case CreateJob():
                made = await self._executor.create_job(request, action, now)
                if isinstance(made, Trouble):
                    return made
                self._cache.put_job(made)
                # One from before a crash may have ended; of one let go no event tells.
                return made.ended is not None
            case UpdateJob():
                updated = await self._executor.update_job(action, now)
                if isinstance(updated, Trouble):
                    return updated
                if updated is None:
                    self._cache.drop_job(action.job)
                else:
                    found_out = {"report": action.job.report, "trouble": action.job.trouble}
                    self._cache.put_job(msgspec.structs.replace(updated, **found_out))
            case DeleteJob():
                refused = await self._executor.delete_job(action.job, now, wait=action.wait)
                return refused or False
            case ReadReport():
                self._cache.learn(action.job, report=await read_report(self._api, action.job))
                return True
            case FindTrouble():
                return await self._look(key, notes, action.job, now)
            case Deliver():
                self._deliveries.send(request, action.attempt, lambda: self._queue.add(key))
        return False

    async def _look(self, key: Key, notes: _Notes, job: Job, now: datetime) -> bool:
        """Looks for trouble when it is time to."""
        look, trouble = looks.asked(notes.look, job, now), job.trouble
        if look.due <= now:
            trouble = await find_trouble(self._api, job, now)
            self._cache.learn(job, trouble=trouble)
            look = looks.taken(look, job, trouble, now)
        notes.look = look
        self._queue.add_after(key, (look.due - now).total_seconds())
        return trouble != job.trouble


def _unsettled(decision: Decision) -> Decision:
    """The same for a request that is visited again."""
    status = msgspec.structs.replace(decision.status, settled=False)
    return msgspec.structs.replace(decision, status=status)
