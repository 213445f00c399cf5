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

from imageprocessing_operator import conditions, disruptions, outbox
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
from imageprocessing_operator.conditions import Phase
from imageprocessing_operator.facts import Facts
from imageprocessing_operator.outcome import judge, plan_error
from imageprocessing_operator.state import Job, LostReport, Request, Trouble

MAX_ATTEMPTS = 5
"""Jobs of one step whose report was lost, before the request fails."""
QUIET = timedelta(seconds=10)
"""How long a Job may have no running Pod before its cause is looked for."""
IDLE = timedelta(seconds=60)
"""How long one is left alone that only waits: events tell of its Job, and looks have their times.
Of 5,000 that are visited every 10 s, the visits alone take a fifth of a core."""
LONG_WAIT = timedelta(seconds=30)
"""How long a request that is blocked is left alone."""


def reconcile(request: Request, jobs: Sequence[Job], now: datetime) -> Decision:
    """The next actions and the true status of a request.

    `jobs` are all that carry the request's UID, with their report or trouble where
    those are known. `now` is UTC, in whole seconds.
    """
    # 1. A request that is being deleted is left alone: its Jobs go with it.
    if request.deleting:
        return Decision(actions=[], status=request.status)
    ours = [job for job in jobs if job.owned and job.namespace == request.namespace]
    facts = Facts(request, ours, now)
    visit = _Visit(facts)
    # 2. A finished request has its Jobs' TTL set and its webhook delivered; no more.
    if request.status.is_true(Condition.FINISHED):
        return visit.after_the_end()
    # 3. The clock of the deadline stands still while the request is suspended.
    facts.keep_time()
    if request.spec.suspend:
        return visit.suspend()
    # 4. Past the deadline, what runs is stopped and what is done gets delivered.
    if facts.step != "finalize" and facts.overdue:
        return visit.stop_at_the_deadline()
    # 5. The step that the request is at goes on.
    match facts.step:
        case "plan":
            return visit.plan()
        case "shards":
            return visit.shards()
        case "finalize":
            return visit.finalize()


