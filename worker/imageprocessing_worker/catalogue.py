"""Reading a catalogue: bytes of a CSV to checked rows, in constant memory.

A catalogue has the columns Serial Number, Product Name and Input Image Urls, in
any order and among others. Cells are separated by commas, semicolons or tabs; a
byte order mark and CRLF are fine. Lists of URLs may stand unquoted.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator

import msgspec
from imageprocessing_contract import names
from imageprocessing_contract.guard import Guard
from imageprocessing_contract.reasons import RowReason

MAX_RECORD = 1 << 20
"""Bytes of one record; csv.reader would build a 200 MB cell in 393 MB of memory."""
_MAX_COPY = 4 * MAX_RECORD
"""Bytes of a record that was copied: quotes, messages and URLs more than in the source."""

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_DELIMITERS = (",", ";", "\t")
# A list ends one URL where a comma is followed by the next: Cloudinary's URLs hold commas.
_NEXT_URL = re.compile(r",(?=\s*[A-Za-z][A-Za-z0-9+.-]*://)")
_REPLACED = (names.COLUMN_OUTPUT_URLS, names.COLUMN_REASON)

csv.field_size_limit(MAX_RECORD)


class CatalogueError(Exception):
    """The catalogue as a whole cannot be read; `line` is where, from 1."""

    def __init__(self, line: int, reason: RowReason, message: str) -> None:
        super().__init__(message)
        self.line, self.reason, self.message = line, reason, message


class Dialect(msgspec.Struct, frozen=True):
    """What a result file repeats of the source's form."""

    delimiter: str
    newline: str
    byte_order_mark: bool


class Header(msgspec.Struct, frozen=True):
    """Names of the columns that results repeat, and where the three known ones stand."""

    columns: list[str]
    serial: int
    product: int
    urls: int


class Problem(msgspec.Struct, frozen=True):
    """Why a row is invalid."""

    reason: RowReason
    message: str


class Row(msgspec.Struct, frozen=True):
    """One record; `line` is where it begins in the source, from 1.

    cells has one string a column of the header; urls is empty where there is a problem.
    """

    line: int
    cells: list[str]
    urls: list[str]
    problem: Problem | None = None


def split_urls(cell: str) -> list[str]:
    """The URLs of a cell, in order; empty pieces are dropped."""
    return [url for piece in _NEXT_URL.split(cell) if (url := piece.strip(", \t\r\n"))]


class Catalogue:
    """The header and, once, the rows of a CSV that arrives in chunks."""

    def __init__(self, chunks: Iterable[bytes], guard: Guard) -> None:
        """Reads the header; raises CatalogueError."""
        self._guard = guard
        self._lines = _Lines(chunks)
        first = next(self._lines, "")
        if not first.strip():
            raise CatalogueError(1, RowReason.NO_ROWS, "the catalogue is empty")
        self.dialect = Dialect(
            delimiter=_delimiter(first),
            newline="\r\n" if first.endswith("\r\n") else "\n",
            byte_order_mark=self._lines.byte_order_mark,
        )
        cells = next(csv.reader([first], delimiter=self.dialect.delimiter), [])
        self._width = len(cells)
        self._urls_cell = find_column(cells, names.COLUMN_URLS)
        self._kept = [i for i, cell in enumerate(cells) if not _is(cell, *_REPLACED)]
        kept = [cells[i] for i in self._kept]
        self.header = Header(
            columns=kept,
            serial=find_column(kept, names.COLUMN_SERIAL),
            product=find_column(kept, names.COLUMN_PRODUCT),
            urls=find_column(kept, names.COLUMN_URLS),
        )

    def rows(self) -> Iterator[Row]:
        """Each record in order, invalid ones with their problem; raises CatalogueError."""
        seen: dict[str, int] = {}
        reader = csv.reader(self._lines, delimiter=self.dialect.delimiter, strict=True)
        while True:
            line = self._lines.begin_record()
            try:
                record = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                message = f"line {line}: {error}; check the quotes of this record"
                raise CatalogueError(line, RowReason.MALFORMED_RECORD, message) from error
            if any(cell.strip() for cell in record):
                yield self._row(line, record, seen)

    def _row(self, line: int, record: list[str], seen: dict[str, int]) -> Row:
        record, problem = self._fit(line, record)
        cells = [record[i] for i in self._kept]
        serial = cells[self.header.serial].strip()
        urls = split_urls(cells[self.header.urls])
        problem = problem or self._check(line, serial, cells, urls, seen)
        if serial:
            seen.setdefault(serial, line)
        return Row(line, cells, [] if problem else urls, problem)

    def _fit(self, line: int, record: list[str]) -> tuple[list[str], Problem | None]:
        """The record with as many cells as the header has.

        Cells too many are the rest of an unquoted list of URLs where one begins there.
        """
        surplus = len(record) - self._width
        if surplus < 0:
            return record + [""] * -surplus, None
        if surplus == 0:
            return record, None
        first, last = self._urls_cell, self._urls_cell + surplus + 1
        is_list = record[first].lstrip().lower().startswith(("http://", "https://"))
        if is_list and self.dialect.delimiter == ",":
            return [*record[:first], ",".join(record[first:last]), *record[last:]], None
        message = (
            f"line {line} has {len(record)} cells, the header has {self._width}: "
            "quote cells that contain the separator"
        )
        return record[: self._width], Problem(RowReason.TOO_MANY_CELLS, message)

    def _check(
        self, line: int, serial: str, cells: list[str], urls: list[str], seen: dict[str, int]
    ) -> Problem | None:
        if not serial:
            return Problem(RowReason.EMPTY_SERIAL_NUMBER, f"line {line} has no serial number")
        if first := seen.get(serial):
            message = f"line {line} repeats the serial number {serial[:40]!r} of line {first}"
            return Problem(RowReason.DUPLICATE_SERIAL_NUMBER, message)
        if not cells[self.header.product].strip():
            return Problem(RowReason.EMPTY_PRODUCT_NAME, f"line {line} has no product name")
        if not urls:
            return Problem(RowReason.NO_URLS, f"line {line} has no image URL")
        for position, url in enumerate(urls, start=1):
            if wrong := self._guard.check_url(url):
                return Problem(RowReason.INVALID_URL, f"line {line}, URL {position}: {wrong}")
        return None


