"""Where a request is, from what is known of it and its Jobs, and what is learnt on a visit. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from imageprocessing_contract.reasons import Condition, Reason
from imageprocessing_contract.report import Done, Report
from imageprocessing_contract.task import Step

from imageprocessing_operator import conditions
from imageprocessing_operator.conditions import Phase, Said
from imageprocessing_operator.progress import reckon
from imageprocessing_operator.state import Job, Request, Trouble
from imageprocessing_operator.status import Images, Shards, Status, Steps, Webhook

MAX_SUSPENDED = 3_153_600_000
"""Seconds of all suspensions that status holds, as in the CRD: a hundred years."""


class Facts:
    """One look at one request; `status` becomes what is true of it."""

    def __init__(self, request: Request, jobs: Sequence[Job], now: datetime) -> None:
        """`jobs` are the request's own; `now` is UTC, in whole seconds."""
        self.request, self.jobs, self.now = request, jobs, now
        # One that was suspended from the beginning has not started.
        start_time = request.status.start_time or (None if request.spec.suspend else now)
        self.status = msgspec.structs.replace(
            request.status,
            observed_generation=request.generation,
            request_id=request.request_id,
            spec_hash=request.spec_hash,
            start_time=start_time,
            steps=self.begun_steps(),
            progress=None,  # there while shards are counted
        )

    @property
    def has_just_started(self) -> bool:
        """Whether this is the first look at a request that may run."""
        return self.status.start_time is not None and self.request.status.start_time is None

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

    @property
    def refused_change(self) -> Trouble | None:
        """Why a Job of it stays as it is, against what spec says."""
        refused = self.request.refused
        changes = refused is not None and refused.reason == Reason.JOB_CHANGE_REFUSED
        return refused if changes else None

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
            progress=reckon(self.request.status.progress, known, processed, self.now)
            if runs
            else None,
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

    def take_totals(self, done: Done) -> None:
        """The outcome of all images into status."""
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

    def end(self, webhook: Webhook | None) -> None:
        """The end into status, with the outbox that opens."""
        shards = self.status.shards
        self.status = msgspec.structs.replace(
            self.status,
            shards=msgspec.structs.replace(shards, active=0) if shards else None,
            completion_time=self.now,
            webhook=webhook,
        )

    def with_conditions(self, said: dict[Condition, Said], *, settled: bool) -> Status:
        """Status with these conditions changed."""
        return msgspec.structs.replace(
            self.status,
            settled=settled,
            conditions=conditions.apply(
                self.request.status, self.request.generation, self.now, said
            ),
        )
