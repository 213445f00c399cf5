"""What reconcile decides, one state at a time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imageprocessing_contract import report
from imageprocessing_contract.reasons import Condition, Reason
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
from imageprocessing_operator.reconcile import MAX_ATTEMPTS, reconcile
from imageprocessing_operator.state import Interruptions, Job, LostReport, Trouble
from imageprocessing_operator.status import Images, Progress, Shards, Status, Steps

from tests.unit.operator_state import (
    NOW,
    PLANNED,
    WEBHOOK,
    a_job,
    a_request,
    after,
    done,
    reason,
    said,
)

LOST = LostReport("gone")
WHOLE = msgspec.structs.replace(PLANNED, shards=1, done=done(20))
BEGUN = Status(start_time=NOW, steps=Steps(plan=1))
SHARDED = msgspec.structs.replace(
    BEGUN,
    shards=Shards(total=2),
    images=Images(total=20),
    catalogue=PLANNED.catalogue,
    steps=Steps(plan=1, shards=1),
)
ENDING = msgspec.structs.replace(SHARDED, steps=Steps(plan=1, shards=1, finalize=1))
RUNNING_SHARDS = a_job("shards", parallelism=2, completions=2, active=2, ready=2)


def ended(step: Any, found: report.Report | LostReport | None = None, **fields: Any) -> Job:
    return a_job(step, **{"ended": "Complete", "report": found, **fields})


def error(step: Any, why: str, **fields: Any) -> report.Report:
    return report.Report(step=step, error=report.Error(reason=why, message="m"), **fields)


def names_of(actions: list[Action]) -> list[str]:
    """Actions in short: what, the step, and what matters of it."""
    return [_name(action) for action in actions]


def _name(action: Action) -> str:
    match action:
        case CreateJob(step, attempt, _, cause):
            return f"create {step} {attempt}" + (f" {cause}" if cause else "")
        case UpdateJob(job, suspend, parallelism, ttl):
            changes = {"suspend": suspend, "parallelism": parallelism, "ttl": ttl}
            words = [f"{key}={value}" for key, value in changes.items() if value is not None]
            return f"update {job.step} {' '.join(words)}"
        case DeleteJob(job):
            return f"delete {job.step}"
        case ReadReport(job):
            return f"read {job.step}"
        case FindTrouble(job):
            return f"look {job.step}"
        case Deliver(attempt):
            return f"deliver {attempt}"


# Status, Jobs, what is done, and Ready's reason.
CASES: dict[str, tuple[Status, list[Job], list[str], str]] = {
    "new": (Status(), [], ["create plan 1"], "Planning"),
    "plan runs": (BEGUN, [a_job("plan")], [], "Planning"),
    "no Pod": (BEGUN, [a_job("plan", active=0, ready=0)], ["look plan"], "Planning"),
    "not ready": (BEGUN, [a_job("plan", ready=0)], ["look plan"], "Planning"),
    "a Pod lingers": (BEGUN, [a_job("plan", terminating=1)], ["look plan"], "Planning"),
    "Job lost": (BEGUN, [], ["create plan 1"], "Planning"),
    "second attempt lost": (
        msgspec.structs.replace(BEGUN, steps=Steps(plan=2)),
        [],
        ["create plan 2"],
        "Planning",
    ),
    "name not free yet": (BEGUN, [a_job("plan", deleting=True, ready=0)], [], "Planning"),
    "not ours": (BEGUN, [a_job("plan", owned=False)], ["create plan 1"], "Planning"),
    "elsewhere": (BEGUN, [a_job("plan", namespace="other")], ["create plan 1"], "Planning"),
    "report unread": (BEGUN, [ended("plan")], ["read plan"], "Planning"),
    "one Pod did it": (BEGUN, [ended("plan", WHOLE)], ["update plan ttl=600"], "Succeeded"),
    "shards next": (BEGUN, [ended("plan", PLANNED)], ["create shards 1"], "Processing"),
    "plan lost": (BEGUN, [ended("plan", LOST)], ["create plan 2"], "Planning"),
    "plan lost for good": (
        BEGUN,
        [ended("plan", LOST, attempt=MAX_ATTEMPTS)],
        ["update plan ttl=600"],
        "ReportLost",
    ),
    "plan failed, nothing known": (
        BEGUN,
        [ended("plan", LOST, ended="Failed")],
        ["create finalize 1"],
        "Finalizing",
    ),
    "plan refused": (
        BEGUN,
        [ended("plan", error("plan", "CatalogueInvalid"), ended="Failed")],
        ["update plan ttl=600"],
        "CatalogueInvalid",
    ),
    "plan refused, newer worker": (
        BEGUN,
        [ended("plan", error("plan", "Newer"), ended="Failed")],
        ["update plan ttl=600"],
        "PlanFailed",
    ),
    "one shard failed in the plan": (
        BEGUN,
        [ended("plan", error("plan", "X", shards=1), ended="Failed")],
        ["create finalize 1"],
        "Finalizing",
    ),
    "shards run": (SHARDED, [RUNNING_SHARDS], [], "Processing"),
    "fewer at once than wanted": (
        SHARDED,
        [msgspec.structs.replace(RUNNING_SHARDS, parallelism=1, active=1, ready=1)],
        ["update shards parallelism=2"],
        "Processing",
    ),
    "resumed": (
        SHARDED,
        [msgspec.structs.replace(RUNNING_SHARDS, suspended=True, active=0, ready=0)],
        ["update shards suspend=False"],
        "Processing",
    ),
    "shards ended": (SHARDED, [ended("shards")], ["create finalize 1"], "Finalizing"),
    "shards failed": (
        SHARDED,
        [ended("shards", ended="Failed")],
        ["create finalize 1"],
        "Finalizing",
    ),
    "finalize lost": (ENDING, [ended("finalize", LOST)], ["create finalize 2"], "Finalizing"),
    "finalize failed": (
        ENDING,
        [ended("finalize", LOST, ended="Failed")],
        ["update finalize ttl=600"],
        "FinalizeFailed",
    ),
    "finalized": (
        ENDING,
        [ended("finalize", report.Report(step="finalize", done=done(15, 5)))],
        ["update finalize ttl=600"],
        "PartiallySucceeded",
    ),
    "what was stopped goes": (
        ENDING,
        [
            ended("finalize", report.Report(step="finalize", done=done(15, 5))),
            a_job("shards", suspended=True),
        ],
        ["update finalize ttl=600", "delete shards"],
        "PartiallySucceeded",
    ),
    "status lost": (Status(), [ended("plan", PLANNED), RUNNING_SHARDS], [], "Processing"),
    "no plan in the output": (
        ENDING,
        [ended("finalize", error("finalize", "NotPlanned"), ended="Failed")],
        ["update finalize ttl=600"],
        "PlanFailed",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_state(case: str) -> None:
    status, jobs, actions, ready = CASES[case]
    decision = reconcile(a_request(status), jobs, NOW)
    assert names_of(decision.actions) == actions
    assert reason(decision.status, Condition.READY) == ready


# Seconds since the start, status, Jobs and what is done, with a deadline of 3600 s.
DEADLINES: dict[str, tuple[int, Status, list[Job], list[str]]] = {
    "before": (3599, SHARDED, [RUNNING_SHARDS], []),
    "stopped": (3600, SHARDED, [RUNNING_SHARDS], ["update shards suspend=True"]),
    "Pods still end": (
        3600,
        SHARDED,
        [a_job("shards", suspended=True, active=0, ready=0, terminating=2)],
        ["look shards"],
    ),
    "all ended": (
        3600,
        SHARDED,
        [a_job("shards", suspended=True, active=0, ready=0)],
        ["create finalize 1 DeadlineExceeded"],
    ),
    "stopped in the plan": (3600, BEGUN, [a_job("plan")], ["update plan suspend=True"]),
    "Job lost": (3600, SHARDED, [], ["create finalize 1 DeadlineExceeded"]),
    "just done": (3600, SHARDED, [ended("shards", completions=2)], ["create finalize 1"]),
    "just planned": (
        3600,
        BEGUN,
        [ended("plan", PLANNED)],
        ["create finalize 1 DeadlineExceeded"],
    ),
    "time stood still": (
        3600,
        msgspec.structs.replace(SHARDED, suspended_seconds=1),
        [RUNNING_SHARDS],
        [],
    ),
    "finalize takes its time": (9999, ENDING, [a_job("finalize")], []),
}


@pytest.mark.parametrize("case", DEADLINES)
def test_the_deadline(case: str) -> None:
    seconds, status, jobs, actions = DEADLINES[case]
    assert names_of(reconcile(a_request(status), jobs, after(seconds)).actions) == actions


def test_the_next_look_is_not_after_the_deadline() -> None:
    assert reconcile(a_request(SHARDED), [RUNNING_SHARDS], after(3595)).again == after(3600)


def test_what_only_waits_is_visited_seldom() -> None:
    """Events tell what its Job does; what was refused has to be tried again."""
    refused = Trouble(Reason.JOB_REFUSED, "quota", NOW)
    final = msgspec.structs.replace(refused, final=True)
    waits = [
        (a_request(SHARDED), [RUNNING_SHARDS], 60),
        (a_request(BEGUN), [a_job("plan", ready=0)], 60),
        (msgspec.structs.replace(a_request(BEGUN), refused=refused), [], 10),
        (msgspec.structs.replace(a_request(BEGUN), refused=final), [], 30),
    ]
    for request, jobs, seconds in waits:
        assert reconcile(request, jobs, NOW).again == after(seconds)


CHANGE = Trouble(Reason.JOB_CHANGE_REFUSED, "by a policy", NOW, final=True)
HELD = a_job("shards", suspended=True, parallelism=2, completions=2)
CHANGES: dict[str, tuple[bool, Job, float]] = {
    "suspending": (True, RUNNING_SHARDS, 0),
    "resuming": (False, HELD, 0),
    "stopping at the deadline": (False, RUNNING_SHARDS, 3600),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_of_a_job_that_is_refused(case: str) -> None:
    """It is said, and tried again, also while the request should be suspended."""
    suspend, job, seconds = CHANGES[case]
    request = msgspec.structs.replace(a_request(SHARDED, suspend=suspend), refused=CHANGE)
    decision = reconcile(request, [job], after(seconds))
    assert decision.actions != []
    assert reason(decision.status, Condition.STALLED) == Reason.JOB_CHANGE_REFUSED
    assert decision.again == after(seconds + 30)
    # Fewer Pods is nothing that the rest waits for.
    milder = msgspec.structs.replace(CHANGE, final=False)
    if seconds == 0:
        mild = reconcile(msgspec.structs.replace(request, refused=milder), [job], NOW)
        assert reason(mild.status, Condition.RECONCILING) == Reason.JOB_CHANGE_REFUSED
        assert said(mild.status)["Stalled"] == "False"
    # Why a Job could not be made once says nothing about those that are there.
    other = Trouble(Reason.JOB_REFUSED, "quota", NOW, final=True)
    free = reconcile(msgspec.structs.replace(request, refused=other), [job], after(seconds))
    assert said(free.status)["Stalled"] == "False"


def test_suspension_stops_the_clock() -> None:
    decision = reconcile(a_request(SHARDED, suspend=True), [RUNNING_SHARDS], after(10))
    assert names_of(decision.actions) == ["update shards suspend=True"]
    assert decision.status.suspend_time == after(10)
    resumed = reconcile(a_request(decision.status), [RUNNING_SHARDS], after(70))
    assert resumed.status.suspend_time is None
    assert resumed.status.suspended_seconds == 60


def test_one_that_is_suspended_from_the_beginning_has_not_started() -> None:
    decision = reconcile(a_request(suspend=True), [], NOW)
    assert (decision.actions, decision.events, decision.status.start_time) == ([], [], None)
    decision = reconcile(a_request(decision.status), [], after(60))
    assert decision.status.start_time == after(60)
    assert decision.status.suspended_seconds == 0


def test_a_queue_decides_itself() -> None:
    queued = msgspec.structs.replace(a_request(SHARDED), queue="q")
    waiting = a_job("shards", suspended=True, parallelism=1, completions=2, active=0, ready=0)
    assert reconcile(queued, [waiting], NOW).actions == []
    suspended = msgspec.structs.replace(a_request(SHARDED, suspend=True), queue="q")
    assert names_of(reconcile(suspended, [RUNNING_SHARDS], NOW).actions) == ["delete shards"]


def test_a_deleted_jobs_pods_end_before_finalize_begins() -> None:
    """Kueue's Jobs are deleted at the deadline: until they are gone their Pods checkpoint."""
    queued = msgspec.structs.replace(a_request(SHARDED), queue="q")
    (stop,) = reconcile(queued, [RUNNING_SHARDS], after(9999)).actions
    assert isinstance(stop, DeleteJob)
    assert stop.wait
    leaving = msgspec.structs.replace(RUNNING_SHARDS, deleting=True, active=0, ready=0)
    assert reconcile(queued, [leaving], after(9999)).actions == []
    assert names_of(reconcile(queued, [], after(9999)).actions) == [
        "create finalize 1 DeadlineExceeded"
    ]


