"""A proxy between the operator and the API server: it counts calls, and makes faults."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

from tests.apiserver.kube import connection_of

_LONGEST_LINE = 2**22  # bytes of one event of a watch
_HOP = {"host", "content-length", "transfer-encoding", "connection"}


@dataclass(frozen=True)
class Call:
    """One call of the operator."""

    method: str
    path: str
    query: str
    body: bytes = field(repr=False)

    @property
    def is_watch(self) -> bool:
        return "watch=true" in self.query

    @property
    def is_write(self) -> bool:
        return self.method != "GET"


@dataclass(frozen=True)
class Answer:
    """Instead of the API server."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cut:
    """The connection ends, before the API server gets the call or before its answer is passed on.

    `first` is done just before: a test kills the operator there.
    """

    after: bool
    first: Callable[[], object] = lambda: None


Fault = Callable[[Call], Answer | Cut | None]
Events = Callable[[Call, bytes], Iterable[bytes]]
"""What a watch passes on in place of one event, which is a line."""


class Proxy:
    """Plain HTTP at `url`, as the API server's administrator unless a call brings a token."""

    def __init__(self, kubeconfig: Path) -> None:
        self._server, self._tls, self._headers = connection_of(kubeconfig)
        self.calls: list[Call] = []
        self.fault: Fault = lambda _: None
        self.events: Events = lambda _, line: (line,)
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self._speaks: asyncio.Event
        self._thread = threading.Thread(target=self._loop.run_forever)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def write_kubeconfig(self, file: Path, token: str | None = None) -> Path:
        """A kubeconfig that leads to the proxy."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": self.url}}],
            "users": [{"name": "proxy", "user": {"token": token} if token else {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        }
        file.write_text(yaml.safe_dump(config))
        return file

    # -- faults of the whole connection -----------------------------------------------

    def up(self) -> None:
        """Takes connections, at the same port as before."""
        self._run(self._up())

    def down(self) -> None:
        """Ends all connections and refuses new ones."""
        self._run(self._down())

    def silence(self) -> None:
        """Connections stay, and nothing more comes through them."""
        self._loop.call_soon_threadsafe(self._speaks.clear)

    def speak(self) -> None:
        """Passes on what was held back, and what comes."""
        self._loop.call_soon_threadsafe(self._speaks.set)

    def writes(self) -> list[Call]:
        """Calls that change something."""
        return [call for call in self.calls if call.is_write]

    # -- inside -------------------------------------------------------------------------

    def _run(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)  # type: ignore[arg-type]

    async def _start(self) -> None:
        self._speaks = asyncio.Event()
        self._speaks.set()
        self._session = aiohttp.ClientSession(
            self._server,
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls),
            timeout=aiohttp.ClientTimeout(),
            headers=self._headers,
            auto_decompress=False,
            read_bufsize=_LONGEST_LINE,
        )
        await self._up()

    async def _up(self) -> None:
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # A handler whose operator is gone is cancelled, or it would wait for ever.
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.01
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def _down(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _stop(self) -> None:
        self._speaks.set()
        await self._down()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = Call(request.method, request.path, request.query_string, await request.read())
        self.calls.append(call)
        fault = self.fault(call)
        await self._speaks.wait()
        if isinstance(fault, Answer):
            return web.Response(status=fault.status, body=fault.body, headers=fault.headers)
        if isinstance(fault, Cut) and not fault.after:
            return self._cut(request, fault)
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in _HOP
        }
        async with self._session.request(
            call.method, request.path_qs, data=call.body or None, headers=headers
        ) as upstream:
            if isinstance(fault, Cut):
                await upstream.read()
                return self._cut(request, fault)
            headers = {n: v for n, v in upstream.headers.items() if n.lower() not in _HOP}
            response = web.StreamResponse(status=upstream.status, headers=headers)
            if not call.is_watch:
                body = await upstream.read()
                await self._speaks.wait()
                return web.Response(status=upstream.status, body=body, headers=headers)
            # The operator may be gone before the watch is.
            with contextlib.suppress(ConnectionError):
                await response.prepare(request)
                async for line in upstream.content:
                    for event in self.events(call, line):
                        await self._speaks.wait()
                        await response.write(event)
            return response

    def _cut(self, request: web.Request, fault: Cut) -> web.Response:
        fault.first()
        if request.transport is not None:
            request.transport.abort()
        return web.Response()


@contextlib.contextmanager
def proxied(kubeconfig: Path) -> Iterator[Proxy]:
    """A proxy before this API server until the block ends."""
    proxy = Proxy(kubeconfig)
    proxy._thread.start()
    try:
        proxy._run(proxy._start())
        yield proxy
    finally:
        proxy._run(proxy._stop())
        proxy._loop.call_soon_threadsafe(proxy._loop.stop)
        proxy._thread.join()
        proxy._loop.close()
