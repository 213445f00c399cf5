"""Writing a CSV that every reader reads back cell by cell."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import Protocol

from imageprocessing_contract.request import Formulas

from imageprocessing_worker.formulas import neutralize

_NEWLINE = "\r\n"


class Target(Protocol):
    """Where the bytes go."""

    def write(self, data: bytes, /) -> int:
        """Like a file's."""


class CSVFile:
    """Rows as UTF-8."""

    def __init__(
        self,
        file: Target,
        delimiter: str,
        newline: str,
        formulas: Formulas,
    ) -> None:
        self._file, self._newline, self._formulas = file, newline, formulas
        # Up to Python 3.12 a cell with a carriage return is quoted only where that is
        # part of the line's end; unquoted, no reader takes it.
        self._writer = csv.writer(self, delimiter=delimiter, lineterminator=_NEWLINE)

    def row(self, cells: Iterable[str]) -> None:
        """Writes one row."""
        self._writer.writerow(cells if self._formulas == "Keep" else map(neutralize, cells))

    def write(self, text: str) -> None:
        """For csv.writer, which calls it once a row."""
        self.raw((text.removesuffix(_NEWLINE) + self._newline).encode())

    def raw(self, data: bytes) -> None:
        """Writes bytes as they are."""
        self._file.write(data)