def test_counts_are_true_while_suspended_and_at_the_end() -> None:
    """What ran when the request was stopped does not run any more."""
    stopped = msgspec.structs.replace(
        RUNNING_SHARDS, suspended=True, active=0, ready=0, succeeded=1
    )
    shards = reconcile(a_request(SHARDED, suspend=True), [stopped], NOW).status.shards
    assert shards is not None
    assert (shards.active, shards.succeeded) == (0, 1)
    assert SHARDED.shards is not None
    busy = msgspec.structs.replace(ENDING, shards=msgspec.structs.replace(SHARDED.shards, active=7))
    failed = a_job("finalize", ended="Failed", report=LostReport("gone"))
    ended = reconcile(a_request(busy), [failed], NOW).status
    assert ended.is_true(Condition.FINISHED)
    assert ended.shards is not None
    assert ended.shards.active == 0


def test_what_is_being_deleted_is_left_alone() -> None:
    request = msgspec.structs.replace(a_request(BEGUN), deleting=True)
    decision = reconcile(request, [], NOW)
    assert decision == Decision(actions=[], status=request.status)


@pytest.mark.parametrize(
    ("final", "seconds", "stalled"),
    [(False, 0, "False"), (False, 599, "False"), (False, 600, "True"), (True, 0, "True")],
)
def test_trouble_becomes_stalled(final: bool, seconds: int, stalled: str) -> None:
    trouble = Trouble(Reason.UNSCHEDULABLE, "no node", NOW, final)
    job = a_job("plan", ready=0, trouble=trouble)
    status = reconcile(a_request(BEGUN), [job], after(seconds)).status
    assert said(status)["Stalled"] == stalled
    assert said(status)["Reconciling"] == ("True" if stalled == "False" else "False")
    assert reason(status, Condition.RECONCILING) == "Unschedulable"


