"""Step 3: catalogue and results in order into the files that users get."""

from __future__ import annotations

import logging
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import ExitStack

import msgspec
from imageprocessing_contract import names, report
from imageprocessing_contract.reasons import ImageReason, Reason
from imageprocessing_contract.request import Formulas
from imageprocessing_contract.task import Task

from imageprocessing_worker import results
from imageprocessing_worker.catalogue import Dialect, Row
from imageprocessing_worker.csv_file import CSVFile
from imageprocessing_worker.errors import StepError
from imageprocessing_worker.lines import CatalogueError
from imageprocessing_worker.page import Page
from imageprocessing_worker.plan import Plan, read_all_rows, read_own, read_plan
from imageprocessing_worker.records import Records, RequestRecord
from imageprocessing_worker.results import Result
from imageprocessing_worker.sample import Sample, read_shown
from imageprocessing_worker.stores import CheckedFile, Store, StoreError, beside, open_store
from imageprocessing_worker.tally import Tally
from imageprocessing_worker.whole import WholeCatalogue

logger = logging.getLogger(__name__)
_CSV = "text/csv; charset=utf-8"


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """done.json: the outcome, for whoever asks for the same request again."""

    spec_hash: str
    catalogue: report.Catalogue
    shards: int
    done: report.Done


def read_done(store: Store, spec_hash: str) -> Finished | None:
    """The outcome that is there; StepError when it is another spec's."""
    return read_own(store, names.DONE, Finished, spec_hash)


def finalize(task: Task, store: Store, records: Records) -> Finished:
    """Writes the result files and, last, done.json; raises StepError, StoreError."""
    if finished := read_done(store, task.spec_hash):
        store.tidy()  # the Pod that wrote it may have been killed before it could
        return finished
    plan = read_plan(store, task.spec_hash)
    if plan is None:
        message = "there is no plan: the catalogue was never read to its end"
        raise StepError(Reason.NOT_PLANNED, message, transient=False)
    urls = report.Results(
        csv_url=store.url(names.processed_csv(task.request_id)),
        failed_url=store.url(names.FAILED_CSV),
        report_url=store.url(names.REPORT_HTML),
    )
    totals = Tally()
    try:
        _write_files(task, plan, store, totals)
    except CatalogueError as error:
        # Our own copy of the catalogue is as we wrote it; the other request's file is older.
        message = f"{names.processed_csv(task.failures_of or task.request_id)}: {error.message}"
        raise StepError(Reason.SOURCE_REQUEST_NOT_USABLE, message, transient=False) from error
    done = totals.done(urls, task.cause)
    page = Page(task.request_id, plan.catalogue, done, totals, _samples(store))
    with store.writer(names.REPORT_HTML, "text/html; charset=utf-8") as file:
        file.write(page.render().encode())
    finished = Finished(
        spec_hash=task.spec_hash, catalogue=plan.catalogue, shards=len(plan.shards), done=done
    )
    records.put_request(
        RequestRecord(
            request_id=task.request_id,
            status="completed" if done.images.succeeded or not done.images.total else "failed",
            csv_url=urls.csv_url,
            images=done.images.total,
            succeeded=done.images.succeeded,
            failed=done.images.failed,
        )
    )
    first = store.create(names.DONE, msgspec.json.encode(finished), "application/json")
    store.tidy()
    return finished if first else read_done(store, task.spec_hash) or finished


def _write_files(task: Task, plan: Plan, store: Store, totals: Tally) -> None:
    with ExitStack() as files:
        processed = files.enter_context(store.writer(names.processed_csv(task.request_id), _CSV))
        failed = files.enter_context(store.writer(names.FAILED_CSV, _CSV))
        whole = _whole_catalogue(task, plan)
        _Files(
            plan,
            store,
            totals,
            processed=processed,
            failed=failed,
            formulas=task.formulas,
            widths=task.compression.widths,
            whole=whole,
        ).write()


def _samples(store: Store) -> list[Sample]:
    """What the report shows of images; a report without is better than none."""
    try:
        return list(read_shown(store))
    except StoreError as error:
        logger.warning("the report has no samples: %s", error)
        return []


