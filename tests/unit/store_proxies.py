"""Proxies before the emulators of Cloud Storage and Firestore, where a test decides what arrives.

A test's rule sees each call before it is forwarded, and may give it a fault.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import grpc

from tests.cluster.emulators import Firestore, Storage
from tests.unit.raw_server import Exchange, served


class Call(Protocol):
    """One call to a store."""

    @property
    def writes(self) -> bool: ...


class Fault(Protocol):
    """What becomes of a call instead of what should."""


Rule = Callable[[Call], Fault | None]


@dataclass(frozen=True)
class Kill:
    """The caller is killed, before the call arrives or when it has been answered."""

    pid: int
    after: bool

    def now(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


@dataclass(frozen=True)
class Refused:
    """The store answers with an error, and does nothing."""

    status: int  # of HTTP; Firestore has a code of gRPC in its place
    message: str = "fault"


@dataclass(frozen=True)
class Reset:
    """The connection breaks, before the call arrives or when it has been answered."""

    after: bool


@dataclass(frozen=True)
class Hang:
    """No answer, until the caller gives up."""


@dataclass(frozen=True)
class Garbled:
    """What a proxy in between may say with status 200: a page."""


@dataclass(frozen=True)
class Damaged:
    """One byte of the body changes on its way to the store, or back."""

    back: bool


@dataclass(frozen=True)
class StorageCall:
    """A call of Cloud Storage's JSON API."""

    head: bytes
    body: bytes

    @property
    def writes(self) -> bool:
        return not self.head.startswith(b"GET")


@dataclass(frozen=True)
class RecordsCall:
    """A call of Firestore."""

    method: str

    @property
    def writes(self) -> bool:
        return self.method.endswith("/Commit")


@contextmanager
def storage_proxy(storage: Storage, rule: Rule) -> Iterator[Storage]:
    """The same bucket behind a rule."""
    proxy = _StorageProxy(storage.address, rule)
    with served(proxy.answer) as server:
        proxy.address = f"127.0.0.1:{server.port}"
        yield Storage(proxy.address, storage.bucket)


class _StorageProxy:
    def __init__(self, emulator: str, rule: Rule) -> None:
        self._emulator, self._rule = emulator, rule
        self.address = ""

    async def answer(self, exchange: Exchange) -> None:
        length = re.search(rb"\r\ncontent-length: (\d+)", exchange.head, re.IGNORECASE)
        body = await exchange.reader.readexactly(int(length[1]) if length else 0)
        match self._rule(StorageCall(exchange.head, body)):
            case None:
                await exchange.send(*await self._forward(exchange.head, body))
            case Kill() as kill:
                if kill.after:
                    await self._forward(exchange.head, body)
                kill.now()
                raise EOFError
            case Refused(status, message):
                error = json.dumps({"error": {"code": status, "message": message}}).encode()
                await exchange.reply(error, f"{status} Fault", Content_Type="application/json")
            case Reset(after):
                if after:
                    await self._forward(exchange.head, body)
                exchange.reset()
                raise EOFError
            case Hang():
                await exchange.reader.read()
                raise EOFError
            case Garbled():
                await exchange.reply(b"<html>Welcome</html>", Content_Type="text/html")
            case Damaged(back=False):
                await exchange.send(*await self._forward(exchange.head, _damaged(body)))
            case Damaged():
                head, answer = await self._forward(exchange.head, body)
                await exchange.send(head, _damaged(answer))
            case other:
                raise AssertionError(other)

    async def _forward(self, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        """Head and body of the emulator's answer, whose addresses are the proxy's."""
        host, _, port = self._emulator.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = re.sub(rb"(?i)\r\n(host|connection): [^\r]*", b"", head)
        first, _, rest = head.partition(b"\r\n")
        added = f"\r\nHost: {self._emulator}\r\nConnection: close\r\n".encode()
        writer.write(first + added + rest + body)
        answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        if re.search(rb"(?i)\r\ntransfer-encoding: chunked", head):
            body = _unchunked(body)
        ours, theirs = self.address.encode(), self._emulator.encode()
        if b"application/json" in head:
            body = body.replace(theirs, ours)
        drop = rb"(?i)\r\n(content-length|transfer-encoding|connection): [^\r]*"
        head = re.sub(drop, b"", head.replace(theirs, ours))
        return head + b"\r\nContent-Length: %d\r\n\r\n" % len(body), body


def _unchunked(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        parts.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    return b"".join(parts)


def _damaged(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else body


@contextmanager
def records_proxy(firestore: Firestore, rule: Rule) -> Iterator[Firestore]:
    """The same project behind a rule; Reset is the code that a broken connection gives."""
    with grpc.insecure_channel(firestore.address) as channel:
        server = grpc.server(ThreadPoolExecutor(16))
        server.add_generic_rpc_handlers((_RecordsProxy(channel, rule),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield Firestore(f"127.0.0.1:{port}", firestore.project)
        finally:
            server.stop(0).wait()


class _RecordsProxy(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, channel: grpc.Channel, rule: Rule) -> None:
        self._channel, self._rule = channel, rule

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        forward = self._channel.unary_unary(details.method)
        # The keys of HTTP/2 and gRPC are the channel's own.
        passed = [
            (key, value)
            for key, value in details.invocation_metadata
            if not key.startswith((":", "grpc-", "user-agent", "te"))
        ]

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            def forwarded() -> bytes:
                try:
                    answered: bytes = forward(request, metadata=passed, timeout=60)
                except grpc.RpcError as error:
                    context.abort(error.code(), error.details())
                return answered

            fault = self._rule(RecordsCall(details.method))
            if fault is None or (isinstance(fault, Kill | Reset) and fault.after):
                answered = forwarded()
                if fault is None:
                    return answered
            match fault:
                case Kill():
                    fault.now()
                case Refused(status, message):
                    codes = {code.value[0]: code for code in grpc.StatusCode}
                    context.abort(codes[status], message)
                case Hang():
                    gone = threading.Event()
                    if context.add_callback(gone.set):
                        gone.wait()
            context.abort(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")
            raise AssertionError

        return grpc.unary_unary_rpc_method_handler(answer)
