"""The processes that decode: a nursery that has the codec loaded, and its forks.

The nursery stays as it was when it began, so that a fork is quick, shares memory with
the others and meets no threads; the worker itself, with gRPC loaded, must not be forked.
multiprocessing's forkserver would import the main module into every child, and run a
resource tracker beside them.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import sys
import warnings
from typing import NoReturn

import msgspec
from PIL import _imaging as core

from imageprocessing_worker.codec import compress
from imageprocessing_worker.protocol import (
    ANSWER,
    IMAGE,
    LENGTH,
    OUT_OF_MEMORY,
    REQUEST,
    START,
    Settings,
)

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Blocks of at most 16 MiB: enough for the stages of a 1,000 px photograph. What a larger
# one needed goes back to the system.
_BLOCKS_KEPT = 8


def serve(control: socket.socket, settings: Settings) -> None:
    """The nursery: starts children, and tells how they ended, until the worker is gone."""
    libc = ctypes.CDLL(None)
    # While it waits for a child to end it reads nothing, not even that the worker is gone.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Pillow warns and logs of odd metadata, and libtiff writes of each broken line: a
    # stranger's file is not worth a line in our log. Our own errors still are.
    warnings.simplefilter("ignore")
    logging.disable()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    gc.freeze()  # else the first collection in a child copies every page
    while True:
        request, sockets, _, _ = socket.recv_fds(control, REQUEST.size, 1)
        if not request:
            return
        operation, pid = REQUEST.unpack(request)
        if operation == START:
            answer, used = os.fork(), 0
            if answer == 0:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                control.close()
                _child(socket.socket(fileno=sockets[0]), settings)
            os.close(sockets[0])
        else:
            _, status, usage = os.wait4(pid, 0)
            answer, used = os.waitstatus_to_exitcode(status), usage.ru_maxrss << 10
        control.send(ANSWER.pack(answer, used))


def _child(pipe: socket.socket, settings: Settings) -> NoReturn:
    code = 1
    try:
        _work(pipe, settings)
        code = 0
    except MemoryError:
        code = OUT_OF_MEMORY
    finally:
        if code == 1:
            sys.excepthook(*sys.exc_info())
        # The pipe closes with the process and not before: the worker takes that for its end.
        os._exit(code)


def _work(pipe: socket.socket, settings: Settings) -> None:
    encoder = msgspec.msgpack.Encoder()
    limit = 0
    while head := pipe.recv(IMAGE.size, socket.MSG_WAITALL):
        length, memory, sample = IMAGE.unpack(head)
        if memory != limit:
            # Not the address space, which counts libraries and what is only reserved.
            resource.setrlimit(resource.RLIMIT_DATA, (memory, resource.RLIM_INFINITY))
            limit = memory
        data = pipe.recv(length, socket.MSG_WAITALL)
        compressed = compress(data, settings.compression, settings.max_pixels, sample=sample)
        answer = encoder.encode(compressed)
        pipe.sendall(LENGTH.pack(len(answer)) + answer)
        if core.get_stats()["blocks_cached"] > _BLOCKS_KEPT:
            core.clear_cache(_BLOCKS_KEPT)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), msgspec.json.decode(sys.argv[2], type=Settings))
