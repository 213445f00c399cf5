"""What to do about a request, from what is known of it and its Jobs. Pure.

Any state of the cluster, however it came about, leads to the end: nothing here
depends on how it was reached, only on what is there now.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from imageprocessing_contract.reasons import Condition, EventReason, Reason
from imageprocessing_contract.report import Done, Report
from imageprocessing_contract.task import Step

from imageprocessing_operator import conditions, outbox
from imageprocessing_operator.actions import (
    Action,
    CreateJob,
    Decision,
    DeleteJob,
    Event,
    FindTrouble,
    ReadReport,
    UpdateJob,
)
from imageprocessing_operator.conditions import Phase, Said
from imageprocessing_operator.outcome import judge
from imageprocessing_operator.progress import reckon
from imageprocessing_operator.state import Job, LostReport, Request, Trouble
from imageprocessing_operator.status import Images, Shards, Status, Steps

MAX_ATTEMPTS = 5
"""Jobs of one step whose report was lost, before the request fails."""
MAX_SUSPENDED = 3_153_600_000
"""Seconds of all suspensions that status holds, as in the CRD: a hundred years."""
QUIET = timedelta(seconds=10)
"""How long a Job may have no running Pod before its cause is looked for."""
DISRUPTIONS = 3
"""Pods that went while they ran, without any that got done: one drain of a node is no trouble."""
LONG_WAIT = timedelta(seconds=30)
"""How long a request that is blocked is left alone."""
STALLED_AFTER = timedelta(minutes=10)
"""A Deployment's progress deadline: nodes may be scaling up until then."""

_WORKING: dict[Step, tuple[Reason, str]] = {
    "plan": (Reason.PLANNING, "the catalogue is being read"),
    "shards": (Reason.PROCESSING, "images are being fetched and compressed"),
    "finalize": (Reason.FINALIZING, "the result files are being written"),
}


_PLAN_ERRORS = frozenset(
    {
        Reason.CATALOGUE_INVALID,
        Reason.SOURCE_NOT_READABLE,
        Reason.OUTPUT_NOT_WRITABLE,
        Reason.SOURCE_REQUEST_NOT_USABLE,
        Reason.REQUEST_ID_CONFLICT,
    }
)


def _known(reason: str) -> Reason:
    """A plan's reason; that of a newer worker, or of no worker at all, is not known here."""
    known = (error for error in _PLAN_ERRORS if error == reason)
    return next(known, Reason.PLAN_FAILED)


def reconcile(request: Request, jobs: Sequence[Job], now: datetime) -> Decision:
    """The next actions and the true status of a request.

    `jobs` are all that carry the request's UID, with their report or trouble where
    those are known. `now` is UTC, in whole seconds.
    """
    # 1. A request that is being deleted is left alone: its Jobs go with it.
    if request.deleting:
        return Decision(actions=[], status=request.status)
    ours = [job for job in jobs if job.owned and job.namespace == request.namespace]
    visit = _Visit(request, ours, now)
    # 2. A finished request has its Jobs' TTL set and its webhook delivered; no more.
    if request.status.is_true(Condition.FINISHED):
        return visit.after_the_end()
    # 3. The clock of the deadline stands still while the request is suspended.
    visit.keep_time()
    if request.spec.suspend:
        return visit.suspend()
    # 4. Past the deadline, what runs is stopped and what is done gets delivered.
    if visit.step != "finalize" and visit.overdue:
        return visit.stop_at_the_deadline()
    # 5. The step that the request is at goes on.
    match visit.step:
        case "plan":
            return visit.plan()
        case "shards":
            return visit.shards()
        case "finalize":
            return visit.finalize()


