"""Failed images while shards are at work; status has the first ten, but only at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from imageprocessing_contract import names
from imageprocessing_contract.report import FAILED_IMAGE, MAX_SAMPLES

from imageprocessing_cli.cluster import CORE, Cluster
from imageprocessing_cli.errors import CommandError, ServerError

_EVERY = 5.0  # seconds
_FORBIDDEN = 403
_PODS = 20
"""Whose logs are read: more make a long answer and tell the same."""
_LOG_BYTES = 100_000
"""Of a Pod's log, from its beginning: where the first failures stand."""


@contextmanager
def live_failures(cluster: Cluster, name: str, say: Callable[[list[str]], None]) -> Iterator[None]:
    """Tells the first ten failures of a request as its Pods log them, until the block ends.

    Whoever may not read Pods and their logs sees them at the end.
    """
    ended = threading.Event()

    def look() -> None:
        told, label = set[str](), ""
        while len(told) < MAX_SAMPLES and not ended.wait(_EVERY):
            try:
                label = label or _label_of(cluster, name)
                found = failures_so_far(cluster, label)
            except CommandError as error:
                if isinstance(error, ServerError) and error.status == _FORBIDDEN:
                    return
                continue  # a Pod may be gone already
            new = [line for line in found if line not in told][: MAX_SAMPLES - len(told)]
            told.update(new)
            if not ended.is_set():
                say(new)

    # Not waited for: an answer may take longer than anybody wants to wait for an end.
    threading.Thread(target=look, name="failures", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _label_of(cluster: Cluster, name: str) -> str:
    return f"{names.LABEL_REQUEST_UID}={cluster.request(name)['metadata']['uid']}"


def failures_so_far(cluster: Cluster, label: str) -> list[str]:
    """What running Pods with this label have logged; raises CommandError."""
    running = "status.phase=Running"
    query: dict[str, str | int] = {"container": names.CONTAINER, "limitBytes": _LOG_BYTES}
    return [
        line.decode(errors="replace").partition(FAILED_IMAGE)[2]
        for pod in cluster.list(CORE, "pods", label, fieldSelector=running, limit=_PODS)
        for line in cluster.lines(
            cluster.path(CORE, "pods", pod["metadata"]["name"], "log"), query, _EVERY
        )
        if FAILED_IMAGE.encode() in line
    ]
