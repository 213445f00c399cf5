"""Webhooks on their way: in the background, for a slow receiver delays nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container

from imageprocessing_operator.metrics import Metrics
from imageprocessing_operator.state import Delivery, Request
from imageprocessing_operator.webhook import Courier


class Deliveries:
    """At most one at a time for a request, by its UID; what came of it until it is in status."""

    def __init__(self, courier: Courier, metrics: Metrics) -> None:
        self._courier, self._metrics = courier, metrics
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._ended: dict[str, Delivery] = {}

    def send(self, request: Request, attempt: int, ended: Callable[[], None]) -> None:
        """Begins one, and calls `ended` after it."""
        # One that ended since the decision was made comes into status first.
        if request.uid in self._under_way or request.uid in self._ended:
            return

        async def deliver() -> None:
            try:
                delivery = await self._courier.deliver(request, attempt)
                self._metrics.count_attempt(delivery.outcome)
                self._ended[request.uid] = delivery
            finally:
                del self._under_way[request.uid]
                ended()

        self._under_way[request.uid] = asyncio.create_task(deliver())

    def last(self, uid: str) -> Delivery | None:
        """What came of the last one, None once that is in status."""
        return self._ended.get(uid)

    def is_in_status(self, uid: str, delivery: Delivery | None) -> None:
        """This one is; another may have ended meanwhile."""
        if delivery is not None and self._ended.get(uid) is delivery:
            del self._ended[uid]

    def keep(self, living: Container[str]) -> None:
        """Forgets those of requests that are gone."""
        self._ended = {uid: last for uid, last in self._ended.items() if uid in living}
