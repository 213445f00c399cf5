"""The webhook's outbox: when it is sent, and what becomes of it. Pure.

Attempts follow Standard Webhooks 1.0.0; the outbox lives in status, so that a
restart goes on where it was and sends the same message under the same id.
"""

from __future__ import annotations

import zlib
from datetime import datetime, timedelta

import msgspec
from imageprocessing_contract.names import event_id
from imageprocessing_contract.reasons import Condition, EventReason, Reason

from imageprocessing_operator.actions import Deliver, Event
from imageprocessing_operator.conditions import Said
from imageprocessing_operator.state import Delivery, Request
from imageprocessing_operator.status import Webhook

_MINUTE, _HOUR = 60, 3600
DELAYS = (
    0, 5, 5 * _MINUTE, 30 * _MINUTE, 2 * _HOUR, 5 * _HOUR,
    10 * _HOUR, 14 * _HOUR, 20 * _HOUR, 24 * _HOUR,
)  # fmt: skip
"""Seconds before each attempt, as the specification proposes."""
SECRET_DELAY = 30
"""Seconds until a Secret that was not there is looked for again."""
_LONGEST_RETRY_AFTER = 24 * _HOUR
_START_OVER = "edit spec.webhook to try again"


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about the outbox now."""

    webhook: Webhook | None
    notified: Said
    settled: bool = False
    actions: list[Deliver] = []
    events: list[Event] = []
    again: datetime | None = None


def pending(request: Request) -> Said:
    """What Notified says before there is anything to deliver."""
    if request.spec.webhook is None:
        return Said("False", Reason.NO_WEBHOOK, "spec.webhook is not set")
    return Said(
        "False", Reason.DELIVERY_PENDING, "the first attempt comes when the request has finished"
    )


def opened(request: Request, outcome: str, now: datetime) -> Webhook | None:
    """The outbox of a request that has just finished."""
    if request.spec.webhook is None:
        return None
    return Webhook(event_id=event_id(request.request_id, outcome), next_attempt_time=now)


def visit(request: Request, now: datetime) -> Visit:
    """Send what is due, take in what came of it, and say when to look again."""
    webhook = request.status.webhook
    if request.spec.webhook is None:
        return Visit(webhook=webhook, notified=pending(request), settled=True)
    if webhook is None:
        # Somebody removed it: what was sent is sent again, under the same id.
        finished = request.status.condition(Condition.FINISHED)
        webhook = opened(request, finished.reason if finished else "", now)
        return Visit(webhook=webhook, notified=pending(request), again=now)
    if webhook.delivered_time is not None:
        return _delivered(webhook, [])
    if webhook.next_attempt_time is None:
        if request.generation == request.status.observed_generation:
            return Visit(webhook=webhook, notified=_as_before(request))
        # Given up, and then the spec was edited: start over.
        webhook = Webhook(event_id=webhook.event_id, next_attempt_time=now)
    if request.delivery is not None and request.delivery.attempt == webhook.attempts + 1:
        return _take_in(request, webhook, request.delivery, now)
    due = webhook.next_attempt_time or now
    if request.generation != request.status.observed_generation:
        due = now  # the edit may be what the receiver lacked
        webhook = msgspec.structs.replace(webhook, next_attempt_time=now)
    return Visit(
        webhook=webhook,
        notified=_as_before(request),
        actions=[Deliver(webhook.attempts + 1)] if due <= now else [],
        again=due if due > now else None,
    )


def _take_in(request: Request, webhook: Webhook, delivery: Delivery, now: datetime) -> Visit:
    last = delivery.outcome == "gone" or (
        delivery.outcome == "failed" and delivery.attempt >= len(DELAYS)
    )
    if last and delivery.generation != request.generation:
        # The spec was edited meanwhile, perhaps because of this very answer.
        fresh = Webhook(event_id=webhook.event_id, next_attempt_time=now)
        return Visit(webhook=fresh, notified=_as_before(request), again=now)
    tried = msgspec.structs.replace(
        webhook, last_attempt_time=now, last_status_code=delivery.status_code
    )
    if delivery.outcome == "no secret":
        again = now + timedelta(seconds=SECRET_DELAY)
        return Visit(
            webhook=msgspec.structs.replace(webhook, next_attempt_time=again),
            notified=Said("False", delivery.reason, delivery.message),
            again=again,
        )
    tried = msgspec.structs.replace(tried, attempts=delivery.attempt)
    if delivery.outcome == "delivered":
        message = f"the webhook was delivered at attempt {delivery.attempt}"
        done = msgspec.structs.replace(tried, delivered_time=now, next_attempt_time=None)
        return _delivered(done, [Event(EventReason.WEBHOOK_DELIVERED, message)])
    if last:
        message = f"given up after attempt {delivery.attempt}: {delivery.message}"
        return Visit(
            webhook=msgspec.structs.replace(tried, next_attempt_time=None),
            notified=Said("False", Reason.GAVE_UP, f"{message}; {_START_OVER}"),
            events=[Event(EventReason.WEBHOOK_GIVEN_UP, message, "Warning")],
        )
    again = now + timedelta(seconds=_delay(tried, delivery.retry_after))
    return Visit(
        webhook=msgspec.structs.replace(tried, next_attempt_time=again),
        notified=Said("False", Reason.RETRYING, delivery.message),
        again=again,
    )


def _delivered(webhook: Webhook, events: list[Event]) -> Visit:
    said = Said("True", Reason.DELIVERED, "the receiver has the webhook")
    return Visit(webhook=webhook, notified=said, settled=True, events=events)


def _delay(webhook: Webhook, retry_after: float | None) -> int:
    """Whole seconds until the next attempt, up to a tenth more so that many do not meet."""
    seconds = DELAYS[webhook.attempts]
    share = zlib.crc32(f"{webhook.event_id}{webhook.attempts}".encode()) / 2**32
    asked = min(retry_after or 0, _LONGEST_RETRY_AFTER)
    return round(max(seconds * (1 + share / 10), asked))


def _as_before(request: Request) -> Said:
    before = request.status.condition(Condition.NOTIFIED)
    # A spec that could not be read hid what was said before.
    if before is None or before.reason not in set(Reason) - {Reason.SPEC_UNREADABLE}:
        return _so_far(request)
    return Said("False", Reason(before.reason), before.message)


def _so_far(request: Request) -> Said:
    """The same from what else is known."""
    webhook = request.status.webhook
    if webhook is None or webhook.attempts == 0:
        return pending(request)
    message = f"attempt {webhook.attempts} failed"
    if webhook.next_attempt_time is None:
        return Said("False", Reason.GAVE_UP, f"{message}; {_START_OVER}")
    return Said("False", Reason.RETRYING, message)