def read_copy(chunks: Iterable[bytes], delimiter: str) -> Iterator[list[str]]:
    """Records of a CSV that the worker wrote itself."""
    lines = _Lines(chunks, limit=_MAX_COPY)
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        lines.begin_record()
        record = next(reader, None)
        if record is None:
            return
        yield record


class _Lines:
    """Decoded lines out of chunks, each record bounded; counts lines from 1."""

    def __init__(self, chunks: Iterable[bytes], limit: int = MAX_RECORD) -> None:
        """`limit` is the most bytes that one record may have."""
        self._chunks, self._limit = iter(chunks), limit
        self._buffer = b""
        self._record_line, self._record_bytes = 1, 0
        self._line = 0
        self._refill()
        self.byte_order_mark = self._buffer.startswith(_BOM)
        if self._buffer.startswith(_UTF16):
            message = "the catalogue is UTF-16; save it as UTF-8"
            raise CatalogueError(1, RowReason.NOT_UTF8, message)
        if self.byte_order_mark:
            self._buffer = self._buffer[len(_BOM) :]

    def begin_record(self) -> int:
        """The next line begins a record; returns its number."""
        self._record_line, self._record_bytes = self._line + 1, 0
        return self._record_line

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._next_raw()
        if not raw:
            raise StopIteration
        self._line += 1
        self._record_bytes += len(raw)
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

    def _next_raw(self) -> bytes:
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if self._record_bytes + searched > self._limit:
                self._too_long()
            if not self._refill():
                raw, self._buffer = self._buffer, b""
                return raw
        raw, self._buffer = self._buffer[: end + 1], self._buffer[end + 1 :]
        return raw

    def _refill(self) -> bool:
        """Adds chunks until at least four bytes are there, what a byte order mark needs."""
        before = len(self._buffer)
        for chunk in self._chunks:
            self._buffer += chunk
            if len(self._buffer) >= before + 4:
                break
        return len(self._buffer) > before

    def _too_long(self) -> None:
        message = (
            f"the record that begins at line {self._record_line} is longer than "
            f"{self._limit >> 20} MiB; is a closing quote missing?"
        )
        raise CatalogueError(self._record_line, RowReason.RECORD_TOO_LONG, message)


def _is(cell: str, *columns: str) -> bool:
    return cell.strip().casefold() in [column.casefold() for column in columns]


def _delimiter(first_line: str) -> str:
    """The separator under which the header has the most known columns."""

    def known(delimiter: str) -> int:
        cells = next(csv.reader([first_line], delimiter=delimiter), [])
        columns = (names.COLUMN_SERIAL, names.COLUMN_PRODUCT, names.COLUMN_URLS)
        return sum(_is(cell, *columns) for cell in cells)

    return max(_DELIMITERS, key=known)


def find_column(cells: list[str], column: str) -> int:
    """Where the column stands; raises CatalogueError unless it is there once."""
    places = [i for i, cell in enumerate(cells) if _is(cell, column)]
    if not places:
        message = f"line 1: the column {column!r} is missing; the header has: {', '.join(cells)}"
        raise CatalogueError(1, RowReason.MISSING_COLUMN, message[:400])
    if len(places) > 1:
        message = f"line 1: the column {column!r} is there {len(places)} times"
        raise CatalogueError(1, RowReason.DUPLICATE_COLUMN, message)
    return places[0]
