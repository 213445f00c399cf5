"""A watch that does not connect again is dead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from imageprocessing_operator.freshness import LIMIT, WATCH, Freshness
from imageprocessing_operator.metrics import Metrics
from yarl import URL


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def connect(
    freshness: Freshness, path: str, watch: str = "true", status: int = 200, since: str = ""
) -> None:
    (hook,) = freshness.trace().on_request_end
    url = URL(f"https://api{path}").with_query(watch=watch, resourceVersion=since)
    params: Any = SimpleNamespace(url=url, response=SimpleNamespace(status=status))
    session: Any = None
    await hook(session, SimpleNamespace(), params)


async def test_it_is_stale_after_the_limit() -> None:
    clock = Clock()
    freshness = Freshness(Metrics(), lambda: None, clock)
    await connect(freshness, "/jobs")
    await connect(freshness, "/requests")
    clock.now = LIMIT
    assert freshness.stale(2) is None
    await connect(freshness, "/jobs")
    clock.now = LIMIT + 1
    assert freshness.ages() == {"/jobs": 1, "/requests": LIMIT + 1}
    assert "/requests" in (freshness.stale(2) or "")


async def test_lists_and_refusals_are_no_watch() -> None:
    clock = Clock()
    freshness = Freshness(Metrics(), lambda: None, clock)
    await connect(freshness, "/jobs")
    await connect(freshness, "/requests", watch="false")
    await connect(freshness, "/requests", status=403)
    assert freshness.stale(2) is None, "it may take its time to begin"
    assert freshness.missing(1) == "the watch of /requests is refused: 403"
    clock.now = LIMIT + 1
    assert freshness.stale(2) == "1 of 2 watches have connected"
    await connect(freshness, "/jobs")
    await connect(freshness, "/requests", watch="false", status=500)
    await connect(freshness, "/events", watch="false", status=201)
    assert freshness.missing(2) == "the watch of /requests is refused: 403"
    await connect(freshness, "/requests")
    assert (freshness.missing(2), freshness.stale(2)) == (None, None)
    await connect(freshness, "/requests", status=403)
    assert freshness.missing(2) == "the watch of /requests is refused: 403"
    assert freshness.stale(2) is None, "it is not dead yet"


async def test_a_refused_call_of_the_start_is_made_up_for_by_the_next() -> None:
    """Kopf asks what resources there are before it watches; a list proves no watch, though."""
    freshness = Freshness(Metrics(), lambda: None, Clock())
    await connect(freshness, "/apis/batch/v1", watch="false", status=503)
    assert freshness.missing(1) == "the list of /apis/batch/v1 is refused: 503"
    await connect(freshness, "/apis/batch/v1", watch="false")
    await connect(freshness, "/jobs", status=403)
    await connect(freshness, "/jobs", watch="false")
    assert freshness.missing(1) == "the watch of /jobs is refused: 403"
    await connect(freshness, "/jobs")
    assert freshness.missing(1) is None


async def test_a_watch_that_begins_anew_may_have_lost_something() -> None:
    gaps: list[str] = []
    clock = Clock()
    freshness = Freshness(Metrics(), lambda: gaps.append("gap"), clock)
    await connect(freshness, "/jobs", watch="false")
    await connect(freshness, "/jobs")
    clock.now = WATCH + 1
    await connect(freshness, "/jobs")
    await connect(freshness, "/jobs", watch="false", status=500)
    await connect(freshness, "/requests", watch="false")
    assert gaps == []
    await connect(freshness, "/jobs", watch="false")
    assert gaps == ["gap"]


@pytest.mark.parametrize("seconds", [WATCH - 10, WATCH + 200])
async def test_so_may_one_that_did_not_end_in_its_time(seconds: float) -> None:
    gaps: list[str] = []
    clock = Clock()
    freshness = Freshness(Metrics(), lambda: gaps.append("gap"), clock)
    await connect(freshness, "/jobs")
    clock.now = seconds
    await connect(freshness, "/jobs")
    assert gaps == ["gap"]


async def test_the_version_that_a_watch_waits_for_is_told_once() -> None:
    freshness = Freshness(Metrics(), lambda: None)
    await connect(freshness, "/jobs", since="7")
    await connect(freshness, "/jobs", since="12")
    await connect(freshness, "/requests")
    assert freshness.resumed() == {"/jobs": 12}
    assert freshness.resumed() == {}
