"""Decodes and encodes in child processes, because a C decoder in a thread cannot be stopped.

A child that hangs, crashes or takes too much memory is replaced and only its image
fails. Images travel over socket pairs that the event loop reads and writes itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
from imageprocessing_contract.reasons import ImageReason
from imageprocessing_contract.request import Compression

from imageprocessing_worker.budget import Budget
from imageprocessing_worker.encoded import Encoded, Refused
from imageprocessing_worker.protocol import (
    ANSWER,
    IMAGE,
    LENGTH,
    OUT_OF_MEMORY,
    REQUEST,
    START,
    WAIT,
    Settings,
)

# A photograph of 1,000 px fits, so that it takes one system call and no waiting.
_SOCKET_BYTES = 1 << 20
_READ_BYTES = 1 << 18
# How much more an image may have that did not get along with what it had.
_MORE = 4
# Pillow gives memory back to the system after every image unless told to keep some blocks:
# decode and encode of 1,000 px takes 4 ms instead of 6.6.
ENVIRONMENT = {"PILLOW_BLOCKS_MAX": "64"}


class _Death(NamedTuple):
    code: int
    used: int
    """The most memory that it had, in bytes."""


class _Child:
    def __init__(self, nursery: _Nursery, pid: int, pipe: socket.socket) -> None:
        self.nursery = nursery
        self.pid = pid
        self.pipe = pipe
        self.buffer = bytearray(_READ_BYTES)
        self.burial: asyncio.Task[_Death] | None = None

    def waits(self) -> bool:
        """Whether it is alive, and waits for an image."""
        try:
            return bool(self.pipe.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except ConnectionError:
            return False


class Codec:
    """A pool of children that compress, as an asynchronous context; leaving it ends them all.

    It works on `children` images at once. `memory_limit` (bytes) is for all of them
    together: an image has an equal share of it at first. One that needs more waits until
    that is free, up to all of it, so that a container of ordinary size takes the largest
    images, one at a time. `time_limit` (seconds) holds for each attempt.
    """

    def __init__(
        self,
        compression: Compression,
        max_pixels: int,
        *,
        children: int,
        memory_limit: int | None,
        time_limit: float,
    ) -> None:
        self.children = children
        self._settings = Settings(compression, max_pixels)
        self._time_limit = time_limit
        self._memory_limit = memory_limit or 0
        self._share = self._memory_limit // children
        self._memory = Budget(self._memory_limit)
        self._places = asyncio.Semaphore(children)
        self._idle: list[_Child] = []
        self._children: set[_Child] = set()
        self._burials: set[asyncio.Task[_Death]] = set()
        self._answers = msgspec.msgpack.Decoder(Encoded | Refused)
        self._nursery: _Nursery | None = None

    async def __aenter__(self) -> Self:
        # Its imports take 0.1 s; meanwhile the worker can go on.
        self._nursery = _Nursery(self._settings)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            for child in list(self._children):
                self._bury(child)
            await asyncio.gather(*self._burials)
        finally:
            if self._nursery is not None:
                self._nursery.end()

    async def compress(self, data: bytes | bytearray, *, sample: bool = False) -> Encoded | Refused:
        """codec.compress() in a child; refuses, too, what takes too long or too much memory."""
        memory = self._share
        while True:
            # The memory before the place: who waits for more must not keep a child from others.
            async with self._memory.take(memory):
                result = await self._attempt(data, memory, sample=sample)
            if sample and isinstance(result, Refused) and result.reason in _ENDED:
                sample = False  # crops take memory and time as well, and never cost an image
                continue
            if memory == self._memory_limit or not _out_of_memory(result):
                return result
            memory = min(memory * _MORE, self._memory_limit)

    async def _attempt(
        self, data: bytes | bytearray, memory: int, *, sample: bool
    ) -> Encoded | Refused:
        async with self._places:
            raised = memory > self._share
            if raised:
                # What those who wait keep warm is part of what was asked for.
                while self._idle:
                    await asyncio.shield(self._bury(self._idle.pop()))
            child: _Child | None = None
            done = False
            try:
                child = await self._ready()
                async with asyncio.timeout(self._time_limit):
                    answer = await _exchange(child, data, memory, sample=sample)
                result: Encoded | Refused = self._answers.decode(answer)
                done = not raised  # it may have kept more than a share
                return result
            except TimeoutError:
                message = f"decoding and encoding took more than {self._time_limit:g} s"
                return Refused(ImageReason.DECODE_TIMEOUT, message)
            except ConnectionError:
                if child is None:
                    raise
                return _cause(await asyncio.shield(self._bury(child)), memory)
            finally:
                if child is not None:
                    if done:
                        self._idle.append(child)
                    else:
                        self._bury(child)

    async def _ready(self) -> _Child:
        """The child used last, whose memory is warm, or a new one."""
        while self._idle:
            child = self._idle.pop()
            if child.waits():
                return child
            self._bury(child)
        return await self._start()

    async def _start(self) -> _Child:
        """A new child; where the nursery itself was killed, from a new nursery."""
        nursery = self._nursery
        if nursery is None:
            raise RuntimeError("Codec is used outside of its context")
        try:
            child = await nursery.start()
        except ConnectionError:
            child = await self._instead_of(nursery).start()
        self._children.add(child)
        return child

    def _instead_of(self, dead: _Nursery) -> _Nursery:
        """One new nursery, however many find the old one dead."""
        if self._nursery is None or self._nursery is dead:
            dead.end()
            self._nursery = _Nursery(self._settings)
        return self._nursery

    def _bury(self, child: _Child) -> asyncio.Task[_Death]:
        """Kills a child, where it still lives, and collects how it ended."""
        if child.burial is None:
            self._children.discard(child)
            child.burial = asyncio.create_task(child.nursery.end_of(child))
            self._burials.add(child.burial)
            child.burial.add_done_callback(self._burials.discard)
        return child.burial


_ENDED = frozenset(
    {ImageReason.DECODE_OUT_OF_MEMORY, ImageReason.DECODER_CRASHED, ImageReason.DECODE_TIMEOUT}
)
"""Why a child was ended, or ended by itself."""


def _cause(death: _Death, memory: int) -> Refused:
    # Nobody kills a child but the kernel, when there is no memory left. And some libraries
    # crash where they are refused memory: aom does.
    crashed_at_limit = memory > 0 and death.code < 0 and death.used > memory // 2
    if death.code in (OUT_OF_MEMORY, -signal.SIGKILL) or crashed_at_limit:
        message = "decoding and encoding took more memory than there is for one image"
        if memory:
            message += f", {memory >> 20} MiB"
        return Refused(ImageReason.DECODE_OUT_OF_MEMORY, message)
    code = death.code
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return Refused(ImageReason.DECODER_CRASHED, f"the decoder ended {how}")


def _out_of_memory(result: Encoded | Refused) -> bool:
    return isinstance(result, Refused) and result.reason == ImageReason.DECODE_OUT_OF_MEMORY


class _Nursery:
    """The process that children are forked from, see child.py."""

    def __init__(self, settings: Settings) -> None:
        self._control, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        self._asking = asyncio.Lock()
        encoded = msgspec.json.encode(settings).decode()
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "imageprocessing_worker.child",
                    str(theirs.fileno()),
                    encoded,
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | ENVIRONMENT,
                # An interrupt from the keyboard is for the worker, which then ends us.
                start_new_session=True,
            )

    def end(self) -> None:
        """Kills it, and by that its children."""
        self._control.close()
        self._process.kill()
        self._process.wait()

    async def start(self) -> _Child:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        ours.setblocking(False)
        starting = asyncio.create_task(self._ask(START, 0, theirs))
        try:
            # Where the caller is cancelled, question and answer still have to stay a pair.
            pid, _ = await asyncio.shield(starting)
            return _Child(self, pid, ours)
        except BaseException:
            ours.close()  # a child that nobody waits for sees that, and ends
            raise

    async def end_of(self, child: _Child) -> _Death:
        child.pipe.close()
        if self._process.poll() is None:
            # While the nursery lives and has not been asked for the exit code, the id is the
            # child's, even when that has ended by itself.
            with contextlib.suppress(ProcessLookupError, ConnectionError):
                os.kill(child.pid, signal.SIGKILL)
                return _Death(*await self._ask(WAIT, child.pid, None))
        return _Death(-signal.SIGKILL, 0)  # it ended with the nursery

    async def _ask(
        self, operation: bytes, number: int, handed: socket.socket | None
    ) -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        try:
            async with self._asking:
                fds = [handed.fileno()] if handed else []
                socket.send_fds(self._control, [REQUEST.pack(operation, number)], fds)
                answer = await loop.sock_recv(self._control, ANSWER.size)
        finally:
            if handed:
                handed.close()
        if not answer:
            raise ConnectionResetError("the nursery is gone")
        number, more = ANSWER.unpack(answer)
        return number, more


async def _exchange(
    child: _Child, data: bytes | bytearray, memory: int, *, sample: bool
) -> memoryview:
    """Sends an image and gives the answer, which lasts until the next one for this child."""
    loop = asyncio.get_running_loop()
    pipe, buffer = child.pipe, child.buffer
    head = IMAGE.pack(len(data), memory, sample)
    if len(data) < _SOCKET_BYTES:
        # Copied together: two calls would wake the child twice, which costs more.
        await loop.sock_sendall(pipe, head + data)
    else:
        await loop.sock_sendall(pipe, head)
        await loop.sock_sendall(pipe, data)
    received = await loop.sock_recv_into(pipe, buffer)
    if received < LENGTH.size:
        raise ConnectionResetError("the child is gone")
    (length,) = LENGTH.unpack_from(buffer)
    answer = memoryview(buffer)[LENGTH.size : LENGTH.size + length]
    if received < LENGTH.size + length:
        begun = answer[: received - LENGTH.size]
        answer = memoryview(bytearray(length))
        answer[: len(begun)] = begun
        await _fill(pipe, answer[len(begun) :])
    return answer


async def _fill(pipe: socket.socket, rest: memoryview) -> None:
    loop = asyncio.get_running_loop()
    while len(rest):
        count = await loop.sock_recv_into(pipe, rest)
        if count == 0:
            raise ConnectionResetError("the child is gone")
        rest = rest[count:]
