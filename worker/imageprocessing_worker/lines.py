"""Decoded lines out of a CSV's chunks, with a bound on each record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from imageprocessing_contract.reasons import RowReason

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class CatalogueError(Exception):
    """The catalogue as a whole cannot be read; `line` is where, from 1."""

    def __init__(self, line: int, reason: RowReason, message: str) -> None:
        super().__init__(message)
        self.line, self.reason, self.message = line, reason, message


class Lines:
    """Iterates over lines with their ends, counted from 1; raises CatalogueError."""

    def __init__(self, chunks: Iterable[bytes], limit: int) -> None:
        """`limit` is the most bytes that one record may have."""
        self._chunks, self._limit = iter(chunks), limit
        self._buffer, self._at = b"", 0
        self._record_line, self._record_bytes = 1, 0
        self._line = 0
        self._refill()
        self.byte_order_mark = self._buffer.startswith(_BOM)
        # Without a mark, each second byte of its ASCII letters is null.
        if self._buffer.startswith(_UTF16) or b"\0" in self._buffer[:4]:
            message = "the catalogue is UTF-16; save it as UTF-8"
            raise CatalogueError(1, RowReason.NOT_UTF8, message)
        if self.byte_order_mark:
            self._at = len(_BOM)

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
        searched = self._at
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer) - self._at
            if self._record_bytes + searched > self._limit:
                self._too_long()
            if not self._refill():
                end = len(self._buffer) - 1
                break
        # The rest stays where it is: to move it for each line would take a second a megabyte.
        raw, self._at = self._buffer[self._at : end + 1], end + 1
        return raw

    def _refill(self) -> bool:
        """Adds chunks until at least four bytes are there, what a byte order mark needs."""
        self._buffer, self._at = self._buffer[self._at :], 0
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
