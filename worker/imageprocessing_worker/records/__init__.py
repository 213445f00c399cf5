"""The record of each image and of each request: Firestore, or SQLite for `ipr run`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Protocol

import msgspec
from imageprocessing_contract.task import Output


class ImageRecord(msgspec.Struct, frozen=True):
    """One image of one product; `key` is the same whenever it is written again."""

    key: str
    request_id: str
    product_name: str
    input_url: str
    output_url: str
    variants: dict[str, str] = {}
    """URLs of its variants, by names.variant(): of a request with widths."""


class RequestRecord(msgspec.Struct, frozen=True):
    """One request; csv_url is empty until it is completed."""

    request_id: str
    status: str
    csv_url: str
    images: int
    succeeded: int
    failed: int


class Records(Protocol):
    """Writes that can be repeated: the same key replaces what is there."""

    def put_images(self, records: Sequence[ImageRecord]) -> None:
        """Writes all of them; raises StoreError."""

    def begin_request(self, record: RequestRecord) -> None:
        """Writes the record of the whole request unless it has one; raises StoreError."""

    def put_request(self, record: RequestRecord) -> None:
        """Writes the record of the whole request; raises StoreError."""


class NoRecords:
    """A request without spec.output.firestore."""

    def put_images(self, records: Sequence[ImageRecord]) -> None:
        """Keeps nothing."""

    def begin_request(self, record: RequestRecord) -> None:
        """Keeps nothing."""

    def put_request(self, record: RequestRecord) -> None:
        """Keeps nothing."""


class DeferredRecords:
    """Opened at the first write; not for writes at the same time."""

    def __init__(self, opened: Callable[[], Records]) -> None:
        self._opened = cache(opened)

    def put_images(self, records: Sequence[ImageRecord]) -> None:
        """See Records."""
        self._opened().put_images(records)

    def begin_request(self, record: RequestRecord) -> None:
        """See Records."""
        self._opened().begin_request(record)

    def put_request(self, record: RequestRecord) -> None:
        """See Records."""
        self._opened().put_request(record)


def open_records(output: Output) -> Records:
    """The records of a task's output."""
    if (where := output.firestore) is not None:

        def firestore() -> Records:
            # Its client takes half of the worker's start to import, and downloads go first.
            from imageprocessing_worker.records.firestore import FirestoreRecords  # noqa: PLC0415

            return FirestoreRecords(where)

        return DeferredRecords(firestore)
    if output.sqlite is not None:
        from imageprocessing_worker.records.sqlite import SQLiteRecords  # noqa: PLC0415

        return SQLiteRecords(output.sqlite)
    return NoRecords()
