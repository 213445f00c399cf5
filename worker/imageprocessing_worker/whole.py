"""The whole catalogue again, after a request that did only another one's failures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from imageprocessing_contract import names
from imageprocessing_contract.reasons import RowReason
from imageprocessing_contract.request import Formulas

from imageprocessing_worker.catalogue import Dialect, find_column, read_copy, split_urls
from imageprocessing_worker.formulas import restore
from imageprocessing_worker.lines import CatalogueError


class WholeCatalogue:
    """The earlier request's processed CSV, read once, with new URLs filled in.

    Everything raises CatalogueError where that CSV is not as the worker wrote it.

    Its rows and those of its failed.csv have the same order, so neither is kept in memory.
    """

    def __init__(
        self, chunks: Iterable[bytes], dialect: Dialect, formulas: Formulas, above: str
    ) -> None:
        """Reads the header; raises CatalogueError when a column is missing.

        `formulas` is what both requests do with them; `above` is what the output URLs of
        both begin with, up to the request's id.
        """
        rows = read_copy(chunks, dialect.delimiter)
        self._rows = rows if formulas == "Keep" else ([*map(restore, cells)] for cells in rows)
        self.columns = next(self._rows, [])
        self._serial = find_column(self.columns, names.COLUMN_SERIAL)
        self._urls = find_column(self.columns, names.COLUMN_URLS)
        self._outputs = find_column(self.columns, names.COLUMN_OUTPUT_URLS)
        # Not by commas alone: the folder or the public base URL may have some.
        self._output = re.compile(rf"((?:{re.escape(above)}[^/,]+/{names.IMAGES}/[^,]+)?)(?:,|\Z)")

    def through(
        self, serial: str, urls: Sequence[str], outputs: Sequence[str]
    ) -> Iterator[list[str]]:
        """Rows up to the one with that serial number, and that one filled in."""
        for cells in self._rows:
            if cells[self._serial].strip() == serial:
                yield self._filled(cells, list(zip(urls, outputs, strict=True)))
                return
            yield cells
        message = f"the serial number {serial[:40]!r} is missing"
        raise CatalogueError(1, RowReason.MALFORMED_RECORD, message)

    def rest(self) -> Iterator[list[str]]:
        """Rows after the last that was filled in."""
        return self._rows

    def _filled(self, cells: list[str], done: list[tuple[str, str]]) -> list[str]:
        outputs = self._split(cells[self._outputs])
        listed = split_urls(cells[self._urls])
        if len(outputs) == len(listed):
            for position, url in enumerate(listed):
                if done and not outputs[position] and url == done[0][0]:
                    outputs[position] = done.pop(0)[1]
        if done:
            message = f"the lists of URLs of serial number {cells[self._serial][:40]!r} differ"
            raise CatalogueError(1, RowReason.MALFORMED_RECORD, message)
        return [*cells[: self._outputs], ",".join(outputs), *cells[self._outputs + 1 :]]

    def _split(self, cell: str) -> list[str]:
        """The output URLs of a cell, empty where an image failed; fewer where it is no such list."""
        outputs: list[str] = []
        at = 0
        while found := self._output.match(cell, at):
            outputs.append(found[1])
            at = found.end()
            if at == len(cell) and not found[0].endswith(","):
                break
        return outputs
