"""Runs a program that downloads from the photo server, and measures it from outside."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.photo_server import Server


class Program(msgspec.Struct, frozen=True):
    """What to run: `pattern` tells what it writes of images below `folder`."""

    command: Sequence[str]
    environ: Mapping[str, str]
    folder: Path
    pattern: str


class Run(msgspec.Struct, frozen=True):
    """What it took to process `images`.

    `seconds` go from the first request that the server saw to the last file written,
    `whole` from the start of the process to its end. `cpu` is of all its processes,
    `server_cpu` of the server meanwhile, in seconds.
    """

    images: int
    seconds: float
    whole: float
    cpu: float
    server_cpu: float
    stored: int
    """Bytes."""

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Of a program to measure: it may keep its bytecode, as the images ship theirs."""
    inherited = {**os.environ, "PYTHONPATH": os.fspath(Path(__file__).parents[1]), **more}
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    return inherited


def timed(program: Program, server: Server, count: int) -> Run:
    """Runs it to its end; RuntimeError where it failed, or did not write `count` images."""
    server.counted()
    begun = time.monotonic()
    process = subprocess.Popen(
        program.command, env=program.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    with process:
        said = process.stderr.read() if process.stderr else b""
        # Of all its processes: each is waited for by its parent.
        _, status, usage = os.wait4(process.pid, 0)
        whole = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
    counted = server.counted()
    written = [file.stat() for file in program.folder.glob(program.pattern)]
    if process.returncode or len(written) != count:
        message = f"{len(written)} of {count} images, exit code {process.returncode}:"
        raise RuntimeError(f"{message}\n{said.decode()[-2000:]}")
    return Run(
        images=count,
        seconds=max(file.stat().st_mtime for file in program.folder.rglob("*")) - counted.first,
        whole=whole,
        cpu=usage.ru_utime + usage.ru_stime,
        server_cpu=counted.cpu,
        stored=sum(file.st_size for file in written),
    )
