"""Visits: what would make one of them go on for ever."""

from __future__ import annotations

from itertools import count
from typing import Any

from imageprocessing_contract.guard import Guard
from imageprocessing_contract.reasons import Condition, Reason
from imageprocessing_operator.api import APIError
from imageprocessing_operator.cache import Cache
from imageprocessing_operator.metrics import Metrics
from imageprocessing_operator.settings import Settings
from imageprocessing_operator.state import read_request
from imageprocessing_operator.visitor import Visitor
from imageprocessing_operator.webhook import Courier
from imageprocessing_operator.workqueue import WorkQueue

from tests.unit.operator_state import NOW, SPEC, UID


class Refusing:
    """An API whose policy refuses all Jobs, in other words each time, and takes status."""

    def __init__(self) -> None:
        meta = {"namespace": "shop", "name": "spring", "uid": UID, "generation": 1}
        self.stored: dict[str, Any] = {"metadata": {**meta, "resourceVersion": "1"}, "spec": SPEC}
        self.jobs = count(1)

    async def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        if path.endswith("/jobs") and method == "POST":
            raise APIError(403, "Forbidden", f"no Jobs today, says audit entry {next(self.jobs)}")
        if method == "GET":
            raise APIError(404, "NotFound", path)
        if method == "PATCH":
            self.stored["status"] = {**self.stored.get("status", {}), **options["body"]["status"]}
            self.stored["metadata"]["resourceVersion"] += "0"
        return self.stored


async def test_a_refusal_in_other_words_each_time() -> None:
    """It is no news, or the visit would never end; what it said last is in status."""
    api, cache = Refusing(), Cache(lambda: NOW)
    courier = Courier(api, Guard())  # type: ignore[arg-type]
    visitor = Visitor(
        api,  # type: ignore[arg-type]
        courier,
        Settings(),
        Metrics(),
        cache=cache,
        queue=WorkQueue(),
        clock=lambda: NOW,
    )
    request = read_request(api.stored)
    cache.put_request(request)
    await visitor.visit((request.namespace, request.name))
    assert next(api.jobs) <= 4
    known = cache.request((request.namespace, request.name))
    assert known is not None
    stalled = known.status.condition(Condition.STALLED)
    assert stalled is not None
    assert stalled.reason == Reason.JOB_REFUSED
