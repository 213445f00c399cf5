"""Reading a catalogue: bytes of a CSV to checked rows, in constant memory.

A catalogue has the columns Serial Number, Product Name and Input Image Urls, in
any order and among others. Cells are separated by commas, semicolons or tabs; a
byte order mark and CRLF are fine. Lists of URLs may stand unquoted.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import chain, takewhile

import msgspec
from imageprocessing_contract import names
from imageprocessing_contract.guard import Guard
from imageprocessing_contract.reasons import RowReason

from imageprocessing_worker.lines import CatalogueError, Lines
from imageprocessing_worker.serials import SerialNumbers

MAX_RECORD = 1 << 20
"""Bytes of one record; csv.reader would build a 200 MB cell in 393 MB of memory."""
MAX_COPY = 64 * MAX_RECORD
"""Bytes of a record that the worker wrote: 1 MiB of short URLs has 90,000 output URLs."""
_MAX_PROCESSED = 9 * MAX_COPY
"""The same, with a column for each of eight widths."""

_DELIMITERS = (",", ";", "\t")
# For Excel alone, and written by exports that are meant for it: it names the separator.
_SEPARATOR_LINE = re.compile(r'"?sep=.?"?\s*', re.IGNORECASE)
# Nobody sees them, and web pages and spreadsheets leave them behind: soft hyphen, zero-width
# space and joiners, word joiner, byte order mark.
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
_AROUND_URL = f", \t\r\n\u00a0\u202f\u3000{_INVISIBLE}"
# A list ends one URL where a comma is followed by the next: Cloudinary's URLs hold commas.
_NEXT_URL = re.compile(rf",(?=[\s{_INVISIBLE}]*[A-Za-z][A-Za-z0-9+.-]*://|\s*//)")
# Others separate lists so; URLs within URLs stand behind a slash or an equals sign.
_NEXT_WITHOUT_COMMA = re.compile(r"[\s;|，；、]\s*https?://", re.IGNORECASE)
_SECRET = re.compile(r"(://).*", re.DOTALL)
_KNOWN = (names.COLUMN_SERIAL, names.COLUMN_PRODUCT, names.COLUMN_URLS)
_REPLACED = re.compile(rf"{names.OUTPUT_COLUMN}|{names.COLUMN_REASON}", re.IGNORECASE)

# Lines bounds what csv.reader is given; its own bound is for all of the process.
csv.field_size_limit(MAX_COPY)


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
    return [url for piece in _NEXT_URL.split(cell) if (url := piece.strip(_AROUND_URL))]


class Catalogue:
    """The header and, once, the rows of a CSV that arrives in chunks."""

    def __init__(self, chunks: Iterable[bytes], guard: Guard, max_record: int = MAX_RECORD) -> None:
        """Reads the header; raises CatalogueError."""
        self._guard = guard
        self._lines = Lines(chunks, max_record)
        line, first = self._first_line()
        self.dialect = Dialect(
            delimiter=_delimiter(first),
            newline="\r\n" if first.endswith("\r\n") else "\n",
            byte_order_mark=self._lines.byte_order_mark,
        )
        self._reader = csv.reader(
            chain([first], self._lines), delimiter=self.dialect.delimiter, strict=True
        )
        cells = self._record(line) or []
        self._width = len(cells)
        self._urls_cell = find_column(cells, names.COLUMN_URLS, line)
        behind = takewhile(lambda cell: not _as_seen(cell), cells[self._urls_cell + 1 :])
        self._nameless = sum(1 for _ in behind)
        self._needed = 1 + max(find_column(cells, column, line) for column in _KNOWN)
        self._kept = [i for i, cell in enumerate(cells) if not _REPLACED.fullmatch(_as_seen(cell))]
        self._replaced = len(self._kept) < len(cells)
        kept = [cells[i] for i in self._kept]
        self.header = Header(
            columns=kept,
            serial=find_column(kept, names.COLUMN_SERIAL),
            product=find_column(kept, names.COLUMN_PRODUCT),
            urls=find_column(kept, names.COLUMN_URLS),
        )

    def rows(self) -> Iterator[Row]:
        """Each record in order, invalid ones with their problem; raises CatalogueError."""
        serials = SerialNumbers()
        empty = True
        while True:
            line = self._lines.begin_record()
            record = self._record(line)
            if record is None:
                break
            if any(map(str.strip, record)):
                empty = False
                yield self._row(line, record, serials)
        if empty:
            message = "the catalogue has a header and no rows"
            raise CatalogueError(1, RowReason.NO_ROWS, message)

    def _first_line(self) -> tuple[int, str]:
        """The line where the header begins, and its number."""
        while True:
            line = self._lines.begin_record()
            text = next(iter(self._lines), "")
            if text.strip() and not _SEPARATOR_LINE.fullmatch(text):
                return line, text
            if not text:
                raise CatalogueError(1, RowReason.NO_ROWS, "the catalogue is empty")

    def _record(self, line: int) -> list[str] | None:
        """The record that begins at `line`; None at the end."""
        try:
            return next(self._reader, None)
        except csv.Error as error:
            what = f"{error}; check the quotes of this record"
            if str(error).startswith("new-line character"):
                what = "a carriage return without a line feed; end lines with LF or CRLF"
            message = f"line {line}: {what}"
            raise CatalogueError(line, RowReason.MALFORMED_RECORD, message) from error

    def _row(self, line: int, record: list[str], serials: SerialNumbers) -> Row:
        record, problem = self._fit(line, record)
        if self._nameless:
            record = self._gathered(record)
        cells = [record[i] for i in self._kept] if self._replaced else record
        serial = cells[self.header.serial].strip()
        first = serials.first_line(serial, line) if serial else None
        urls = split_urls(cells[self.header.urls])
        problem = problem or self._check(line, serial, first, cells, urls)
        return Row(line, cells, [] if problem else urls, problem)

    def _fit(self, line: int, record: list[str]) -> tuple[list[str], Problem | None]:
        """The record with as many cells as the header has.

        Cells too many are the rest of an unquoted list of URLs where one begins there.
        """
        surplus = len(record) - self._width
        if surplus == 0:
            return record, None
        told = f"line {line} has {len(record)} cells, the header has {self._width}"
        if surplus < 0:
            whole = record + [""] * -surplus
            missing = len(record) < self._needed
            return whole, Problem(RowReason.MISSING_CELL, told) if missing else None
        first, last = self._urls_cell, self._urls_cell + surplus + 1
        if _begins_url(record[first]) and self.dialect.delimiter == ",":
            return [*record[:first], ",".join(record[first:last]), *record[last:]], None
        if not any(cell.strip() for cell in record[self._width :]):
            return record[: self._width], None
        message = (
            f"{told}: quote cells that contain the separator, without a space before the quote"
        )
        return record[: self._width], Problem(RowReason.TOO_MANY_CELLS, message)

    def _gathered(self, record: list[str]) -> list[str]:
        """A list that a spreadsheet has spread over cells, in one again.

        Where a list stands unquoted, each URL is a cell to it, and as it saves the file the
        header gets as many columns without a name.
        """
        first, last = self._urls_cell, self._urls_cell + 1 + self._nameless
        if not any(map(_begins_url, record[first + 1 : last])):
            return record
        whole = ",".join(cell for cell in record[first:last] if cell.strip())
        return [*record[:first], whole, *[""] * self._nameless, *record[last:]]

    def _check(
        self, line: int, serial: str, first: int | None, cells: list[str], urls: list[str]
    ) -> Problem | None:
        if not serial:
            return Problem(RowReason.EMPTY_SERIAL_NUMBER, f"line {line} has no serial number")
        if first is not None:
            message = f"line {line} repeats the serial number {serial[:40]!r} of line {first}"
            return Problem(RowReason.DUPLICATE_SERIAL_NUMBER, message)
        if not cells[self.header.product].strip():
            return Problem(RowReason.EMPTY_PRODUCT_NAME, f"line {line} has no product name")
        if not urls:
            return Problem(RowReason.NO_URLS, f"line {line} has no image URL")
        for position, url in enumerate(urls, start=1):
            if wrong := _slip(url) or self._guard.check_url(url):
                return Problem(RowReason.INVALID_URL, f"line {line}, URL {position}: {wrong}")
        return None


def _slip(url: str) -> str | None:
    """What exports get wrong about lists of URLs; a server would answer 404, or with another image."""
    if url.find("://", len("https://")) > 0 and _NEXT_WITHOUT_COMMA.search(url):
        return "another URL follows in it; separate the URLs of a list by commas"
    if "&amp;" in url:
        return "the URL contains &amp;, which is HTML for &; write & alone"
    return None


def read_copy(chunks: Iterable[bytes], delimiter: str) -> Iterator[list[str]]:
    """Records of a CSV that the worker wrote itself; raises CatalogueError."""
    lines = Lines(chunks, _MAX_PROCESSED)
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        line = lines.begin_record()
        try:
            record = next(reader, None)
        except csv.Error as error:
            message = f"line {line}: {error}"
            raise CatalogueError(line, RowReason.MALFORMED_RECORD, message) from error
        if record is None:
            return
        yield record


def _begins_url(cell: str) -> bool:
    return cell.lstrip(_AROUND_URL).lower().startswith(("http://", "https://"))


def _as_seen(name: str) -> str:
    """A column's name without what cannot be seen; one plain space for any run of spaces."""
    return " ".join(name.translate(str.maketrans("", "", _INVISIBLE)).split())


