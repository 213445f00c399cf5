"""`ipr run` as a person types it: real processes, a real server, a folder."""

from __future__ import annotations

import base64
import contextlib
import csv
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests import photos
from tests.unit.http_servers import QuietHandler, serving

LOOPBACK = ("--allow-network", "127.0.0.0/8")


@dataclass
class Photos:
    """A server of photographs that counts what is asked of it."""

    base: str
    asked: list[str] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    """What slow.jpg waits for."""
    slow: threading.Event = field(default_factory=threading.Event)
    """It has been asked for."""


@pytest.fixture
def server() -> Iterator[Photos]:
    """0.jpg to 5.jpg, and slow.jpg; anything else is 404."""
    pictures = {f"/{n}.jpg": data for n, (_, data) in enumerate(photos.crops(6, 320, 240))}

    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 - as http.server names it
            served.asked.append(self.path)
            if self.path == "/slow.jpg":
                served.slow.set()
                served.go_on.wait(60)
            data = pictures.get(self.path.replace("slow", "1"))
            self.send_response(200 if data else 404)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

    with serving(Handler) as address:
        served = Photos(address)
        yield served


def manifest(folder: Path, *others: dict[str, object], **spec: object) -> Path:
    """A file with a request, and with other objects behind it."""
    source = {"persistentVolumeClaim": {"claimName": "c", "path": "products.csv"}}
    output = {"persistentVolumeClaim": {"claimName": "c"}}
    request = {
        "apiVersion": "imageprocessing.dev/v1alpha1",
        "kind": "ImageProcessingRequest",
        "metadata": {"name": "local"},
        "spec": {"source": source, "output": output} | spec,
    }
    file = folder / "request.yaml"
    file.write_text(yaml.safe_dump_all([request, *others]))
    return file


def catalogue(folder: Path, *rows: str) -> Path:
    """A catalogue; each row is the URLs of one product."""
    file = folder / "products.csv"
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["Serial Number", "Product Name", "Input Image Urls"])
        writer.writerows([n, f"Product {n}", urls] for n, urls in enumerate(rows, start=1))
    return file


