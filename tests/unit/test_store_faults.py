"""Cloud Storage and Firestore when they refuse, break off, lose answers and damage bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import grpc
import pytest
from google.cloud import firestore as firestore_client
from imageprocessing_contract.request import Firestore as Where
from imageprocessing_contract.task import Output
from imageprocessing_worker.records import ImageRecord, Records, RequestRecord
from imageprocessing_worker.records import firestore as firestore_records
from imageprocessing_worker.stores import Store, StoreError, open_store
from imageprocessing_worker.stores import gcs as gcs_store
from msgspec.structs import asdict, replace

from tests.cluster.emulators import Firestore, Storage
from tests.unit.store_proxies import (
    Call,
    Damaged,
    Fault,
    Garbled,
    Hang,
    Refused,
    Reset,
    Rule,
    StorageCall,
    records_proxy,
    storage_proxy,
)

TEXT = "text/plain"
LARGE = bytes(range(256)) * (3 << 12)  # 3 MiB: a resumable upload of four calls


class Faults:
    """Gives the first calls that match their faults, one each."""

    def __init__(self, *faults: Fault, matching: bytes = b"") -> None:
        self.left, self._matching = list(faults), matching

    def __call__(self, call: Call) -> Fault | None:
        head = call.head if isinstance(call, StorageCall) else b""
        if not self.left or self._matching not in head.split(b"\r\n")[0]:
            return None
        return self.left.pop(0)


@pytest.fixture
def store_behind(
    gcs: Storage, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Rule], Store]]:
    """A store in a bucket behind a rule."""
    monkeypatch.setattr(gcs_store, "RETRY", gcs_store.RETRY.with_delay(initial=0.01))

    def behind(rule: Rule) -> Store:
        proxied = proxies.enter_context(storage_proxy(gcs, rule))
        for key, value in proxied.environment.items():
            monkeypatch.setenv(key, value)
        return open_store(Output(path="r", base_url="", bucket=gcs.bucket))

    with ExitStack() as proxies:
        yield behind


def write(store: Store, path: str, data: bytes, *, replace: bool = True) -> None:
    with store.writer(path, TEXT, replace=replace) as file:
        file.write(data)


# What happens to a call, and whether a create then knows that it was the one that wrote.
PASSING = [
    (Refused(429), True),
    (Refused(503), True),
    (Refused(500), True),
    (Refused(408), True),
    (Reset(after=False), True),
    (Reset(after=True), False),
    # The emulator takes any bytes; these are Cloud Storage's words.
    (Refused(400, 'Provided CRC32C "AAAAAA==" doesn\'t match calculated CRC32C "NT3Yvg=="'), True),
]


@pytest.mark.parametrize(("fault", "ours"), PASSING)
def test_a_create_is_tried_again(
    store_behind: Callable[[Rule], Store], fault: Fault, ours: bool
) -> None:
    faults = Faults(fault, matching=b"POST /upload")
    store = store_behind(faults)
    assert store.create("x", b"content", TEXT) is ours
    assert store.read("x") == b"content"
    assert not faults.left


@pytest.mark.parametrize("fault", [Refused(503), Reset(after=False), Reset(after=True)])
@pytest.mark.parametrize("data", [b"small", LARGE])
@pytest.mark.parametrize("at", [b"POST", b"PUT"])
def test_a_writer_goes_on(
    store_behind: Callable[[Rule], Store], fault: Fault, data: bytes, at: bytes
) -> None:
    faults = Faults(fault, matching=at)
    store = store_behind(faults)
    try:
        write(store, "x", data)
    except StoreError as error:
        # The emulator forgets an upload that is complete; Cloud Storage answers once more.
        if not error.transient or fault != Reset(after=True):
            raise
        write(store, "x", data)
    assert store.read("x") == data
    assert not faults.left


@pytest.mark.parametrize("data", [b"small", LARGE])
def test_a_writer_whose_bytes_are_damaged(
    store_behind: Callable[[Rule], Store], data: bytes
) -> None:
    """The service or the client notices; what is there is replaced when the step runs again."""
    store = store_behind(Faults(Damaged(back=False), matching=b"PUT"))
    with pytest.raises(StoreError) as caught:
        write(store, "x", data)
    assert caught.value.transient
    write(store, "x", data)
    assert store.read("x") == data


@pytest.mark.parametrize(
    "fault", [Refused(503), Reset(after=False), Reset(after=True), Damaged(back=True)]
)
def test_a_read_is_tried_again(store_behind: Callable[[Rule], Store], fault: Fault) -> None:
    faults = Faults(fault, fault, matching=b"alt=media")
    store = store_behind(faults)
    store.create("x", LARGE, TEXT)
    assert store.read("x") == LARGE
    assert not faults.left


@pytest.mark.parametrize("fault", [Refused(503), Reset(after=False), Reset(after=True)])
def test_chunks_versions_and_lists_are_tried_again(
    store_behind: Callable[[Rule], Store], fault: Fault
) -> None:
    faults = Faults(matching=b"GET")
    store = store_behind(faults)
    store.create("x", LARGE, TEXT)
    for read in (
        lambda: b"".join(store.chunks("x")) == LARGE,
        lambda: store.version("x") is not None,
        lambda: store.list("") == ["x"],
    ):
        faults.left = [fault]
        assert read()
        assert not faults.left


def test_an_upload_that_the_service_lost_is_begun_again(
    store_behind: Callable[[Rule], Store],
) -> None:
    store = store_behind(Faults(Refused(404), matching=b"PUT"))
    with pytest.raises(StoreError, match="the upload was lost") as caught:
        write(store, "x", LARGE)
    assert caught.value.transient


@pytest.mark.parametrize("fault", [Hang(), Garbled(), Refused(503), Reset(after=False)])
def test_a_store_that_is_down_for_good(
    store_behind: Callable[[Rule], Store], monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(gcs_store, "RETRY", gcs_store.RETRY.with_timeout(1))
    monkeypatch.setattr(gcs_store, "_TIMEOUT", 0.5)
    # A page in place of a file is not noticed without its checksum, and here it has none.
    media = Reset(after=False) if isinstance(fault, Garbled) else fault
    store = store_behind(lambda call: media if b"alt=media" in call.head else fault)
    for call in (
        lambda: store.create("x", b"1", TEXT),
        lambda: write(store, "x", LARGE),
        lambda: store.read("x"),
        lambda: list(store.chunks("x")),
        lambda: store.version("x"),
        lambda: store.list(""),
    ):
        with pytest.raises(StoreError) as caught:
            call()
        assert caught.value.transient


@pytest.fixture
def records_behind(
    firestore: Firestore, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Rule], Records]]:
    def behind(rule: Rule) -> Records:
        proxied = proxies.enter_context(records_proxy(firestore, rule))
        for key, value in proxied.environment.items():
            monkeypatch.setenv(key, value)
        records = firestore_records.FirestoreRecords(where(firestore))
        for key, value in firestore.environment.items():
            monkeypatch.setenv(key, value)  # for the test's own reading
        return records

    with ExitStack() as proxies:
        yield behind


def where(firestore: Firestore) -> Where:
    return Where(project=firestore.project, database="(default)", collection="processed-images")


def stored(firestore: Firestore, collection: str) -> dict[str, object]:
    client = firestore_client.Client(project=firestore.project)
    return {found.id: found.to_dict() for found in client.collection(collection).stream()}


def code(status: grpc.StatusCode) -> Fault:
    number: int = status.value[0]
    return Refused(number)


# What Firestore says may be tried again, and what it says when a connection breaks.
PASSING_CODES = [
    code(grpc.StatusCode.ABORTED),
    code(grpc.StatusCode.DEADLINE_EXCEEDED),
    code(grpc.StatusCode.INTERNAL),
    code(grpc.StatusCode.RESOURCE_EXHAUSTED),
    code(grpc.StatusCode.UNAVAILABLE),
    code(grpc.StatusCode.UNKNOWN),
    Reset(after=True),
]


@pytest.mark.parametrize("fault", PASSING_CODES)
def test_records_are_tried_again(
    records_behind: Callable[[Rule], Records], firestore: Firestore, fault: Fault
) -> None:
    faults = Faults()
    records = records_behind(faults)
    begun = RequestRecord("spring", "processing", "", 600, 0, 0)
    images = [ImageRecord(f"{n:03}", "spring", "p", "i", "o") for n in range(600)]
    faults.left = [fault]
    records.begin_request(begun)
    faults.left = [fault]
    records.put_images(images)
    assert len(stored(firestore, "processed-images")) == 600
    assert stored(firestore, "processing_requests") == {"spring": asdict(begun)}
    ended = replace(begun, status="completed")
    faults.left = [fault]
    records.put_request(ended)
    records.begin_request(begun)
    assert stored(firestore, "processing_requests") == {"spring": asdict(ended)}
    assert not faults.left


FINAL_CODES = [
    (grpc.StatusCode.PERMISSION_DENIED, False),
    (grpc.StatusCode.UNAUTHENTICATED, False),
    (grpc.StatusCode.NOT_FOUND, False),
    (grpc.StatusCode.INVALID_ARGUMENT, False),
    (grpc.StatusCode.UNAVAILABLE, True),
]


@pytest.mark.parametrize(("status", "transient"), FINAL_CODES)
def test_what_firestore_refuses_for_good(
    records_behind: Callable[[Rule], Records],
    monkeypatch: pytest.MonkeyPatch,
    status: grpc.StatusCode,
    transient: bool,
) -> None:
    monkeypatch.setattr(firestore_records, "_RETRY", firestore_records._RETRY.with_timeout(1))
    records = records_behind(lambda _: code(status))
    with pytest.raises(StoreError) as caught:
        records.put_request(RequestRecord("spring", "processing", "", 3, 0, 0))
    assert caught.value.transient is transient
