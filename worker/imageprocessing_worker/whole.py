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
        self,
        chunks: Iterable[bytes],
        dialect: Dialect,
        columns: Sequence[str],
        formulas: Formulas,
        above: str,
    ) -> None:
        """Reads the header; raises CatalogueError when a column is missing.

        `columns` are those to fill in, the images' first: a width that the earlier request did
        not have comes behind. `formulas` is what both requests do with them; `above` is what
        the output URLs of both begin with, up to the request's id.
        """
        rows = read_copy(chunks, dialect.delimiter)
        self._rows = rows if formulas == "Keep" else ([*map(restore, cells)] for cells in rows)
        self.columns = next(self._rows, [])
        self._serial = find_column(self.columns, names.COLUMN_SERIAL)
        self._urls = find_column(self.columns, names.COLUMN_URLS)
        find_column(self.columns, columns[0])
        added = [column for column in columns if column not in self.columns]
        self._added = len(added)
        self.columns += added
        self._outputs = [find_column(self.columns, column) for column in columns]
        # Not by commas alone: the folder or the public base URL may have some.
        self._output = re.compile(rf"((?:{re.escape(above)}[^/,]+/{names.IMAGES}/[^,]+)?)(?:,|\Z)")

    def through(
        self, serial: str, urls: Sequence[str], outputs: Sequence[Sequence[str]]
    ) -> Iterator[list[str]]:
        """Rows up to the one with that serial number, and that one filled in.

        `outputs` has what goes into each of the columns, for each of the URLs.
        """
        for cells in self.rest():
            if cells[self._serial].strip() == serial:
                yield self._filled(cells, list(zip(urls, outputs, strict=True)))
                return
            yield cells
        message = f"the serial number {serial[:40]!r} is missing"
        raise CatalogueError(1, RowReason.MALFORMED_RECORD, message)

    def rest(self) -> Iterator[list[str]]:
        """Rows after the last that was filled in."""
        if not self._added:
            return self._rows
        return (self._widened(cells) for cells in self._rows)

    def _widened(self, cells: list[str]) -> list[str]:
        """With an empty place for each image in the columns that were added."""
        images = len(self._split(cells[self._outputs[0]]))
        return [*cells, *["," * (images - 1)] * self._added]

    def _filled(self, cells: list[str], done: list[tuple[str, Sequence[str]]]) -> list[str]:
        columns = [self._split(cells[place]) for place in self._outputs]
        listed = split_urls(cells[self._urls])
        if all(len(column) == len(listed) for column in columns):
            for position, url in enumerate(listed):
                if done and not columns[0][position] and url == done[0][0]:
                    for column, output in zip(columns, done.pop(0)[1], strict=True):
                        column[position] = output
        if done:
            message = f"the lists of URLs of serial number {cells[self._serial][:40]!r} differ"
            raise CatalogueError(1, RowReason.MALFORMED_RECORD, message)
        filled = list(cells)
        for place, column in zip(self._outputs, columns, strict=True):
            filled[place] = ",".join(column)
        return filled

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
