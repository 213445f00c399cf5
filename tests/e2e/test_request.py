"""A request from apply to webhook, on real Pods."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from datetime import datetime
from urllib.parse import urlsplit

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore as firestore_client
from google.cloud import storage
from imageprocessing_contract import names
from standardwebhooks.webhooks import Webhook

from tests.cluster.emulators import Firestore, Storage
from tests.e2e.conftest import Tenant, fetch, rows_of
from tests.e2e.receiver import SECRET, Receiver


@pytest.fixture
def objects(gcs: Storage, monkeypatch: pytest.MonkeyPatch) -> storage.Bucket:
    """The test's bucket."""
    for name, value in gcs.environment.items():
        monkeypatch.setenv(name, value)
    return storage.Client(project="test", credentials=AnonymousCredentials()).bucket(gcs.bucket)


@pytest.fixture
def documents(firestore: Firestore, monkeypatch: pytest.MonkeyPatch) -> firestore_client.Client:
    """The test's Firestore."""
    for name, value in firestore.environment.items():
        monkeypatch.setenv(name, value)
    return firestore_client.Client(project=firestore.project)


def test_sharded_to_cloud_storage_and_firestore(
    tenant: Tenant,
    photo_urls: list[str],
    gcs: Storage,
    firestore: Firestore,
    objects: storage.Bucket,
    documents: firestore_client.Client,
    receiver: Receiver,
) -> None:
    """60 rows, 180 photographs, 6 shards, 3 at a time."""
    source = tenant.catalogue("products", rows_of(photo_urls, 60))
    tenant.apply("Secret", "hook", stringData={"secret": SECRET})
    tenant.request(
        "spring",
        requestID="spring-2026",
        source=source,
        output={
            "gcs": {"bucket": gcs.bucket, "prefix": "catalogues"},
            "firestore": {"project": firestore.project},
        },
        sharding={"imagesPerShard": 30, "maxParallelism": 3},
        webhook={"url": receiver.url, "secretKeyRef": {"name": "hook", "key": "secret"}},
    )
    status = tenant.wait_finished("spring")

    assert status["images"] == {
        "total": 180,
        "processed": 180,
        "succeeded": 180,
        "failed": 0,
        "unchanged": 0,
    }
    assert status["shards"] == {"total": 6, "active": 0, "succeeded": 6, "failed": 0}
    assert 0 < status["bytes"]["compressed"] < status["bytes"]["original"]
    shards = next(j for j in tenant.jobs() if j["metadata"]["labels"][names.LABEL_STEP] == "shards")
    assert shards["spec"]["completions"] == 6
    assert shards["spec"]["parallelism"] == 3

    # Every object exactly once, and nothing else.
    root = "catalogues/spring-2026"
    expected = {url: f"{root}/{names.image_object(url, 'jpg')}" for url in photo_urls}
    images = [b.name for b in objects.list_blobs(prefix=f"{root}/compressed_images/")]
    assert Counter(images) == Counter(expected.values())

    # The processed CSV, cell by cell.
    base = f"https://storage.googleapis.com/{gcs.bucket}"
    path = f"{root}/{names.processed_csv('spring-2026')}"
    assert status["results"]["csvURL"] == f"{base}/{path}"
    rows = list(csv.reader(io.StringIO(fetch(gcs.address, gcs.bucket, path).decode())))
    assert rows[0] == ["Serial Number", "Product Name", "Input Image Urls", "Output Image Urls"]
    assert rows[1:] == [
        [
            str(row + 1),
            f"Product {row + 1}",
            ",".join(mine := photo_urls[3 * row : 3 * row + 3]),
            ",".join(f"{base}/{expected[url]}" for url in mine),
        ]
        for row in range(60)
    ]

    # Every document exactly once, with the four fields and no other.
    found = [document.to_dict() for document in documents.collection("processed-images").stream()]
    key = lambda fields: fields["input_url"]  # noqa: E731
    assert sorted(found, key=key) == sorted(
        (
            {
                "request_id": "spring-2026",
                "product_name": f"Product {number // 3 + 1}",
                "input_url": url,
                "output_url": f"{base}/{expected[url]}",
            }
            for number, url in enumerate(photo_urls)
        ),
        key=key,
    )
    request = documents.collection("processing_requests").document("spring-2026").get().to_dict()
    assert request["status"] == "completed"
    assert request["csv_url"] == status["results"]["csvURL"]

    # The webhook, once, as the library of its receivers verifies it.
    tenant.cluster.wait(f"ipr/spring -n {tenant.namespace} --for=condition=Notified", 30)
    headers, body = receiver.received.get_nowait()
    message = Webhook(SECRET).verify(body, headers)
    assert message["type"] == "imageprocessingrequest.finished"
    assert message["timestamp"] == status["completionTime"]
    assert message["data"]["request_id"] == "spring-2026"
    assert message["data"]["status"] == "completed"
    assert message["data"]["csv_url"] == status["results"]["csvURL"]
    assert receiver.received.empty()
    tenant.cluster.wait(f"ipr/spring -n {tenant.namespace} --for=jsonpath={{.status.settled}}=true")


