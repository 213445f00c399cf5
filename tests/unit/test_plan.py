from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from imageprocessing_contract import names, report
from imageprocessing_contract.reasons import Reason
from imageprocessing_worker import plan as plan_module
from imageprocessing_worker.errors import StepError
from imageprocessing_worker.plan import (
    InvalidCatalogueError,
    Plan,
    make_plan,
    read_plan,
    read_rows,
)
from imageprocessing_worker.stores import Store, StoreError, open_store

from tests.unit.tasks import csv_of, make_task, planned

URL = "http://a.example/{}.jpg"


def row(serial: object, images: int, name: str = "x") -> list[str]:
    return [str(serial), name, ",".join(URL.format(f"{serial}-{i}") for i in range(images))]


def sizes(plan: Plan) -> list[int]:
    return [shard.images for shard in plan.shards]


def shards_of(store: Store, plan: Plan) -> list[list[str]]:
    """Serial numbers by shard."""
    return [[r.cells[0] for r in read_rows(store, plan, i)] for i in range(len(plan.shards))]


# Images of each row, images a shard may have, images of each shard.
CUTS = [
    ([1], 1, [1]),
    ([1, 1, 1], 1, [1, 1, 1]),
    ([1, 1, 1], 2, [2, 1]),
    ([1, 1, 1, 1], 2, [2, 2]),
    ([2, 2], 3, [2, 2]),
    ([3, 1, 1], 3, [3, 2]),
    ([5, 1], 3, [5, 1]),
    ([1, 5, 1], 3, [1, 5, 1]),
    ([1, 1, 5, 1, 1], 3, [2, 5, 2]),
    ([1] * 10, 1000, [10]),
]


@pytest.mark.parametrize(("images", "most", "expected"), CUTS)
def test_cuts(tmp_path: Path, images: list[int], most: int, expected: list[int]) -> None:
    data = csv_of(row(serial, count) for serial, count in enumerate(images))
    store, plan = planned(make_task(tmp_path, images_per_shard=most), data)
    assert sizes(plan) == expected
    assert list(chain.from_iterable(shards_of(store, plan))) == [str(n) for n in range(len(images))]
    assert plan.catalogue == report.Catalogue(
        rows=len(images), images=sum(images), invalid_rows=0, samples=[]
    )


def test_shards_grow_beyond_the_most_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "MAX_SHARDS", 8)
    for rows in range(1, 100):
        store, plan = planned(
            make_task(tmp_path, f"r{rows}", images_per_shard=2),
            csv_of(row(serial, 1 + serial % 3) for serial in range(rows)),
        )
        assert len(plan.shards) <= 8
        assert list(chain.from_iterable(shards_of(store, plan))) == [str(n) for n in range(rows)]
        counted = [
            sum(len(r.urls) for r in read_rows(store, plan, i)) for i in range(len(plan.shards))
        ]
        assert sizes(plan) == counted


def test_invalid_rows_after_the_last_image_stay(tmp_path: Path) -> None:
    data = csv_of([row(1, 1), row(2, 0), row(3, 1), row(4, 0), row(5, 0)])
    store, plan = planned(make_task(tmp_path, images_per_shard=1, invalid_rows="Skip"), data)
    assert shards_of(store, plan) == [["1", "2"], ["3", "4", "5"]]


# Cells that a copy could break.
CELLS = ["Müsli 🥣", 'a "b"', "a,b;c\td", "a\nb", "a\r\nb", "a\rb", " a ", "'", "\0", "\u2028", ""]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_copy_has_every_cell_at_its_byte(tmp_path: Path, delimiter: str) -> None:
    header = ["Note", "Serial Number", "Product Name", "Input Image Urls"]
    rows = [[cell, f"{n} é", "näme", URL.format(n)] for n, cell in enumerate(CELLS)]
    data = csv_of(rows, header, delimiter=delimiter, quoting=1)
    store, plan = planned(make_task(tmp_path, images_per_shard=1), data)
    assert len(plan.shards) == len(CELLS)
    for index, cells in enumerate(rows):
        (found,) = read_rows(store, plan, index)
        assert found.cells == cells
        assert found.urls == [URL.format(index)]
        text = b"".join(store.chunks(names.CATALOGUE, start=plan.shards[index].start))
        assert text.startswith(b"[%d," % found.line)


def test_the_copy_keeps_lines_and_problems(tmp_path: Path) -> None:
    data = csv_of([["1", "x\ny", URL], row(2, 0), row(3, 1)]).replace(b"{}", b"1")
    store, plan = planned(make_task(tmp_path, invalid_rows="Skip"), data)
    first, second, third = read_rows(store, plan, 0)
    assert [first.line, second.line, third.line] == [2, 4, 5]
    assert (first.problem, third.problem) == (None, None)
    assert second.problem is not None
    assert second.problem.message == "line 4 has no image URL"


BAD = [row(1, 1), row(1, 2), ["", "x", URL], row(4, 3)]


