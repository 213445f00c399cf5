"""How often status is written."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from imageprocessing_operator.pacing import PROGRESS, Written, note
from imageprocessing_operator.state import Request

from tests.unit.operator_state import a_request

COUNTS = {"images": {"processed": 3}, "progress": None}
OURS = Written(when=100.0, version="10", generation=1, pause=8.0)


def version(number: int, generation: int = 1) -> Request:
    return msgspec.structs.replace(a_request(), resource_version=str(number), generation=generation)


CASES: dict[str, tuple[Request, dict[str, Any], float, float]] = {
    "a step": (version(10), {"steps": {"plan": 1}}, 100.0, 0.0),
    "counts": (version(10), COUNTS, 100.5, PROGRESS - 0.5),
    "counts, later": (version(10), COUNTS, 103.0, 0.0),
    "counts and more": (version(10), {**COUNTS, "conditions": []}, 100.5, 0.0),
    "somebody wrote": (version(11), {"steps": {"plan": 1}}, 103.0, 5.0),
    "somebody wrote long ago": (version(11), {"steps": {"plan": 1}}, 109.0, 0.0),
    "somebody edited": (version(11, generation=2), {"steps": {"plan": 1}}, 100.0, 0.0),
}


@pytest.mark.parametrize("case", CASES)
def test_how_long_a_write_waits(case: str) -> None:
    request, patch, now, seconds = CASES[case]
    assert OURS.wait(request, patch, now) == pytest.approx(seconds)


def test_a_dispute_doubles_the_pause_up_to_a_minute() -> None:
    """And it starts anew once nobody else writes."""
    last, pauses = None, []
    for number in range(10, 24, 2):
        # Our write made the next version, somebody else the one after it.
        last = note(last, version(number), version(number + 1), now=0.0)
        pauses.append(last.pause)
    assert pauses == [2, 4, 8, 16, 32, 60, 60]
    assert last is not None
    assert note(last, version(23), version(24), now=5.0) == Written(5.0, "24", 1, PROGRESS)
