"""Rate and time left of shards."""

from __future__ import annotations

from datetime import timedelta

import pytest
from imageprocessing_operator.progress import reckon
from imageprocessing_operator.status import Images, Progress

from tests.unit.operator_state import NOW


def after(seconds: int, processed: int, *, known: int = 0, total: int = 1000) -> Progress:
    begun = reckon(None, Images(total=total), 0, NOW)
    return reckon(
        begun,
        Images(total=total, processed=known),
        processed,
        NOW + timedelta(seconds=seconds),
    )


def test_the_first_look_only_notes_where_it_began() -> None:
    found = reckon(None, Images(total=1000, processed=200), 200, NOW)
    assert found == Progress(since=NOW, processed_before=200)


def test_rate_and_time_left() -> None:
    found = after(60, 100)
    assert (found.images_per_minute, found.time_left) == (100, "9m0s")


def test_what_was_done_before_a_pause_does_not_count() -> None:
    """Resumed at 500 of 1,000: a hundred more in a minute."""
    begun = reckon(None, Images(total=1000, processed=500), 500, NOW)
    found = reckon(begun, Images(total=1000, processed=500), 600, NOW + timedelta(seconds=60))
    assert (found.images_per_minute, found.time_left) == (100, "4m0s")


def test_without_a_new_count_nothing_changes() -> None:
    begun = reckon(None, Images(total=1000), 0, NOW)
    first = reckon(begun, Images(total=1000), 100, NOW + timedelta(seconds=60))
    later = NOW + timedelta(seconds=90)
    assert reckon(first, Images(total=1000, processed=100), 100, later) is first


def test_a_count_that_falls_changes_nothing() -> None:
    """A Job that was deleted and made again begins at nothing."""
    begun = reckon(None, Images(total=1000, processed=500), 500, NOW)
    assert reckon(begun, Images(total=1000, processed=500), 100, NOW) is begun


def test_no_time_left_at_the_end() -> None:
    assert after(10, 1000).time_left is None


def test_in_no_time() -> None:
    """Times are whole seconds."""
    assert after(0, 500).images_per_minute == 30_000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "1s"),
        (119, "119s"),
        (120, "2m0s"),
        (599, "9m59s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h0m"),
        (28_799, "7h59m"),
        (28_800, "8h"),
        (172_799, "47h"),
        (172_800, "2d"),
    ],
)
def test_durations(seconds: int, text: str) -> None:
    """As kubectl has them."""
    assert after(1, 1, total=seconds + 1).time_left == text
