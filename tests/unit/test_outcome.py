"""How a request ended."""

from __future__ import annotations

from typing import Any

import pytest
from imageprocessing_contract.report import Catalogue
from imageprocessing_operator.outcome import judge

from tests.unit.operator_state import a_request, done

# maxFailedImages, succeeded, failed, rows left out, cause, and Ready's status and reason.
CASES: list[tuple[int | str, int, int, int, str | None, str, str]] = [
    ("100%", 10, 0, 0, None, "True", "Succeeded"),
    ("100%", 0, 0, 0, None, "True", "Succeeded"),
    ("100%", 9, 1, 0, None, "True", "PartiallySucceeded"),
    ("100%", 10, 0, 2, None, "True", "PartiallySucceeded"),
    ("100%", 0, 10, 0, None, "False", "AllImagesFailed"),
    (0, 9, 1, 0, None, "False", "TooManyFailedImages"),
    (1, 9, 1, 0, None, "True", "PartiallySucceeded"),
    ("10%", 9, 1, 0, None, "True", "PartiallySucceeded"),
    ("9%", 9, 1, 0, None, "False", "TooManyFailedImages"),
    ("0%", 10, 0, 0, None, "True", "Succeeded"),
    ("100%", 9, 1, 0, "DeadlineExceeded", "False", "DeadlineExceeded"),
    ("100%", 0, 10, 0, "DeadlineExceeded", "False", "DeadlineExceeded"),
]


@pytest.mark.parametrize(("limit", "ok", "failed", "left_out", "cause", "ready", "reason"), CASES)
def test_outcome(
    limit: Any, ok: int, failed: int, left_out: int, cause: str | None, ready: str, reason: str
) -> None:
    policy = {"maxFailedImages": limit, "invalidRows": "Skip"}
    catalogue = Catalogue(rows=10, images=10, invalid_rows=left_out)
    phase = judge(a_request(failurePolicy=policy).spec, done(ok, failed, cause=cause), catalogue)
    assert (phase.ready.status, phase.ready.reason) == (ready, reason)
    assert phase.finished.status == "True"


def test_the_message_counts() -> None:
    catalogue = Catalogue(rows=10, images=10, invalid_rows=2)
    phase = judge(a_request().spec, done(9, 3, failed_shards=1), catalogue)
    assert phase.ready.message == (
        "9 of 12 images done, 3 failed (failed shards: 1), 2 invalid rows left out"
    )
