"""The emulators of Cloud Storage and Firestore, for benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from imageprocessing_contract.request import Firestore
from imageprocessing_contract.task import Output

from tests.cluster import emulators


@contextmanager
def emulated() -> Iterator[tuple[Output, dict[str, str]]]:
    """An output in both, and what Google's clients need to find them."""
    host = "127.0.0.1"
    with emulators.gcs_emulator(host) as gcs, emulators.firestore_emulator(host) as firestore:
        storage, records = emulators.new_bucket(gcs), emulators.new_project(firestore)
        where = Firestore(records.project, "(default)", "processed-images")
        output = Output(path="bench", base_url="", bucket=storage.bucket, firestore=where)
        yield output, storage.environment | records.environment