def ipr(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs `ipr run` with these arguments."""
    command = [sys.executable, "-m", "imageprocessing_cli.main", "run", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def outputs(folder: Path) -> list[str]:
    """The column Output Image Urls of the processed CSV."""
    with (folder / "processed_csvs" / "processed_results_local.csv").open(newline="") as file:
        return [row["Output Image Urls"] for row in csv.DictReader(file)]


def test_all_done_and_not_done_again(tmp_path: Path, server: Photos) -> None:
    """Exit 0, the layout of a bucket, records; a second run reports and fetches nothing."""
    out = tmp_path / "out"
    rows = [f"{server.base}/0.jpg,{server.base}/1.jpg", f"{server.base}/2.jpg"]
    command = [manifest(tmp_path), "--csv", catalogue(tmp_path, *rows), "--output", out, *LOOPBACK]
    first = ipr(*command)
    assert first.returncode == 0, first.stderr
    assert "Succeeded: 3 of 3 images done" in first.stdout
    assert str(out / "processed_csvs" / "processed_results_local.csv") in first.stdout
    written = [name for cell in outputs(out) for name in cell.split(",")]
    assert all((out / name).is_file() for name in written)
    with sqlite3.connect(out / "records.sqlite") as records:
        sql = "SELECT request_id, product_name, input_url, output_url FROM processed_images"
        found = sorted(records.execute(sql), key=lambda row: row[2])
    assert found == [
        ("local", f"Product {1 if n < 2 else 2}", f"{server.base}/{n}.jpg", written[n])
        for n in range(3)
    ]

    asked = list(server.asked)
    again = ipr(*command)
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert server.asked == asked


def test_a_terminal_counts_images(tmp_path: Path, server: Photos) -> None:
    """While they are made: the server gives the last one when the bar has counted the others."""
    rows = [f"{server.base}/0.jpg", f"{server.base}/none.jpg", f"{server.base}/slow.jpg"]
    command = ["run", manifest(tmp_path), "--csv", catalogue(tmp_path, *rows)]
    command += ["--output", tmp_path / "out", *LOOPBACK]
    master, slave = pty.openpty()
    program = [sys.executable, "-m", "imageprocessing_cli.main", *map(str, command)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    said = b""
    with subprocess.Popen(
        program, stdin=slave, stdout=subprocess.DEVNULL, stderr=slave, env=environment
    ) as running:
        os.close(slave)
        with contextlib.suppress(OSError):  # which says that nobody has the other end any more
            while chunk := os.read(master, 4096):
                said += chunk
                if b"2/3" in said:
                    server.go_on.set()
        os.close(master)
    server.go_on.set()
    assert b"2/3" in said
    assert running.returncode == 3


def test_interrupted(tmp_path: Path, server: Photos) -> None:
    """By Ctrl-C, which reaches the worker as well: what has been fetched is not fetched again."""
    rows = [f"{server.base}/{n}.jpg" for n in (0, 1, 2, 3, 4, 5)] + [f"{server.base}/slow.jpg"]
    file = manifest(tmp_path, download={"maxConnectionsPerHost": 1})
    command = [file, "--csv", catalogue(tmp_path, *rows), "--output", tmp_path / "out", *LOOPBACK]
    program = [sys.executable, "-m", "imageprocessing_cli.main", "run", *map(str, command)]
    with subprocess.Popen(program, stderr=subprocess.PIPE, start_new_session=True) as running:
        assert server.slow.wait(60)
        os.killpg(running.pid, signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert said == b"Interrupted; run the same command again to go on.\n"
    server.go_on.set()
    server.asked.clear()
    assert ipr(*command).returncode == 0
    assert server.asked == ["/slow.jpg"]


def test_shards(tmp_path: Path, server: Photos) -> None:
    """More shards than one, each its own process; every row has its image."""
    out = tmp_path / "out"
    rows = [f"{server.base}/{n}.jpg" for n in range(6)]
    file = manifest(tmp_path, sharding={"imagesPerShard": 2})
    ended = ipr(file, "--csv", catalogue(tmp_path, *rows), "--output", out, *LOOPBACK)
    assert ended.returncode == 0, ended.stderr
    assert sorted(p.name for p in (out / "results").glob("*.jsonl")) == [
        "0.jsonl", "1.jsonl", "2.jsonl"
    ]  # fmt: skip
    assert all((out / name).is_file() for name in outputs(out))
    assert sorted(server.asked) == [f"/{n}.jpg" for n in range(6)]


def test_formulas(tmp_path: Path, server: Photos) -> None:
    file = catalogue(tmp_path, f"{server.base}/0.jpg")
    file.write_text(file.read_text().replace("Product 1", "=1+1"))
    output = {"persistentVolumeClaim": {"claimName": "c"}, "formulas": "Neutralize"}
    out = tmp_path / "out"
    ended = ipr(manifest(tmp_path, output=output), "--csv", file, "--output", out, *LOOPBACK)
    assert ended.returncode == 0, ended.stderr
    with (out / "processed_csvs" / "processed_results_local.csv").open(newline="") as results:
        assert [row["Product Name"] for row in csv.DictReader(results)] == ["'=1+1"]


def test_finished_with_failures(tmp_path: Path, server: Photos) -> None:
    """Exit 3, and what failed with its line and why."""
    out = tmp_path / "out"
    rows = [f"{server.base}/0.jpg", f"{server.base}/gone.jpg"]
    ended = ipr(manifest(tmp_path), "--csv", catalogue(tmp_path, *rows), "--output", out, *LOOPBACK)
    assert ended.returncode == 3
    assert f"line 3: {server.base}/gone.jpg: HTTPError: 404 Not Found" in ended.stdout
    assert outputs(out)[1] == ""


@pytest.mark.parametrize(
    ("rows", "spec", "says"),
    [
        (["ftp://shop.example/x.jpg"], {}, "CatalogueInvalid: 1 of 1 rows are invalid; InvalidURL"),
        (["{base}/gone.jpg"], {}, "AllImagesFailed: 0 of 1 images done, 1 failed"),
        (
            ["{base}/0.jpg", "{base}/gone.jpg"],
            {"failurePolicy": {"maxFailedImages": 0}},
            "TooManyFailedImages: 1 of 2 images done, 1 failed; maxFailedImages is 0",
        ),
    ],
)
def test_failed(
    tmp_path: Path, server: Photos, rows: list[str], spec: dict[str, object], says: str
) -> None:
    """Exit 1, with the reason that a cluster's status would have."""
    file = catalogue(tmp_path, *(row.format(base=server.base) for row in rows))
    ended = ipr(manifest(tmp_path, **spec), "--csv", file, "--output", tmp_path / "out", *LOOPBACK)
    assert ended.returncode == 1
    assert says in ended.stdout + ended.stderr


def test_an_outage_is_reported_row_by_row(tmp_path: Path, server: Photos) -> None:
    """No host can be reached: the shard fails each time, and finalize says why."""
    rows = ["http://nowhere.invalid/0.jpg", "http://nowhere.invalid/1.jpg"]
    patience = {"download": {"retries": 0}, "sharding": {"retriesPerShard": 1}}
    command = [manifest(tmp_path, **patience), "--csv", catalogue(tmp_path, *rows)]
    ended = ipr(*command, "--output", tmp_path / "out")
    assert ended.returncode == 1
    assert "AllImagesFailed: 0 of 2 images done, 2 failed (failed shards: 1)" in ended.stdout
    assert "line 3: http://nowhere.invalid/1.jpg: NameNotResolved" in ended.stdout
    # Whoever waits sees why; an outage may take minutes.
    assert re.fullmatch(r"ShardFailed: .*; trying again \(2 of 2\)\n", ended.stderr)


def test_config_map_in_the_same_file(tmp_path: Path, server: Photos) -> None:
    """What `kubectl apply` takes, `ipr run` takes as it is."""
    # Larger than one variable of the environment may be.
    rows = [f"{server.base}/0.jpg?{'x' * 1900}{n}" for n in range(80)]
    text = catalogue(tmp_path, f"{server.base}/0.jpg", *rows).read_text()
    config_map: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "products"},
        "data": {"products.csv": text},
    }
    source = {"configMapKeyRef": {"name": "products", "key": "products.csv"}}
    file = manifest(tmp_path, config_map, source=source)
    ended = ipr(file, "--output", tmp_path / "out", *LOOPBACK)
    assert "1 of 81 images done" in ended.stdout
    del config_map["data"]
    config_map["binaryData"] = {"products.csv": base64.b64encode(text.encode()).decode()}
    file = manifest(tmp_path, config_map, source=source)
    assert ipr(file, "--output", tmp_path / "out", *LOOPBACK).stdout == ended.stdout


