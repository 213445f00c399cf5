"""What is said of a request whose spec this operator cannot read. Pure.

Its Jobs are left as they are: they go on, and what they did is found once it can be read.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from imageprocessing_contract.reasons import Condition, EventReason, Reason

from imageprocessing_operator import conditions
from imageprocessing_operator.actions import Decision, Event
from imageprocessing_operator.conditions import Said
from imageprocessing_operator.state import UnreadableRequest

_REMEDY = "install operator and CRD of one version; where they are, make the request anew"


def unreadable(request: UnreadableRequest, now: datetime) -> Decision:
    """Status and its event; `now` is UTC, in whole seconds."""
    if request.deleting:
        return Decision(actions=[], status=request.status)
    message = f"the operator cannot read {request.problem}; {_REMEDY}"
    status = request.status
    if status.is_true(Condition.FINISHED):
        # How it ended stays so, and only the webhook waits. The edit counts as not seen yet:
        # once it can be read it may start a delivery over.
        shown = Condition.NOTIFIED
        said = {shown: Said("False", Reason.SPEC_UNREADABLE, message)}
    else:
        shown = Condition.STALLED
        phase = conditions.blocked(Reason.SPEC_UNREADABLE, message)
        said = {
            Condition.READY: phase.ready,
            Condition.RECONCILING: phase.reconciling,
            Condition.STALLED: phase.stalled,
            Condition.FINISHED: phase.finished,
        }
        status = msgspec.structs.replace(
            status, observed_generation=request.generation, progress=None
        )
    found = conditions.apply(status, request.generation, now, said)
    before, event = status.condition(shown), Event(EventReason.UNREADABLE, message, "Warning")
    return Decision(
        actions=[],
        status=msgspec.structs.replace(status, conditions=found),
        events=[] if before is not None and before.message == message else [event],
    )
