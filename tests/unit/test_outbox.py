"""When the webhook is sent, and what becomes of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from imageprocessing_contract.reasons import Condition, Reason
from imageprocessing_operator import outbox
from imageprocessing_operator.conditions import apply
from imageprocessing_operator.state import Delivery, Request
from imageprocessing_operator.status import Status, Webhook

from tests.unit.operator_state import NOW, WEBHOOK, a_request, after

DUE = Webhook(event_id="msg_1", next_attempt_time=NOW)


def a_delivery(outcome: Any, **fields: Any) -> Delivery:
    known: dict[str, Any] = {
        "attempt": 1,
        "generation": 1,
        "reason": Reason.RETRYING,
        "message": "why",
    }
    return Delivery(outcome=outcome, **{**known, **fields})


def finished(
    webhook: Webhook | None = DUE, delivery: Delivery | None = None, **fields: Any
) -> Request:
    status = Status(observed_generation=1, webhook=webhook)
    request = a_request(status, webhook=WEBHOOK)
    return msgspec.structs.replace(request, delivery=delivery, **fields)


def attempts(visit: outbox.Visit) -> list[int]:
    return [deliver.attempt for deliver in visit.actions]


def test_it_is_sent_when_it_is_due() -> None:
    assert attempts(outbox.visit(finished(), NOW)) == [1]
    early = outbox.visit(finished(msgspec.structs.replace(DUE, next_attempt_time=after(5))), NOW)
    assert (early.actions, early.again) == ([], after(5))


def test_a_delivered_one_settles() -> None:
    visit = outbox.visit(finished(delivery=a_delivery("delivered", status_code=204)), after(1))
    assert visit.settled
    assert visit.webhook == Webhook(
        event_id="msg_1",
        attempts=1,
        last_status_code=204,
        last_attempt_time=after(1),
        delivered_time=after(1),
    )
    assert (visit.notified.status, visit.notified.reason) == ("True", Reason.DELIVERED)
    again = outbox.visit(finished(visit.webhook), after(9))
    assert (again.settled, again.actions, again.events) == (True, [], [])


@pytest.mark.parametrize("attempt", range(1, 10))
def test_a_failed_one_is_tried_again(attempt: int) -> None:
    before = msgspec.structs.replace(DUE, attempts=attempt - 1)
    visit = outbox.visit(finished(before, a_delivery("failed", attempt=attempt)), NOW)
    assert visit.webhook is not None
    assert visit.webhook.attempts == attempt
    assert visit.again == visit.webhook.next_attempt_time
    assert visit.again is not None
    waited = (visit.again - NOW).total_seconds()
    assert outbox.DELAYS[attempt] <= waited <= 1.1 * outbox.DELAYS[attempt] + 1
    assert not visit.settled


@pytest.mark.parametrize(("asked", "seconds"), [(120, 120), (1, 5), (10**9, 24 * 3600)])
def test_retry_after_counts_where_it_is_longer(asked: float, seconds: int) -> None:
    visit = outbox.visit(finished(delivery=a_delivery("failed", retry_after=asked)), NOW)
    assert visit.again is not None
    assert abs((visit.again - NOW).total_seconds() - seconds) <= 1


GIVEN_UP = [("gone", 1), ("failed", len(outbox.DELAYS))]


@pytest.mark.parametrize(("outcome", "attempt"), GIVEN_UP)
def test_giving_up(outcome: str, attempt: int) -> None:
    before = msgspec.structs.replace(DUE, attempts=attempt - 1)
    visit = outbox.visit(finished(before, a_delivery(outcome, attempt=attempt)), NOW)
    assert visit.webhook is not None
    assert visit.webhook.next_attempt_time is None
    assert (visit.notified.reason, visit.settled, visit.again) == (Reason.GAVE_UP, False, None)
    # It stays given up, and says so, until the spec is edited.
    conditions = apply(Status(), 1, NOW, {Condition.NOTIFIED: visit.notified})
    status = Status(observed_generation=1, webhook=visit.webhook, conditions=conditions)
    request = msgspec.structs.replace(a_request(status, webhook=WEBHOOK))
    later = outbox.visit(request, after(9999))
    assert (later.actions, later.notified) == ([], visit.notified)
    edited = outbox.visit(msgspec.structs.replace(request, generation=2), after(9999))
    assert attempts(edited) == [1]
    # The delivery comes back before or after its start reached status.
    for stored in (request.status, msgspec.structs.replace(status, webhook=edited.webhook)):
        back = msgspec.structs.replace(
            request, generation=2, status=stored, delivery=a_delivery("delivered", generation=2)
        )
        assert outbox.visit(back, after(9999)).settled


@pytest.mark.parametrize(("outcome", "attempt"), GIVEN_UP)
def test_an_edit_during_the_last_attempt_starts_over(outcome: str, attempt: int) -> None:
    before = msgspec.structs.replace(DUE, attempts=attempt - 1)
    ended = a_delivery(outcome, attempt=attempt)
    visit = outbox.visit(finished(before, ended, generation=2), NOW)
    assert visit.webhook == Webhook(event_id="msg_1", next_attempt_time=NOW)
    assert visit.again == NOW


def test_an_edit_between_attempts_is_tried_at_once() -> None:
    """It may be what the receiver lacked; the attempts so far still count."""
    waiting = Webhook(event_id="msg_1", attempts=7, next_attempt_time=after(36_000))
    assert attempts(outbox.visit(finished(waiting), NOW)) == []
    edited = outbox.visit(finished(waiting, generation=2), NOW)
    assert attempts(edited) == [8]
    assert edited.webhook == msgspec.structs.replace(waiting, next_attempt_time=NOW)


def test_a_missing_secret_is_no_attempt() -> None:
    delivery = a_delivery("no secret", reason=Reason.SECRET_NOT_FOUND)
    visit = outbox.visit(finished(delivery=delivery), NOW)
    assert visit.webhook is not None
    assert visit.webhook.attempts == 0
    assert visit.again == after(outbox.SECRET_DELAY)
    assert visit.notified.reason == Reason.SECRET_NOT_FOUND


def test_a_delivery_that_is_in_status_already_does_not_count_twice() -> None:
    known = Webhook(event_id="msg_1", attempts=1, next_attempt_time=after(5))
    visit = outbox.visit(finished(known, a_delivery("failed")), NOW)
    assert (visit.webhook, visit.again) == (known, after(5))


def test_without_a_webhook_it_is_settled() -> None:
    assert outbox.visit(a_request(), NOW).settled
    assert outbox.opened(a_request(), Reason.SUCCEEDED, NOW) is None
    # Taken out of the spec after it was given up.
    assert outbox.visit(a_request(Status(webhook=DUE)), NOW).settled


def test_a_reason_that_nobody_knows_is_no_error() -> None:
    conditions = apply(Status(), 1, NOW, {Condition.NOTIFIED: outbox.pending(finished())})
    odd = [msgspec.structs.replace(conditions[0], reason="Odd")]
    status = Status(observed_generation=1, webhook=DUE, conditions=odd)
    visit = outbox.visit(a_request(status, webhook=WEBHOOK), NOW)
    assert visit.notified.reason == Reason.DELIVERY_PENDING


def test_the_event_id_is_derived() -> None:
    first, second = (outbox.opened(finished(), Reason.SUCCEEDED, t) for t in (NOW, after(9)))
    assert first is not None
    assert second is not None
    assert first.event_id == second.event_id
    other = outbox.opened(finished(), Reason.ALL_IMAGES_FAILED, NOW)
    assert other is not None
    assert other.event_id != first.event_id
