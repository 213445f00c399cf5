"""Fetches images from servers of strangers, within limits of time and size."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from http import HTTPStatus
from types import SimpleNamespace, TracebackType
from typing import Self

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from aiohttp.http_exceptions import ContentEncodingError, LineTooLong
from imageprocessing_contract import request
from imageprocessing_contract.guard import Guard
from imageprocessing_contract.reasons import ImageReason

from imageprocessing_worker import window
from imageprocessing_worker.budget import Budget
from imageprocessing_worker.http_get import (
    MAX_REDIRECTS,
    BadStatusError,
    RefusedError,
    TooManyRedirectsError,
    get,
    open_session,
)

ACCEPT = "image/avif,image/webp,image/png,image/jpeg,image/*;q=0.9,*/*;q=0.5"
# Request Timeout, Too Early, Too Many Requests: the same request may succeed later.
_TRANSIENT_STATUS = frozenset({408, 425, 429})


SMALL_BODY = 1 << 20
"""Most that each body may have without asking, in bytes: product photographs have fewer."""


class Heard(Enum):
    """What an attempt tells of its host."""

    ANSWER = "it answered, whatever it said"
    SILENCE = "it is down, or there is no way to it"
    NOTHING = "it was not asked: the URL is refused, or there is no host of that name"


class DownloadFailure(msgspec.Struct, frozen=True):
    """Why there is no image: words without query or user of the URL, in ASCII.

    Where `transient`, a later attempt may work; `retry_after` are the seconds that the
    server asks for, 0 where it only says that there are too many requests.
    """

    reason: ImageReason
    message: str
    transient: bool
    retry_after: float | None = None
    heard: Heard = Heard.ANSWER


class TooLargeError(Exception):
    """The body is larger than allowed; the text says than what."""


class Downloader:
    """Fetches many images at once through one pool of connections.

    An async context manager. As many fetches as one likes may be under way: at most
    `connections` are in all, and limits.max_connections_per_host to one host; the
    others wait, and their time does not run meanwhile. Large bodies wait for memory in
    the same way: 64 servers that all send the largest one allowed cannot fill the Pod's.
    A body that fetch() has returned is the caller's to count, or held by its stack.
    """

    def __init__(
        self,
        limits: request.Download,
        guard: Guard,
        *,
        connections: int = window.MOST,
        memory: int = 256 << 20,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """`memory`: bytes that all bodies take together while they are read.

        At most half of it is divided between the connections, for small bodies; the rest
        is for those that need more, and no body can have more than that.
        """
        self._guard = guard
        self._timeout = limits.timeout_seconds
        self._small = min(SMALL_BODY, memory // 2 // connections)
        rest = memory - self._small * connections
        self._max_bytes = request.size_bytes(limits.max_size)
        self._too_large = f"larger than {limits.max_size} (download.maxSize)"
        if self._max_bytes > rest:
            self._max_bytes = rest
            self._too_large = f"larger than {rest >> 20} MiB, the memory that there is for it"
        self._connections = connections
        self._connections_per_host = limits.max_connections_per_host
        self._budget = Budget(rest)
        self._resolver = resolver
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = open_session(
            self._guard,
            accept=ACCEPT,
            # Images are compressed already; who encodes them all the same is understood.
            accept_encoding="identity",
            connections=self._connections,
            connections_per_host=self._connections_per_host,
            resolver=self._resolver,
            on_queue=_clock_stops_in_the_queue(),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def fetch(
        self, url: str, held: AsyncExitStack | None = None
    ) -> bytearray | DownloadFailure:
        """One attempt, redirects included: the body, not empty, or why there is none.

        The memory of a large body is taken until `held` is closed, if given, and else
        until this returns. Raises nothing for what a server does.
        """
        if held is None:
            async with AsyncExitStack() as until_returned:
                return await self.fetch(url, until_returned)
        try:
            async with asyncio.timeout(self._timeout) as clock:
                response = await get(self._session, self._guard, url, clock)
                async with response:
                    body = await self._read(response, clock, held)
        except TimeoutError:
            message = f"not complete after {self._timeout} s (download.timeoutSeconds)"
            return _silence(ImageReason.TIMEOUT, message)
        except TooLargeError as error:
            return DownloadFailure(ImageReason.RESPONSE_TOO_LARGE, str(error), transient=False)
        except FAILURES as error:
            return failure_of(error)
        if not body:
            message = "the answer has no content"
            return DownloadFailure(ImageReason.EMPTY_RESPONSE, message, transient=False)
        return body

    async def _read(
        self, response: aiohttp.ClientResponse, clock: asyncio.Timeout, held: AsyncExitStack
    ) -> bytearray:
        length = response.content_length
        if length is not None and length > self._max_bytes:
            raise TooLargeError(self._too_large)
        # Grows in place: chunks that are joined would take twice the memory for a moment.
        body = bytearray()
        if await _fill(body, response, min(self._small, self._max_bytes)):
            return body
        # What is encoded may unfold to any size, and so may what has no length.
        known = length is not None and "Content-Encoding" not in response.headers
        left = _stop(clock)
        most = length if known and length else self._max_bytes
        await held.enter_async_context(self._budget.take(most))
        _go_on(clock, left)
        if not await _fill(body, response, self._max_bytes):
            raise TooLargeError(self._too_large)
        return body


async def _fill(body: bytearray, response: aiohttp.ClientResponse, limit: int) -> bool:
    """Reads until the end, or until there are more than `limit` bytes; True at the end."""
    # aiohttp decodes in steps of at most 256 KiB, so a bomb is counted before it unfolds.
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            return False
    return True


FAILURES = (aiohttp.ClientError, OSError, ValueError, TooManyRedirectsError, BadStatusError)
"""What a server can make get() and reading a body raise; ValueError: aiohttp's parsers."""