def test_few_rows_take_one_pod(tenant: Tenant, photo_urls: list[str], gcs: Storage) -> None:
    """What fits one shard is planned, done and finalized in one Pod."""
    source = tenant.catalogue("products", rows_of(photo_urls[:5], 5))
    tenant.request("small", source=source, output={"gcs": {"bucket": gcs.bucket}})
    status = tenant.wait_finished("small")
    assert status["images"]["succeeded"] == 5
    assert [job["metadata"]["labels"][names.LABEL_STEP] for job in tenant.jobs()] == ["plan"]
    assert len(tenant.pods()) == 1
    created = tenant.cluster.get("ipr", "small", tenant.namespace)["metadata"]["creationTimestamp"]
    took = datetime.fromisoformat(status["completionTime"]) - datetime.fromisoformat(created)
    print(f"apply to Finished: {took.total_seconds():.0f} s")  # noqa: T201 - a figure to report


def test_failures_keep_the_rows_aligned(
    tenant: Tenant, photo_urls: list[str], gcs: Storage
) -> None:
    """404, no image, unreachable: the rest is done, and each failure says its line and why."""
    host = photo_urls[0].rsplit("/", 1)[0]
    gone, page, nowhere = f"{host}/gone.jpg", f"{host}/", "http://nowhere.invalid/x.jpg"
    text = (
        "Serial Number,Product Name,Input Image Urls\n"
        f'1,One,"{photo_urls[0]},{gone},{photo_urls[1]}"\n'
        f'2,Two,"{page},{photo_urls[2]}"\n'
        f"3,Three,{nowhere}\n"
    )
    source = tenant.catalogue("products", text)
    tenant.request(
        "partly",
        requestID="partly",
        source=source,
        output={"gcs": {"bucket": gcs.bucket}},
        download={"retries": 0},
    )
    status = tenant.wait_finished("partly")
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "PartiallySucceeded")
    assert [(f["line"], f["url"], f["reason"]) for f in status["failures"]] == [
        (2, gone, "HTTPError"),
        (3, page, "NotAnImage"),
        (4, nowhere, "NameNotResolved"),
    ]
    results = fetch(gcs.address, gcs.bucket, "partly/processed_csvs/processed_results_partly.csv")
    outputs = [row["Output Image Urls"] for row in csv.DictReader(io.StringIO(results.decode()))]
    base = f"https://storage.googleapis.com/{gcs.bucket}/partly"
    done = [f"{base}/{names.image_object(url, 'jpg')}" for url in photo_urls[:3]]
    assert outputs == [f"{done[0]},,{done[1]}", f",{done[2]}", ""]
    failed = fetch(gcs.address, gcs.bucket, "partly/failed.csv").decode()
    rows = [list(row.values())[:3] for row in csv.DictReader(io.StringIO(failed))]
    assert rows == [["1", "One", gone], ["2", "Two", page], ["3", "Three", nowhere]]


def test_a_request_id_is_done_once(
    tenant: Tenant, photo_urls: list[str], gcs: Storage, objects: storage.Bucket
) -> None:
    """Applied again after everything in the cluster is gone: reported, nothing fetched."""
    source = tenant.catalogue("products", rows_of(photo_urls[:3], 3))
    spec = {"requestID": "once", "source": source, "output": {"gcs": {"bucket": gcs.bucket}}}
    tenant.request("first", **spec)
    first = tenant.wait_finished("first")
    before = {blob.name: blob.generation for blob in objects.list_blobs()}
    fetches = requests_for_photos(tenant, photo_urls)
    assert fetches >= 3
    tenant.cluster.kubectl("delete", "ipr", "first", "-n", tenant.namespace)

    tenant.request("again", **spec)
    again = tenant.wait_finished("again")
    for field in ("images", "bytes", "results", "catalogue"):
        assert again[field] == first[field]
    assert {blob.name: blob.generation for blob in objects.list_blobs()} == before
    assert requests_for_photos(tenant, photo_urls) == fetches

    spec["compression"] = {"format": "WebP"}
    tenant.request("other", **spec)
    other = tenant.wait_finished("other")
    ready = next(c for c in other["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "RequestIDConflict")


def requests_for_photos(tenant: Tenant, photo_urls: list[str]) -> int:
    """How many the server of the photographs has had, by its log, without the probes."""
    host = urlsplit(photo_urls[0]).hostname or ""
    return tenant.cluster.kubectl("logs", "photos", "-n", host.split(".")[1]).count(".jpeg HTTP")


def test_get_reads_well(tenant: Tenant, photo_urls: list[str], gcs: Storage) -> None:
    """The columns that people see."""
    source = tenant.catalogue("products", rows_of(photo_urls[:4], 2))
    tenant.request("columns", source=source, output={"gcs": {"bucket": gcs.bucket}})
    tenant.wait_finished("columns")
    table = tenant.cluster.kubectl("get", "ipr", "-n", tenant.namespace).splitlines()
    columns = ["NAME", "STATUS", "TOTAL", "PROCESSED", "FAILED", "LEFT", "AGE"]
    assert table[0].split() == columns
    assert table[1].split()[:5] == ["columns", "Succeeded", "4", "4", "0"]
    events = json.loads(
        tenant.cluster.kubectl(
            "get",
            "events",
            "-n",
            tenant.namespace,
            "-o",
            "json",
            "--field-selector",
            "involvedObject.kind=ImageProcessingRequest",
        )
    )["items"]
    assert {event["reason"] for event in events} == {"Started", "Finished"}
