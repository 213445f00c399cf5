"""What the operator answers: Prometheus, and the kubelet's probes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_LATEST

from imageprocessing_operator.metrics import Metrics

Fault = Callable[[], str | None]
"""What is wrong, None while nothing is."""


@asynccontextmanager
async def serve(port: int, metrics: Metrics, *, live: Fault, ready: Fault) -> AsyncIterator[None]:
    """Serves /metrics, /livez and /readyz on all addresses until the block ends.

    Raises OSError where the port is taken.
    """

    async def show(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/metrics", show)
    app.router.add_get("/livez", _probe(live))
    app.router.add_get("/readyz", _probe(ready))
    app.on_response_prepare.append(_close)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
        yield
    finally:
        await runner.cleanup()


async def _close(_: web.Request, response: web.StreamResponse) -> None:
    # A connection that is kept is a task, and Kopf waits at its end for tasks it does not know.
    response.force_close()


def _probe(fault: Fault) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        wrong = fault()
        return web.Response(status=503 if wrong else 200, text=f"{wrong or 'ok'}\n")

    return answer
