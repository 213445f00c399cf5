"""CPU that the worker takes for an image, by store."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from imageprocessing_contract.request import Firestore
from imageprocessing_contract.task import Output
from imageprocessing_worker.stores import gcs

from benchmarks.photo_server import Server, photo_server
from benchmarks.shard_run import COMMAND, shard
from benchmarks.table import Row
from tests.cluster import emulators

_FEW, _DISTINCT, _BARE = 100, 60, 300
_STORED = 35_000
"""Bytes of a photograph of 1,000 px at quality 50."""


def measure(full: bool) -> Iterable[Row]:
    """Alternating runs; what a larger shard takes more than a small one is without the start."""
    images, repetitions = (2000, 5) if full else (400, 2)
    folder, cloud, bare = [], [], []
    with photo_server(_DISTINCT) as server, _emulators() as (bucket, records):
        for _ in range(repetitions):
            folder.append(_an_image(server, images, None))
            output = Output(path=uuid.uuid4().hex, base_url="", bucket=bucket, firestore=records)
            cloud.append(_an_image(server, images, output))
            bare.append(_upload(bucket))
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
def _emulators() -> Iterator[tuple[str, Firestore]]:
    """A bucket and a collection that Google's clients find."""
    before = dict(os.environ)
    with ExitStack() as servers:
        storage = emulators.new_bucket(servers.enter_context(emulators.gcs_emulator("127.0.0.1")))
        records = emulators.new_project(
            servers.enter_context(emulators.firestore_emulator("127.0.0.1"))
        )
        os.environ.update(storage.environment | records.environment)
        try:
            yield storage.bucket, Firestore(records.project, "(default)", "processed-images")
        finally:
            os.environ.clear()
            os.environ.update(before)


def _an_image(server: Server, images: int, output: Output | None) -> float:
    """Milliseconds of CPU."""
    few = _cpu(server, _FEW, output)
    # The same URLs would be found done.
    return (_cpu(server, _FEW + images, _other(output)) - few) / images * 1000


def _other(output: Output | None) -> Output | None:
    if output is None:
        return None
    return Output(
        path=f"{output.path}-2", base_url="", bucket=output.bucket, firestore=output.firestore
    )


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


def _upload(bucket: str) -> float:
    """Milliseconds of CPU of one upload after the other, by the client that the worker uses."""
    target, data = gcs.client().bucket(bucket), os.urandom(_STORED)
    begun = time.process_time()
    for _ in range(_BARE):
        target.blob(uuid.uuid4().hex).upload_from_string(
            data, content_type="image/jpeg", if_generation_match=0, checksum="crc32c"
        )
    return (time.process_time() - begun) / _BARE * 1000
