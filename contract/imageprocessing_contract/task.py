"""What the operator hands to a worker Pod, as JSON in one environment variable."""

from __future__ import annotations

from typing import Literal

import msgspec

from imageprocessing_contract.request import (
    Compression,
    Download,
    Firestore,
    Formulas,
    Source,
)

VERSION = 1
Step = Literal["plan", "shards", "finalize"]
STEPS: tuple[Step, ...] = ("plan", "shards", "finalize")


class Output(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The request's own folder in its store: a bucket, or a folder of the file system."""

    path: str
    """Below the root of the store, without slashes around it; "" is the root itself."""
    base_url: str
    """What the URL of an object begins with; "" gives its path below the root."""
    bucket: str | None = None
    root: str | None = None
    firestore: Firestore | None = None
    sqlite: str | None = None


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of one request."""

    step: Step
    namespace: str
    name: str
    request_id: str
    spec_hash: str
    source: Source
    output: Output
    compression: Compression
    download: Download
    images_per_shard: int
    invalid_rows: Literal["Fail", "Skip"]
    formulas: Formulas = "Keep"
    """What the processed CSV does with cells that a spreadsheet would take for formulas."""
    failures_of: str | None = None
    """With source.failuresOf: the request id of the other request."""
    cause: str | None = None
    """Finalize only: why the request ends before all of it was done."""
    allowed_networks: list[str] = []
    """Networks (CIDR) that are no public ones, where downloads may go all the same."""
    version: int = VERSION


def encode(task: Task) -> str:
    """The task as JSON, without the inline source: that has a variable of its own."""
    if task.source.inline is not None:
        task = msgspec.structs.replace(task, source=msgspec.structs.replace(task.source, inline=""))
    return msgspec.json.encode(task).decode()


def decode(text: str) -> Task:
    """Reads a task; raises msgspec.DecodeError where operator and worker do not agree."""
    task = msgspec.json.decode(text, type=Task)
    if task.version != VERSION:
        message = f"the task has version {task.version}, this worker knows {VERSION}"
        raise msgspec.ValidationError(message)
    return task
