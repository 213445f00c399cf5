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

WATCH = 300
"""Seconds after which the server ends a watch, so that a dead one is noticed."""
LIMIT = 330.0
"""Seconds: the client ends a watch ten after the server should have."""
_SLACK = 5.0  # seconds by which a watch that ended in time comes back sooner or later


class Freshness:
    """Notes when each watch last connected."""

    def __init__(
        self,
        metrics: Metrics,
        on_gap: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_gap` is called when a watch may never tell of something.

        It begins anew: what was deleted meanwhile it does not say. Or it did not end in its
        time: who knows what became of the API server.
        """
        self._metrics, self._on_gap, self._clock = metrics, on_gap, clock
        self._started = clock()
        self._seen: dict[str, float] = {}
        self._since: dict[str, int] = {}
        self._refused: dict[tuple[str, bool], int] = {}  # by path, and whether it is a watch

    def trace(self) -> aiohttp.TraceConfig:
        """For the session that the watches use."""
        config = aiohttp.TraceConfig()
        config.on_request_end.append(self._on_request_end)
        return config

    def stale(self, watches: int) -> str | None:
        """Which watch has been silent too long, None while all are fresh."""
        now = self._clock()
        if (missing := self._unconnected(watches)) and now - self._started > LIMIT:
            return missing
        for path, seen in self._seen.items():
            if now - seen > LIMIT:
                return f"the watch of {path} has not connected for {now - seen:.0f} s"
        return None

    def ages(self) -> dict[str, float]:
        """Seconds since each watch last connected, by its path."""
        now = self._clock()
        return {path: now - seen for path, seen in self._seen.items()}

    def resumed(self) -> dict[str, int]:
        """Version since which each watch was resumed, by its path; each is told once.

        A watch of a version that is yet to come is silent until then (tried): after a restore
        of etcd that may be never.
        """
        since, self._since = self._since, {}
        return since

    def missing(self, watches: int) -> str | None:
        """What is not watched, None while all are."""
        for (path, watch), status in self._refused.items():
            return f"the {'watch' if watch else 'list'} of {path} is refused: {status}"
        return self._unconnected(watches)

    def _unconnected(self, watches: int) -> str | None:
        if len(self._seen) < watches:
            return f"{len(self._seen)} of {watches} watches have connected"
        return None

    async def _on_request_end(
        self,
        session: aiohttp.ClientSession,
        context: SimpleNamespace,
        params: aiohttp.TraceRequestEndParams,
    ) -> None:
        path, query, status = params.url.path, params.url.query, params.response.status
        watch = query.get("watch") == "true"
        self._metrics.count_call("watch" if watch else "list", status)
        if status >= 400:
            self._refused[path, watch] = status
            return
        self._refused.pop((path, watch), None)
        if not watch:
            if path in self._seen:
                self._on_gap()
            return
        self._refused.pop((path, False), None)
        now = self._clock()
        if path in self._seen and abs(now - self._seen[path] - WATCH) > _SLACK:
            self._on_gap()
        self._seen[path] = now
        if version := query.get("resourceVersion"):
            self._since[path] = int(version)