def _whole_catalogue(task: Task, plan: Plan) -> WholeCatalogue | None:
    """With source.failuresOf: what the other request wrote."""
    if task.failures_of is None:
        return None
    earlier = open_store(beside(task.output, task.request_id, task.failures_of))
    return WholeCatalogue(
        earlier.chunks(names.processed_csv(task.failures_of)),
        plan.dialect,
        names.output_columns(task.compression.widths),
        task.formulas,
        earlier.url("").removesuffix(task.failures_of),
    )


class _Files:
    """The processed CSV and failed.csv, row by row."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        totals: Tally,
        *,
        processed: CheckedFile,
        failed: CheckedFile,
        formulas: Formulas,
        widths: tuple[int, ...],
        whole: WholeCatalogue | None,
    ) -> None:
        self._plan, self._store, self._totals, self._whole = plan, store, totals, whole
        self._widths, self._no_urls = widths, [""] * (1 + len(widths))
        self._processed = _csv_file(processed, plan.dialect, formulas)
        # A catalogue again, so always as it came.
        self._failed = _csv_file(failed, plan.dialect, "Keep")

    def write(self) -> None:
        columns = self._plan.header.columns
        if self._whole:
            self._processed.row(self._whole.columns)
        else:
            self._processed.row([*columns, *names.output_columns(self._widths)])
        self._failed.row([*columns, names.COLUMN_REASON])
        for row, found in self._rows():
            self._row(row, found)
        if self._whole:
            for cells in self._whole.rest():
                self._processed.row(cells)

    def _rows(self) -> Iterator[tuple[Row, _Results]]:
        """Each row with its shard's results: neither is ever in memory as a whole.

        The catalogue is opened once: in a bucket each shard's part would be two requests more.
        """
        shards = iter(range(len(self._plan.shards)))
        left, found = 0, _Results(iter(()))
        for row in read_all_rows(self._store, self._plan):
            if row.urls and not left:
                index = next(shards)
                left, found = self._plan.shards[index].images, _Results(self._found(index))
            left -= len(row.urls)
            yield row, found
        for index in shards:  # of a catalogue without images
            self._found(index)

    def _found(self, index: int) -> Iterator[Result]:
        """What is known of a shard's images, in the catalogue's order."""
        if found := results.committed(self._store, index):
            return found
        self._totals.failed_shards += 1
        parts = results.read_parts(self._store, index)
        return (parts[place] for place in sorted(parts))

    def _row(self, row: Row, found: _Results) -> None:
        product = self._plan.header.product
        outputs: list[list[str]] = []
        failed: list[tuple[str, str]] = []
        for position, url in enumerate(row.urls):
            result = found.take((row.line, position))
            self._totals.add(row.line, row.cells[product], url, result)
            outputs.append(results.output_urls(self._store, result, self._widths))
            if result.object is None:
                failed.append((url, f"{result.reason}: {result.message}"))
        if self._whole:
            serial = row.cells[self._plan.header.serial].strip()
            for cells in self._whole.through(serial, row.urls, outputs):
                self._processed.row(cells)
        else:
            lists = map(",".join, zip(*outputs, strict=True)) if outputs else self._no_urls
            self._processed.row([*row.cells, *lists])
        if failed:
            cells = list(row.cells)
            cells[self._plan.header.urls] = ",".join(url for url, _ in failed)
            self._failed.row([*cells, "; ".join(why for _, why in failed)])


class _Results:
    """A shard's results, taken one by one in the catalogue's order."""

    def __init__(self, found: Iterator[Result]) -> None:
        self._found = found
        self._next = next(found, None)

    def take(self, place: results.Place) -> Result:
        """What became of the image there; without a result it failed with its shard."""
        while (result := self._next) is not None:
            if result.place > place:
                break
            self._next = next(self._found, None)
            if result.place == place:
                return result
        return Result(
            line=place[0],
            position=place[1],
            reason=ImageReason.SHARD_FAILED,
            message="its shard failed before it was done",
        )


def _csv_file(file: CheckedFile, dialect: Dialect, formulas: Formulas) -> CSVFile:
    """A file in the form that the source had: its delimiter, newline and byte order mark."""
    made = CSVFile(file, dialect.delimiter, dialect.newline, formulas)
    if dialect.byte_order_mark:
        made.raw(BOM_UTF8)
    return made
