"""What a request's status says of its way, in words. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from imageprocessing_contract.reasons import Condition, Reason
from imageprocessing_operator.status import Status, parse

from imageprocessing_cli.errors import EXIT_DONE, EXIT_FAILED, EXIT_PARTLY


def status_of(request: dict[str, Any]) -> Status:
    """.status of a request, also of one that no operator has seen yet."""
    return parse(request.get("status") or {})


def working_seconds(status: Status, now: datetime) -> float:
    """Seconds that the request has been, or was, at work; 0 before it started."""
    if status.start_time is None:
        return 0
    end = status.completion_time or status.suspend_time or now
    return max(0.0, (end - status.start_time).total_seconds() - status.suspended_seconds)


def exit_code(status: Status) -> int:
    """The exit code of a request that has finished."""
    ready = status.condition(Condition.READY)
    if ready is None or ready.status != "True":
        return EXIT_FAILED
    return EXIT_PARTLY if ready.reason == Reason.PARTIALLY_SUCCEEDED else EXIT_DONE


def headline(status: Status) -> str:
    """The reason of Ready, and what it says beyond that; trouble with Pods comes first."""
    ready, trouble = status.condition(Condition.READY), status.condition(Condition.RECONCILING)
    if ready is None:
        return "Pending: no operator has seen the request yet"
    if trouble is None or trouble.status != "True":
        return f"{ready.reason}: {ready.message}"
    if trouble.reason == Reason.PROGRESSING:
        return ready.reason
    return f"{ready.reason}: {trouble.reason}: {trouble.message}"


def rate_text(status: Status) -> str:
    """`320 images/min, 12m left`, as the operator reckons it; nothing while it does not."""
    found = status.progress
    if found is None or found.images_per_minute is None:
        return ""
    left = f", {found.time_left} left" if found.time_left else ""
    return f"{found.images_per_minute} images/min{left}"


def duration(time: timedelta) -> str:
    """The two largest units: `2 d 3 h`, `1 m 5 s`, `12 s`."""
    seconds = round(time.total_seconds())
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    for place, (unit, size) in enumerate(units):
        if seconds >= size and unit != "s":
            below, less = units[place + 1]
            rest = seconds % size // less
            return f"{seconds // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{seconds} s"
