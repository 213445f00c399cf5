"""When to look for what keeps a Job's Pods from running: less and less often. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from imageprocessing_operator.reconcile import QUIET
from imageprocessing_operator.state import Job, Trouble

_LONGEST = timedelta(seconds=60)
"""Time between looks at a Job whose Pods do not run."""


class Look(msgspec.Struct, frozen=True):
    """When a Job's trouble is looked for next, and how long after that again."""

    job: str
    due: datetime
    interval: timedelta


def asked(last: Look | None, job: Job, now: datetime) -> Look:
    """The look that is next, now that one is asked for; it may be due."""
    if last is None or last.job != job.uid:
        return Look(job.uid, max(now, job.created + QUIET), QUIET)
    if now - last.due > QUIET:
        # Nobody asked when it was due: that trouble is over, and this is another.
        return Look(job.uid, now + QUIET, QUIET)
    return last


def taken(look: Look, job: Job, found: Trouble | None, now: datetime) -> Look:
    """The look after one that found this."""
    # Whether a Pod ends in time shows within its grace period.
    ending = job.terminating and found is None
    interval = QUIET if ending else min(2 * look.interval, _LONGEST)
    return Look(job.uid, now + look.interval, interval)
