"""Requests and Jobs for the operator's pure code."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from imageprocessing_contract import report
from imageprocessing_contract.reasons import Condition
from imageprocessing_operator.state import Job, Request, read_request
from imageprocessing_operator.status import Status

from tests.stored import stored_spec

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
UID = "8a5c0c8e-5f0c-4b7c-9d3e-0a1b2c3d4e5f"
SPEC: dict[str, Any] = stored_spec(
    source={"configMapKeyRef": {"name": "products", "key": "products.csv"}},
    output={"gcs": {"bucket": "catalogue", "prefix": "shop"}},
    activeDeadlineSeconds=3600,
    jobTTLSecondsAfterFinished=600,
)
WEBHOOK = {
    "url": "https://hooks.example/x",
    "secretKeyRef": {"name": "hook", "key": "key"},
    "timeoutSeconds": 20,
}


def a_request(status: Status | None = None, **spec: Any) -> Request:
    """A request as the API server has it, with its defaults."""
    meta = {
        "namespace": "shop",
        "name": "spring",
        "uid": UID,
        "generation": 1,
        "resourceVersion": "10",
    }
    found = read_request({"metadata": meta, "spec": {**SPEC, **spec}})
    assert isinstance(found, Request)
    return msgspec.structs.replace(found, status=status or found.status)


def a_job(step: Any, **fields: Any) -> Job:
    """A Job that runs one Pod."""
    known: dict[str, Any] = {
        "namespace": "shop",
        "name": f"spring-{step}",
        "uid": f"{step}-{fields.get('attempt', 1)}",
        "resource_version": "5",
        "request_uid": UID,
        "owned": True,
        "attempt": 1,
        "created": NOW,
        "deleting": False,
        "suspended": False,
        "parallelism": 1,
        "completions": 1,
        "let_go": False,
        "active": 1,
        "ready": 1,
        "terminating": 0,
        "succeeded": 0,
        "failed_indexes": 0,
        "finished_pods": 0,
        "failed": 0,
        "ended": None,
        "end_message": "",
    }
    if fields.get("ended"):
        known |= {"active": 0, "ready": 0}
    return Job(step=step, **{**known, **fields})


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def said(status: Status) -> dict[str, str]:
    """Status of each condition."""
    return {condition.type: condition.status for condition in status.conditions}


def reason(status: Status, kind: Condition) -> str:
    """Reason of a condition."""
    found = status.condition(kind)
    assert found is not None
    return found.reason


PLANNED = report.Report(
    step="plan",
    catalogue=report.Catalogue(rows=20, images=20, invalid_rows=0),
    shards=2,
)


def done(succeeded: int, failed: int = 0, **fields: Any) -> report.Done:
    """Totals."""
    total = succeeded + failed
    return report.Done(
        images=report.Images(total=total, succeeded=succeeded, failed=failed, unchanged=0),
        bytes=report.Bytes(original=2, compressed=1),
        results=report.Results(csv_url="gs://b/c", failed_url="gs://b/f", report_url="gs://b/r"),
        **fields,
    )
