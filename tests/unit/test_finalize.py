import json
import sqlite3
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from imageprocessing_contract import names
from imageprocessing_contract.guard import Guard
from imageprocessing_contract.reasons import Reason
from imageprocessing_contract.request import RequestName, Source
from imageprocessing_contract.task import Task
from imageprocessing_worker import results
from imageprocessing_worker.catalogue import MAX_COPY, Catalogue
from imageprocessing_worker.errors import StepError
from imageprocessing_worker.finalize import Finished, finalize, read_done
from imageprocessing_worker.formulas import restore
from imageprocessing_worker.plan import make_plan
from imageprocessing_worker.records import open_records
from imageprocessing_worker.results import Made
from imageprocessing_worker.source import open_source
from imageprocessing_worker.stores import Store, beside, open_store
from imageprocessing_worker.stores.folder import FolderStore

from tests.unit.tasks import cells_of, commit, csv_of, make_task, outcomes, planned

U = [f"http://a.example/{n}.jpg" for n in range(8)]
HTTP = ("HTTPError", "404 Not Found")
COLUMNS = ["Note", "Product Name", "Serial Number", "Input Image Urls"]


def out(url: str, request_id: str = "spring") -> str:
    return f"out/{request_id}/{names.image_object(url, 'jpg')}"


def finished(task: Task) -> tuple[Store, Finished]:
    store = open_store(task.output)
    return store, finalize(task, store, open_records(task.output))


def processed(store: Store, request_id: str = "spring") -> bytes:
    found = store.read(names.processed_csv(request_id))
    assert found is not None
    return found


ROWS = [
    ['é\r\n"q"', "Müsli", "1", ",".join(U[:3])],
    ["", "x\ry", "2", U[3]],
    [";,\t", "", "3", U[4]],  # invalid: no name
    [" n ", "y", " 4 ", f"{U[4]} , {U[5]}"],
]
FORMS = [
    (delimiter, newline, mark)
    for delimiter in (",", ";", "\t")
    for newline in ("\n", "\r\n")
    for mark in (b"", b"\xef\xbb\xbf")
]


@pytest.mark.parametrize(("delimiter", "newline", "mark"), FORMS)
def test_files_have_the_form_of_the_source(
    tmp_path: Path, delimiter: str, newline: str, mark: bytes
) -> None:
    data = mark + csv_of(ROWS, COLUMNS, delimiter=delimiter, lineterminator=newline, quoting=1)
    task = make_task(tmp_path, invalid_rows="Skip", images_per_shard=2)
    store, plan = planned(task, data)
    for index in range(len(plan.shards)):
        commit(store, plan, index, {U[1]: HTTP, U[3]: HTTP, U[4]: ("Timeout", "too slow; sorry")})
    finished(task)

    text = processed(store)
    assert text.startswith(mark + b"Note")
    assert text.endswith(newline.encode())
    assert text.replace(b"\r\n", b"").count(b"\n") == (newline == "\n") * 5
    assert cells_of(text, delimiter) == [
        [*COLUMNS, "Output Image Urls"],
        [*ROWS[0], f"{out(U[0])},,{out(U[2])}"],
        [*ROWS[1], ""],
        [*ROWS[2], ""],
        [*ROWS[3], f",{out(U[5])}"],
    ]
    failed = store.read(names.FAILED_CSV)
    assert failed is not None
    assert failed.startswith(mark + b"Note")
    assert cells_of(failed, delimiter) == [
        [*COLUMNS, "Reason"],
        [*ROWS[0][:3], U[1], "HTTPError: 404 Not Found"],
        [*ROWS[1][:3], U[3], "HTTPError: 404 Not Found"],
        [*ROWS[3][:3], U[4], "Timeout: too slow; sorry"],
    ]
    # It is itself a catalogue.
    again = Catalogue([failed], Guard())
    assert again.dialect == plan.dialect
    assert [(row.problem, row.urls) for row in again.rows()] == [
        (None, [U[1]]),
        (None, [U[3]]),
        (None, [U[4]]),
    ]