class _Visit:
    """One look at one request."""

    def __init__(self, facts: Facts) -> None:
        self.facts, self.request, self.now = facts, facts.request, facts.now
        self.events: list[Event] = []
        if facts.has_just_started:
            self.events.append(Event(EventReason.STARTED, "reading the catalogue"))

    # -- the steps --------------------------------------------------------------

    def plan(self) -> Decision:
        """Wait for the plan's report; it names the shards, or is the end already."""
        job = self.facts.newest("plan")
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
        self.facts.take_catalogue(report)
        if report.done:
            return self.finish(report.done)
        if report.error and not report.shards:
            return self.fail(plan_error(report.error.reason), report.error.message)
        if report.shards and report.shards > 1:
            return self.shards()
        # One shard, done in the plan's own Pods, and it failed: deliver what there is.
        return self.work_on("finalize", None)

    def shards(self) -> Decision:
        """Wait for all indexes; those that failed are finalize's to report."""
        job = self.facts.newest("shards")
        if job is not None:
            self.facts.count_shards(job)
        if job is None or job.ended is None:
            return self.work_on("shards", job)
        return self.work_on("finalize", None)

    def finalize(self) -> Decision:
        """Wait for the totals, then finish."""
        job = self.facts.newest("finalize")
        if job is None or job.ended is None:
            return self.work_on("finalize", job)
        if job.report is None:
            return self.carry_on("finalize", [ReadReport(job)])
        if isinstance(job.report, LostReport):
            if job.ended == "Complete":
                return self.try_again("finalize", job, job.report)
            return self.fail(Reason.FINALIZE_FAILED, job.end_message)
        self.facts.take_catalogue(job.report)
        if done := job.report.done:
            return self.finish(done)
        error = job.report.error
        if error and error.reason == Reason.NOT_PLANNED:
            if self.facts.overdue:
                message = "the deadline passed before the catalogue was read"
                return self.fail(Reason.DEADLINE_EXCEEDED, message)
            plan = self.facts.newest("plan")
            message = plan.end_message if plan else error.message
            return self.fail(Reason.PLAN_FAILED, f"the plan's Pods failed: {message}")
        return self.fail(Reason.FINALIZE_FAILED, error.message if error else job.end_message)

    def work_on(self, step: Step, job: Job | None) -> Decision:
        """Create the step's Job, or see to the one that runs."""
        if job is None:
            return self.begin(step, max(1, getattr(self.facts.status.steps, step)))
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
        trouble = job.trouble or self.facts.refused_change or disruptions.trouble(job, self.now)
        if trouble and not job.ready:
            # Nothing runs: what was reckoned of the rest is not true, nor is it afterwards.
            self.facts.status = msgspec.structs.replace(self.facts.status, progress=None)
        return self.carry_on(step, actions, trouble)

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
        cause = self.facts.cause if step == "finalize" else None
        steps = msgspec.structs.replace(self.facts.status.steps, **{step: attempt})
        self.facts.status = msgspec.structs.replace(self.facts.status, steps=steps)
        total = (
            self.facts.status.shards.total
            if step == "shards" and self.facts.status.shards
            else None
        )
        return self.carry_on(step, [CreateJob(step, attempt, total, cause)], self.request.refused)

    def try_again(self, step: Step, job: Job, lost: LostReport) -> Decision:
        """Run a step again whose report was lost: its effects are found and not repeated."""
        if job.attempt >= MAX_ATTEMPTS:
            message = f"{step} ran {job.attempt} times and left no report: {lost.message}"
            return self.fail(Reason.REPORT_LOST, message)
        return self.begin(step, job.attempt + 1)

    # -- suspend, deadline, end ------------------------------------------------------

    def suspend(self) -> Decision:
        """Stop what runs; its Pods checkpoint and end."""
        if shards := self.facts.newest("shards"):
            self.facts.count_shards(shards)
        actions, refused = self.stopping(), self.facts.refused_change
        if actions and refused:
            return self.carry_on(self.facts.step, actions, refused)
        return self.decide(actions, conditions.suspended())

    def stopping(self) -> list[Action]:
        """What stops the Jobs that still run."""
        unended = [job for job in self.facts.jobs if job.ended is None and not job.deleting]
        if self.request.queue is not None:
            # A Job in Kueue's queue is Kueue's to suspend; the step resumes from checkpoints.
            return [DeleteJob(job, wait=True) for job in unended]
        return [UpdateJob(job, suspend=True) for job in unended if not job.suspended]

    def stop_at_the_deadline(self) -> Decision:
        """Stop the step, wait until its Pods have ended, then deliver what is done."""
        step = self.facts.step
        job = self.facts.newest(step)
        if job is None:
            return self.work_on("finalize", None)
        if step == "shards":
            self.facts.count_shards(job)
        if job.ended is None:
            actions = self.stopping()
            if job.terminating:
                actions.append(FindTrouble(job))
            if actions or job.active or job.deleting:
                return self.carry_on(step, actions, job.trouble or self.facts.refused_change)
            return self.work_on("finalize", None)
        if step == "plan" and isinstance(job.report, Report) and not job.report.done:
            self.facts.take_catalogue(job.report)
            if self.facts.is_sharded:
                return self.work_on("finalize", None)
        # It ended by itself: nothing was cut short.
        return self.plan() if step == "plan" else self.shards()

    def finish(self, done: Done) -> Decision:
        """The end, with results."""
        self.facts.take_totals(done)
        return self.end(judge(self.request.spec, done, self.facts.status.catalogue))

    def fail(self, reason: Reason, message: str) -> Decision:
        """The end, without results."""
        return self.end(conditions.failed(reason, message))

    def end(self, outcome: Phase) -> Decision:
        """Whatever the end is: stop what still runs, let the Jobs go, open the outbox."""
        self.facts.end(outbox.opened(self.request, outcome.finished.reason, self.now))
        said = f"{outcome.ready.reason}: {outcome.ready.message}"
        self.events.append(
            Event(EventReason.FINISHED, said)
            if outcome.ready.status == "True"
            else Event(EventReason.FAILED, said, "Warning")
        )
        return self.decide(self.letting_go(), outcome)

    def letting_go(self) -> list[Action]:
        """Jobs that ended get their TTL; what still runs has nothing left to do."""
        ttl = self.request.spec.job_ttl_seconds_after_finished
        ended = [UpdateJob(job, ttl=ttl) for job in self.facts.jobs if job.ended and not job.let_go]
        running = [DeleteJob(job) for job in self.facts.jobs if not job.ended and not job.deleting]
        return [*ended, *running]

    def after_the_end(self) -> Decision:
        """Deliver the webhook; settled once that is done."""
        post = outbox.visit(self.request, self.now)
        self.facts.status = msgspec.structs.replace(self.facts.status, webhook=post.webhook)
        self.events = post.events
        return Decision(
            actions=[*self.letting_go(), *post.actions],
            status=self.facts.with_conditions(
                {Condition.NOTIFIED: post.notified}, settled=post.settled
            ),
            events=self.events,
            again=post.again,
        )

    # -- the decision ------------------------------------------------------------------

    def carry_on(
        self, step: Step, actions: list[Action], trouble: Trouble | None = None
    ) -> Decision:
        """The step is under way, with or without trouble."""
        return self.decide(actions, conditions.under_way(step, trouble, self.now))

    def decide(self, actions: list[Action], phase: Phase) -> Decision:
        """The decision, with every condition said."""
        finished = phase.finished.status == "True"
        settled = finished and self.facts.status.webhook is None
        said = {
            Condition.READY: phase.ready,
            Condition.RECONCILING: phase.reconciling,
            Condition.STALLED: phase.stalled,
            Condition.FINISHED: phase.finished,
            Condition.CATALOGUE_VALID: self.facts.catalogue_valid(phase),
            Condition.NOTIFIED: outbox.pending(self.request),
        }
        # The watch brings what is written here; should it not, the webhook waits for nothing.
        again = self.now if finished and not settled else None
        wait = LONG_WAIT if phase.stalled.status == "True" else QUIET
        if all(isinstance(action, FindTrouble) for action in actions):
            wait = IDLE
        # What was done to suspend it may have been refused.
        if not finished and (actions or not self.request.spec.suspend):
            again = self.now + wait
            if self.now < self.facts.deadline:
                again = min(again, self.facts.deadline)
        return Decision(
            actions=actions,
            status=self.facts.with_conditions(said, settled=settled),
            events=self.events,
            again=again,
        )