def failure_of(error: Exception) -> DownloadFailure:
    """Reason and words for one of FAILURES."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    match cause if isinstance(cause, RefusedError) else error:
        case RefusedError(why=why):
            reason = ImageReason.ADDRESS_NOT_ALLOWED
            return DownloadFailure(reason, why, transient=False, heard=Heard.NOTHING)
        case TooManyRedirectsError():
            message = f"more than {MAX_REDIRECTS} redirects"
            return DownloadFailure(ImageReason.TOO_MANY_REDIRECTS, message, transient=False)
        case BadStatusError(status=status, retry_after=later):
            return DownloadFailure(
                ImageReason.HTTP_ERROR,
                _status_line(status),
                transient=status in _TRANSIENT_STATUS or status >= 500,
                retry_after=_pause(status, later),
            )
        case aiohttp.ClientConnectorDNSError(os_error=OSError(errno=socket.EAI_NONAME)):
            # Transient all the same: a name may be new, or its server confused.
            reason, message = ImageReason.NAME_NOT_RESOLVED, "the name of the host does not exist"
            return DownloadFailure(reason, message, transient=True, heard=Heard.NOTHING)
        case aiohttp.ClientConnectorDNSError():
            message = "the name of the host could not be resolved"
            return _silence(ImageReason.NAME_NOT_RESOLVED, message)
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | ssl.SSLError():
            return DownloadFailure(ImageReason.TLS_FAILED, _tls(cause), transient=False)
        case aiohttp.ClientConnectorError(os_error=OSError(errno=int(number))):
            message = f"no connection: {os.strerror(number)}"
            return _silence(ImageReason.CONNECTION_FAILED, message)
        case aiohttp.ClientConnectorError():
            message = "no connection: no address of the host answered"
            return _silence(ImageReason.CONNECTION_FAILED, message)
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            message = "the server closed the connection without an answer"
            return _silence(ImageReason.CONNECTION_FAILED, message)
        case aiohttp.ClientPayloadError():
            message = "the answer broke off, or its encoding is broken"
            return DownloadFailure(ImageReason.RESPONSE_BROKEN, message, transient=True)
        case _:
            return DownloadFailure(ImageReason.RESPONSE_BROKEN, _not_http(error), transient=True)


def _not_http(error: Exception) -> str:
    # aiohttp wraps what its parser raises twice.
    match error.__cause__ and error.__cause__.__cause__:
        case ContentEncodingError():
            return "its Content-Encoding is neither gzip nor deflate"
        case LineTooLong():
            return "one of its headers is longer than 8190 bytes"  # the bound of aiohttp
        case _:
            return "the answer is not valid HTTP"


def _silence(reason: ImageReason, message: str) -> DownloadFailure:
    return DownloadFailure(reason, message, transient=True, heard=Heard.SILENCE)


def _pause(status: int, later: str | None) -> float | None:
    asked = retry_after(later, datetime.now(UTC))
    return 0.0 if asked is None and status == HTTPStatus.TOO_MANY_REQUESTS else asked


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; None if it does not."""
    if value is None:
        return None
    value = value.strip()
    if re.fullmatch("[0-9]{1,9}", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # OverflowError: a zone of many digits
        return None
    # A date without a zone (-0000) is UTC.
    return max(
        0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    )


def _status_line(status: int) -> str:
    # The server's own phrase could hold anything.
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP status {status}"


def _tls(error: Exception) -> str:
    seen = getattr(error, "verify_message", None) or getattr(error, "reason", None) or "broken"
    return f"TLS: {seen}".encode("ascii", "backslashreplace").decode()


def _stop(clock: asyncio.Timeout) -> float:
    """Stops the time of a fetch; the seconds that are left."""
    left = (clock.when() or 0) - asyncio.get_running_loop().time()
    clock.reschedule(None)
    return left


def _go_on(clock: asyncio.Timeout, left: float) -> None:
    clock.reschedule(asyncio.get_running_loop().time() + left)


def _clock_stops_in_the_queue() -> aiohttp.TraceConfig:
    """Stops the time of a fetch while it waits for a free connection.

    Else a slow host would fail the images that merely queue behind it.
    """

    async def queued(_: object, trace: SimpleNamespace, __: object) -> None:
        trace.left = _stop(trace.trace_request_ctx)

    async def unqueued(_: object, trace: SimpleNamespace, __: object) -> None:
        _go_on(trace.trace_request_ctx, trace.left)

    config = aiohttp.TraceConfig()
    config.on_connection_queued_start.append(queued)
    config.on_connection_queued_end.append(unqueued)
    return config
