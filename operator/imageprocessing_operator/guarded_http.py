"""The webhook's HTTP client: it connects to what the guard allows, and nowhere else."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpcore
import httpx
from httpcore import SOCKET_OPTION, AnyIOBackend, AsyncNetworkBackend, AsyncNetworkStream
from imageprocessing_contract import __version__
from imageprocessing_contract.guard import Guard

Resolve = Callable[[str], Awaitable[list[str]]]
"""The addresses of a host; raises OSError where there are none."""


class AddressNotAllowedError(httpx.TransportError):
    """The guard refuses the URL, or each address of its host.

    Trying again changes nothing until the DNS or the allowed networks change.
    """


_LOOK_UPS = ThreadPoolExecutor(64, "look-up")
"""A look-up that hangs holds its thread for up to half a minute; asyncio itself has few."""


async def resolve(host: str) -> list[str]:
    """The addresses of a host, as the system's resolver has them and in its order."""
    look_up = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
    infos = await asyncio.get_running_loop().run_in_executor(_LOOK_UPS, look_up)
    return [str(info[4][0]) for info in infos]


def guarded_client(
    guard: Guard, *, timeout: float, tls: ssl.SSLContext, resolve: Resolve = resolve
) -> httpx.AsyncClient:
    """A client that follows no redirects and heeds no proxy, netrc or cookie.

    `timeout` are the seconds for each of connecting, writing and reading once; a limit
    for a whole exchange, and one for the size of an answer, are the caller's. Raises
    AddressNotAllowedError, and httpx.TransportError for the rest.
    """

    async def check_url(request: httpx.Request) -> None:
        why = guard.check_url(str(request.url))
        if why is not None:
            raise AddressNotAllowedError(why, request=request)

    return httpx.AsyncClient(
        transport=_GuardedTransport(guard, tls, resolve),
        timeout=timeout,
        follow_redirects=False,
        trust_env=False,
        # One tenant's receiver must not mark the requests of another.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        headers={
            # A few kilobytes of an encoded answer could unfold to megabytes.
            "Accept-Encoding": "identity",
            "User-Agent": f"imageprocessing-operator/{__version__}",
        },
        event_hooks={"request": [check_url]},
    )


class _GuardedTransport(httpx.AsyncHTTPTransport):
    """httpx has no parameter for the network backend, so the pool is made here.

    Without super().__init__() on purpose: should httpx rename the attribute, nothing
    connects, rather than everything unguarded.
    """

    def __init__(self, guard: Guard, tls: ssl.SSLContext, resolve: Resolve) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            # Deliveries are rare: each gets a connection, and a check, of its own.
            max_keepalive_connections=0,
            # The default of 10 would let ten slow receivers hold up all others.
            max_connections=None,
            network_backend=_GuardedBackend(guard, resolve),
        )


class _GuardedBackend(AsyncNetworkBackend):
    """Resolves a host once and connects to an address that was checked.

    TLS happens above and still asks for the certificate of the host.
    """

    def __init__(self, guard: Guard, resolve: Resolve) -> None:
        self._guard = guard
        self._resolve = resolve
        self._backend = AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        """Connects to the first address that is allowed and answers, all within `timeout`."""
        try:
            async with asyncio.timeout(timeout):
                error: Exception | None = None
                for address in await self._allowed(host):
                    try:
                        return await self._backend.connect_tcp(
                            address,
                            port,
                            local_address=local_address,
                            socket_options=socket_options,
                        )
                    except httpcore.ConnectError as failed:
                        error = failed
        except TimeoutError as late:
            message = f"no connection within {timeout} s"
            raise httpcore.ConnectTimeout(message) from late
        raise error or httpcore.ConnectError("the name of the host has no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        """Refused: no receiver is a file."""
        raise AddressNotAllowedError("a unix socket is not an address")

    async def sleep(self, seconds: float) -> None:
        """Pauses between the pool's own retries."""
        await asyncio.sleep(seconds)

    async def _allowed(self, host: str) -> list[str]:
        try:
            addresses = await self._resolve(host)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError("the name of the host could not be resolved") from error
        reasons = {address: self._guard.refuse(address) for address in addresses}
        allowed = [address for address, why in reasons.items() if why is None]
        if reasons and not allowed:
            raise AddressNotAllowedError(next(filter(None, reasons.values())))
        return allowed
