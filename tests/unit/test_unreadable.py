"""Requests of another version than the operator's: what can be read, and what is said."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from imageprocessing_contract.reasons import Condition, EventReason, Reason
from imageprocessing_operator import conditions, outbox
from imageprocessing_operator.state import Request, UnreadableRequest, read_request
from imageprocessing_operator.status import Progress, Status, Webhook, changes, parse_fields
from imageprocessing_operator.unreadable import unreadable

from tests.unit.operator_state import NOW, SPEC, UID, WEBHOOK, a_request, after, reason, said

META = {
    "namespace": "shop",
    "name": "spring",
    "uid": UID,
    "generation": 3,
    "resourceVersion": "10",
}
NEWER = {**SPEC, "compression": {**SPEC["compression"], "format": "JXL"}}
RUNNING = Status(
    observed_generation=2,
    start_time=NOW,
    progress=Progress(since=NOW),
    conditions=conditions.apply(
        Status(),
        2,
        NOW,
        {
            Condition.STALLED: conditions.running(Reason.PLANNING, "").stalled,
            Condition.CATALOGUE_VALID: conditions.Said("True", Reason.CATALOGUE_VALID),
        },
    ),
)


def newer(status: Status, **meta: Any) -> UnreadableRequest:
    found = read_request({"metadata": {**META, **meta}, "spec": NEWER})
    assert isinstance(found, UnreadableRequest)
    return msgspec.structs.replace(found, status=status)


SPECS: dict[str, tuple[Any, str]] = {
    "a value of a newer CRD": (NEWER, "spec.compression.format: Invalid enum value 'JXL'"),
    "a field that the CRD lacks": (
        {**SPEC, "download": {}},
        "spec.download: Object missing required field `timeoutSeconds`",
    ),
    "another type": ({**SPEC, "suspend": 1}, "spec.suspend: Expected `bool`, got `int`"),
    "none": (None, "spec: Expected `object`, got `null`"),
}


@pytest.mark.parametrize("case", SPECS)
def test_the_field_is_named(case: str) -> None:
    spec, problem = SPECS[case]
    found = read_request({"metadata": META, "spec": spec})
    assert isinstance(found, UnreadableRequest)
    assert found.problem == problem


def test_it_is_blocked_and_said_once() -> None:
    first = unreadable(newer(RUNNING), after(5))
    assert said(first.status) == {
        "Ready": "False",
        "Reconciling": "False",
        "Stalled": "True",
        "CatalogueValid": "True",
        "Finished": "False",
    }
    assert reason(first.status, Condition.STALLED) == Reason.SPEC_UNREADABLE
    stalled = first.status.condition(Condition.STALLED)
    assert stalled is not None
    assert "spec.compression.format" in stalled.message
    # The time left is not known any more.
    assert (first.status.observed_generation, first.status.progress) == (3, None)
    (event,) = first.events
    assert (event.reason, event.type) == (EventReason.UNREADABLE, "Warning")
    assert first.actions == []
    again = unreadable(newer(first.status), after(60))
    assert (again.status, again.events) == (first.status, [])


def test_a_request_that_is_deleted_is_left_alone() -> None:
    found = unreadable(newer(RUNNING, deletionTimestamp="2026-03-01T12:00:00Z"), NOW)
    assert (found.status, found.events) == (RUNNING, [])


def finished(webhook: Webhook) -> Status:
    phase = conditions.failed(Reason.ALL_IMAGES_FAILED, "0 of 4 images done")
    kinds = {Condition.READY: phase.ready, Condition.FINISHED: phase.finished}
    ends = conditions.apply(Status(), 2, NOW, kinds)
    return Status(observed_generation=2, conditions=ends, webhook=webhook)


WEBHOOKS = {
    "not sent": (Webhook(event_id="e", next_attempt_time=after(9)), Reason.DELIVERY_PENDING),
    "tried": (Webhook(event_id="e", attempts=2, next_attempt_time=after(9)), Reason.RETRYING),
    "given up": (Webhook(event_id="e", attempts=10), Reason.GAVE_UP),
}


@pytest.mark.parametrize("case", WEBHOOKS)
def test_how_it_ended_stays(case: str) -> None:
    """Only the webhook waits; once the spec can be read, Notified says again how it stands."""
    webhook, expected = WEBHOOKS[case]
    before = finished(webhook)
    found = unreadable(newer(before), after(5))
    assert said(found.status) == {"Ready": "False", "Finished": "True", "Notified": "False"}
    assert reason(found.status, Condition.READY) == Reason.ALL_IMAGES_FAILED
    assert reason(found.status, Condition.NOTIFIED) == Reason.SPEC_UNREADABLE
    assert found.status.observed_generation == 2
    assert len(found.events) == 1
    request = msgspec.structs.replace(a_request(found.status, webhook=WEBHOOK), generation=2)
    assert outbox.visit(request, after(6)).notified.reason == expected
    # What was edited meanwhile starts a delivery over that was given up.
    if case == "given up":
        edited = msgspec.structs.replace(request, generation=3)
        fresh = outbox.visit(edited, after(6)).webhook
        assert fresh == Webhook(event_id="e", next_attempt_time=after(6))


STORED = {
    "observedGeneration": 1,
    "startTime": "soon",
    "settled": "yes",
    "shards": {"total": "many", "size": 3},
    "images": {"total": 4},
    "conditions": [{"type": "Ready"}],
}


def test_fields_of_status_that_cannot_be_read_are_absent() -> None:
    """And they are taken out of what is stored, or replaced."""
    status, broken = parse_fields(STORED)
    assert status.observed_generation == 1
    assert status.images is not None
    assert (status.start_time, status.settled, status.conditions) == (None, False, [])
    assert broken.keys() == {"startTime", "settled", "shards", "conditions"}
    wanted = msgspec.structs.replace(status, start_time=NOW)
    assert changes(status, wanted, broken) == {
        "startTime": "2026-03-01T12:00:00Z",
        "settled": None,
        "shards": None,
        "conditions": None,
    }
    found = read_request({"metadata": META, "spec": SPEC, "status": STORED})
    assert isinstance(found, Request)
    assert (found.status, found.unreadable_status) == (status, broken)
