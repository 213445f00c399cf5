"""Step 1: check the catalogue, copy it normalised, and note where each shard begins."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

import msgspec
from imageprocessing_contract import names, report
from imageprocessing_contract.guard import Guard
from imageprocessing_contract.reasons import Reason, RowReason
from imageprocessing_contract.report import MAX_SHARDS
from imageprocessing_contract.task import Task

from imageprocessing_worker import catalogue_copy
from imageprocessing_worker.catalogue import (
    MAX_COPY,
    MAX_RECORD,
    Catalogue,
    Dialect,
    Header,
    Row,
)
from imageprocessing_worker.errors import StepError
from imageprocessing_worker.lines import CatalogueError
from imageprocessing_worker.stores import CheckedFile, Store


class _OfSpec(Protocol):
    @property
    def spec_hash(self) -> str: ...


T = TypeVar("T", bound=_OfSpec)


class Shard(msgspec.Struct, frozen=True, array_like=True):
    """A run of rows: where it begins in the catalogue's copy (bytes), its number of images."""

    start: int
    images: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """plan.json: what shards and finalize need to know of the catalogue."""

    spec_hash: str
    catalogue: report.Catalogue
    catalogue_path: str
    catalogue_version: str
    catalogue_bytes: int
    dialect: Dialect
    header: Header
    shards: list[Shard]

    def span(self, index: int) -> tuple[int, int]:
        """First byte and the byte after the last of a shard in the catalogue's copy."""
        following = index + 1
        end = self.shards[following].start if following < len(self.shards) else None
        return self.shards[index].start, self.catalogue_bytes if end is None else end


class InvalidCatalogueError(StepError):
    """The catalogue is bad, which is final; carries what was found."""

    def __init__(self, message: str, catalogue: report.Catalogue) -> None:
        super().__init__(Reason.CATALOGUE_INVALID, message, transient=False)
        self.catalogue = catalogue


def read_plan(store: Store, spec_hash: str) -> Plan | None:
    """The plan that is there; StepError when it was made for another spec."""
    return read_own(store, names.PLAN, Plan, spec_hash)


def read_own(store: Store, file: str, kind: type[T], spec_hash: str) -> T | None:
    """A JSON file of ours, None where there is none; StepError when it is another request's."""
    text = store.read(file)
    if text is None:
        return None
    try:
        found = msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        message = (
            f"the output holds a {file} that this worker cannot read ({error}); "
            "choose another requestID, or remove that folder"
        )
        raise StepError(Reason.REQUEST_ID_CONFLICT, message, transient=False) from error
    if found.spec_hash != spec_hash:
        message = (
            f"the output already holds {file} of a request with the same requestID and another "
            "spec; choose another requestID, or remove that folder"
        )
        raise StepError(Reason.REQUEST_ID_CONFLICT, message, transient=False)
    return found


def make_plan(task: Task, store: Store, chunks: Iterable[bytes]) -> Plan:
    """Writes catalogue.jsonl and then plan.json; raises InvalidCatalogueError, StepError."""
    found = _Found()
    # In failed.csv reasons stand beside a record's URLs.
    max_record = MAX_COPY if task.failures_of is not None else MAX_RECORD
    # Never replaced: two Pods may plan at once, and only one of their plans will count.
    path = names.CATALOGUE
    if store.version(path) is not None:
        path = names.another_catalogue(uuid.uuid4().hex)
    try:
        catalogue = Catalogue(chunks, Guard(task.allowed_networks), max_record)
        with store.writer(path, "application/jsonl", replace=False) as file:
            shards, size = _copy(catalogue, file, task.images_per_shard, found)
            if found.invalid and task.invalid_rows == "Fail":
                raise InvalidCatalogueError(found.message(), found.counts())
    except CatalogueError as error:
        message = error.message
        if error.reason == RowReason.NO_ROWS and task.failures_of is not None:
            message = "no image failed in the request of failuresOf"
        found.add(report.Sample(error.line, error.reason, message))
        raise InvalidCatalogueError(f"{error.reason}: {message}", found.counts()) from error
    version = store.version(path)
    if version is None:
        message = f"{path} vanished after it was written"
        raise StepError(Reason.OUTPUT_NOT_WRITABLE, message, transient=True)
    plan = Plan(
        spec_hash=task.spec_hash,
        catalogue=found.counts(),
        catalogue_path=path,
        catalogue_version=version,
        catalogue_bytes=size,
        dialect=catalogue.dialect,
        header=catalogue.header,
        shards=shards,
    )
    if store.create(names.PLAN, msgspec.json.encode(plan), "application/json"):
        return plan
    earlier = read_plan(store, task.spec_hash)
    return earlier or plan


def read_rows(store: Store, plan: Plan, index: int) -> Iterator[Row]:
    """The rows of one shard."""
    return _read(store, plan, *plan.span(index))


def read_all_rows(store: Store, plan: Plan) -> Iterator[Row]:
    """The rows of all shards, in one go."""
    return _read(store, plan, 0, plan.catalogue_bytes)


def _read(store: Store, plan: Plan, start: int, end: int) -> Iterator[Row]:
    chunks = store.chunks(plan.catalogue_path, start=start, end=end, version=plan.catalogue_version)
    return catalogue_copy.decode(chunks, plan.header.urls)


def _copy(
    catalogue: Catalogue, file: CheckedFile, images_per_shard: int, found: _Found
) -> tuple[list[Shard], int]:
    shards: list[Shard] = []
    start, images, size = 0, 0, 0
    for row in catalogue.rows():
        found.count(row)
        if images and images + len(row.urls) > images_per_shard:
            shards.append(Shard(start, images))
            start, images = size, 0
            if len(shards) == MAX_SHARDS:
                pairs = zip(shards[::2], shards[1::2], strict=True)
                shards = [Shard(a.start, a.images + b.images) for a, b in pairs]
                images_per_shard *= 2
        images += len(row.urls)
        size += file.write(catalogue_copy.encode(row))
    shards.append(Shard(start, images))
    return shards, size


class _Found:
    """Counts of what was read so far, and the first invalid rows."""

    def __init__(self) -> None:
        self.rows = self.images = self.invalid = 0
        self._samples: list[report.Sample] = []

    def count(self, row: Row) -> None:
        self.rows += 1
        self.images += len(row.urls)
        if row.problem:
            self.invalid += 1
            self.add(report.Sample(row.line, row.problem.reason, row.problem.message))

    def add(self, sample: report.Sample) -> None:
        if len(self._samples) < report.MAX_SAMPLES:
            self._samples.append(sample)

    def counts(self) -> report.Catalogue:
        return report.Catalogue(
            rows=self.rows, images=self.images, invalid_rows=self.invalid, samples=self._samples
        )

    def message(self) -> str:
        first = self._samples[0]
        return f"{self.invalid} of {self.rows} rows are invalid; {first.reason}: {first.message}"