def test_progress_is_what_the_indexes_say() -> None:
    job = msgspec.structs.replace(RUNNING_SHARDS, active=1, ready=1, failed_indexes=1)
    status = reconcile(a_request(SHARDED), [job], NOW).status
    assert status.images == Images(total=20, processed=10)
    assert status.shards == Shards(total=2, active=1, succeeded=0, failed=1)


def test_rate_and_time_left_while_shards_run() -> None:
    """From when they begin to run; a suspension, a standstill and the end take them away."""
    begun = reconcile(a_request(SHARDED), [RUNNING_SHARDS], NOW).status
    assert begun.progress == Progress(since=NOW)
    half = msgspec.structs.replace(RUNNING_SHARDS, active=1, ready=1, succeeded=1)
    status = reconcile(a_request(begun), [half], after(60)).status
    assert status.progress == Progress(since=NOW, images_per_minute=10, time_left="60s")
    same = reconcile(a_request(status), [half], after(90)).status
    assert same.progress == status.progress

    no_node = Trouble(Reason.UNSCHEDULABLE, "no node", NOW)
    blocked = msgspec.structs.replace(half, ready=0, trouble=no_node)
    waits = reconcile(a_request(status), [blocked], after(90)).status
    assert waits.progress is None
    runs = reconcile(a_request(waits), [half], after(95)).status
    assert runs.progress == Progress(since=after(95), processed_before=10)
    others_run = msgspec.structs.replace(half, active=2, ready=1, trouble=no_node)
    others = reconcile(a_request(status), [others_run], after(90)).status
    assert others.progress == status.progress

    suspended = reconcile(a_request(status, suspend=True), [half], after(90)).status
    assert suspended.progress is None
    waiting = msgspec.structs.replace(half, suspended=True, active=0, ready=0)
    assert reconcile(a_request(suspended), [waiting], after(95)).status.progress is None
    resumed = reconcile(a_request(suspended), [half], after(100)).status
    assert resumed.progress == Progress(since=after(100), processed_before=10)
    over = msgspec.structs.replace(half, ended="Complete", active=0, ready=0, succeeded=2)
    assert reconcile(a_request(resumed), [over], after(110)).status.progress is None
    # Wherever it came from.
    finalizing = msgspec.structs.replace(resumed, steps=Steps(plan=1, shards=1, finalize=1))
    assert reconcile(a_request(finalizing), [over], after(110)).status.progress is None


