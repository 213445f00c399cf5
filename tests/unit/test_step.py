"""The worker's entry: exit codes, reports, sources, and a whole request in one process."""

import os
import signal
import threading
from pathlib import Path

import msgspec
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from imageprocessing_contract import names, report
from imageprocessing_contract.request import (
    ClaimPath,
    GCSObject,
    HTTPSource,
    KeyRef,
    Source,
)
from imageprocessing_contract.task import Output, Task
from imageprocessing_worker.shard import InterruptedShardError
from imageprocessing_worker.step import interruptible

from tests import photos
from tests.cluster.emulators import Storage
from tests.unit.processes import Worker, run
from tests.unit.raw_server import Exchange, RawServer, served
from tests.unit.tasks import cells_of, csv_of, make_task

PHOTO = next(photos.crops(1, 320, 240))[1]


async def answer(exchange: Exchange) -> None:
    path = exchange.target.decode()
    if path.startswith("/bad"):
        await exchange.reply(status="404 Not Found")
    else:
        await exchange.reply(PHOTO, Content_Type="image/jpeg")


def catalogue(server: RawServer, *paths: str) -> bytes:
    return csv_of([str(n), f"Müsli {n}", f"{server.url}{path}"] for n, path in enumerate(paths))


def counts(found: report.Report) -> tuple[int, int]:
    assert found.done is not None, found.error
    return found.done.images.succeeded, found.done.images.failed


