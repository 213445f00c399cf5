"""Records in Firestore's emulator and in SQLite."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from google.cloud import firestore as firestore_client
from imageprocessing_contract import names
from imageprocessing_contract.request import Firestore as Where
from imageprocessing_contract.task import Output
from imageprocessing_worker.records import (
    ImageRecord,
    NoRecords,
    Records,
    RequestRecord,
    open_records,
)
from imageprocessing_worker.stores import StoreError

from tests.cluster.emulators import Firestore

Rows = Callable[[], list[tuple[object, ...]]]
FIELDS = ["request_id", "product_name", "input_url", "output_url"]


@pytest.fixture(params=["sqlite", "firestore"])
def records(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Records, Rows, Rows]:
    """Records of one kind; how to read all images and all requests, with their keys first."""
    if request.param == "sqlite":
        path = tmp_path / "new folder" / names.RECORDS_FILE

        def table(name: str) -> list[tuple[object, ...]]:
            with sqlite3.connect(path) as connection:
                return connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall()

        opened = open_records(Output(path="", base_url="", sqlite=os.fspath(path)))
        return (
            opened,
            lambda: table("processed_images"),
            lambda: [row[:1] + row for row in table("processing_requests")],
        )
    emulator: Firestore = request.getfixturevalue("firestore")
    for name, value in emulator.environment.items():
        monkeypatch.setenv(name, value)
    where = Where(project=emulator.project, database="(default)", collection="processed-images")
    client = firestore_client.Client(project=emulator.project)

    def images() -> list[tuple[object, ...]]:
        found = [
            (d.id, *(d.to_dict().pop(f) for f in FIELDS), len(d.to_dict()))
            for d in client.collection("processed-images").stream()
        ]
        assert {row[-1] for row in found} <= {len(FIELDS)}
        return [row[:-1] for row in sorted(found)]

    def requests() -> list[tuple[object, ...]]:
        fields = ["request_id", "status", "csv_url", "images", "succeeded", "failed"]
        found = client.collection("processing_requests").stream()
        return [(d.id, *(d.to_dict()[f] for f in fields)) for d in found]

    return open_records(Output(path="", base_url="", firestore=where)), images, requests


def image(number: int, output: str = "o") -> ImageRecord:
    return ImageRecord(f"{number:05}", "spring", f"Müsli {number}", "http://a/?x", output)


def test_many_images_in_one_put(records: tuple[Records, Rows, Rows]) -> None:
    opened, images, _ = records
    opened.put_images([image(n) for n in range(1_201)])
    assert images() == [
        (f"{n:05}", "spring", f"Müsli {n}", "http://a/?x", "o") for n in range(1_201)
    ]


def test_variants_in_firestore(firestore: Firestore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map of its own, which the document of an image without variants has not."""
    for name, value in firestore.environment.items():
        monkeypatch.setenv(name, value)
    where = Where(project=firestore.project, database="(default)", collection="processed-images")
    urls = {"320w": "o-320w", "640w": "o"}
    varied = msgspec.structs.replace(image(1), variants=urls)
    open_records(Output(path="", base_url="", firestore=where)).put_images([varied, image(2)])
    images = firestore_client.Client(project=firestore.project).collection("processed-images")
    one, two = (document.to_dict() for document in images.order_by("product_name").stream())
    assert one == two | {"product_name": "Müsli 1", "variants": urls}
    assert set(two) == set(FIELDS)


def test_a_put_again_changes_nothing(records: tuple[Records, Rows, Rows]) -> None:
    opened, images, _ = records
    for _ in range(2):
        opened.put_images([image(1), image(2)])
    opened.put_images([image(2)])
    opened.put_images([])
    assert [row[0] for row in images()] == ["00001", "00002"]
    opened.put_images([image(2, "new")])
    assert [row[4] for row in images()] == ["o", "new"]


def test_a_request_has_one_record(records: tuple[Records, Rows, Rows]) -> None:
    opened, _, requests = records
    begun = RequestRecord("spring-1.2", "processing", "", 3, 0, 0)
    opened.begin_request(begun)
    assert requests() == [("spring-1.2", "spring-1.2", "processing", "", 3, 0, 0)]
    opened.put_request(RequestRecord("spring-1.2", "completed", "u", 3, 2, 1))
    opened.begin_request(begun)
    assert requests() == [("spring-1.2", "spring-1.2", "completed", "u", 3, 2, 1)]


def test_many_processes_share_a_file(tmp_path: Path) -> None:
    program = """
import sys
from imageprocessing_worker.records import ImageRecord
from imageprocessing_worker.records.sqlite import SQLiteRecords
records = SQLiteRecords(sys.argv[1])
for part in range(20):
    numbers = range(part * 10, part * 10 + 10)
    records.put_images([ImageRecord(f"{sys.argv[2]}-{n}", "r", "p", "i", "o") for n in numbers])
    records.put_images([ImageRecord(f"all-{n}", "r", "p", "i", "o") for n in numbers])
"""
    path = tmp_path / names.RECORDS_FILE
    running = [
        subprocess.Popen([sys.executable, "-c", program, os.fspath(path), str(n)]) for n in range(6)
    ]
    assert [process.wait(120) for process in running] == [0] * 6
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT COUNT(*) FROM processed_images").fetchone()
    assert found == (7 * 200,)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no database" * 100)
    for path in ("file", "file/records.sqlite"):
        with pytest.raises(StoreError, match="file"):
            open_records(Output(path="", base_url="", sqlite=os.fspath(tmp_path / path)))


def test_without_firestore_there_are_none() -> None:
    assert isinstance(open_records(Output(path="", base_url="")), NoRecords)


def test_what_the_first_download_does_not_need_is_imported_later() -> None:
    program = """
import sys
import imageprocessing_worker.step
from imageprocessing_contract.request import Firestore
from imageprocessing_contract.task import Output
from imageprocessing_worker.records import open_records
open_records(Output(path="", base_url="", firestore=Firestore("shop", "(default)", "images")))
sys.exit(" ".join({"google.cloud.firestore", "jinja2", "PIL"} & set(sys.modules)) or 0)
"""
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert (ended.returncode, ended.stderr) == (0, b""), ended.stderr