# -- any state ----------------------------------------------------------------------

REPORTS = st.sampled_from(
    [
        None,
        LOST,
        PLANNED,
        WHOLE,
        report.Report(step="finalize", done=done(10, 10)),
        report.Report(step="finalize", done=done(0, 20, cause="DeadlineExceeded")),
        error("plan", "CatalogueInvalid"),
        error("plan", "Newer", shards=1),
        error("finalize", "NotPlanned"),
        report.Report(step="plan"),
    ]
)
TROUBLES = st.sampled_from(
    [
        None,
        Trouble(Reason.UNSCHEDULABLE, "m", NOW),
        Trouble(Reason.JOB_REFUSED, "m", NOW, final=True),
    ]
)
JOBS = st.builds(
    a_job,
    st.sampled_from(["plan", "shards", "finalize"]),
    attempt=st.integers(1, MAX_ATTEMPTS),
    owned=st.booleans(),
    deleting=st.booleans(),
    suspended=st.booleans(),
    active=st.integers(0, 2),
    ready=st.integers(0, 2),
    terminating=st.integers(0, 1),
    succeeded=st.integers(0, 2),
    completions=st.integers(1, 3),
    ended=st.sampled_from([None, None, "Complete", "Failed"]),
    report=REPORTS,
    trouble=TROUBLES,
)
STATUSES = st.builds(
    Status,
    start_time=st.sampled_from([None, NOW, after(-9999)]),
    suspend_time=st.sampled_from([None, NOW]),
    catalogue=st.sampled_from([None, PLANNED.catalogue]),
    shards=st.sampled_from([None, Shards(total=1), Shards(total=2)]),
    images=st.sampled_from([None, Images(total=20)]),
    steps=st.builds(
        Steps, plan=st.integers(0, 5), shards=st.integers(0, 2), finalize=st.integers(0, 5)
    ),
)
ROWS = {
    ("Unknown", "True", "False", "False"),  # running
    ("False", "False", "False", "False"),  # suspended
    ("False", "False", "True", "False"),  # blocked
    ("True", "False", "False", "True"),  # succeeded
    ("False", "False", "True", "True"),  # failed
}
"""Ready, Reconciling, Stalled and Finished: the table of docs/design.md, section 3."""


