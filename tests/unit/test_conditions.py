"""Each row of the table in docs/design.md, section 3."""

from __future__ import annotations

import pytest
from imageprocessing_contract.reasons import Condition, Reason
from imageprocessing_operator import conditions
from imageprocessing_operator.conditions import Phase, Said
from imageprocessing_operator.status import Status

from tests.unit.operator_state import NOW, after

TROUBLE = Said("True", Reason.UNSCHEDULABLE, "no node")
ROWS: dict[str, tuple[Phase, str]] = {
    "running": (conditions.running(Reason.PLANNING, "m"), "Unknown True False False"),
    "in trouble": (conditions.running(Reason.PLANNING, "m", TROUBLE), "Unknown True False False"),
    "suspended": (conditions.suspended(), "False False False False"),
    "blocked": (conditions.blocked(Reason.JOB_NAME_TAKEN, "m"), "False False True False"),
    "succeeded": (conditions.succeeded(Reason.SUCCEEDED, "m"), "True False False True"),
    "failed": (conditions.failed(Reason.PLAN_FAILED, "m"), "False False True True"),
}


@pytest.mark.parametrize("state", ROWS)
def test_the_table(state: str) -> None:
    phase, expected = ROWS[state]
    found = [phase.ready, phase.reconciling, phase.stalled, phase.finished]
    assert " ".join(said.status for said in found) == expected


def test_a_time_changes_with_its_status_only() -> None:
    def said(reason: Reason, status: conditions.Truth) -> dict[Condition, Said]:
        return {Condition.READY: Said(status, reason)}

    first = conditions.apply(Status(), 1, NOW, said(Reason.PLANNING, "Unknown"))
    status = Status(conditions=first)
    second = conditions.apply(status, 2, after(9), said(Reason.PROCESSING, "Unknown"))
    assert (second[0].last_transition_time, second[0].observed_generation) == (NOW, 2)
    third = conditions.apply(status, 2, after(9), said(Reason.SUCCEEDED, "True"))
    assert third[0].last_transition_time == after(9)


def test_what_nothing_is_said_of_stays() -> None:
    known = conditions.apply(Status(), 1, NOW, {Condition.READY: TROUBLE})
    both = conditions.apply(
        Status(conditions=known), 2, after(1), {Condition.NOTIFIED: Said("True", Reason.DELIVERED)}
    )
    assert both[0] == known[0]
    assert [condition.type for condition in both] == ["Ready", "Notified"]


def test_messages_are_bounded() -> None:
    long = Said("True", Reason.UNSCHEDULABLE, "x" * 5000)
    (found,) = conditions.apply(Status(), 1, NOW, {Condition.READY: long})
    assert len(found.message) == 1024
