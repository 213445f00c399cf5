"""The report of a step is what its last Pod said."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from imageprocessing_contract import report
from imageprocessing_contract.crd import crd_yaml
from imageprocessing_operator.reconcile import reconcile
from imageprocessing_operator.reports import pick_report, termination
from imageprocessing_operator.state import Job, LostReport

from tests.unit.operator_state import NOW, PLANNED, a_job, a_request, done

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
    assert picked(pods, FAILED) == ERROR
    # A completed step's Pod is the one with exit code 0, whatever ended after it.
    assert picked([ended(TEXT, 0, 3), ended("", 143, 9)], COMPLETE) == PLANNED


def picked(pods: list[dict[str, Any]], job: Job) -> report.Report | LostReport:
    """What read_report() makes of these Pods."""
    return pick_report([end for pod in pods if (end := termination(pod))], job)


def changed(**fields: Any) -> str:
    return json.dumps({**json.loads(TEXT), **fields})


DONE = msgspec.to_builtins(done(1))
URLS = {"folder": "gs://b/", "csvURL": "c", "failedURL": "f", "reportURL": "r"}
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
    "more shards than there can be": [ended(changed(shards=100_001))],
    "shards of no catalogue": [ended(changed(catalogue=None))],
    "nested": [ended("[" * 4096)],
    "too long a URL": [ended(changed(done={**DONE, "results": dict.fromkeys(URLS, "u" * 4097)}))],
    "a URL that is no text": [ended(changed(done={**DONE, "results": {**URLS, "csvURL": []}}))],
    "still running": [{"status": {"containerStatuses": [{"name": "worker", "state": {}}]}}],
    "only failures": [ended(TEXT, 1)],
}


@pytest.mark.parametrize("case", LOST)
def test_lost(case: str) -> None:
    assert isinstance(picked(LOST[case], COMPLETE), LostReport)


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
    found = picked([ended(msgspec.json.encode(wide).decode())], COMPLETE)
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


def test_what_a_terminal_would_obey_and_what_is_secret_is_left_out() -> None:
    escape = "\x1b[2J\x07https://u:p@x/y\u202e\n"
    failure = report.Failure(line=1, url=escape[5:], reason=escape, message=escape)
    hostile = report.Report(
        step="plan",
        catalogue=report.Catalogue(
            rows=1,
            images=1,
            invalid_rows=1,
            samples=[report.Sample(line=1, reason=escape, message=escape)],
        ),
        done=msgspec.structs.replace(
            done(1, failures=[failure]),
            results=report.Results(csv_url=escape, failed_url=escape, report_url=escape),
        ),
        error=report.Error(reason="x", message=escape),
    )
    found = picked([ended(msgspec.json.encode(hostile).decode())], COMPLETE)
    texts = list(leaves(msgspec.to_builtins(found)))
    assert sum("https://x/y" in str(leaf) for _, leaf in texts) == 9
    assert all(str(leaf).isprintable() and "u:p" not in str(leaf) for _, leaf in texts)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """What is no object and no list, and where it is."""
    if not isinstance(value, dict | list):
        yield path, value
        return
    for key in value if isinstance(value, dict) else range(len(value)):
        yield from leaves(value[key], (*path, key))


SAMPLE = report.Sample(line=1, reason="NoURLs", message="m")
FAILURE = report.Failure(line=1, url="http://x", reason="HTTPError", message="404")
WHOLE = msgspec.to_builtins(
    report.Report(
        step="plan",
        catalogue=report.Catalogue(rows=1, images=1, invalid_rows=1, samples=[SAMPLE]),
        shards=1,
        done=done(1, failures=[FAILURE], failed_shards=1, cause="DeadlineExceeded"),
        error=report.Error(reason="CatalogueInvalid", message="m"),
    )
)
ODD: list[Any] = [-1, 2**31, 2**63 - 1, 2**63, 1e300, None, True, [], {}, "", "x" * 5000]
STATUS = yaml.safe_load(crd_yaml())["spec"]["versions"][0]["schema"]["openAPIV3Schema"][
    "properties"
]["status"]
LIMITS = jsonschema.Draft202012Validator(STATUS)


@pytest.mark.parametrize("left_out", [[], ["done"], ["done", "error"], ["catalogue", "error"]])
def test_status_takes_what_a_report_says_or_it_is_lost(left_out: list[str]) -> None:
    """Whatever one field of it is."""
    known = {name: value for name, value in WHOLE.items() if name not in left_out}
    for path, _ in leaves(known):
        for odd in ODD:
            hostile = copy.deepcopy(known)
            inner = hostile
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = odd
            found = picked([ended(json.dumps(hostile))], COMPLETE)
            job = msgspec.structs.replace(COMPLETE, report=found)
            written = msgspec.to_builtins(reconcile(a_request(), [job], NOW).status)
            LIMITS.validate(written)
            numbers = [leaf for _, leaf in leaves(written) if isinstance(leaf, int)]
            assert all(number < 2**63 for number in numbers), "format: int64"
