"""HTTP GET for URLs of strangers: each connection guarded, redirects followed here.

What goes wrong is raised; download.py gives it a reason.
"""

from __future__ import annotations

import re
import socket
from urllib.parse import quote, urljoin

import aiohttp
from aiohttp.abc import AbstractResolver
from imageprocessing_contract import __version__
from imageprocessing_contract.guard import MAX_URL, Guard
from yarl import URL

MAX_REDIRECTS = 5
"""What ssrfguard takes for honest; a CDN needs one or two."""
MAX_LOCATION = 8190
"""Characters of a Location: the longest header line that aiohttp takes. Signed URLs are long."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# All that a URL may hold in ASCII stays; the rest is escaped, as RFC 3987 (3.1) has it.
_ASCII = "".join(map(chr, range(0x21, 0x7F)))


class RefusedError(OSError):
    """The guard does not allow this URL or address; `why` says what it is.

    An OSError whose text is always the same: aiohttp merges the errors of a name's
    addresses into one, and keeps the type only where all texts are equal.
    """

    def __init__(self, why: str) -> None:
        super().__init__("refused by the guard")
        self.why = why


class TooManyRedirectsError(Exception):
    """More than 5 redirects, or a circle."""


class BadStatusError(Exception):
    """An answer that is neither a success nor a redirect to follow."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        super().__init__(response.status)
        self.status = response.status
        self.retry_after = response.headers.get("Retry-After")


def open_session(
    guard: Guard,
    *,
    accept: str,
    accept_encoding: str,
    connections: int = 1,
    connections_per_host: int = 1,
    resolver: AbstractResolver | None = None,
    on_queue: aiohttp.TraceConfig | None = None,
) -> aiohttp.ClientSession:
    """A session that connects to what the guard allows; it keeps no cookies, knows no proxies."""

    def guarded_socket(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        why = guard.refuse(str(address[0]))
        if why is not None:
            raise RefusedError(why)
        return socket.socket(family, kind, protocol)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=connections,
            limit_per_host=connections_per_host,
            resolver=resolver,
            socket_factory=guarded_socket,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "Accept": accept,
            "Accept-Encoding": accept_encoding,
            "User-Agent": f"imageprocessing-operator/{__version__}",
        },
        # Callers have limits of their own, which leave out the wait for a free connection.
        timeout=aiohttp.ClientTimeout(),
        trace_configs=[on_queue] if on_queue else None,
        trust_env=False,
    )


async def get(
    session: aiohttp.ClientSession, guard: Guard, url: str, context: object = None
) -> aiohttp.ClientResponse:
    """The answer to a GET after at most 5 redirects, its body not yet read.

    Raises RefusedError, TooManyRedirectsError, BadStatusError and what aiohttp raises; the caller
    closes the answer. `context` reaches the session's trace.
    """
    longest = MAX_URL
    for _ in range(MAX_REDIRECTS + 1):
        why = guard.check_url(url, longest)
        if why is not None:
            raise RefusedError(why)
        response = await session.get(
            as_it_came(url), allow_redirects=False, trace_request_ctx=context
        )
        location = response.headers.get("Location")
        if response.status in _REDIRECTS and location is not None:
            response.release()
            url, longest = redirected(url, location), MAX_LOCATION
        elif 200 <= response.status < 300:
            return response
        else:
            response.release()
            raise BadStatusError(response)
    raise TooManyRedirectsError


def as_it_came(url: str) -> URL:
    """The URL with each byte as it came: %2F and signed queries break when rewritten.

    Only what is not ASCII is escaped, and a host that is not ASCII becomes its DNS name;
    raises RefusedError where it has none.
    """
    if url.isascii():
        return URL(url, encoded=True)
    head, separator, rest = url.partition("://")
    cut = re.search(r"[/?#]|$", rest)
    end = cut.start() if cut else len(rest)
    try:
        authority = URL(f"{head}://{rest[:end]}").raw_authority
    except ValueError as error:
        raise RefusedError("the host name is not valid") from error
    return URL(f"{head}{separator}{authority}{quote(rest[end:], safe=_ASCII)}", encoded=True)


def redirected(url: str, location: str) -> str:
    """Where a Location header leads: relative to `url`, spaces and broken UTF-8 escaped."""
    # Headers are bytes: aiohttp hands over what is not UTF-8 as lone surrogates.
    target = re.sub("[\udc80-\udcff]", lambda m: f"%{ord(m[0]) & 0xFF:02X}", location.strip())
    target = target.replace(" ", "%20")
    # urljoin tidies a path; an absolute Location goes out as it came.
    if re.match("https?://", target, re.IGNORECASE):
        return target
    try:
        return urljoin(url, target)
    except ValueError as error:
        raise RefusedError("the redirect leads to no URL") from error
