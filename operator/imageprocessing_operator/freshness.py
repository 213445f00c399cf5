"""Whether the watches are alive, seen at the connections themselves.

Kopf can live on deaf: an error inside a watch stream ended its tasks while the
process went on (tried). A watch connects again at least every 300 s.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import aiohttp

from imageprocessing_operator.metrics import Metrics

LIMIT = 330.0
"""Seconds: the server ends a watch after 300, the client after 310."""


class Freshness:
    """Notes when each watch last connected."""

    def __init__(
        self,
        metrics: Metrics,
        on_gap: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_gap` is called when a watch begins anew: what was deleted meanwhile it never says."""
        self._metrics, self._on_gap, self._clock = metrics, on_gap, clock
        self._started = clock()
        self._seen: dict[str, float] = {}

    def trace(self) -> aiohttp.TraceConfig:
        """For the session that the watches use."""
        config = aiohttp.TraceConfig()
        config.on_request_end.append(self._on_request_end)
        return config

    def stale(self, watches: int) -> str | None:
        """Which watch has been silent too long, None while all are fresh."""
        now = self._clock()
        if (missing := self.missing(watches)) and now - self._started > LIMIT:
            return missing
        for path, seen in self._seen.items():
            if now - seen > LIMIT:
                return f"the watch of {path} has not connected for {now - seen:.0f} s"
        return None

    def ages(self) -> dict[str, float]:
        """Seconds since each watch last connected, by its path."""
        now = self._clock()
        return {path: now - seen for path, seen in self._seen.items()}

    def missing(self, watches: int) -> str | None:
        """What is not watched yet, None once all are."""
        if len(self._seen) < watches:
            return f"{len(self._seen)} of {watches} watches have connected"
        return None

    async def _on_request_end(
        self,
        session: aiohttp.ClientSession,
        context: SimpleNamespace,
        params: aiohttp.TraceRequestEndParams,
    ) -> None:
        watch = params.url.query.get("watch") == "true"
        self._metrics.count_call("watch" if watch else "list", params.response.status)
        if params.response.status != 200:
            return
        if watch:
            self._seen[params.url.path] = self._clock()
        elif params.url.path in self._seen:
            self._on_gap()
