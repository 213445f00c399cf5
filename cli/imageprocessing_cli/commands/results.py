"""ipr results: fetches what a request made."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from imageprocessing_contract import names
from imageprocessing_contract.request import Spec, output_path, parse_spec

from imageprocessing_cli.errors import CommandError
from imageprocessing_cli.options import Connection, cluster_options, request_argument
from imageprocessing_cli.placing import bucket_error

if TYPE_CHECKING:
    from imageprocessing_cli.cluster import Cluster


@click.command()
@request_argument()
@click.option("--csv", "kind", flag_value="csv", default=True, help="The processed CSV (default).")
@click.option("--failed", "kind", flag_value="failed", help="The catalogue of just the failures.")
@click.option("--report", "kind", flag_value="report", help="The report, a page of HTML.")
@click.option(
    "-o",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; default the standard output.",
)
@click.option("--image", metavar="IMAGE", help="For a claim: an image with Python.")
@cluster_options
def results(
    connection: Connection, name: str, kind: str, file: Path | None, image: str | None
) -> None:
    """Fetch a result of NAME from its bucket or claim.

    A bucket is read with your own Google credentials (gcloud auth application-default login),
    a claim through a Pod that mounts it for as long as that takes.

    \b
    ipr results spring --csv -o new.csv
    ipr results spring --failed
    ipr results spring --report -o report.html

    Exit code: 0 fetched, 1 not there or no access, 2 usage, 130 interrupted.
    """
    cluster = connection.open()
    request = cluster.request(name)
    status = request.get("status", {})
    if "results" not in status:
        message = (
            f'"{name}" has no results yet; see how far it is: ipr status {name}{connection.flags}'
        )
        raise CommandError(message)
    spec = parse_spec(request["spec"])
    request_id = status["requestID"]
    below = {
        "csv": names.processed_csv(request_id),
        "failed": names.FAILED_CSV,
        "report": names.REPORT_HTML,
    }[kind]
    _write(file, _read(cluster, spec, f"{output_path(spec, request_id)}/{below}", image))
    if file:
        click.echo(f"{file}: {file.stat().st_size} bytes", err=True)


def _read(cluster: Cluster, spec: Spec, path: str, image: str | None) -> Iterator[bytes]:
    if gcs := spec.output.gcs:
        return _from_bucket(gcs.bucket, path)
    claim = spec.output.persistent_volume_claim
    return _from_claim(cluster, claim.claim_name if claim else "", path, image)


def _from_bucket(bucket: str, path: str) -> Iterator[bytes]:
    # Google's client takes a second to import.
    from imageprocessing_worker.stores import StoreError  # noqa: PLC0415
    from imageprocessing_worker.stores.gcs import GCSStore  # noqa: PLC0415

    try:
        yield from GCSStore(bucket, "", "").chunks(path)
    except StoreError as error:
        raise CommandError(bucket_error(bucket, error)) from error


def _from_claim(cluster: Cluster, claim: str, path: str, image: str | None) -> Iterator[bytes]:
    from imageprocessing_cli.claim_pod import claim_pod  # noqa: PLC0415 - 1 s of models

    with claim_pod(cluster, claim, image, read_only=True) as pod:
        yield from pod.read(path)


def _write(file: Path | None, chunks: Iterator[bytes]) -> None:
    """To the file, which appears whole, or to the standard output."""
    if file is None:
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    part = file.with_name(f"{file.name}.part-{os.getpid()}")
    try:
        with part.open("wb") as opened:
            for chunk in chunks:
                opened.write(chunk)
        part.replace(file)
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
