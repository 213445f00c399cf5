"""What a decision may ask for. The executor performs them, in order, before status is written."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec
from imageprocessing_contract.reasons import EventReason
from imageprocessing_contract.task import Step

from imageprocessing_operator.state import Job
from imageprocessing_operator.status import Status


class CreateJob(msgspec.Struct, frozen=True):
    """Create the Job of a step; cause is finalize's: why the request ends early."""

    step: Step
    attempt: int
    shards: int | None = None
    cause: str | None = None


class DeleteJob(msgspec.Struct, frozen=True):
    """Delete a Job and its Pods; with wait it stays until they have ended."""

    job: Job
    wait: bool = False


class UpdateJob(msgspec.Struct, frozen=True):
    """Change what may change of a Job; None leaves it as it is."""

    job: Job
    suspend: bool | None = None
    parallelism: int | None = None
    ttl: int | None = None


class ReadReport(msgspec.Struct, frozen=True):
    """Read the report of a finished step from its Pod."""

    job: Job


class FindTrouble(msgspec.Struct, frozen=True):
    """Find out what keeps a Job's Pods from running."""

    job: Job


class Deliver(msgspec.Struct, frozen=True):
    """Send the webhook once; attempts count from 1."""

    attempt: int


class Event(msgspec.Struct, frozen=True):
    """A Kubernetes event, written after status."""

    reason: EventReason
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


Action = CreateJob | DeleteJob | UpdateJob | ReadReport | FindTrouble | Deliver


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about a request now, what its status is, and when to look again."""

    actions: list[Action]
    status: Status
    events: list[Event] = []
    again: datetime | None = None
