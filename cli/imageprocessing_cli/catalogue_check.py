"""A catalogue on this machine, checked by the worker's own code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from imageprocessing_contract.guard import Guard
from imageprocessing_contract.report import Sample
from imageprocessing_worker.catalogue import Catalogue
from imageprocessing_worker.lines import CatalogueError

from imageprocessing_cli.errors import UsageError

_CHUNK = 1 << 18


class Checked(msgspec.Struct, frozen=True):
    """What the plan step would find."""

    rows: int
    images: int
    errors: list[Sample]
    readable: bool
    """Whether it is a catalogue: rows that are invalid may be left out then."""


ANY_ADDRESS = ("0.0.0.0/0", "::/0")
"""For a catalogue that a cluster will read: this machine does not know what it allows."""


def check_catalogue(chunks: Iterator[bytes], allowed_networks: Sequence[str] = ()) -> Checked:
    """Reads all of it; an error of the whole catalogue ends the list."""
    rows = images = 0
    errors: list[Sample] = []
    readable = True
    try:
        for row in Catalogue(chunks, Guard(allowed_networks)).rows():
            rows, images = rows + 1, images + len(row.urls)
            if row.problem:
                errors.append(
                    Sample(line=row.line, reason=row.problem.reason, message=row.problem.message)
                )
    except CatalogueError as error:
        readable = False
        errors.append(Sample(line=error.line, reason=error.reason, message=error.message))
    return Checked(rows, images, errors, readable)


def read_file(file: Path) -> Iterator[bytes]:
    """Chunks of a file; raises UsageError."""
    try:
        with file.open("rb") as opened:
            while chunk := opened.read(_CHUNK):
                yield chunk
    except OSError as error:
        message = f"{file}: {error.strerror}"
        raise UsageError(message) from error
