"""A server on loopback that sends exactly the bytes a test wants."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Self

from aiohttp.abc import AbstractResolver, ResolveResult

Answer = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request and the connection that it came on."""

    def __init__(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.head = head
        self.target = head.split(b" ")[1]
        self.reader = reader
        self.writer = writer

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def reply(
        self, body: bytes = b"", status: str = "200 OK", **headers: str | bytes
    ) -> None:
        """Headers by name with _ for -; Content-Length is added unless given or chunked."""
        lines = {name.replace("_", "-"): value for name, value in headers.items()}
        if not {"Content-Length", "Transfer-Encoding"} & set(lines):
            lines["Content-Length"] = str(len(body))
        head = f"HTTP/1.1 {status}\r\n".encode()
        for name, value in lines.items():
            text = value if isinstance(value, bytes) else value.encode()
            head += name.encode() + b": " + text + b"\r\n"
        await self.send(head + b"\r\n" + body)

    def reset(self) -> None:
        """Ends the connection with RST instead of FIN."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class RawServer:
    """Keeps the heads of all requests; answers until `answer` raises or the client leaves."""

    def __init__(
        self,
        answer: Answer,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self._answer = answer
        self._host = host
        self.port = port
        self.heads: list[bytes] = []

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(
            self._accept, self._host, self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://{self._host}:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def lines(self) -> list[bytes]:
        return [head.split(b"\r\n")[0] for head in self.heads]

    def forget_the_dead(self) -> None:
        """Clears `heads` of all that clients asked which are gone by now; from another thread.

        What a killed client sent last may still wait to be accepted.
        """
        with socket.create_connection((self._host, self.port)) as last:
            last.shutdown(socket.SHUT_WR)
            last.recv(1)  # accepted behind all others, and closed

        async def ended() -> None:
            await asyncio.gather(*self._tasks)

        asyncio.run_coroutine_threadsafe(ended(), self._loop).result()
        self.heads.clear()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                await self._answer(Exchange(head, reader, writer))
        except (EOFError, OSError):
            pass
        finally:
            writer.close()


@contextmanager
def served(answer: Answer, host: str = "127.0.0.1") -> Iterator[RawServer]:
    """The server in a thread, for clients that block."""
    server = RawServer(answer, host)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    started = threading.Event()

    async def run() -> None:
        async with server:
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    started.wait()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


class Names(AbstractResolver):
    """A resolver under the test's control: each look-up takes the next list of addresses."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): lists for name, lists in answers.items()}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        lists = self.answers.get(host)
        if not lists:
            raise OSError(None, "no such name")
        addresses = lists.pop(0) if len(lists) > 1 else lists[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass
