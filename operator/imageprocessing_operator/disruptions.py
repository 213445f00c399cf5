"""Pods that are ended from outside while they run, again and again. Pure.

A Pod that is evicted or deleted leaves nothing behind in the Job, and most often no Pod: they
are counted as others take their place. A new process knows of those that status tells of.
"""

from __future__ import annotations

from datetime import datetime

from imageprocessing_contract.reasons import Condition, Reason

from imageprocessing_operator.conditions import STALLED_AFTER
from imageprocessing_operator.state import Interruptions, Job, Seen, Trouble

LEAST = 3
"""Pods that must have gone while they ran, without any that got done, and more than run at once:
only then has one gone that took another's place, and the drain of a node is no trouble."""


def counted(known: Job, job: Job, now: datetime) -> Interruptions | None:
    """Those known before, and Pods that went between the two without an end that counts.

    A Pod that is done is not ready some seconds before the Job counts it (kubelet 1.34: 1 s
    until its phase is Succeeded, 1 s more until the Job knows). No other takes its place
    before, so what tells of a disruption is the next Pod that is ready.
    """
    on = _done(job) > _done(known)
    before = None if on else known.interruptions
    count, unsure = (before.count, before.unsure) if before else (0, 0)
    if known.suspended or job.suspended or job.deleting or job.ended:
        unsure = went = 0
    else:
        surplus = max(0, known.active - job.parallelism)
        unsure += max(0, known.ready - job.ready - surplus)
        unsure = max(0, unsure - (job.finished_pods - known.finished_pods))
        went = min(unsure, max(0, job.ready - known.ready))
    if not (count + went or unsure):
        return None
    return Interruptions(
        count=count + went,
        first=before.first if before and count else now,
        last=now if went or before is None else before.last,
        unsure=unsure - went,
    )


def remembered(request: Seen, job: Job, now: datetime) -> Interruptions | None:
    """Those of an earlier process, where status says that they were enough.

    The ten quiet minutes begin anew with this process, and where the request was not Stalled
    yet, those before it is.
    """
    status = request.status
    said, stalled = status.condition(Condition.RECONCILING), status.condition(Condition.STALLED)
    if said is None or said.reason != Reason.PODS_DISRUPTED or job.ended:
        return None
    shards = status.shards
    if job.step == "shards" and shards and _done(job) > shards.succeeded + shards.failed:
        return None
    blocked = stalled is not None and stalled.status == "True"
    first = stalled.last_transition_time - STALLED_AFTER if stalled and blocked else now
    return Interruptions(count=max(LEAST, job.parallelism + 1), first=first, last=now)


def trouble(job: Job, now: datetime) -> Trouble | None:
    """It goes on each time, or begins anew; ten quiet minutes are enough to forget it."""
    known = job.interruptions
    if known is None or now - known.last >= STALLED_AFTER:
        return None
    if known.count < max(LEAST, job.active + 1):
        return None
    # Without their number, or every one would be a write of status.
    message = (
        f"Pods of Job {job.name} are evicted or deleted again and again while they run; "
        "kubectl get events says by whom"
    )
    return Trouble(Reason.PODS_DISRUPTED, message, known.first)


def _done(job: Job) -> int:
    """Indexes that have ended, with or without success."""
    return job.succeeded + job.failed_indexes