def _is(cell: str, *columns: str) -> bool:
    return _as_seen(cell).casefold() in [column.casefold() for column in columns]


def _delimiter(first_line: str) -> str:
    """The separator under which the header has the most known columns."""

    def known(delimiter: str) -> int:
        cells = first_line.split(delimiter)
        return sum(_is(cell.strip().strip('"'), *_KNOWN) for cell in cells)

    return max(_DELIMITERS, key=known)


def find_column(cells: list[str], column: str, line: int = 1) -> int:
    """Where the column stands; raises CatalogueError unless it is there once."""
    places = [i for i, cell in enumerate(cells) if _is(cell, column)]
    if not places:
        # Without a header these are cells of the first row, and URLs may hold secrets.
        found = ", ".join(_SECRET.sub("\\1…", cell) for cell in cells)
        separators = (
            "cells are separated by commas, semicolons or tabs; " if len(cells) == 1 else ""
        )
        message = (
            f"line {line}: the column {column!r} is missing; {separators}the header has: {found}"
        )
        message = " ".join(message.split())[:400]
        raise CatalogueError(line, RowReason.MISSING_COLUMN, message)
    if len(places) > 1:
        message = f"line {line}: the column {column!r} is there {len(places)} times"
        raise CatalogueError(line, RowReason.DUPLICATE_COLUMN, message)
    return places[0]
