"""Probes and metrics over HTTP."""

from __future__ import annotations

import httpx
from imageprocessing_operator.http_server import serve
from imageprocessing_operator.metrics import Metrics

from tests.cluster.control_plane import free_port


async def test_a_fault_is_told_with_503() -> None:
    fault: str | None = "a visit has taken 301 s"
    port = free_port()
    async with (
        serve(port, Metrics(), live=lambda: fault, ready=lambda: None),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        live = await client.get("/livez")
        assert (live.status_code, live.text) == (503, "a visit has taken 301 s\n")
        assert (await client.get("/readyz")).status_code == 200
        fault = None
        assert (await client.get("/livez")).status_code == 200


async def test_metrics_are_prometheus_text() -> None:
    metrics = Metrics()
    metrics.count_call("list", 200)
    port = free_port()
    async with (
        serve(port, metrics, live=lambda: None, ready=lambda: None),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'imageprocessing_api_calls_total{code="200",verb="list"} 1.0' in answer.text