def test_invalid_rows_fail(tmp_path: Path) -> None:
    with pytest.raises(InvalidCatalogueError) as caught:
        planned(make_task(tmp_path), csv_of(BAD))
    error = caught.value
    assert (error.reason, error.transient) == (Reason.CATALOGUE_INVALID, False)
    assert error.message == (
        "2 of 4 rows are invalid; DuplicateSerialNumber: "
        "line 3 repeats the serial number '1' of line 2"
    )
    assert (error.catalogue.rows, error.catalogue.images, error.catalogue.invalid_rows) == (4, 4, 2)
    assert [(s.line, s.reason) for s in error.catalogue.samples] == [
        (3, "DuplicateSerialNumber"),
        (4, "EmptySerialNumber"),
    ]
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_invalid_rows_are_skipped(tmp_path: Path) -> None:
    _, plan = planned(make_task(tmp_path, invalid_rows="Skip"), csv_of(BAD))
    assert (plan.catalogue.rows, plan.catalogue.images, plan.catalogue.invalid_rows) == (4, 4, 2)
    assert len(plan.catalogue.samples) == 2


def test_the_first_ten_invalid_rows_are_samples(tmp_path: Path) -> None:
    data = csv_of([row(0, 1), *(row(n, 0) for n in range(1, 100))])
    _, plan = planned(make_task(tmp_path, invalid_rows="Skip"), data)
    assert plan.catalogue.invalid_rows == 99
    assert [sample.line for sample in plan.catalogue.samples] == list(range(3, 13))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (csv_of([]), "NoRows: the catalogue has a header and no rows"),
        (csv_of([["", "", ""]]), "NoRows: the catalogue has a header and no rows"),
        (b"", "NoRows: the catalogue is empty"),
        (
            csv_of([row(1, 1)]) + b'2,"x',
            "MalformedRecord: line 3: unexpected end of data; check the quotes of this record",
        ),
    ],
)
@pytest.mark.parametrize("invalid_rows", ["Fail", "Skip"])
def test_a_catalogue_that_cannot_be_read(
    tmp_path: Path, data: bytes, message: str, invalid_rows: str
) -> None:
    with pytest.raises(InvalidCatalogueError) as caught:
        planned(make_task(tmp_path, invalid_rows=invalid_rows), data)
    assert caught.value.message == message
    assert len(caught.value.catalogue.samples) == 1
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_failures_of_a_request_without_any(tmp_path: Path) -> None:
    with pytest.raises(InvalidCatalogueError, match="no image failed in the request of failuresOf"):
        planned(make_task(tmp_path, failures_of="other"), csv_of([]))


def test_a_plan_that_is_there_is_the_plan(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    store, first = planned(task, csv_of([row(1, 1)]))
    assert read_plan(store, "hash") == first
    # The source changed meanwhile: shards of two catalogues would be a mess.
    _, second = planned(task, csv_of([row(1, 1), row(2, 2)]))
    assert second == first
    assert shards_of(store, second) == [["1"]]


def test_another_spec_is_a_conflict(tmp_path: Path) -> None:
    store, _ = planned(make_task(tmp_path), csv_of([row(1, 1)]))
    with pytest.raises(StepError, match="another requestID") as caught:
        read_plan(store, "another hash")
    assert (caught.value.reason, caught.value.transient) == (Reason.REQUEST_ID_CONFLICT, False)
    with pytest.raises(StepError, match="another requestID"):
        planned(make_task(tmp_path, spec_hash="another hash"), csv_of([row(1, 1)]))


@pytest.mark.parametrize("text", [b"", b"{", b'{"spec_hash": "hash"}'])
def test_a_plan_that_is_none_is_a_conflict(tmp_path: Path, text: bytes) -> None:
    store = open_store(make_task(tmp_path).output)
    store.create(names.PLAN, text, "application/json")
    with pytest.raises(StepError, match=r"a plan\.json that this worker cannot read") as caught:
        read_plan(store, "hash")
    assert not caught.value.transient


def test_a_plan_after_one_that_was_killed(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    store = open_store(task.output)
    store.create(names.CATALOGUE, b'[2,["left', "application/jsonl")
    plan = make_plan(task, store, [csv_of([row(1, 1)])])
    assert shards_of(store, plan) == [["1"]]


def test_two_plans_at_once_are_one(tmp_path: Path) -> None:
    """Whoever is first wins, and what the other one reads then is still there."""
    task = make_task(tmp_path)
    store = open_store(task.output)
    first: list[Plan] = []

    def changed() -> Iterator[bytes]:
        yield csv_of([row(1, 1)])
        first.append(make_plan(task, open_store(task.output), [csv_of([row(1, 1), row(2, 2)])]))

    with pytest.raises(StoreError, match="another Pod") as caught:
        make_plan(task, store, changed())
    assert caught.value.transient
    again = make_plan(task, store, [csv_of([row(1, 1)])])
    assert again == first[0]
    assert shards_of(store, again) == [["1", "2"]]


def test_a_catalogue_that_was_changed_is_noticed(tmp_path: Path) -> None:
    store, plan = planned(make_task(tmp_path), csv_of([row(1, 1)]))
    with store.writer(names.CATALOGUE, "application/jsonl") as file:
        file.write(b'[2,["1","x","http://b.example/other.jpg"],null]\n')
    with pytest.raises(StoreError, match="written again"):
        list(read_rows(store, plan, 0))
