"""Reads the catalogue from an http source in constant memory, as a plain iterator."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver
from imageprocessing_contract.guard import Guard
from imageprocessing_contract.reasons import Reason

from imageprocessing_worker.download import FAILURES, failure_of
from imageprocessing_worker.errors import SourceError
from imageprocessing_worker.http_get import get, open_session

T = TypeVar("T")
BLOCK = 256 << 10
"""Bytes of a piece. Each must come within the timeout: a rate that no honest server misses."""


def stream(
    url: str,
    guard: Guard,
    *,
    timeout: float,
    resolver: AbstractResolver | None = None,
) -> Iterator[bytes]:
    """The body of `url`, decoded, in pieces of about 256 KiB.

    `timeout` are the seconds that the answer may take to begin, and then each piece to
    come; the caller's own time between pieces does not count. Raises SourceError. The
    connection closes with the iterator. Not for use inside a running event loop.
    """
    # The loop runs only while the next piece is awaited: no thread, no queue, and a slow
    # reader slows the server down.
    with asyncio.Runner() as runner:
        opened = AsyncExitStack()
        try:
            response = runner.run(_within(timeout, _open(opened, url, guard, resolver)))
            while block := runner.run(_within(timeout, _block(response))):
                yield block
        finally:
            runner.run(opened.aclose())


async def _open(
    opened: AsyncExitStack, url: str, guard: Guard, resolver: AbstractResolver | None
) -> aiohttp.ClientResponse:
    session = await opened.enter_async_context(
        open_session(
            guard, accept="text/csv,*/*;q=0.5", accept_encoding="gzip, deflate", resolver=resolver
        )
    )
    return await opened.enter_async_context(await get(session, guard, url))


async def _block(response: aiohttp.ClientResponse) -> bytes:
    """The next piece; empty at the end."""
    block = bytearray()
    while len(block) < BLOCK and (chunk := await response.content.readany()):
        block += chunk
    return bytes(block)


async def _within(seconds: float, step: Coroutine[Any, Any, T]) -> T:
    """The step's result; whatever goes wrong becomes a SourceError."""
    try:
        async with asyncio.timeout(seconds):
            return await step
    except TimeoutError:
        message = f"the source sent too little within {seconds:g} s"
        raise SourceError(Reason.SOURCE_NOT_READABLE, message, transient=True) from None
    except FAILURES as error:
        failure = failure_of(error)
        raise SourceError(
            Reason.SOURCE_NOT_READABLE,
            f"the source: {failure.message}",
            transient=failure.transient,
        ) from error
