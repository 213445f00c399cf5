import re
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from imageprocessing_contract import names, redact, report, task
from imageprocessing_contract.report import Report
from imageprocessing_contract.request import parse_spec, size_bytes, spec_hash
from imageprocessing_contract.task import STEPS

from tests.stored import stored_spec
from tests.unit.tasks import make_task

JOB = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
NAMES = ["a", "spring", "a.b.c", "a" * 253, "a" * 29 + ".b", "a" * 29 + "-b", "1.2", "a-.-b"]


@pytest.mark.parametrize("name", NAMES)
def test_job_names(name: str) -> None:
    found = [names.job_name(name, "uid", step, n) for step in STEPS for n in (1, 2, 12345)]
    assert len(set(found)) == len(found)
    for job in found:
        assert len(job) <= 63
        assert JOB.fullmatch(job)
        assert "." not in job


def test_job_names_are_stable_and_apart() -> None:
    # Written down: another name after an upgrade would run a step twice.
    assert names.job_name("spring.sale", "uid", "plan") == "spring-sale-17b788a70e-plan"
    assert names.job_name("spring.sale", "uid", "plan", 3) == "spring-sale-17b788a70e-plan-3"
    assert names.job_name("spring-sale", "other", "plan") != names.job_name(
        "spring-sale", "uid", "plan"
    )


def test_names_of_objects_and_documents() -> None:
    path = names.image_object("http://a.example/ä", "jpg")
    assert re.fullmatch(r"compressed_images/([0-9a-f]{2})/\1[0-9a-f]{62}\.jpg", path)
    assert names.variant_of(path, 300) == path.replace(".jpg", "-300w.jpg")
    documents = {
        names.image_document(*key)
        for key in [("r", "1", 0), ("r", "1", 1), ("r", "10", 0), ("r1", "", 0), ("r", "ä/..", 0)]
    }
    assert len(documents) == 5
    assert all(re.fullmatch("[0-9a-f]{40}", document) for document in documents)


REDACTED = [
    ("https://a.example/1.jpg", "https://a.example/1.jpg"),
    ("https://me:s3cret@a.example:8443/1.jpg?sig=s3cret#s3cret", "https://a.example:8443/1.jpg"),
    ("https://me@s3cret@a.example/", "https://a.example/"),
    ("https://[::1/1.jpg?sig=s3cret", "https://[::1/1.jpg"),
    ("https://me:s3cret@[::1/1.jpg?x", "[::1/1.jpg"),
    ("https://a.example/" + "x" * 200, "https://a.example/" + "x" * 141 + "…"),
    ("https://a.example/" + "x" * 142, "https://a.example/" + "x" * 142),
    ("", ""),
]


@pytest.mark.parametrize(("url", "expected"), REDACTED)
def test_redacted_urls(url: str, expected: str) -> None:
    assert redact.url(url) == expected


def full(
    *, failures: int = 0, samples: int = 0, text: str = "x", folder: str = "https://a.example/r"
) -> Report:
    secret = "https://me:s3cret@a.example/{}?sig=s3cret"
    return Report(
        step="finalize",
        catalogue=report.Catalogue(
            rows=10**9,
            images=10**9,
            invalid_rows=10**9,
            samples=[report.Sample(n, "InvalidURL", text) for n in range(samples)],
        ),
        shards=100_000,
        done=report.Done(
            images=report.Images(total=10**9, succeeded=10**9, failed=10**9, unchanged=10**9),
            bytes=report.Bytes(original=10**15, compressed=10**15),
            results=report.Results(
                csv_url=f"{folder}/processed_csvs/p.csv",
                failed_url=f"{folder}/failed.csv",
                report_url=f"{folder}/report.html",
            ),
            failures=[
                report.Failure(n, secret.format(f"{n}/{text}"), "HTTPError", text)
                for n in range(failures)
            ],
        ),
    )


