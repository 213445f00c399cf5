"""The conditions of a request, by the table in docs/design.md section 3."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec
from imageprocessing_contract.reasons import Condition, Reason
from imageprocessing_contract.task import Step

from imageprocessing_operator.state import Trouble
from imageprocessing_operator.status import ConditionStatus, Status

Truth = Literal["True", "False", "Unknown"]
_MESSAGE = 1024  # characters; the API allows 32,768, people read one line

_FOREIGN = 10  # conditions of others: the CRD has room for 16
STALLED_AFTER = timedelta(minutes=10)
"""A Deployment's progress deadline: nodes may be scaling up until then."""

_WORKING: dict[Step, tuple[Reason, str]] = {
    "plan": (Reason.PLANNING, "the catalogue is being read"),
    "shards": (Reason.PROCESSING, "images are being fetched and compressed"),
    "finalize": (Reason.FINALIZING, "the result files are being written"),
}


class Said(msgspec.Struct, frozen=True):
    """What is said of one condition."""

    status: Truth
    reason: Reason
    message: str = ""


class Phase(msgspec.Struct, frozen=True):
    """What is said of Ready, Reconciling, Stalled and Finished together.

    They are only made by the functions below, so that no state outside the table exists.
    """

    ready: Said
    reconciling: Said
    stalled: Said
    finished: Said


def running(reason: Reason, message: str, trouble: Said | None = None) -> Phase:
    """A step is under way; trouble that may heal becomes Reconciling's reason."""
    unfinished = Said("False", Reason.NOT_FINISHED)
    return Phase(
        ready=Said("Unknown", reason, trouble.message if trouble else message),
        reconciling=trouble or Said("True", Reason.PROGRESSING, message),
        stalled=Said("False", Reason.PROGRESSING),
        finished=unfinished,
    )


def under_way(step: Step, trouble: Trouble | None, now: datetime) -> Phase:
    """A step with or without trouble, which blocks it in the end."""
    reason, message = _WORKING[step]
    if trouble is None:
        return running(reason, message)
    if trouble.final or now - trouble.since >= STALLED_AFTER:
        return blocked(trouble.reason, trouble.message)
    return running(reason, message, Said("True", trouble.reason, trouble.message))


def suspended() -> Phase:
    """spec.suspend is set."""
    message = "suspended by spec.suspend"
    said = Said("False", Reason.SUSPENDED, message)
    return Phase(said, said, said, Said("False", Reason.NOT_FINISHED))


def blocked(reason: Reason, message: str) -> Phase:
    """Nothing goes on until somebody acts; it clears when the cause goes."""
    return Phase(
        ready=Said("False", reason, message),
        reconciling=Said("False", reason, message),
        stalled=Said("True", reason, message),
        finished=Said("False", Reason.NOT_FINISHED),
    )


def succeeded(reason: Reason, message: str) -> Phase:
    """Succeeded and PartiallySucceeded."""
    over = Said("False", reason, message)
    done = Said("True", reason, message)
    return Phase(ready=done, reconciling=over, stalled=over, finished=done)


def failed(reason: Reason, message: str) -> Phase:
    """The end of a request that failed; results may be there all the same."""
    over = Said("False", reason, message)
    done = Said("True", reason, message)
    return Phase(ready=over, reconciling=over, stalled=done, finished=done)


def apply(
    old: Status, generation: int, now: datetime, said: dict[Condition, Said]
) -> list[ConditionStatus]:
    """All conditions in the order of Condition, then those that others wrote.

    A time changes only with its status.
    """
    result: list[ConditionStatus] = []
    for kind in Condition:
        before = old.condition(kind)
        if kind not in said:
            if before is not None:
                result.append(before)
            continue
        wanted = said[kind]
        kept = before is not None and before.status == wanted.status
        result.append(
            ConditionStatus(
                type=kind,
                status=wanted.status,
                reason=wanted.reason,
                message=wanted.message[:_MESSAGE],
                observed_generation=generation,
                last_transition_time=before.last_transition_time if before and kept else now,
            )
        )
    ours = {str(kind) for kind in Condition}
    return result + [c for c in old.conditions if c.type not in ours][:_FOREIGN]
