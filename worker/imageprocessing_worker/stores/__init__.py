"""Where a request's files and images lie: a folder or a Cloud Storage bucket.

Paths are relative to the request's own folder and have no leading slash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol
from urllib.parse import quote

import msgspec
from imageprocessing_contract.task import Output

_BUFFER = 1 << 18
"""Bytes; a call of the store for each row would take as long as reading the row."""


class CheckedFile:
    """What a writer's block writes to: its errors become StoreError, the block's own do not."""

    def __init__(
        self, write: Callable[[bytes], int], errors: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._write, self._errors = write, errors
        self._buffer = bytearray()

    def write(self, data: bytes) -> int:
        """Like a file's."""
        self._buffer += data
        if len(self._buffer) >= _BUFFER:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Writes what is left; for the store, at the end of the block."""
        with self._errors():
            self._write(bytes(self._buffer))
        self._buffer.clear()


class Store(Protocol):
    """What the steps need of a store; every method may raise StoreError."""

    def create(self, path: str, data: bytes, content_type: str) -> bool:
        """Writes a file that is not there yet; False (and no change) where it is.

        What was settled or created before it, and the file itself, last from then on.
        """

    def add(self, path: str, data: bytes, content_type: str) -> None:
        """Writes one of many files, unless it is there: it counts only after settle()."""

    def settle(self) -> None:
        """All files that add() wrote are there, and outlast a crash of the node."""

    def writer(
        self, path: str, content_type: str, *, replace: bool = True
    ) -> AbstractContextManager[CheckedFile]:
        """A file that appears whole when the block ends without an error, and else not at all.

        Without `replace`, a transient StoreError where somebody else was faster.
        """

    def read(self, path: str) -> bytes | None:
        """All of a file, None where there is none."""

    def version(self, path: str) -> str | None:
        """Another string whenever the file is written again, None where there is none."""

    def chunks(
        self, path: str, *, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Iterator[bytes]:
        """Bytes start to end of a file; StoreError where it is gone or has another version."""

    def list(self, prefix: str) -> list[str]:
        """Paths that begin with prefix, sorted."""

    def url(self, path: str) -> str:
        """Where users find a file."""

    def tidy(self) -> None:
        """Removes what interrupted writers left behind."""


def taken(path: str) -> StoreError:
    """What a writer without `replace` raises."""
    return StoreError(f"{path} was written by another Pod meanwhile", transient=True)


class StoreError(Exception):
    """The store failed or refused; `transient` says whether trying again can help."""

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.message, self.transient = message, transient


def open_store(output: Output) -> Store:
    """The store of a task's output; imports Google's client only where it is used."""
    if output.bucket is not None:
        from imageprocessing_worker.stores.gcs import GCSStore  # noqa: PLC0415

        return GCSStore(output.bucket, output.path, output.base_url)
    from imageprocessing_worker.stores.folder import FolderStore  # noqa: PLC0415

    if output.root is None:
        message = "the task names neither a bucket nor a folder"
        raise StoreError(message, transient=False)
    return FolderStore(output.root, output.path, output.base_url)


def beside(output: Output, request_id: str, other_id: str) -> Output:
    """The output of another request under the same prefix."""
    path = f"{output.path.removesuffix(request_id)}{other_id}"
    return msgspec.structs.replace(output, path=path)


def public_url(base_url: str, folder: str, path: str) -> str:
    """base_url, the request's folder and the path, joined by slashes where not empty.

    Folder and path are escaped; without base_url they are a path of a file system as it is.
    """
    if base_url:
        folder, path = quote(folder), quote(path)
    return "/".join(
        part.strip("/") if i else part.rstrip("/")
        for i, part in enumerate((base_url, folder, path))
        if part
    )
