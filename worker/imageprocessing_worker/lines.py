"""Decoded lines out of a CSV's chunks, with a bound on each record."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from imageprocessing_contract.reasons import RowReason

_ENOUGH = 16
"""Bytes that tell what a file is."""
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
# What comes in place of a CSV, and what to do about it.
_NO_CSV = (
    (rb"PK\x03\x04", "a workbook (.xlsx, .ods) or another ZIP file; export it as CSV UTF-8"),
    (rb"\xd0\xcf\x11\xe0", "an Excel workbook (.xls); export it as CSV UTF-8"),
    (rb"\x1f\x8b", "a gzip file; unpack it"),
    (rb"%PDF-", "a PDF"),
    (rb"\s*(?:\{\s*\"|\[\s*\{)", "JSON"),
    (rb"\s*<(?:!|\?xml|html)", "a web page or XML; take the address that downloads the CSV"),
)


class CatalogueError(Exception):
    """The catalogue as a whole cannot be read; `line` is where, from 1."""

    def __init__(self, line: int, reason: RowReason, message: str) -> None:
        super().__init__(message)
        self.line, self.reason, self.message = line, reason, message


class Lines:
    """Iterates once over lines with their ends, counted from 1; raises CatalogueError."""

    def __init__(self, chunks: Iterable[bytes], limit: int) -> None:
        """`limit` is the most bytes that one record may have."""
        self._limit = limit
        self._record_line, self._record_bytes = 1, 0
        self._line = 0
        chunks = iter(chunks)
        first = b""
        while len(first) < _ENOUGH and (chunk := next(chunks, None)) is not None:
            first += chunk
        self.byte_order_mark = first.startswith(_BOM)
        text = first.removeprefix(_BOM)
        for magic, what in _NO_CSV:
            if re.match(magic, text, re.IGNORECASE):
                raise CatalogueError(1, RowReason.NOT_CSV, f"the catalogue is {what}")
        # Without a mark, each second byte of its ASCII letters is null.
        if first.startswith(_UTF16) or b"\0" in first[:4]:
            message = "the catalogue is UTF-16; save it as UTF-8"
            raise CatalogueError(1, RowReason.NOT_UTF8, message)
        # A generator: csv.reader would call a __next__ of Python's in twice the time.
        self._lines = self._read(chain([text], chunks))

    def begin_record(self) -> int:
        """The next line begins a record; returns its number."""
        self._record_line, self._record_bytes = self._line + 1, 0
        return self._record_line

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def _read(self, chunks: Iterable[bytes]) -> Iterator[str]:
        begun: list[bytes] = []  # of a line whose end has not come yet
        size = 0
        for chunk in chunks:
            lines = chunk.split(b"\n")
            rest = lines.pop()
            if lines and begun:
                lines[0] = b"".join([*begun, lines[0]])
                begun, size = [], 0
            for raw in lines:
                yield self._decoded(raw) + "\n"
            begun.append(rest)
            size += len(rest)
            if self._record_bytes + size > self._limit:
                self._too_long()
        if size:
            yield self._decoded(b"".join(begun))

    def _decoded(self, raw: bytes) -> str:
        """The text of the next line, which is counted."""
        self._line += 1
        self._record_bytes += len(raw) + 1
        if self._record_bytes > self._limit:
            self._too_long()
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            message = (
                f"line {self._line} is not UTF-8: byte 0x{raw[error.start]:02x} "
                f"at column {error.start + 1}; save the catalogue as UTF-8"
            )
            raise CatalogueError(self._line, RowReason.NOT_UTF8, message) from error

    def _too_long(self) -> None:
        message = (
            f"the record that begins at line {self._record_line} is longer than "
            f"{self._limit >> 20} MiB; is a closing quote missing?"
        )
        raise CatalogueError(self._record_line, RowReason.RECORD_TOO_LONG, message)
