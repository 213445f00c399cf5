"""Pods that are ended from outside while they run."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import pytest
from imageprocessing_contract.reasons import Condition, Reason
from imageprocessing_operator import conditions
from imageprocessing_operator.cache import Cache
from imageprocessing_operator.conditions import Phase, Said
from imageprocessing_operator.disruptions import LEAST, counted, remembered, trouble
from imageprocessing_operator.state import Interruptions, Job
from imageprocessing_operator.status import Shards, Status

from tests.unit.operator_state import NOW, a_job, a_request, after

RUNNING = a_job("shards", active=2, ready=2, parallelism=2, completions=9)
GONE: dict[str, tuple[dict[str, Any], int]] = {
    "evicted": ({"ready": 1}, 1),
    "all of them": ({"ready": 0, "active": 0, "terminating": 2}, 2),
    "another in its place": ({"ready": 1, "active": 2}, 1),
    "done": ({"ready": 1, "succeeded": 1, "finished_pods": 1}, 0),
    "failed": ({"ready": 1, "finished_pods": 1}, 0),
    "failed for good": ({"ready": 1, "failed_indexes": 1, "finished_pods": 1}, 0),
    "suspended": ({"ready": 0, "suspended": True}, 0),
    "fewer wanted": ({"ready": 1, "parallelism": 1}, 0),
    "being deleted": ({"ready": 0, "deleting": True}, 0),
    "ended": ({"ready": 0, "ended": "Failed"}, 0),
    "one more": ({"ready": 3}, 0),
}


@pytest.mark.parametrize("case", GONE)
def test_pods_that_went_while_they_ran(case: str) -> None:
    """They are counted when as many run again."""
    fields, expected = GONE[case]
    then = msgspec.structs.replace(RUNNING, **fields)
    found = counted(RUNNING, then, NOW)
    assert found is None or found.count == 0
    then = msgspec.structs.replace(then, interruptions=found)
    again = msgspec.structs.replace(then, ready=2, active=2, terminating=0)
    found = counted(then, again, NOW)
    assert (found.count if found else 0) == expected


@pytest.mark.parametrize(("active", "least"), [(0, 3), (1, 3), (2, 3), (3, 4), (10, 11)])
def test_the_drain_of_a_node_is_no_trouble(active: int, least: int) -> None:
    """However many of the Pods that run at once it ends."""
    for count in (least - 1, least):
        known = Interruptions(count=count, first=NOW, last=NOW)
        found = trouble(a_job("shards", active=active, interruptions=known), NOW)
        assert (found is not None) == (count == least)


# Statuses of a Job on a real node whose shards end four at a time: active, ready, succeeded.
WAVES = [(4, 0, 0), (4, 4, 0), (4, 0, 0), (4, 0, 4), (4, 4, 4), (4, 1, 4), (1, 0, 7), (0, 0, 8)]


def test_pods_that_are_done_together_are_no_disruption() -> None:
    """They are not ready any more before the Job counts them."""
    job = a_job("shards", parallelism=4, completions=8)
    for active, ready, done in WAVES:
        seen = msgspec.structs.replace(
            job, active=active, ready=ready, succeeded=done, finished_pods=done
        )
        job = msgspec.structs.replace(seen, interruptions=counted(job, seen, NOW))
        assert trouble(job, NOW) is None, (active, ready, done)


def test_failures_that_are_counted_late_are_no_disruption() -> None:
    fallen = msgspec.structs.replace(RUNNING, ready=0)
    fallen = msgspec.structs.replace(fallen, interruptions=counted(RUNNING, fallen, NOW))
    failed = msgspec.structs.replace(fallen, finished_pods=2)
    failed = msgspec.structs.replace(failed, interruptions=counted(fallen, failed, NOW))
    assert counted(failed, msgspec.structs.replace(failed, ready=2), NOW) is None


WHY = Said("True", Reason.PODS_DISRUPTED, "evicted")
RECONCILING = conditions.running(Reason.PROCESSING, "", WHY)
STALLED = conditions.blocked(Reason.PODS_DISRUPTED, "evicted")


def told(phase: Phase, at: datetime = NOW) -> Status:
    """A status that says so, with one shard of nine done and one failed."""
    said = {Condition.RECONCILING: phase.reconciling, Condition.STALLED: phase.stalled}
    found = conditions.apply(Status(), 1, at, said)
    return Status(conditions=found, shards=Shards(total=9, succeeded=1, failed=1))


GOING = msgspec.structs.replace(RUNNING, succeeded=1, failed_indexes=1)
REMEMBERED: dict[str, tuple[Status, Job, datetime | None]] = {
    "reconciling": (told(RECONCILING), GOING, after(3600)),
    "stalled": (told(STALLED, after(900)), GOING, after(300)),
    "another trouble": (
        told(conditions.blocked(Reason.UNSCHEDULABLE, "no node")),
        GOING,
        None,
    ),
    "nothing was said": (Status(), GOING, None),
    "it got on": (told(STALLED), msgspec.structs.replace(GOING, succeeded=2), None),
    "it failed on": (told(STALLED), msgspec.structs.replace(GOING, failed_indexes=2), None),
    "it ended": (told(STALLED), msgspec.structs.replace(GOING, ended="Failed"), None),
    "a plan": (told(RECONCILING), a_job("plan"), after(3600)),
}


@pytest.mark.parametrize("case", REMEMBERED)
def test_what_an_earlier_process_said(case: str) -> None:
    """It holds on until the Job gets on, or ten minutes are quiet, and stays Stalled."""
    status, job, since = REMEMBERED[case]
    now = after(3600)
    found = remembered(a_request(status), job, now)
    expected = since and Interruptions(count=LEAST, first=since, last=now)
    assert found == expected
    if since is None:
        return
    after_it = msgspec.structs.replace(job, interruptions=found)
    told_again = trouble(after_it, after(3600 + 599))
    assert told_again is not None
    assert (told_again.reason, told_again.since) == (Reason.PODS_DISRUPTED, since)
    assert trouble(after_it, after(3600 + 600)) is None


def test_only_of_jobs_that_an_earlier_process_had() -> None:
    """One that was made anew has not met anything yet; a list does not bring it back."""
    cache = Cache(lambda: after(3600))
    cache.expect_list()
    old = msgspec.structs.replace(GOING, created=after(3599))
    new = msgspec.structs.replace(GOING, created=after(3600), uid="new")
    cache.replace([a_request(told(RECONCILING))], [old, new])
    known = {job.uid: job.interruptions is not None for job in cache.jobs(a_request().uid)}
    assert known == {old.uid: True, "new": False}