def test_totals(tmp_path: Path) -> None:
    data = csv_of([["1", "x", ",".join(U[:4])], ["2", "y", U[0]], ["3", "z", U[7]]])
    task = make_task(tmp_path)
    store, plan = planned(task, data)
    commit(store, plan, 0, {U[1]: HTTP, U[7]: HTTP})
    store, end = finished(task)
    done = end.done
    images = done.images
    assert (images.total, images.succeeded, images.failed, images.unchanged) == (6, 4, 2, 0)
    assert (done.bytes.original, done.bytes.compressed) == (400, 160)
    assert [(f.line, f.url, f.reason, f.message) for f in done.failures] == [
        (2, U[1], *HTTP),
        (4, U[7], *HTTP),
    ]
    assert done.failed_shards == 0
    assert done.results.csv_url == "out/spring/processed_csvs/processed_results_spring.csv"
    assert done.results.failed_url == "out/spring/failed.csv"
    assert done.results.report_url == "out/spring/report.html"
    page = store.read(names.REPORT_HTML)
    assert page is not None
    assert b"404 Not Found" in page
    with sqlite3.connect(tmp_path / names.RECORDS_FILE) as records:
        assert records.execute("SELECT * FROM processing_requests").fetchall() == [
            ("spring", "completed", done.results.csv_url, 6, 4, 2)
        ]


def test_images_without_a_result_failed_with_their_shard(tmp_path: Path) -> None:
    task = make_task(tmp_path, images_per_shard=2)
    store, plan = planned(task, csv_of([["1", "x", ",".join(U[:2])], ["2", "y", ",".join(U[2:4])]]))
    commit(store, plan, 0, {})
    first, _ = outcomes(store, plan, 1, {})
    store.create(names.shard_part(1, "pod", 0), results.encode([first]), "application/jsonl")
    _, end = finished(task)
    assert (end.shards, end.done.failed_shards) == (2, 1)
    assert (end.done.images.total, end.done.images.succeeded) == (4, 3)
    assert [(f.line, f.url, f.reason) for f in end.done.failures] == [(3, U[3], "ShardFailed")]
    assert cells_of(processed(store))[2][3] == f"{out(U[2])},"
    assert cells_of(store.read(names.FAILED_CSV))[1] == [
        "2",
        "y",
        U[3],
        "ShardFailed: its shard failed before it was done",
    ]


