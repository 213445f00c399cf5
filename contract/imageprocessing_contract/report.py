"""What a worker Pod says at its end: the termination message of its container.

The kubelet keeps the last 4,096 bytes of a termination message, so a report is
ASCII JSON of at most 4,000 bytes.
"""

from __future__ import annotations

import json
import os.path
from typing import Any

import msgspec

from imageprocessing_contract import redact
from imageprocessing_contract.task import Step

VERSION = 1
MAX_BYTES = 4000
MAX_SAMPLES = 10
MAX_SHARDS = 100_000
"""What an Indexed Job allows."""
MAX_IMAGES = 10**12
"""More than any catalogue has, few enough to reckon a rate and a time with; as in the CRD."""
MAX_ERROR = 600
"""Characters of the message of an error."""

FAILED_IMAGE = "failed image: "
"""What stands before failure_line() in a shard's log: `ipr watch` looks for it there."""

EXIT_DONE = 0
EXIT_RETRY = 1
EXIT_FINAL = 42
"""The step cannot succeed: no retry."""
EXIT_INTERRUPTED = 143
"""SIGTERM after a checkpoint: does not count as a failure."""


class Sample(msgspec.Struct, frozen=True, omit_defaults=True):
    """One invalid row; line is where its record begins in the source, from 1."""

    line: int
    reason: str
    message: str


class Catalogue(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What plan found in the source."""

    rows: int
    images: int
    invalid_rows: int
    samples: list[Sample] = []


class Failure(msgspec.Struct, frozen=True):
    """One image that failed."""

    line: int
    url: str
    reason: str
    message: str


def failure_line(failure: Failure) -> str:
    """One failed image in words, in one line."""
    text = f"line {failure.line}: {failure.url}: {failure.reason}: {failure.message}"
    return redact.printable(text)


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of images; succeeded includes those unchanged (kept originals)."""

    total: int
    succeeded: int
    failed: int
    unchanged: int


class Bytes(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of all images that succeeded, each URL counted as often as it is listed."""

    original: int
    compressed: int


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """URLs of the result files."""

    csv_url: str = msgspec.field(name="csvURL")
    failed_url: str = msgspec.field(name="failedURL")
    report_url: str = msgspec.field(name="reportURL")


class Done(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The outcome of a whole request, as in done.json."""

    images: Images
    bytes: Bytes
    results: Results
    failures: list[Failure] = []
    failed_shards: int = 0
    cause: str | None = None


class Error(msgspec.Struct, frozen=True):
    """Why a step failed, in words that a user can act on."""

    reason: str
    message: str


class Report(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The end of one step in one Pod."""

    step: Step
    catalogue: Catalogue | None = None
    shards: int | None = None
    done: Done | None = None
    error: Error | None = None
    version: int = VERSION


def encode(report: Report) -> bytes:
    """ASCII JSON of at most 4,000 bytes; drops samples and failures from the end to fit."""
    report = _shortened(report)
    while len(text := _ascii(report)) > MAX_BYTES:
        report = _smaller(report)
    return text


def decode(text: str) -> Report:
    """Reads a report; raises msgspec.DecodeError for anything else, truncation included."""
    try:
        plain = msgspec.json.decode(text)
    except RecursionError as error:
        raise msgspec.DecodeError("the report is nested too deeply") from error
    report = msgspec.convert(_unfolded(plain), Report)
    if report.version != VERSION:
        message = f"the report has version {report.version}, this operator knows {VERSION}"
        raise msgspec.ValidationError(message)
    return report


def _ascii(report: Report) -> bytes:
    # msgspec writes UTF-8; json escapes what is not ASCII.
    return json.dumps(_folded(msgspec.to_builtins(report)), separators=(",", ":")).encode()


def _folded(plain: dict[str, Any]) -> dict[str, Any]:
    """The URLs of results lie in one folder, which may have 2,048 characters: sent once."""
    if "done" in plain:
        urls = plain["done"]["results"]
        folder = os.path.commonprefix(list(urls.values()))  # noqa: RUF071 - by characters
        rest = {name: url.removeprefix(folder) for name, url in urls.items()}
        plain["done"]["results"] = {"folder": folder, **rest}
    return plain


def _unfolded(plain: Any) -> Any:
    match plain:
        case {"done": {"results": {"folder": str(folder), **rest}}}:
            urls = {
                name: f"{folder}{url}" if isinstance(url, str) else url
                for name, url in rest.items()
            }
            return plain | {"done": plain["done"] | {"results": urls}}
    return plain


def _shortened(report: Report) -> Report:
    replace = msgspec.structs.replace
    if report.catalogue:
        samples = [replace(s, message=redact.shorten(s.message)) for s in report.catalogue.samples]
        report = replace(report, catalogue=replace(report.catalogue, samples=samples[:MAX_SAMPLES]))
    if report.done:
        failures = [
            replace(f, url=redact.url(f.url), message=redact.shorten(f.message))
            for f in report.done.failures[:MAX_SAMPLES]
        ]
        report = replace(report, done=replace(report.done, failures=failures))
    if report.error:
        error = replace(report.error, message=report.error.message[:MAX_ERROR])
        report = replace(report, error=error)
    return report


def _smaller(report: Report) -> Report:
    replace = msgspec.structs.replace
    done, catalogue = report.done, report.catalogue
    if done and done.failures:
        return replace(report, done=replace(done, failures=done.failures[:-1]))
    if catalogue and catalogue.samples:
        return replace(report, catalogue=replace(catalogue, samples=catalogue.samples[:-1]))
    if report.error and report.error.message:
        shorter = report.error.message[: len(report.error.message) * 3 // 4]
        return replace(report, error=replace(report.error, message=shorter))
    message = "the report of this step does not fit a termination message"
    raise ValueError(message)
