"""Failed images that ipr watch shows while shards are at work."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from imageprocessing_cli import live_failures
from imageprocessing_cli.cluster import Cluster, connect
from imageprocessing_contract.report import FAILED_IMAGE

from tests.unit.http_servers import QuietHandler, serving
from tests.unit.kubeconfigs import write_kubeconfig

SHOP = "/apis/imageprocessing.dev/v1alpha1/namespaces/shop/imageprocessingrequests"


@dataclass
class Server:
    """An API server with one request, and Pods by name with their logs."""

    address: str
    logs: dict[str, str | int] = field(default_factory=dict)
    """Text, or the status of a refusal."""
    pods: int = 200
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 - as http.server names it
            path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
            if path == f"{SHOP}/spring":
                self.answer(200, json.dumps({"metadata": {"uid": "u1"}}))
            elif path.endswith("/pods"):
                assert query["labelSelector"] == ["imageprocessing.dev/request-uid=u1"]
                assert query["fieldSelector"] == ["status.phase=Running"]
                items = [{"metadata": {"name": name}} for name in served.logs]
                served.asked.release()
                self.answer(served.pods, json.dumps({"items": items}))
            else:
                assert query["container"] == ["worker"]
                log = served.logs[path.split("/")[-2]]
                self.answer(*((log, "{}") if isinstance(log, int) else (200, log)))

        def answer(self, code: int, text: str) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

    with serving(Handler) as address:
        served = Server(address)
        yield served


@pytest.fixture
def cluster(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(live_failures, "_EVERY", 0.01)
    return connect(write_kubeconfig(tmp_path, server.address), None, None)


def log(*numbers: int) -> str:
    """As the worker writes it, with other lines in between."""
    lines = [f"2026-11-23 12:00:00,1 WARNING {FAILED_IMAGE}line {n}: u: r: m" for n in numbers]
    return "\n".join(["2026-11-23 12:00:00,0 INFO shard 0: begun", *lines, "the end"])


class Said:
    """What was said, and how many lines there are to wait for."""

    def __init__(self, count: int) -> None:
        self.lines: list[str] = []
        self.all = threading.Event()
        self._count = count

    def __call__(self, lines: list[str]) -> None:
        self.lines += lines
        if len(self.lines) >= self._count:
            self.all.set()


def test_each_is_told_once_up_to_ten(server: Server, cluster: Cluster) -> None:
    """A Pod that is gone meanwhile spoils nothing."""
    server.logs = {"a": log(2, 3), "gone": 404}
    said = Said(10)
    with live_failures.live_failures(cluster, "spring", said):
        for _ in range(2):
            assert server.asked.acquire(timeout=60)
        server.logs = {"a": log(2, 3)}
        for _ in range(3):
            assert server.asked.acquire(timeout=60)
        server.logs = {"a": log(2, 3), "b": log(*range(3, 99))}
        assert said.all.wait(60)
    assert said.lines == [f"line {n}: u: r: m" for n in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11)]


def test_who_may_not_read_pods_is_not_told(server: Server, cluster: Cluster) -> None:
    """And does not ask again."""
    server.pods = 403
    said = Said(1)
    with live_failures.live_failures(cluster, "spring", said):
        assert server.asked.acquire(timeout=60)
        for thread in threading.enumerate():
            if thread.name == "failures":
                thread.join(60)
                assert not thread.is_alive()
        assert not server.asked.acquire(blocking=False)
    assert said.lines == []
