"""The report of a step is what its last Pod said."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from imageprocessing_contract import report
from imageprocessing_operator.reports import pick_report
from imageprocessing_operator.state import LostReport

from tests.unit.operator_state import PLANNED, a_job, done

COMPLETE = a_job("plan", ended="Complete")
FAILED = a_job("plan", ended="Failed")
TEXT = report.encode(PLANNED).decode()
ERROR = report.Report(step="plan", error=report.Error(reason="CatalogueInvalid", message="m"))


def ended(message: str | None, code: int = 0, second: int = 0) -> dict[str, Any]:
    end = {"exitCode": code, "finishedAt": f"2026-03-01T12:00:{second:02}Z"}
    if message is not None:
        end["message"] = message
    return {"status": {"containerStatuses": [{"name": "worker", "state": {"terminated": end}}]}}


def test_the_last_pod_counts() -> None:
    text = report.encode(ERROR).decode()
    pods = [ended(text, 42, 9), ended("", 1, 3), {"status": {}}]
    assert pick_report(pods, FAILED) == ERROR
    # A completed step's Pod is the one with exit code 0, whatever ended after it.
    assert pick_report([ended(TEXT, 0, 3), ended("", 143, 9)], COMPLETE) == PLANNED


def changed(**fields: Any) -> str:
    return json.dumps({**json.loads(TEXT), **fields})


LOST = {
    "none": [],
    "without a message": [ended(None)],
    "empty": [ended("")],
    "cut": [ended(TEXT[:-1])],
    "cut at its begin": [ended(TEXT[1:])],
    "not JSON": [ended("Killed")],
    "other version": [ended(changed(version=2))],
    "other step": [ended(changed(step="finalize"))],
    "below zero": [ended(changed(shards=-1))],
    "too large a number": [ended(changed(shards=2**63))],
    "still running": [{"status": {"containerStatuses": [{"name": "worker", "state": {}}]}}],
    "only failures": [ended(TEXT, 1)],
}


@pytest.mark.parametrize("case", LOST)
def test_lost(case: str) -> None:
    assert isinstance(pick_report(LOST[case], COMPLETE), LostReport)


def test_it_is_cut_to_the_limits_of_status() -> None:
    failure = report.Failure(
        line=1, url="https://u:p@x/" + "y" * 999, reason="R" * 999, message="m" * 9999
    )
    sample = report.Sample(line=1, reason="R" * 999, message="m" * 9999)
    wide = report.Report(
        step="plan",
        catalogue=report.Catalogue(rows=1, images=1, invalid_rows=1, samples=[sample] * 11),
        done=done(1, failures=[failure] * 11),
    )
    found = pick_report([ended(msgspec.json.encode(wide).decode())], COMPLETE)
    assert isinstance(found, report.Report)
    assert found.catalogue is not None
    assert found.done is not None
    assert (len(found.catalogue.samples), len(found.done.failures)) == (10, 10)
    first = found.done.failures[0]
    assert (len(first.url), len(first.reason), len(first.message)) == (160, 256, 1024)
    assert "u:p" not in first.url
    assert (len(found.catalogue.samples[0].reason), len(found.catalogue.samples[0].message)) == (
        256,
        1024,
    )
