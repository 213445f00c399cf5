"""CPU that the worker takes for an image, by store."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec
from imageprocessing_contract.task import Output
from imageprocessing_worker.stores import gcs

from benchmarks.cloud import emulated
from benchmarks.photo_server import Server, photo_server
from benchmarks.shard_run import COMMAND, shard
from benchmarks.table import Row

_FEW, _DISTINCT, _BARE = 100, 60, 300
_STORED = 35_000
"""Bytes of a photograph of 1,000 px at quality 50."""


def measure(full: bool) -> Iterable[Row]:
    """Alternating runs; what a larger shard takes more than a small one is without the start."""
    images, repetitions = (2000, 5) if full else (400, 2)
    folder, cloud, bare = [], [], []
    with photo_server(_DISTINCT) as server, emulated() as (output, environ), _found(environ):
        for _ in range(repetitions):
            folder.append(_an_image(server, images, None))
            cloud.append(_an_image(server, images, output))
            bare.append(_upload(output))
    of_folder, of_cloud, of_upload = map(statistics.median, (folder, cloud, bare))
    allowed = 1.25 * of_folder + of_upload
    yield Row("folder", f"{of_folder:.2f} ms CPU an image", "")
    yield Row("one bare upload by the client library", f"{of_upload:.2f} ms CPU", "")
    yield Row(
        "Cloud Storage and Firestore",
        f"{of_cloud:.2f} ms CPU an image",
        f"<= 1.25 x folder + upload = {allowed:.2f}",
    )


@contextmanager
def _found(environment: dict[str, str]) -> Iterator[None]:
    """Google's clients of this process and of its children find the emulators."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _an_image(server: Server, images: int, output: Output | None) -> float:
    """Milliseconds of CPU."""
    few, many = (_cpu(server, count, _elsewhere(output)) for count in (_FEW, _FEW + images))
    return (many - few) / images * 1000


def _elsewhere(output: Output | None) -> Output | None:
    """A place of its own: what is done there already would be found."""
    return output and msgspec.structs.replace(output, path=uuid.uuid4().hex)


def _cpu(server: Server, count: int, output: Output | None) -> float:
    urls = (server.url(number) for number in range(count))
    with shard(urls, output=output) as (_, pod):
        process = subprocess.Popen(COMMAND, env=pod, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        message = f"the shard ended with {process.returncode}"
        raise RuntimeError(message)
    return usage.ru_utime + usage.ru_stime


def _upload(output: Output) -> float:
    """Milliseconds of CPU of one upload after the other, by the client that the worker uses."""
    target, data = gcs.client().bucket(output.bucket), os.urandom(_STORED)
    begun = time.process_time()
    for _ in range(_BARE):
        target.blob(uuid.uuid4().hex).upload_from_string(
            data, content_type="image/jpeg", if_generation_match=0, checksum="crc32c"
        )
    return (time.process_time() - begun) / _BARE * 1000
