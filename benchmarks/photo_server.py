"""A server of photographs on loopback that costs little: files in memory, one process, keep-alive.

GET /NUMBER-DELAY.jpg answers with picture NUMBER modulo how many there are, DELAY
milliseconds later: one small set of pictures serves catalogues of any size. GET /counted
tells what was asked for since the last time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import msgspec

from tests import photos
from tests.cluster.control_plane import free_port
from tests.cluster.emulators import served

_PATH = re.compile(rb"GET /(?:([0-9]+)-([0-9]+)\.jpg|counted) ")
# A whole photograph goes with one system call, so that the server is seldom woken.
_SOCKET_BYTES = 1 << 20


class Counted(msgspec.Struct):
    """Since the last time: requests, when the first came (Unix time), CPU seconds used."""

    requests: int
    first: float
    cpu: float


class Server(msgspec.Struct, frozen=True):
    """One that runs."""

    port: int
    folder: Path
    """Where the pictures are as files."""

    def url(self, number: int, delay: int = 0) -> str:
        """Of a picture, `delay` in milliseconds."""
        return f"http://127.0.0.1:{self.port}/{number}-{delay}.jpg"

    def counted(self) -> Counted:
        """What was asked for since the last call."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/counted") as answer:
            return msgspec.json.decode(answer.read(), type=Counted)


@contextlib.contextmanager
def photo_server(count: int, width: int = 1000, height: int = 750) -> Iterator[Server]:
    """Serves `count` distinct photographs (JPEG of a camera's quality) until the block ends."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        for number, (_, data) in enumerate(photos.crops(count, width, height)):
            (Path(folder) / f"{number:06d}").write_bytes(data)
        root = Path(__file__).parents[1]
        command: list[object] = [
            "env",
            f"PYTHONPATH={root}",
            sys.executable,
            __file__,
            port,
            folder,
        ]
        with served("photo server", command, port):
            yield Server(port, Path(folder))


class _Connection(asyncio.Protocol):
    pictures: ClassVar[list[bytes]]
    counted = Counted(0, 0.0, 0.0)
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for mypy
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES
        )
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.received.endswith(b"\r\n\r\n"):
            return
        asked, self.received = self.received, b""
        match = _PATH.match(asked)
        last = b"connection: close" in asked.lower()
        if match is None:
            self.answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", last)
        elif match[1] is None:
            now = Counted(self.counted.requests, self.counted.first, _cpu() - self.counted.cpu)
            body = msgspec.json.encode(now)
            _Connection.counted = Counted(0, 0.0, _cpu())
            self.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body, last)
        else:
            self.counted.requests += 1
            self.counted.first = self.counted.first or time.time()
            answer = self.pictures[int(match[1]) % len(self.pictures)]
            if delay := int(match[2]):
                asyncio.get_running_loop().call_later(delay / 1000, self.answer, answer, last)
            else:
                self.answer(answer, last)

    def answer(self, data: bytes, last: bool) -> None:
        self.transport.write(data)
        if last:
            self.transport.close()


def _cpu() -> float:
    times = os.times()
    return times.user + times.system


async def _serve(port: int, folder: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    bodies = [file.read_bytes() for file in sorted(folder.iterdir())]
    _Connection.pictures = [head % len(body) + body for body in bodies]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2])))