def test_one_pod_does_a_small_request_and_a_second_one_reports_it(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    with served(answer) as server:
        data = catalogue(server, "/1", "/bad?sig=s3cret", "/2")
        first = run(task, inline=data)
        assert first.code == report.EXIT_DONE, first.log
        assert len(server.heads) == 3
        server.heads.clear()
        # Also when the source is gone.
        second = run(task)
        assert server.heads == []
    assert second.code == report.EXIT_DONE
    assert second.report == first.report
    found = first.report
    assert found.step == "plan"
    assert found.shards == 1
    assert found.catalogue == report.Catalogue(rows=3, images=3, invalid_rows=0, samples=[])
    assert counts(found) == (2, 1)
    assert found.done is not None
    assert found.done.failures == [
        report.Failure(3, f"{server.url}/bad", "HTTPError", "404 Not Found")
    ]
    processed = (tmp_path / found.done.results.csv_url).read_bytes()
    outputs = [row[3] for row in cells_of(processed)[1:]]
    assert [bool(output) for output in outputs] == [True, False, True]
    assert (tmp_path / outputs[0]).read_bytes().startswith(b"\xff\xd8")


def test_steps_of_a_request_with_shards(tmp_path: Path) -> None:
    task = make_task(tmp_path, images_per_shard=2)
    with served(answer) as server:
        planned = run(task, inline=catalogue(server, "/1", "/2", "/3", "/bad", "/5"))
        assert planned.code == report.EXIT_DONE
        assert (planned.report.shards, planned.report.done) == (3, None)
        assert server.heads == []
        for index in (2, 0, 1):
            ended = run(task, "shards", index)
            assert ended.code == report.EXIT_DONE, ended.log
            assert ended.report == report.Report(step="shards")
        assert len(server.heads) == 5
    ended = run(task, "finalize")
    assert ended.code == report.EXIT_DONE
    assert ended.report.step == "finalize"
    assert counts(ended.report) == (4, 1)


def test_another_spec_is_final(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    with served(answer) as server:
        assert run(task, inline=catalogue(server, "/1")).code == report.EXIT_DONE
        ended = run(msgspec.structs.replace(task, spec_hash="another"), inline=b"")
    assert ended.code == report.EXIT_FINAL
    assert ended.report.error is not None
    assert ended.report.error.reason == "RequestIDConflict"


# What is refused for good: the step, its catalogue, the reason.
FINAL = [
    ("plan", b"a,b\n", "CatalogueInvalid"),
    ("plan", csv_of([["1", "", "http://a.example/"]]), "CatalogueInvalid"),
    ("shards", b"", "NotPlanned"),
    ("finalize", b"", "NotPlanned"),
]


@pytest.mark.parametrize(("step", "data", "reason"), FINAL)
def test_what_cannot_succeed(tmp_path: Path, step: str, data: bytes, reason: str) -> None:
    ended = run(make_task(tmp_path), step, inline=data)  # type: ignore[arg-type]
    assert ended.code == report.EXIT_FINAL, ended.log
    assert ended.report.error is not None
    assert ended.report.error.reason == reason


def test_invalid_rows_are_in_the_report(tmp_path: Path) -> None:
    ended = run(make_task(tmp_path), inline=csv_of([["1", "", "http://a.example/"]]))
    assert ended.report.catalogue == report.Catalogue(
        rows=1,
        images=0,
        invalid_rows=1,
        samples=[report.Sample(2, "EmptyProductName", "line 2 has no product name")],
    )


def test_a_task_that_is_none() -> None:
    task = make_task(Path("/nowhere"))
    ended = run(msgspec.structs.replace(task, version=99))
    assert ended.code == report.EXIT_FINAL
    assert ended.said == b""
    assert "version 99" in ended.log


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    ended = run(make_task(tmp_path), inline=csv_of([["1", "x", "http://a.example/"]]))
    assert ended.code == report.EXIT_FINAL, ended.log
    assert ended.report.error is not None
    assert ended.report.error.reason == "OutputNotWritable"


def test_an_outage_is_tried_again_and_still_reported(tmp_path: Path) -> None:
    async def busy(exchange: Exchange) -> None:
        await exchange.reply(status="503 Service Unavailable")

    with served(busy) as server:
        ended = run(make_task(tmp_path), inline=catalogue(server, "/1"))
    assert ended.code == report.EXIT_RETRY
    assert (ended.report.shards, ended.report.done) == (1, None)
    assert ended.report.error is not None
    assert ended.report.error.reason == "ShardFailed"


def test_a_report_of_long_failures_fits_and_keeps_secrets(tmp_path: Path) -> None:
    with served(answer) as server:
        paths = [f"/bad/{'ö🥣' * 60}/{n}?sig=s3cret" for n in range(12)]
        ended = run(make_task(tmp_path), inline=catalogue(server, "/1", *paths))
    assert ended.code == report.EXIT_DONE
    assert len(ended.said) <= report.MAX_BYTES
    assert ended.said.isascii()
    assert b"s3cret" not in ended.said
    assert "s3cret" not in ended.log
    assert counts(ended.report) == (1, 12)
    assert ended.report.done is not None
    assert ended.report.done.failures


def test_sigterm_ends_a_plan_whose_source_hangs(tmp_path: Path) -> None:
    reached = threading.Event()

    async def hanging(exchange: Exchange) -> None:
        if exchange.target == b"/c.csv" and not reached.is_set():
            reached.set()
            await exchange.reader.read()
            raise EOFError
        if exchange.target == b"/c.csv":
            await exchange.reply(csv_of([["1", "x", f"{server.url}/1"]]))
        else:
            await answer(exchange)

    with served(hanging) as server:
        source = Source(http=HTTPSource(url=f"{server.url}/c.csv"))
        task = make_task(tmp_path, source=source)
        worker = Worker(task)
        assert reached.wait(60)
        worker.signal(signal.SIGTERM)
        ended = worker.ended()
        assert ended.code == report.EXIT_INTERRUPTED, ended.log
        assert "Traceback" not in ended.log
        again = run(task)
    assert again.code == report.EXIT_DONE, again.log
    assert counts(again.report) == (1, 0)


async def test_a_signal_that_comes_too_late_for_a_shard_still_interrupts() -> None:
    """Its last write was made: what follows in this Pod must not begin."""
    before = signal.getsignal(signal.SIGTERM)

    async def shard() -> None:
        async with interruptible():
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedShardError):
        await shard()
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_http_source_that_is_not_there(tmp_path: Path) -> None:
    with served(answer) as server:
        source = Source(http=HTTPSource(url=f"{server.url}/bad.csv?sig=s3cret"))
        ended = run(make_task(tmp_path, source=source))
        gone = make_task(tmp_path, source=Source(http=HTTPSource(url=f"{server.url}/c.csv")))
    assert ended.code == report.EXIT_FINAL
    assert ended.report.error is not None
    assert ended.report.error.reason == "SourceNotReadable"
    assert b"s3cret" not in ended.said
    assert run(gone).code == report.EXIT_RETRY


def claim(path: str) -> Source:
    return Source(persistent_volume_claim=ClaimPath(claim_name="c", path=path))


def test_sources_that_are_mounted(tmp_path: Path) -> None:
    mount = tmp_path / "source"
    (mount / "..data/deep").mkdir(parents=True)
    # A ConfigMap's keys are links beside the data.
    (mount / "key.csv").symlink_to("..data/deep/c.csv")
    with served(answer) as server:
        (mount / "..data/deep/c.csv").write_bytes(catalogue(server, "/1"))
        for n, source in enumerate(
            [
                claim("..data/deep/c.csv"),
                Source(config_map_key_ref=KeyRef(name="c", key="key.csv")),
            ]
        ):
            task = make_task(tmp_path, f"r{n}", source=source)
            ended = run(task, mount=os.fspath(mount))
            assert ended.code == report.EXIT_DONE, ended.log
            assert counts(ended.report) == (1, 0)


@pytest.mark.parametrize(
    "path", ["../secret.csv", "a/../../secret.csv", "link.csv", "folder/secret.csv", "{absolute}"]
)
def test_a_claim_does_not_lead_out_of_itself(tmp_path: Path, path: str) -> None:
    mount = tmp_path / "source"
    (mount / "a").mkdir(parents=True)
    secret = tmp_path / "secret.csv"
    secret.write_bytes(csv_of([["1", "s3cret", "http://a.example/"]]))
    (mount / "link.csv").symlink_to(secret)
    (mount / "folder").symlink_to(tmp_path)
    task = make_task(tmp_path, source=claim(path.format(absolute=secret)))
    ended = run(task, mount=os.fspath(mount))
    assert ended.code == report.EXIT_FINAL
    assert ended.report.error is not None
    assert ended.report.error.reason == "SourceNotReadable"
    assert ended.report.error.message.endswith("leads out of the source")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.csv"))


@pytest.mark.parametrize("path", ["none.csv", "folder", "", "file/c.csv"])
def test_a_claim_without_the_file(tmp_path: Path, path: str) -> None:
    (tmp_path / "source/folder").mkdir(parents=True)
    (tmp_path / "source/file").write_bytes(b"")
    ended = run(make_task(tmp_path, source=claim(path)), mount=os.fspath(tmp_path / "source"))
    assert ended.code == report.EXIT_FINAL, ended.log
    assert ended.report.error is not None
    assert ended.report.error.reason == "SourceNotReadable"


def in_bucket(tmp_path: Path, gcs: Storage, name: str) -> Task:
    output = Output(
        path="some folder/spring", base_url="https://cdn.example/base", bucket=gcs.bucket
    )
    source = Source(gcs=GCSObject(bucket=gcs.bucket, object=name))
    return make_task(tmp_path, source=source, output=output)


def test_from_cloud_storage_to_cloud_storage(
    tmp_path: Path, gcs: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in gcs.environment.items():
        monkeypatch.setenv(key, value)
    client = storage.Client(project="test", credentials=AnonymousCredentials())
    bucket = client.bucket(gcs.bucket)
    missing = run(in_bucket(tmp_path, gcs, "none.csv"))
    assert missing.code == report.EXIT_FINAL
    assert missing.report.error is not None
    assert missing.report.error.reason == "SourceNotReadable"
    with served(answer) as server:
        bucket.blob("in/c.csv").upload_from_string(catalogue(server, "/1", "/bad", "/2"))
        task = in_bucket(tmp_path, gcs, "in/c.csv")
        first = run(task)
        assert first.code == report.EXIT_DONE, first.log
        server.heads.clear()
        assert run(task).report == first.report
        assert server.heads == []
    assert first.report.done is not None
    folder = "https://cdn.example/base/some%20folder/spring"
    assert first.report.done.results.failed_url == f"{folder}/failed.csv"
    root = "some folder/spring"
    processed = bucket.blob(f"{root}/{names.processed_csv('spring')}").download_as_bytes()
    image = names.image_object(f"{server.url}/1", "jpg")
    assert [row[3] for row in cells_of(processed)][1:3] == [f"{folder}/{image}", ""]
    blob = bucket.get_blob(f"{root}/{image}")
    assert blob is not None
    assert blob.content_type == "image/jpeg"
