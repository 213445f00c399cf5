"""What the operator counts, for Prometheus."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping

from imageprocessing_contract.reasons import Condition
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from imageprocessing_operator.state import Seen
from imageprocessing_operator.status import Status

_PREFIX = "imageprocessing_"
_UNSEEN = "Pending"
"""State of a request that has no conditions yet."""


class Metrics:
    """Counters that only go up; what is true at the moment is asked for at each scrape."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.reconcile_seconds = Histogram(
            f"{_PREFIX}reconcile_seconds",
            "Time of one visit to a request, calls to the API included.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30),
            registry=self.registry,
        )
        self._errors = self._counter("reconcile_errors", "Visits that failed.", "cause")
        self._calls = self._counter("api_calls", "Answers of the API server.", "verb", "code")
        self._finished = self._counter("requests_finished", "Requests that ended.", "reason")
        self._images = self._counter("images", "Images of finished requests.", "outcome")
        self._bytes = self._counter("bytes", "Bytes of finished requests' images.", "kind")
        self._webhooks = self._counter("webhook_attempts", "Webhooks sent.", "outcome")

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, help_, labels, registry=self.registry)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def count_call(self, verb: str, code: int) -> None:
        """One call to the API server; code 0 is one that had no answer."""
        self._calls.labels(verb, code).inc()

    def count_error(self, cause: str) -> None:
        """A visit that failed: `api` or `bug`."""
        self._errors.labels(cause).inc()

    def count_attempt(self, outcome: str) -> None:
        """One attempt to deliver a webhook."""
        self._webhooks.labels(outcome).inc()

    def count_end(self, status: Status) -> None:
        """A request that has just finished."""
        self._finished.labels(_state(status)).inc()
        if images := status.images:
            self._images.labels("succeeded").inc(images.succeeded)
            self._images.labels("failed").inc(images.failed)
        if size := status.bytes:
            self._bytes.labels("original").inc(size.original)
            self._bytes.labels("compressed").inc(size.compressed)

    def ask(
        self,
        *,
        requests: Callable[[], Iterable[Seen]],
        depth: Callable[[], int],
        age: Callable[[], float],
        watches: Callable[[], Mapping[str, float]],
        tasks: Callable[[], int],
    ) -> None:
        """Where to ask at each scrape; `age` and the `watches` (by path) in seconds."""

        def gauges() -> Iterator[Metric]:
            states = Tally(_state(request.status) for request in requests())
            yield _gauge("requests", "Requests that are not settled, by reason.", "state", states)
            yield _gauge("queue_depth", "Requests that wait for a visit.", value=depth())
            yield _gauge("queue_age_seconds", "How long the first of them has.", value=age())
            yield _gauge("tasks", "Tasks of asyncio; constant while idle.", value=tasks())
            yield _gauge("watch_age_seconds", "Since the watch last connected.", "path", watches())

        self.registry.register(_Asked(gauges))


class _Asked(Collector):
    def __init__(self, gauges: Callable[[], Iterator[Metric]]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        return self._gauges()


def _gauge(
    name: str,
    help_: str,
    label: str | None = None,
    values: Mapping[str, float] | None = None,
    *,
    value: float | None = None,
) -> Metric:
    family = GaugeMetricFamily(
        _PREFIX + name, help_, value=value, labels=[label] if label else None
    )
    for key, number in (values or {}).items():
        family.add_metric([key], number)
    return family


def _state(status: Status) -> str:
    ready = status.condition(Condition.READY)
    return ready.reason if ready else _UNSEEN
