"""Webhooks on their way."""

from __future__ import annotations

import asyncio

from imageprocessing_operator.deliveries import Deliveries
from imageprocessing_operator.metrics import Metrics

from tests.unit.raw_server import Exchange, RawServer
from tests.unit.test_webhook import a_courier, to


async def test_one_at_a_time_until_it_is_in_status() -> None:
    """What came of it is there until then; what is gone is forgotten."""
    deliveries, ended = Deliveries(a_courier(), Metrics()), asyncio.Event()
    received = 0

    async def receive(exchange: Exchange) -> None:
        nonlocal received
        received += 1
        await exchange.reply(b"", "200 OK")

    async with RawServer(receive) as server:
        request = to(server.url)
        for _ in range(2):
            deliveries.send(request, 1, ended.set)
        assert deliveries.last(request.uid) is None
        await ended.wait()
        first = deliveries.last(request.uid)
        assert first is not None
        deliveries.send(request, 1, ended.set)
        deliveries.is_in_status(request.uid, first)
        ended.clear()
        deliveries.send(request, 2, ended.set)
        await ended.wait()
        second = deliveries.last(request.uid)
        deliveries.is_in_status(request.uid, first)
        assert deliveries.last(request.uid) is second
        assert second is not None
        assert second.attempt == 2
    assert received == 2
    deliveries.keep({request.uid})
    assert deliveries.last(request.uid) is second
    deliveries.keep(())
    assert deliveries.last(request.uid) is None