def test_results_with_gaps_stay_in_their_places(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    rows = [["1", "x", ",".join(U[:3])], ["2", "y", U[3]], ["3", "z", ",".join(U[4:6])]]
    store, plan = planned(task, csv_of(rows))
    every = list(outcomes(store, plan, 0, {}))
    # What two Pods did, neither in order.
    for pod, done in (("a", [every[4], every[1]]), ("b", [every[1], every[2]])):
        text = results.encode(done)
        store.create(names.shard_part(0, pod, 0), text, "application/jsonl")
    _, end = finished(task)
    assert [row[3] for row in cells_of(processed(store))[1:]] == [
        f",{out(U[1])},{out(U[2])}",
        "",
        f"{out(U[4])},",
    ]
    assert [(f.line, f.url) for f in end.done.failures] == [(2, U[0]), (3, U[3]), (4, U[5])]


def test_shards_begin_where_the_plan_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invalid rows before, between and after; the third shard failed."""
    bad = ["", "x", U[7]]
    rows = [
        bad,
        ["1", "x", U[0]],
        bad,
        ["2", "x", ",".join(U[1:4])],
        ["3", "x", U[4]],
        bad,
        ["4", "x", U[5]],
        ["5", "x", U[6]],
        bad,
    ]
    task = make_task(tmp_path, images_per_shard=2, invalid_rows="Skip")
    store, plan = planned(task, csv_of(rows))
    assert [shard.images for shard in plan.shards] == [1, 3, 2, 1]
    for index in (0, 1, 3):
        commit(store, plan, index, {U[2]: HTTP})
    opened: list[str] = []
    chunks = FolderStore.chunks

    def counted(store: FolderStore, path: str, **part: Any) -> Iterator[bytes]:
        opened.append(path)
        return chunks(store, path, **part)

    monkeypatch.setattr(FolderStore, "chunks", counted)
    _, end = finished(task)
    assert [row[3] for row in cells_of(processed(store))[1:]] == [
        "",
        out(U[0]),
        "",
        f"{out(U[1])},,{out(U[3])}",
        "",
        "",
        "",
        out(U[6]),
        "",
    ]
    assert [f.reason for f in end.done.failures] == ["HTTPError", "ShardFailed", "ShardFailed"]
    assert end.done.failed_shards == 1
    assert opened == [names.CATALOGUE]


def test_results_of_a_large_shard_are_not_all_in_memory(tmp_path: Path) -> None:
    rows = [[str(n), "x", f"http://a.example/{n}"] for n in range(20_000)]
    task = make_task(tmp_path, images_per_shard=len(rows))
    store, plan = planned(task, csv_of(rows))
    commit(store, plan, 0, {row[2]: HTTP for row in rows[::100]})
    text = store.read(names.shard_results(0))
    assert text is not None
    tracemalloc.start()
    try:
        _, end = finished(task)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert end.done.images.failed == 200
    # All of them as objects are five times their text.
    assert peak < 3 * len(text)


def test_a_part_of_a_success_wins_over_failures(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    store, plan = planned(task, csv_of([["1", "x", U[0]]]))
    for pod, failing in (("a", {U[0]: HTTP}), ("b", {}), ("c", {U[0]: HTTP})):
        text = results.encode(outcomes(store, plan, 0, failing))
        store.create(names.shard_part(0, pod, 0), text, "application/jsonl")
    _, end = finished(task)
    assert end.done.images.succeeded == 1


def test_a_success_of_another_pod_wins_over_a_failure_in_the_commit(tmp_path: Path) -> None:
    """Two Pods on one index: whoever succeeded has written the record."""
    task = make_task(tmp_path)
    store, plan = planned(task, csv_of([["1", "x", f"{U[0]},{U[1]}"]]))
    text = results.encode(outcomes(store, plan, 0, {U[1]: HTTP}))
    store.create(names.shard_part(0, "b", 0), text, "application/jsonl")
    commit(store, plan, 0, {U[0]: HTTP, U[1]: HTTP})
    _, end = finished(task)
    assert end.done.failed_shards == 0
    assert cells_of(processed(store))[1][3] == f"{out(U[0])},"


def test_all_failed_and_none_at_all(tmp_path: Path) -> None:
    for request_id, row in (("all", ["1", "x", U[0]]), ("none", ["1", "", U[0]])):
        task = make_task(tmp_path, request_id, invalid_rows="Skip")
        store, plan = planned(task, csv_of([row]))
        commit(store, plan, 0, {U[0]: HTTP})
        _, end = finished(task)
        assert end.done.images.succeeded == 0
        assert len(cells_of(processed(store, request_id))) == 2
    with sqlite3.connect(tmp_path / names.RECORDS_FILE) as records:
        found = records.execute("SELECT request_id, status FROM processing_requests").fetchall()
    # As the operator has it: nothing failed where only invalid rows were left out.
    assert found == [("all", "failed"), ("none", "completed")]


def test_lists_of_failures_are_short(tmp_path: Path) -> None:
    rows = [[str(n), "x", f"http://a.example/{n}"] for n in range(1200)]
    task = make_task(tmp_path)
    store, plan = planned(task, csv_of(rows))
    commit(store, plan, 0, {row[2]: HTTP for row in rows})
    _, end = finished(task)
    assert [f.line for f in end.done.failures] == list(range(2, 12))
    assert len(cells_of(store.read(names.FAILED_CSV))) == 1201
    page = store.read(names.REPORT_HTML)
    assert page is not None
    assert b"http://a.example/999" in page
    assert b"http://a.example/1000" not in page


def test_the_page_escapes_what_strangers_wrote(tmp_path: Path) -> None:
    url = "http://a.example/<script>alert(1)</script>"
    task = make_task(tmp_path)
    store, plan = planned(task, csv_of([["1", "x", url]]))
    commit(store, plan, 0, {url: ("HTTPError", "<b>404</b>")})
    finished(task)
    page = store.read(names.REPORT_HTML)
    assert page is not None
    assert b"<script>alert" not in page
    assert b"&lt;b&gt;404" in page


def test_results_of_an_earlier_version_have_no_times(tmp_path: Path) -> None:
    """A shard that began before an upgrade and ended after it."""
    task = make_task(tmp_path)
    store, _ = planned(task, csv_of([["1", "x", U[0]]]))
    before = b'{"line":2,"position":0,"object":"a.jpg","original":100,"compressed":40}\n'
    store.create(names.shard_results(0), before, "application/jsonl")
    assert finished(task)[1].done.images.succeeded == 1
    page = store.read(names.REPORT_HTML) or b""
    assert b"Slowest hosts" not in page


def test_what_is_done_is_reported_again(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    store, plan = planned(task, csv_of([["1", "x", U[0]]]))
    commit(store, plan, 0, {})
    _, end = finished(task)
    before = processed(store)
    store.create(names.shard_results(0), b"", "application/jsonl")
    (tmp_path / "out/spring/results/0.jsonl").unlink()
    assert finished(task)[1] == end == read_done(store, "hash")
    assert processed(store) == before
    with pytest.raises(StepError, match="another requestID") as caught:
        read_done(store, "another hash")
    assert caught.value.reason is Reason.REQUEST_ID_CONFLICT
    assert json.loads(store.read(names.DONE) or b"")["spec_hash"] == "hash"


def replaced(task: Task, request_id: str) -> Task:
    """The task of another request with the same spec."""
    output = beside(task.output, task.request_id, request_id)
    return msgspec.structs.replace(task, request_id=request_id, output=output)


def test_nothing_is_finished_without_a_plan(tmp_path: Path) -> None:
    with pytest.raises(StepError) as caught:
        finished(make_task(tmp_path))
    assert (caught.value.reason, caught.value.transient) == (Reason.NOT_PLANNED, False)


def again(
    task: Task,
    request_id: str,
    failing: dict[str, tuple[str, str]],
    variants: tuple[Made, ...] = (),
) -> Store:
    """Does the failures of the task's request in a request of its own."""
    later = msgspec.structs.replace(
        replaced(task, request_id),
        source=Source(failures_of=RequestName(name="x")),
        failures_of=task.request_id,
    )
    store = open_store(later.output)
    plan = make_plan(later, store, open_source(later, {}, ""))
    commit(store, plan, 0, failing, variants)
    return finished(later)[0]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_the_failures_of_failures(tmp_path: Path, delimiter: str, mark: bytes) -> None:
    rows = [
        ["1", "x\ry", ",".join([U[0], U[1], U[0], U[2]])],
        ["2", "", U[3]],  # invalid, and stays
        ["3", "z", U[3]],
        ["4", "ä;,\n", U[4]],
        ["4", "repeats", U[5]],  # invalid, and stays
        ["5", "v", f"{U[5]},{U[6]}"],
    ]
    task = make_task(tmp_path, invalid_rows="Skip")
    store, plan = planned(task, mark + csv_of(rows, delimiter=delimiter, quoting=1))
    commit(store, plan, 0, {U[0]: HTTP, U[2]: HTTP, U[4]: HTTP, U[6]: HTTP})
    finished(task)

    second = again(task, "second", {U[2]: HTTP, U[6]: HTTP})
    text = processed(second, "second")
    assert text.startswith(mark + b"Serial")
    assert b"\xef\xbb\xbf" not in text[3:]
    new = [
        f"{out(U[0], 'second')},{out(U[1])},{out(U[0], 'second')},",
        "",
        out(U[3]),
        out(U[4], "second"),
        "",
        f"{out(U[5])},",
    ]
    header = ["Serial Number", "Product Name", "Input Image Urls", "Output Image Urls"]
    assert cells_of(text, delimiter) == [
        header,
        *([*row, urls] for row, urls in zip(rows, new, strict=True)),
    ]
    failed = cells_of(second.read(names.FAILED_CSV), delimiter)
    assert [row[2] for row in failed[1:]] == [U[2], U[6]]

    third = again(make_task(tmp_path, "second"), "third", {})
    new[0] = new[0] + out(U[2], "third")
    new[5] = new[5] + out(U[6], "third")
    assert cells_of(processed(third, "third"), delimiter) == [
        header,
        *([*row, urls] for row, urls in zip(rows, new, strict=True)),
    ]
    assert len(cells_of(third.read(names.FAILED_CSV), delimiter)) == 1


FOLDERS = ["", "out", "a,b", ",", "a,,b,", "=x", "a b/ü+(1)"]


@pytest.mark.parametrize("base_url", ["", "https://cdn.example/a,b/", "https://cdn.example"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_failures_where_output_urls_have_commas(tmp_path: Path, folder: str, base_url: str) -> None:
    plain = make_task(tmp_path)
    path = f"{folder}/spring".lstrip("/")
    output = msgspec.structs.replace(plain.output, path=path, base_url=base_url)
    task = msgspec.structs.replace(plain, output=output, formulas="Neutralize")
    store, plan = planned(task, csv_of([["1", "x", ",".join(U[:5])], ["2", "y", U[5]]]))
    commit(store, plan, 0, dict.fromkeys([U[0], U[2], U[3], U[5]], HTTP))
    finished(task)
    second = again(task, "second", {U[2]: HTTP})

    def url(store: Store, n: int) -> str:
        return store.url(names.image_object(U[n], "jpg"))

    first = [url(second, 0), url(store, 1), "", url(second, 3), url(store, 4)]
    found = [restore(row[3]) for row in cells_of(processed(second, "second"))[1:]]
    assert found == [",".join(first), url(second, 5)]


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_formulas_are_neutralized_in_the_processed_csv_only(tmp_path: Path, delimiter: str) -> None:
    header = [*COLUMNS, "=1+1"]
    rows = [
        ["-5", "=1,=2;=3", "=1", U[0], "@x"],
        ["'=1", "x", "'=1", f"{U[1]},{U[2]}", ""],
        ["", "", "+2", "=U[3]", ""],  # invalid, and stays
        ["", "\t=1", " -4", U[4], "－1"],
    ]
    task = make_task(tmp_path, invalid_rows="Skip", formulas="Neutralize")
    store, plan = planned(task, csv_of(rows, header, delimiter=delimiter, quoting=1))
    commit(store, plan, 0, dict.fromkeys([U[0], U[2], U[4]], HTTP))
    finished(task)
    expected = [
        [*COLUMNS, "'=1+1", "Output Image Urls"],
        ["-5", "'=1,=2;=3", "'=1", U[0], "'@x", ""],
        ["''=1", "x", "''=1", f"{U[1]},{U[2]}", "", f"{out(U[1])},"],
        ["", "", "+2", "'=U[3]", "", ""],
        ["", "'\t=1", " -4", U[4], "'－1", ""],
    ]
    assert cells_of(processed(store), delimiter) == expected
    failed = cells_of(store.read(names.FAILED_CSV), delimiter)
    assert [row[:5] for row in failed] == [
        header,
        rows[0],
        [*rows[1][:3], U[2], ""],
        rows[3],
    ]

    second = again(task, "second", {U[4]: HTTP})
    expected[1][5] = out(U[0], "second")
    expected[2][5] += out(U[2], "second")
    assert cells_of(processed(second, "second"), delimiter) == expected
    third = again(replaced(task, "second"), "third", {})
    expected[4][5] = out(U[4], "third")
    assert cells_of(processed(third, "third"), delimiter) == expected


def with_widths(task: Task, *widths: int) -> Task:
    compression = msgspec.structs.replace(task.compression, widths=widths)
    return msgspec.structs.replace(task, compression=compression)


def at(url: str, width: int, request_id: str = "spring") -> str:
    return names.variant_of(out(url, request_id), width)


WIDTHS = ["Output Image Urls", "Output Image Urls 640w", "Output Image Urls 320w"]


def test_each_width_has_a_column(tmp_path: Path) -> None:
    """In the order that was asked for; an image that is no wider stands there itself."""
    rows = [["1", "x", ",".join(U[:3])], ["2", "", U[3]], ["3", "z", U[4]]]
    task = with_widths(make_task(tmp_path, invalid_rows="Skip"), 640, 320)
    store, plan = planned(task, csv_of(rows))
    commit(store, plan, 0, {U[1]: HTTP, U[4]: HTTP}, (Made(320, 7),))
    _, end = finished(task)
    images = f"{out(U[0])},,{out(U[2])}"
    assert cells_of(processed(store)) == [
        ["Serial Number", "Product Name", "Input Image Urls", *WIDTHS],
        [*rows[0], images, images, f"{at(U[0], 320)},,{at(U[2], 320)}"],
        [*rows[1], "", "", ""],
        [*rows[2], "", "", ""],
    ]
    # Bytes are of the images, which are what was there before.
    assert (end.done.bytes.original, end.done.bytes.compressed) == (200, 80)
    assert b"Narrower variants" in (store.read(names.REPORT_HTML) or b"")


def test_columns_of_an_earlier_request_are_replaced(tmp_path: Path) -> None:
    header = ["output image urls 640W", "Serial Number", "Product Name", "Input Image Urls"]
    header += ["Output Image Urls 9", "Output Image Urls"]
    task = make_task(tmp_path)
    store, plan = planned(task, csv_of([["old", "1", "x", U[0], "mine", "old"]], header))
    commit(store, plan, 0, {})
    finished(task)
    assert cells_of(processed(store)) == [
        ["Serial Number", "Product Name", "Input Image Urls", "Output Image Urls 9", WIDTHS[0]],
        ["1", "x", U[0], "mine", out(U[0])],
    ]


@pytest.mark.parametrize("formulas", ["Keep", "Neutralize"])
@pytest.mark.parametrize(
    ("first", "second"), [((320,), (320,)), ((), (320,)), ((640, 320), ()), ((640,), (320, 640))]
)
def test_failures_of_a_request_with_other_widths(
    tmp_path: Path, first: tuple[int, ...], second: tuple[int, ...], formulas: str
) -> None:
    """What an image has no variant of stays empty, in its place."""
    rows = [["1", "x", ",".join(U[:3])], ["2", "", U[3]], ["3", "z", U[4]], ["4", "v", U[5]]]
    task = make_task(tmp_path, invalid_rows="Skip", formulas=formulas)
    one = with_widths(task, *first)
    store, plan = planned(one, csv_of(rows))
    commit(store, plan, 0, {U[1]: HTTP, U[4]: HTTP}, tuple(Made(w, 7) for w in first))
    finished(one)
    later = again(with_widths(task, *second), "later", {}, tuple(Made(w, 7) for w in second))
    columns = [*first, *(width for width in second if width not in first)]

    def urls(*numbers: int) -> list[str]:
        found = [[out(U[n], "later" if n in (1, 4) else "spring") for n in numbers]]
        for width in columns:
            made = [(n, "later" if n in (1, 4) else "spring") for n in numbers]
            found.append(
                [
                    at(U[n], width, which) if width in (first, second)[which == "later"] else ""
                    for n, which in made
                ]
            )
        return [",".join(cell) for cell in found]

    assert cells_of(processed(later, "later")) == [
        ["Serial Number", "Product Name", "Input Image Urls", *names.output_columns(columns)],
        [*rows[0], *urls(0, 1, 2)],
        [*rows[1], *[""] * (1 + len(columns))],
        [*rows[2], *urls(4)],
        [*rows[3], *urls(5)],
    ]


def test_failures_of_the_longest_record(tmp_path: Path) -> None:
    """Output URLs take far more than the mebibyte that a source's record may have."""
    urls = [f"http://a/{n}" for n in range(4000)]
    widths = tuple(range(100, 900, 100))
    made = tuple(Made(width, 7) for width in widths)
    task = with_widths(make_task(tmp_path), *widths)
    output = msgspec.structs.replace(task.output, base_url=f"https://cdn.example/{'x' * 2000}")
    task = msgspec.structs.replace(task, output=output)
    store, plan = planned(task, csv_of([["1", "x", ",".join(urls)], ["2", "y", U[0]]]))
    commit(store, plan, 0, {urls[0]: HTTP}, made)
    finished(task)
    assert len(processed(store)) > MAX_COPY
    second = again(task, "second", {}, made)
    for cell in cells_of(processed(second, "second"))[1][3:]:
        outputs = cell.split(",")
        assert len(outputs) == len(urls)
        assert all(outputs)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"Serial Number,Input Image Urls\n", "'Output Image Urls' is missing"),
        (
            b'Serial Number,Input Image Urls,Output Image Urls\n1,"http://a,http://b",\n',
            "the lists of URLs of serial number '1' differ",
        ),
        (b'Serial Number,Input Image Urls,Output Image Urls\n1,x\ry,""\n', "line 2"),
        (
            b'Serial Number,Input Image Urls,Output Image Urls\n1,http://b,""\n',
            "the lists of URLs of serial number '1' differ",
        ),
        (
            b'Serial Number,Input Image Urls,Output Image Urls\n2,http://b,""\n',
            "the serial number '1' is missing",
        ),
    ],
)
def test_a_processed_csv_that_was_changed_is_a_final_error(
    tmp_path: Path, text: bytes, words: str
) -> None:
    task = make_task(tmp_path)
    store, plan = planned(task, csv_of([["1", "x", U[0]]]))
    commit(store, plan, 0, {U[0]: HTTP})
    finished(task)
    with store.writer(names.processed_csv("spring"), "text/csv") as file:
        file.write(text)
    with pytest.raises(StepError, match=words) as caught:
        again(task, "second", {})
    assert (caught.value.reason, caught.value.transient) == (
        Reason.SOURCE_REQUEST_NOT_USABLE,
        False,
    )
