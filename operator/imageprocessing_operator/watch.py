"""Kopf's part: the watches of requests and of their Jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import kopf
from imageprocessing_contract import names

from imageprocessing_operator.controller import UNFINISHED, UNSETTLED, Controller
from imageprocessing_operator.credentials import Connection
from imageprocessing_operator.freshness import WATCH, Freshness
from imageprocessing_operator.settings import Settings

_LOGIN_AGAIN = 5.0  # seconds


class _Backoffs:
    """Seconds between tries of Kopf's own calls; iterating starts anew, without an end."""

    def __iter__(self) -> Iterator[float]:
        yield from (1, 2, 4, 8)
        while True:
            yield 15


class _NoDiffs(kopf.DiffBaseStorage):
    """Keeps nothing of an object to compare it with later."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Nothing of it counts."""
        return {}

    def fetch(self, **_: Any) -> None:
        """Nothing is kept."""

    def store(self, **_: Any) -> None:
        """Nothing is kept."""


def operator_settings() -> kopf.OperatorSettings:
    """Kopf's settings, each with its reason."""
    settings = kopf.OperatorSettings()
    settings.watching.server_timeout = WATCH
    settings.watching.client_timeout = WATCH + 10
    settings.watching.connect_timeout = 10
    # Bookmarks come every 60 s; silence for longer is a connection that died.
    settings.watching.inactivity_timeout = 70
    settings.watching.field_selectors[names.GROUP, names.PLURAL] = UNSETTLED
    settings.watching.label_selectors["batch", "jobs"] = UNFINISHED
    # Handlers' log lines are no Kubernetes events.
    settings.posting.level = 30
    # The resources are known: no watching for new kinds and namespaces.
    settings.scanning.disabled = True
    # One replica with strategy Recreate: there is nobody to agree with.
    settings.peering.standalone = True
    # Handlers only feed a queue; a limit would delay the order of events.
    settings.queueing.worker_limit = None
    settings.networking.error_backoffs = _Backoffs()
    # Half of the CPU of an event is copying the object for a diff that nobody asks for.
    settings.persistence.diffbase_storage = _NoDiffs()
    return settings


async def watch(
    controller: Controller,
    connection: Connection,
    freshness: Freshness,
    settings: Settings,
) -> None:
    """Runs the watches until a signal; raises what ends one of them, at once."""
    registry = kopf.OperatorRegistry()
    first = True

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        nonlocal first
        if not first:
            # The token was refused. Kopf itself would ask for another one without a pause.
            connection.note_refusal()
            await asyncio.sleep(_LOGIN_AGAIN)
            await connection.refresh()
        first = False
        return kopf.AiohttpSession(
            server=connection.configuration.host, aiohttp_session=_session(connection, freshness)
        )

    # Coroutines: Kopf calls plain functions in threads, which costs more than the rest.
    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)
    async def on_request(event: kopf.RawEvent, **_: Any) -> None:
        controller.see_request(event["type"], dict(event["object"]))

    @kopf.on.event("batch", "v1", "jobs", registry=registry)
    async def on_job(event: kopf.RawEvent, **_: Any) -> None:
        controller.see_job(event["type"], dict(event["object"]))

    before = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=operator_settings(),
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
    )
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    # Here and not by run_tasks(), which waits for tasks that may refuse to be cancelled.
    for task in ended:
        task.result()
    await kopf.run_tasks(tasks, ignored=before)


def _session(connection: Connection, freshness: Freshness) -> aiohttp.ClientSession:
    """A session like the client's own, with a token that is read anew for each request."""
    configuration = connection.configuration

    async def authorise(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        await connection.refresh()
        if token := await configuration.get_api_key_with_prefix("BearerToken"):
            request.headers["Authorization"] = token
        return await handler(request)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=connection.rest_client.ssl_context),
        middlewares=(authorise,),
        trace_configs=[freshness.trace()],
        read_bufsize=2**21,  # an event is one line, and may be long
    )
