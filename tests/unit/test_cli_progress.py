"""How far a request is, and how watching shows it."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from imageprocessing_cli.describe import describe
from imageprocessing_cli.following import Failures, follow
from imageprocessing_cli.manifest import with_defaults
from imageprocessing_cli.progress import (
    duration,
    exit_code,
    headline,
    rate_text,
    status_of,
    working_seconds,
)
from imageprocessing_contract import names
from imageprocessing_contract.reasons import Condition
from rich.console import Console

START = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
RUNNING = {"Ready": ("Unknown", "Processing", "images are being fetched"),
           "Reconciling": ("True", "Progressing", "")}  # fmt: skip


def request(
    said: dict[str, tuple[str, str, str]] | None = None, processed: int = 0, **status: Any
) -> dict[str, Any]:
    """A request of 180 images in 3 shards."""
    conditions = [
        {"type": kind, "status": truth, "reason": reason, "message": message,
         "lastTransitionTime": "2026-11-23T12:00:00Z"}
        for kind, (truth, reason, message) in (said or RUNNING).items()
    ]  # fmt: skip
    images = {"total": 180, "processed": processed, "succeeded": 0, "failed": 0, "unchanged": 0}
    whole = {"conditions": conditions, "images": images, "startTime": "2026-11-23T12:00:00Z"}
    return {"metadata": {"name": "spring"}, "status": {**whole, **status}}


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


PROGRESS = {"since": "2026-11-23T12:00:00Z", "imagesPerMinute": 120, "timeLeft": "1m"}


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (PROGRESS, "120 images/min, 1m left"),
        ({"since": "2026-11-23T12:00:00Z"}, ""),
        ({key: PROGRESS[key] for key in ("since", "imagesPerMinute")}, "120 images/min"),
        (None, ""),
    ],
    ids=["going", "no shard yet", "all done", "no shards"],
)
def test_rate_and_time_left_are_what_the_operator_says(
    found: dict[str, Any] | None, text: str
) -> None:
    assert rate_text(status_of(request(**({"progress": found} if found else {})))) == text


def test_time_spent_suspended_is_not_time_at_work() -> None:
    status = status_of(request(suspendedSeconds=10, suspendTime="2026-11-23T12:00:40Z"))
    assert working_seconds(status, after(1000)) == 30
    assert working_seconds(status_of(request()), after(1000)) == 1000
    assert working_seconds(status_of(request(completionTime="2026-11-23T12:00:05Z")), after(9)) == 5
    assert working_seconds(status_of({}), START) == 0


def test_a_request_that_nobody_has_seen_is_pending() -> None:
    status = status_of({"metadata": {}, "spec": {}})
    assert headline(status) == "Pending: no operator has seen the request yet"


def test_what_keeps_pods_from_running_is_in_the_headline() -> None:
    said = RUNNING | {"Reconciling": ("True", "Unschedulable", "0/3 nodes fit")}
    assert headline(status_of(request(said))) == "Processing: Unschedulable: 0/3 nodes fit"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 m"), (65, "1 m 5 s"), (3600, "1 h"), (3700, "1 h 1 m"),
     (90_061, "1 d 1 h"), (172_800, "2 d")],
)  # fmt: skip
def test_durations_have_two_units(seconds: int, text: str) -> None:
    assert duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("truth", "reason", "code"),
    [("True", "Succeeded", 0), ("True", "PartiallySucceeded", 3), ("False", "AllImagesFailed", 1)],
)
def test_the_exit_code_is_the_outcome(truth: str, reason: str, code: int) -> None:
    assert exit_code(status_of(request({"Ready": (truth, reason, "")}))) == code


def states() -> list[dict[str, Any]]:
    """What a watch yields: the first state twice, markup in a message, two failures at the end."""
    shards = {"total": 3, "active": 2, "succeeded": 1, "failed": 0}
    failures = [
        {"line": n, "url": f"https://a.example/[red]{n}", "reason": "HTTPError", "message": "404"}
        for n in (2, 3)
    ]
    over = {
        "Ready": ("True", "PartiallySucceeded", "178 of 180 images done, 2 failed"),
        "Finished": ("True", "PartiallySucceeded", ""),
    }
    return [
        request(),
        request(),
        request(processed=60, shards=shards, progress=PROGRESS, failures=failures[:1]),
        request(over, processed=180, shards=shards, failures=failures),
        request(),
    ]


def test_lines_come_when_something_changes() -> None:
    text = io.StringIO()
    console = Console(file=text, width=40)
    status = follow(iter(states()), console, Failures(console))
    assert status.is_true(Condition.FINISHED)
    assert text.getvalue().splitlines() == [
        "spring: Processing: 0 of 180 images",
        "spring: Processing: 60 of 180 images, shards: 1 of 3 done, 2 running,"
        " 120 images/min, 1m left",
        "  line 2: https://a.example/[red]2: HTTPError: 404",
        "spring: PartiallySucceeded: 178 of 180 images done, 2 failed",
        "  line 3: https://a.example/[red]3: HTTPError: 404",
    ]


def test_a_terminal_shows_a_bar() -> None:
    text = io.StringIO()
    console = Console(file=text, width=120, force_terminal=True, color_system=None)
    follow(iter(states()[:3]), console, Failures(console))
    assert "60/180 120 images/min, 1m left shards: 1 of 3 done, 2 running" in text.getvalue()
    assert "  line 2: https://a.example/[red]2: HTTPError: 404" in text.getvalue()


def test_each_reason_of_a_row_comes_with_what_to_do() -> None:
    """CatalogueInvalid alone says no more than to mend the CSV."""
    rows = [
        {"line": line, "reason": reason, "message": "m"}
        for line, reason in [(2, "InvalidURL"), (3, "NoURLs"), (4, "InvalidURL")]
    ]
    counts = {"rows": 3, "images": 0, "invalidRows": 3, "samples": rows}
    said = {"Ready": ("False", "CatalogueInvalid", "m")}
    spec = {"source": {"inline": "x"}, "output": {"gcs": {"bucket": "shop"}}}
    meta = {"name": "spring", "namespace": "shop", "uid": "1"}
    kind = {"apiVersion": names.API_VERSION, "kind": names.KIND}
    whole = with_defaults({**kind, "metadata": meta, "spec": spec})
    page = describe({**whole, "status": request(said, catalogue=counts)["status"]}, after(9))
    steps = page.partition("What to do\n")[2].splitlines()
    assert [step.split(":")[0].strip() for step in steps] == [
        "CatalogueInvalid",
        "InvalidURL",
        "NoURLs",
    ]
