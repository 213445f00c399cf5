"""Reading the report of a finished step: the termination message of its Pod."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from imageprocessing_contract import names, redact, report
from imageprocessing_contract.report import Failure, Report, Results, Sample

from imageprocessing_operator.api import API, core_path
from imageprocessing_operator.state import Job, LostReport

_REASON, _MESSAGE, _URL = 256, 1024, 4096
"""Characters of a failure's reason and message and of a result's URL, as in the CRD."""


async def read_report(api: API, job: Job) -> Report | LostReport:
    """The last Pod's report; raises APIError."""
    # Every retry and every eviction by a kubelet leaves a Pod: there may be many.
    phase = "Succeeded" if job.ended == "Complete" else "Failed"
    found = api.list(
        core_path("pods", job.namespace),
        {"labelSelector": job.pods, "fieldSelector": f"status.phase={phase}"},
    )
    # Only how they ended is kept: each holds the whole task, and with it an inline catalogue.
    return pick_report([end async for pod in found if (end := termination(pod)) is not None], job)


def pick_report(ended: list[dict[str, Any]], job: Job) -> Report | LostReport:
    """The report of what ended last; a completed step's must come from exit code 0."""
    if job.ended == "Complete":
        ended = [end for end in ended if end.get("exitCode") == report.EXIT_DONE]
    if not ended:
        return LostReport("no Pod of it is left")
    last = max(ended, key=ended_at)
    try:
        found = report.decode(last.get("message", ""))
    except msgspec.DecodeError as error:
        reason = last.get("reason", "Error")
        return LostReport(f"{reason}, exit code {last.get('exitCode')}, no report: {error}")
    if found.step != job.step:
        return LostReport(f"the report is of the step {found.step}")
    wrong = _impossible(found)
    return LostReport(f"the report has {wrong}") if wrong else _cut(found)


def _impossible(found: Report) -> str | None:
    """What no worker of ours says, None where there is nothing of that kind.

    A number or URL that is beyond the CRD's limits, and the API server refuses the
    whole status, at every try.
    """
    if not all(0 <= number < 2**63 for number in _numbers(msgspec.to_builtins(found))):
        return "a number that is no count"
    if found.shards and (found.catalogue is None or found.shards > report.MAX_SHARDS):
        return f"{found.shards} shards"
    if found.catalogue and found.catalogue.images > report.MAX_IMAGES:
        return f"{found.catalogue.images} images"
    if found.done is not None:
        urls = msgspec.structs.astuple(found.done.results)
        if any(len(url) > _URL for url in urls):
            return f"a URL of more than {_URL} characters"
    return None


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers(inner)


def _cut(found: Report) -> Report:
    """Texts within the CRD's limits, and fit for a terminal, whatever a worker writes."""
    replace = msgspec.structs.replace
    if catalogue := found.catalogue:
        samples = [
            Sample(
                line=s.line,
                reason=redact.printable(s.reason)[:_REASON],
                message=redact.printable(s.message)[:_MESSAGE],
            )
            for s in catalogue.samples[: report.MAX_SAMPLES]
        ]
        found = replace(found, catalogue=replace(catalogue, samples=samples))
    if done := found.done:
        failures = [
            Failure(
                line=f.line,
                url=redact.printable(redact.url(f.url)),
                reason=redact.printable(f.reason)[:_REASON],
                message=redact.printable(f.message)[:_MESSAGE],
            )
            for f in done.failures[: report.MAX_SAMPLES]
        ]
        results = Results(
            csv_url=redact.printable(done.results.csv_url),
            failed_url=redact.printable(done.results.failed_url),
            report_url=redact.printable(done.results.report_url),
        )
        found = replace(found, done=replace(done, failures=failures, results=results))
    if error := found.error:
        found = replace(found, error=replace(error, message=redact.printable(error.message)))
    return found


def ended_at(end: dict[str, Any]) -> str:
    """When that was; of a Pod that nobody saw end, before all others."""
    return end.get("finishedAt") or ""


def termination(pod: dict[str, Any]) -> dict[str, Any] | None:
    """How the Pod's worker container ended, None while it runs."""
    for status in pod.get("status", {}).get("containerStatuses", []):
        if status["name"] == names.CONTAINER:
            terminated: dict[str, Any] | None = status.get("state", {}).get("terminated")
            return terminated
    return None