def row(status: Status) -> tuple[str, str, str, str]:
    found = said(status)
    return found["Ready"], found["Reconciling"], found["Stalled"], found["Finished"]


@given(
    status=STATUSES,
    jobs=st.lists(JOBS, max_size=4),
    suspend=st.booleans(),
    queue=st.sampled_from([None, "q"]),
    webhook=st.booleans(),
    refused=TROUBLES,
)
def test_any_state_leads_on(
    status: Status,
    jobs: list[Job],
    suspend: bool,
    queue: str | None,
    webhook: bool,
    refused: Trouble | None,
) -> None:
    """Nothing is raised, the conditions are a row of the table, and something is waited for."""
    spec = {"webhook": WEBHOOK} if webhook else {}
    request = msgspec.structs.replace(
        a_request(status, suspend=suspend, **spec), queue=queue, refused=refused
    )
    decision = reconcile(request, jobs, NOW)
    assert row(decision.status) in ROWS
    assert {c.type for c in decision.status.conditions} == set(Condition)
    is_finished = decision.status.is_true(Condition.FINISHED)
    assert decision.status.settled == (is_finished and not webhook)
    assert decision.actions or decision.again or suspend or decision.status.settled


@given(status=STATUSES, jobs=st.lists(JOBS, max_size=4), queue=st.sampled_from([None, "q"]))
def test_any_state_ends(status: Status, jobs: list[Job], queue: str | None) -> None:
    """In a world that does what is asked, every state comes to Finished."""
    request = msgspec.structs.replace(a_request(status), queue=queue)
    now = NOW
    for _ in range(40):
        decision = reconcile(request, jobs, now)
        if decision.status.is_true(Condition.FINISHED):
            return
        request = msgspec.structs.replace(request, status=decision.status)
        jobs = world(jobs, decision.actions, queue)
        now = max(now, decision.again or now)
    pytest.fail(f"never finished: {jobs} {request.status}")