REPORTS = {
    "none": {},
    "short": {"failures": 10, "samples": 10},
    "long": {"failures": 10, "samples": 10, "text": "x" * 500},
    "long and not ASCII": {"failures": 10, "samples": 10, "text": "🥣é" * 500},
    "thousands": {"failures": 1000, "samples": 1000},
    "the longest folder": {"failures": 10, "folder": "https://a.example/".ljust(2200, "x")},
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_fits_and_comes_back(name: str) -> None:
    given = full(**REPORTS[name])  # type: ignore[arg-type]
    text = report.encode(given)
    assert len(text) <= report.MAX_BYTES
    assert text.isascii()
    assert b"s3cret" not in text
    found = report.decode(text.decode())
    assert found.done is not None
    assert given.done is not None
    assert found.done.results == given.done.results
    assert found.done.images == given.done.images
    assert [f.line for f in found.done.failures] == list(range(len(found.done.failures)))
    assert found.catalogue is not None
    if name == "short":
        assert (len(found.done.failures), len(found.catalogue.samples)) == (10, 10)
    if name.startswith("long"):
        assert found.catalogue.samples


@pytest.mark.parametrize("message", ["x" * 5000, "é" * 5000, "🥣" * 5000, "\0" * 5000])
def test_a_long_error_fits(message: str) -> None:
    given = Report(step="plan", error=report.Error("SourceNotReadable", message))
    text = report.encode(given)
    assert len(text) <= report.MAX_BYTES
    found = report.decode(text.decode()).error
    assert found is not None
    assert 200 < len(found.message) <= report.MAX_ERROR


@pytest.mark.parametrize("cut", [1, 100, 500])
def test_a_cut_report_is_none(cut: int) -> None:
    text = report.encode(full(failures=3)).decode()
    for broken in (text[cut:], text[:-cut], ""):
        with pytest.raises(msgspec.DecodeError):
            report.decode(broken)


def test_reports_and_tasks_of_another_version_are_refused(tmp_path: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match="version 2"):
        report.decode('{"step": "plan", "version": 2}')
    text = task.encode(msgspec.structs.replace(make_task(tmp_path), version=2))
    with pytest.raises(msgspec.ValidationError, match="version 2"):
        task.decode(text)


@dataclass(frozen=True)
class Change:
    """A field of the spec and what it is changed to."""

    path: str
    value: object


SPEC: dict[str, Any] = stored_spec(
    requestID="r",
    source={"inline": "x"},
    output={"gcs": {"bucket": "b"}},
    download={"maxPixels": 5},
)
HOOK = {"url": "https://a.example/", "secretKeyRef": {"name": "n", "key": "k"}, "timeoutSeconds": 5}
MUTABLE = [
    Change("suspend", True),
    Change("activeDeadlineSeconds", 1),
    Change("jobTTLSecondsAfterFinished", 1),
    Change("download.retries", 0),
    Change("download.maxSize", "1Mi"),
    Change("sharding.maxParallelism", 1),
    Change("sharding.retriesPerShard", 1),
    Change("failurePolicy.maxFailedImages", 5),
    Change("worker.nodeSelector", {"a": "b"}),
    Change("webhook", HOOK),
]
IMMUTABLE = [
    Change("source.inline", "y"),
    Change("output.publicBaseURL", "https://a.example"),
    Change("output.formulas", "Neutralize"),
    Change("output.gcs.prefix", "p"),
    Change("output.firestore", {"project": "p", "database": "d", "collection": "c"}),
    Change("compression.quality", 51),
    Change("compression.maxWidth", 10),
    Change("sharding.imagesPerShard", 1),
    Change("failurePolicy.invalidRows", "Skip"),
]


def hash_of(change: Change | None) -> str:
    spec = msgspec.json.decode(msgspec.json.encode(SPEC))
    if change:
        *above, last = change.path.split(".")
        at = spec
        for name in above:
            at = at[name]
        at[last] = change.value
    return spec_hash(parse_spec(spec))


@pytest.mark.parametrize("change", MUTABLE, ids=lambda change: change.path)
def test_the_hash_leaves_out_what_may_change(change: Change) -> None:
    assert hash_of(change) == hash_of(None)


def test_the_hash_has_all_that_may_not_change() -> None:
    hashes = {hash_of(change) for change in [None, *IMMUTABLE]}
    assert len(hashes) == 1 + len(IMMUTABLE)


def test_the_hash_is_stable() -> None:
    # Written down: another hash after an upgrade would make every finished request a conflict.
    assert hash_of(None) == "f2501ca6a523e152b3faa5d67a3b888a"


@pytest.mark.parametrize(("text", "size"), [("1Ki", 1024), ("50Mi", 50 << 20), ("2Gi", 2 << 30)])
def test_sizes(text: str, size: int) -> None:
    assert size_bytes(text) == size


def test_a_task_goes_without_its_inline_source(tmp_path: Any) -> None:
    given = make_task(tmp_path)
    source = msgspec.structs.replace(given.source, inline="1,x,http://a.example/?s3cret")
    text = task.encode(msgspec.structs.replace(given, source=source))
    assert "s3cret" not in text
    assert task.decode(text) == given