class _Visit:
    """One look at one request."""

    def __init__(self, request: Request, jobs: Sequence[Job], now: datetime) -> None:
        self.request, self.jobs, self.now = request, jobs, now
        self.events: list[Event] = []
        # One that was suspended from the beginning has not started.
        start_time = request.status.start_time or (None if request.spec.suspend else now)
        self.status = msgspec.structs.replace(
            request.status,
            observed_generation=request.generation,
            request_id=request.request_id,
            spec_hash=request.spec_hash,
            start_time=start_time,
            steps=self.begun_steps(),
        )
        if start_time and request.status.start_time is None:
            self.events.append(Event(EventReason.STARTED, "reading the catalogue"))

    # -- where the request is -------------------------------------------------

    @property
    def step(self) -> Step:
        """The last step that has begun, or that the plan says is next.

        A shards Job whose plan never reached status does not count: the plan's report
        is read again first.
        """
        if self.status.steps.finalize:
            return "finalize"
        return "shards" if self.is_sharded else "plan"

    @property
    def is_sharded(self) -> bool:
        """Whether a plan has said that there are more shards than its own Pod does."""
        shards = self.status.shards if self.status.catalogue else None
        return shards is not None and shards.total > 1

    @property
    def cause(self) -> Reason | None:
        """Why finalize comes before all images were tried, if it does."""
        job = self.newest("shards" if self.is_sharded else "plan")
        all_tried = job is not None and job.ended is not None
        return Reason.DEADLINE_EXCEEDED if self.overdue and not all_tried else None

    def begun_steps(self) -> Steps:
        """Attempts by status and by the Jobs that are there, whichever is further."""
        known = self.request.status.steps

        def attempt(step: Step) -> int:
            job = self.newest(step)
            begun: int = getattr(known, step)
            return max(begun, job.attempt if job else 0)

        return Steps(plan=attempt("plan"), shards=attempt("shards"), finalize=attempt("finalize"))

    def newest(self, step: Step) -> Job | None:
        """The step's Job with the highest attempt."""
        return max(
            (job for job in self.jobs if job.step == step),
            key=lambda job: job.attempt,
            default=None,
        )

    def keep_time(self) -> None:
        """Notes when a suspension begins, and adds it up when it ends."""
        status, since = self.status, self.status.suspend_time
        if status.start_time is None:
            return
        if self.request.spec.suspend:
            self.status = msgspec.structs.replace(status, suspend_time=since or self.now)
        elif since is not None:
            # A clock may have been set back since.
            seconds = max(0, int((self.now - since).total_seconds()))
            self.status = msgspec.structs.replace(
                status,
                suspend_time=None,
                suspended_seconds=min(status.suspended_seconds + seconds, MAX_SUSPENDED),
            )

    @property
    def deadline(self) -> datetime:
        """When the request has run for as long as it may."""
        seconds = self.request.spec.active_deadline_seconds + self.status.suspended_seconds
        return (self.status.start_time or self.now) + timedelta(seconds=seconds)

    @property
    def overdue(self) -> bool:
        """Whether the deadline has passed."""
        return self.now >= self.deadline

    # -- the steps --------------------------------------------------------------

    def plan(self) -> Decision:
        """Wait for the plan's report; it names the shards, or is the end already."""
        job = self.newest("plan")
        if job is None or job.ended is None:
            return self.work_on("plan", job)
        if job.report is None:
            return self.carry_on("plan", [ReadReport(job)])
        if isinstance(job.report, LostReport):
            if job.ended == "Complete":
                return self.try_again("plan", job, job.report)
            # It may have got past the plan: finalize knows.
            return self.work_on("finalize", None)
        return self.after_plan(job, job.report)

    def after_plan(self, job: Job, report: Report) -> Decision:
        """Go by what the plan's report says."""
        self.take_catalogue(report)
        if report.done:
            return self.finish(report.done)
        if report.error and not report.shards:
            return self.fail(_known(report.error.reason), report.error.message)
        if report.shards and report.shards > 1:
            return self.shards()
        # One shard, done in the plan's own Pods, and it failed: deliver what there is.
        return self.work_on("finalize", None)

    def shards(self) -> Decision:
        """Wait for all indexes; those that failed are finalize's to report."""
        job = self.newest("shards")
        if job is not None:
            self.count_shards(job)
        if job is None or job.ended is None:
            return self.work_on("shards", job)
        return self.work_on("finalize", None)

    def finalize(self) -> Decision:
        """Wait for the totals, then finish."""
        job = self.newest("finalize")
        if job is None or job.ended is None:
            return self.work_on("finalize", job)
        if job.report is None:
            return self.carry_on("finalize", [ReadReport(job)])
        if isinstance(job.report, LostReport):
            if job.ended == "Complete":
                return self.try_again("finalize", job, job.report)
            return self.fail(Reason.FINALIZE_FAILED, job.end_message)
        self.take_catalogue(job.report)
        if done := job.report.done:
            return self.finish(done)
        error = job.report.error
        if error and error.reason == Reason.NOT_PLANNED:
            if self.overdue:
                message = "the deadline passed before the catalogue was read"
                return self.fail(Reason.DEADLINE_EXCEEDED, message)
            plan = self.newest("plan")
            message = plan.end_message if plan else error.message
            return self.fail(Reason.PLAN_FAILED, f"the plan's Pods failed: {message}")
        return self.fail(Reason.FINALIZE_FAILED, error.message if error else job.end_message)

    def work_on(self, step: Step, job: Job | None) -> Decision:
        """Create the step's Job, or see to the one that runs."""
        if job is None:
            return self.begin(step, max(1, getattr(self.status.steps, step)))
        actions: list[Action] = []
        if job.trouble and job.trouble.reason == Reason.NAMESPACE_TERMINATING:
            # The Pods of an Indexed Job keep their finalizers until others take their place,
            # which nothing can do there: the namespace would stay for ever (tried).
            actions += [] if job.deleting else [DeleteJob(job)]
        # One that is being deleted must be gone before its name is free.
        elif not job.deleting:
            # Kueue decides on suspend and parallelism of the Jobs in its queues.
            if self.request.queue is None:
                actions += self.adjusting(job)
            odd = job.terminating or job.failed or job.ready < max(1, job.active)
            if odd and not job.suspended:
                actions.append(FindTrouble(job))
        return self.carry_on(step, actions, job.trouble or self.disruption(job))

    def disruption(self, job: Job) -> Trouble | None:
        """Pods that are ended from outside again and again; each time it goes on, or begins anew."""
        known = job.interruptions
        if known is None or known.count < DISRUPTIONS or self.now - known.last >= STALLED_AFTER:
            return None
        # Without their number, or every one would be a write of status.
        message = (
            f"Pods of Job {job.name} are evicted or deleted again and again while they run; "
            "kubectl get events says by whom"
        )
        return Trouble(Reason.PODS_DISRUPTED, message, known.first)

    def adjusting(self, job: Job) -> list[Action]:
        """Resume a Job that was suspended, and follow maxParallelism."""
        wanted = min(self.request.max_parallelism, job.completions)
        parallelism = wanted if job.step == "shards" and job.parallelism != wanted else None
        if not job.suspended and parallelism is None:
            return []
        suspend = False if job.suspended else None
        return [UpdateJob(job, suspend=suspend, parallelism=parallelism)]

    def begin(self, step: Step, attempt: int) -> Decision:
        """Create the Job of this attempt, and note that it was begun."""
        cause = self.cause if step == "finalize" else None
        steps = msgspec.structs.replace(self.status.steps, **{step: attempt})
        self.status = msgspec.structs.replace(self.status, steps=steps)
        total = self.status.shards.total if step == "shards" and self.status.shards else None
        return self.carry_on(step, [CreateJob(step, attempt, total, cause)], self.request.refused)

    def try_again(self, step: Step, job: Job, lost: LostReport) -> Decision:
        """Run a step again whose report was lost: its effects are found and not repeated."""
        if job.attempt >= MAX_ATTEMPTS:
            message = f"{step} ran {job.attempt} times and left no report: {lost.message}"
            return self.fail(Reason.REPORT_LOST, message)
        return self.begin(step, job.attempt + 1)

    # -- what is learnt on the way ------------------------------------------------

    def take_catalogue(self, report: Report) -> None:
        """Counts of the catalogue into status."""
        catalogue, shards = report.catalogue, self.status.shards
        if catalogue is None:
            return
        if report.shards and (shards is None or shards.total != report.shards):
            shards = Shards(total=report.shards)
        self.status = msgspec.structs.replace(
            self.status,
            catalogue=catalogue,
            shards=shards,
            images=self.status.images or Images(total=catalogue.images),
        )

    def count_shards(self, job: Job) -> None:
        """Live progress, from completed indexes and the plan."""
        catalogue, images = self.status.catalogue, self.status.images
        total = catalogue.images if catalogue else 0
        known = Images(total=total, processed=images.processed if images else 0)
        processed = total * (job.succeeded + job.failed_indexes) // job.completions
        runs = not (job.ended or job.suspended or self.request.spec.suspend)
        self.status = msgspec.structs.replace(
            self.status,
            shards=Shards(
                total=job.completions,
                active=job.active,
                succeeded=job.succeeded,
                failed=job.failed_indexes,
            ),
            images=Images(total=total, processed=processed),
            progress=reckon(self.status.progress, known, processed, self.now) if runs else None,
        )

    # -- suspend, deadline, end ------------------------------------------------------

    def suspend(self) -> Decision:
        """Stop what runs; its Pods checkpoint and end."""
        if shards := self.newest("shards"):
            self.count_shards(shards)
        return self.decide(self.stopping(), conditions.suspended())

    def stopping(self) -> list[Action]:
        """What stops the Jobs that still run."""
        unended = [job for job in self.jobs if job.ended is None and not job.deleting]
        if self.request.queue is not None:
            # A Job in Kueue's queue is Kueue's to suspend; the step resumes from checkpoints.
            return [DeleteJob(job, wait=True) for job in unended]
        return [UpdateJob(job, suspend=True) for job in unended if not job.suspended]

    def stop_at_the_deadline(self) -> Decision:
        """Stop the step, wait until its Pods have ended, then deliver what is done."""
        step = self.step
        job = self.newest(step)
        if job is None:
            return self.work_on("finalize", None)
        if step == "shards":
            self.count_shards(job)
        if job.ended is None:
            actions = self.stopping()
            if job.terminating:
                actions.append(FindTrouble(job))
            if actions or job.active or job.deleting:
                return self.carry_on(step, actions, job.trouble)
            return self.work_on("finalize", None)
        if step == "plan" and isinstance(job.report, Report) and not job.report.done:
            self.take_catalogue(job.report)
            if self.is_sharded:
                return self.work_on("finalize", None)
        # It ended by itself: nothing was cut short.
        return self.plan() if step == "plan" else self.shards()

    def finish(self, done: Done) -> Decision:
        """The end, with results."""
        images = done.images
        shards = self.status.shards or Shards(total=1)
        failed_shards = min(done.failed_shards, shards.total)
        self.status = msgspec.structs.replace(
            self.status,
            images=Images(
                total=images.total,
                processed=images.total,
                succeeded=images.succeeded,
                failed=images.failed,
                unchanged=images.unchanged,
            ),
            shards=Shards(
                total=shards.total,
                succeeded=shards.total - failed_shards,
                failed=failed_shards,
            ),
            bytes=done.bytes,
            results=done.results,
            failures=done.failures,
        )
        return self.end(judge(self.request.spec, done, self.status.catalogue))

    def fail(self, reason: Reason, message: str) -> Decision:
        """The end, without results."""
        return self.end(conditions.failed(reason, message))

    def end(self, outcome: Phase) -> Decision:
        """Whatever the end is: stop what still runs, let the Jobs go, open the outbox."""
        shards = self.status.shards
        self.status = msgspec.structs.replace(
            self.status,
            shards=msgspec.structs.replace(shards, active=0) if shards else None,
            completion_time=self.now,
            webhook=outbox.opened(self.request, outcome.finished.reason, self.now),
        )
        ready = outcome.ready
        self.events.append(
            Event(EventReason.FINISHED, f"{ready.reason}: {ready.message}")
            if ready.status == "True"
            else Event(EventReason.FAILED, f"{ready.reason}: {ready.message}", "Warning")
        )
        return self.decide(self.letting_go(), outcome)

    def letting_go(self) -> list[Action]:
        """Jobs that ended get their TTL; what still runs has nothing left to do."""
        ttl = self.request.spec.job_ttl_seconds_after_finished
        ended = [UpdateJob(job, ttl=ttl) for job in self.jobs if job.ended and not job.let_go]
        running = [DeleteJob(job) for job in self.jobs if not job.ended and not job.deleting]
        return [*ended, *running]

    def after_the_end(self) -> Decision:
        """Deliver the webhook; settled once that is done."""
        post = outbox.visit(self.request, self.now)
        self.status = msgspec.structs.replace(self.status, webhook=post.webhook)
        self.events = post.events
        return Decision(
            actions=[*self.letting_go(), *post.actions],
            status=self.with_conditions({Condition.NOTIFIED: post.notified}, settled=post.settled),
            events=self.events,
            again=post.again,
        )

    # -- the decision ------------------------------------------------------------------

    def carry_on(
        self, step: Step, actions: list[Action], trouble: Trouble | None = None
    ) -> Decision:
        """The step is under way, with or without trouble."""
        reason, message = _WORKING[step]
        if trouble is None:
            return self.decide(actions, conditions.running(reason, message))
        if trouble.final or self.now - trouble.since >= STALLED_AFTER:
            return self.decide(actions, conditions.blocked(trouble.reason, trouble.message))
        said = Said("True", trouble.reason, trouble.message)
        return self.decide(actions, conditions.running(reason, message, said))

    def decide(self, actions: list[Action], phase: Phase) -> Decision:
        """The decision, with every condition said."""
        finished = phase.finished.status == "True"
        settled = finished and self.status.webhook is None
        said = {
            Condition.READY: phase.ready,
            Condition.RECONCILING: phase.reconciling,
            Condition.STALLED: phase.stalled,
            Condition.FINISHED: phase.finished,
            Condition.CATALOGUE_VALID: self.catalogue_valid(phase),
            Condition.NOTIFIED: outbox.pending(self.request),
        }
        # The watch brings what is written here; should it not, the webhook waits for nothing.
        again = self.now if finished and not settled else None
        wait = LONG_WAIT if phase.stalled.status == "True" else QUIET
        if not finished and not self.request.spec.suspend:
            again = self.deadline if self.now < self.deadline < self.now + wait else self.now + wait
        return Decision(
            actions=actions,
            status=self.with_conditions(said, settled=settled),
            events=self.events,
            again=again,
        )

    def catalogue_valid(self, phase: Phase) -> Said:
        """Whether the catalogue is one, as far as is known."""
        if phase.finished.reason == Reason.CATALOGUE_INVALID:
            return Said("False", Reason.CATALOGUE_INVALID, phase.finished.message)
        catalogue = self.status.catalogue
        if catalogue is None:
            return Said("Unknown", Reason.CATALOGUE_PENDING, "the catalogue has not been read")
        skipped = f", {catalogue.invalid_rows} invalid ones left out"
        message = f"{catalogue.rows} rows, {catalogue.images} images"
        if catalogue.invalid_rows:
            message += skipped
        return Said("True", Reason.CATALOGUE_VALID, message)

    def with_conditions(self, said: dict[Condition, Said], *, settled: bool) -> Status:
        """Status with these conditions changed."""
        return msgspec.structs.replace(
            self.status,
            settled=settled,
            conditions=conditions.apply(
                self.request.status, self.request.generation, self.now, said
            ),
        )