def test_another_catalogue_is_another_request(tmp_path: Path, server: Photos) -> None:
    """Its content counts: a copy goes on, a change under the same name is refused."""
    out, file = tmp_path / "out", manifest(tmp_path)
    first = catalogue(tmp_path, f"{server.base}/0.jpg")
    assert ipr(file, "--csv", first, "--output", out, *LOOPBACK).returncode == 0
    copy = tmp_path / "copy.csv"
    copy.write_bytes(first.read_bytes())
    assert ipr(file, "--csv", copy, "--output", out, *LOOPBACK).returncode == 0
    changed = catalogue(tmp_path, f"{server.base}/1.jpg")
    ended = ipr(file, "--csv", changed, "--output", out, *LOOPBACK)
    assert ended.returncode == 2
    assert f"{out} holds results of another catalogue or manifest" in ended.stderr


@pytest.mark.parametrize("data", [None, {"products.csv": 7}, {}])
def test_config_map_without_a_catalogue(tmp_path: Path, data: object) -> None:
    """Says what is missing, and no traceback."""
    config_map = {"kind": "ConfigMap", "metadata": {"name": "products"}, "data": data}
    source = {"configMapKeyRef": {"name": "products", "key": "products.csv"}}
    ended = ipr(manifest(tmp_path, config_map, source=source), "--output", tmp_path / "out")
    assert ended.returncode == 2
    assert "is not in the file" in ended.stderr


@pytest.mark.parametrize(
    ("spec", "arguments", "says"),
    [
        ({"compresion": {}}, [], 'spec.compresion: unknown field "spec.compresion"'),
        ({"sharding": {"imagesPerShard": 0}}, [], "spec.sharding.imagesPerShard"),
        ({}, [], "give the catalogue with --csv FILE"),
        ({}, ["--csv", "missing.csv"], "--csv missing.csv: No such file or directory"),
        (
            {},
            ["--csv", "products.csv", "--allow-network", "10.0.0.1/8"],
            "--allow-network: 10.0.0.1/8",
        ),
    ],
)
def test_usage(tmp_path: Path, spec: dict[str, object], arguments: list[str], says: str) -> None:
    """Exit 2 before anything is written, with what to do."""
    catalogue(tmp_path, "https://shop.example/0.jpg")
    arguments = [str(tmp_path / a) if a == "products.csv" else a for a in arguments]
    ended = ipr(manifest(tmp_path, **spec), "--output", tmp_path / "out", *arguments)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert not (tmp_path / "out").exists()


def test_private_networks_are_refused_by_default(tmp_path: Path, server: Photos) -> None:
    """Without --allow-network, loopback is as closed as in a cluster."""
    file = catalogue(tmp_path, f"{server.base}/0.jpg")
    ended = ipr(manifest(tmp_path), "--csv", file, "--output", tmp_path / "out")
    assert ended.returncode == 1
    assert "loopback" in ended.stderr.lower()
    assert ended.stderr.endswith(
        "\nPrivate addresses are allowed with --allow-network CIDR.\n"
        f"Every error with its line: ipr validate {file}\n"
    )
    assert server.asked == []