GOOD: dict[str, report.Report] = {
    "plan": PLANNED,
    "finalize": report.Report(step="finalize", done=done(20)),
}


def world(jobs: list[Job], actions: list[Action], queue: str | None) -> list[Job]:
    """The cluster a little later: what was asked for is done, and what runs has ended."""
    by_uid = {job.uid: job for job in jobs}
    for action in actions:
        match action:
            case CreateJob(step, attempt):
                made = a_job(step, attempt=attempt, report=None)
                by_uid.setdefault(made.uid, made)
                by_uid[made.uid] = msgspec.structs.replace(by_uid[made.uid], owned=True)
            case DeleteJob(job):
                by_uid.pop(job.uid, None)
            case UpdateJob(job, suspend) if suspend is not None:
                by_uid[job.uid] = msgspec.structs.replace(by_uid[job.uid], suspended=suspend)
            case ReadReport(job):
                found = GOOD.get(job.step, PLANNED)
                by_uid[job.uid] = msgspec.structs.replace(by_uid[job.uid], report=found)
            case _:
                pass
    return [later(job, queue) for job in by_uid.values() if not job.deleting]


def later(job: Job, queue: str | None) -> Job:
    """A Job that runs has ended; one that is suspended has no Pods, if no queue lets it go."""
    replace = msgspec.structs.replace
    if job.ended:
        return job
    if job.suspended and queue is None:
        return replace(job, active=0, ready=0, terminating=0)
    return replace(job, active=0, ready=0, terminating=0, ended="Complete", report=None)


def test_a_webhook_waits_for_no_event() -> None:
    """Should the watch lose what the end wrote, the outbox is looked at all the same."""
    decision = reconcile(a_request(BEGUN, webhook=WEBHOOK), [ended("plan", WHOLE)], NOW)
    assert decision.status.webhook is not None
    assert decision.again == NOW
    told = reconcile(a_request(decision.status, webhook=WEBHOOK), [], NOW)
    assert names_of(told.actions) == ["deliver 1"]


def test_jobs_are_let_go_once() -> None:
    """By their label: somebody else may set a TTL of all Jobs."""
    finished = reconcile(a_request(BEGUN, webhook=WEBHOOK), [ended("plan", WHOLE)], NOW)
    assert names_of(finished.actions) == ["update plan ttl=600"]
    again = a_request(finished.status, webhook=WEBHOOK)
    gone = reconcile(again, [ended("plan", WHOLE, let_go=True)], NOW)
    assert names_of(gone.actions) == ["deliver 1"]


@pytest.mark.parametrize(
    ("count", "first", "last", "reconciling", "stalled"),
    [
        (2, 0, 0, Reason.PROGRESSING, "False"),
        (3, 0, 0, Reason.PODS_DISRUPTED, "False"),
        (9, -599, 0, Reason.PODS_DISRUPTED, "False"),
        (9, -600, 0, Reason.PODS_DISRUPTED, "True"),
        (9, -900, -600, Reason.PROGRESSING, "False"),
    ],
)
def test_disruptions(count: int, first: int, last: int, reconciling: Reason, stalled: str) -> None:
    """Three are trouble until ten minutes are quiet; ten minutes of trouble are a stall."""
    known = Interruptions(count=count, first=after(first), last=after(last))
    status = reconcile(a_request(BEGUN), [a_job("plan", interruptions=known)], NOW).status
    assert reason(status, Condition.RECONCILING) == reconciling
    assert said(status)["Stalled"] == stalled
