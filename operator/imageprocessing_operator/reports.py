"""Reading the report of a finished step: the termination message of its Pod."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from imageprocessing_contract import names, redact, report
from imageprocessing_contract.report import Failure, Report, Sample

from imageprocessing_operator.api import API, core_path
from imageprocessing_operator.state import Job, LostReport

_PODS = 50
"""Pods of one step that are looked at: every retry leaves one."""

_REASON, _MESSAGE = 256, 1024
"""Characters of a failure's reason and message, as in the CRD."""


async def read_report(api: API, job: Job) -> Report | LostReport:
    """The last Pod's report; raises APIError."""
    selector = f"batch.kubernetes.io/controller-uid={job.uid}"
    answer = await api.call(
        "GET",
        core_path("pods", job.namespace),
        query={"labelSelector": selector, "limit": _PODS},
    )
    return pick_report(answer.get("items", []), job)


def pick_report(pods: list[dict[str, Any]], job: Job) -> Report | LostReport:
    """The report of the Pod that ended last; a completed step's must come from exit code 0."""
    ended = [end for pod in pods if (end := _termination(pod)) is not None]
    if job.ended == "Complete":
        ended = [end for end in ended if end.get("exitCode") == report.EXIT_DONE]
    if not ended:
        return LostReport("no Pod of it is left")
    last = max(ended, key=lambda end: end.get("finishedAt") or "")
    try:
        found = report.decode(last.get("message", ""))
    except msgspec.DecodeError as error:
        reason = last.get("reason", "Error")
        return LostReport(f"{reason}, exit code {last.get('exitCode')}, no report: {error}")
    if found.step != job.step:
        return LostReport(f"the report is of the step {found.step}")
    if not all(0 <= number < 2**63 for number in _numbers(msgspec.to_builtins(found))):
        return LostReport("the report has a number that is no count")
    return _cut(found)


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers(inner)


def _cut(found: Report) -> Report:
    """Within the CRD's limits, whatever a worker writes.

    One string that is too long, and the API server refuses the whole status.
    """
    replace = msgspec.structs.replace
    if catalogue := found.catalogue:
        samples = [
            Sample(line=s.line, reason=s.reason[:_REASON], message=s.message[:_MESSAGE])
            for s in catalogue.samples[: report.MAX_SAMPLES]
        ]
        found = replace(found, catalogue=replace(catalogue, samples=samples))
    if done := found.done:
        failures = [
            Failure(
                line=f.line,
                url=redact.url(f.url),
                reason=f.reason[:_REASON],
                message=f.message[:_MESSAGE],
            )
            for f in done.failures[: report.MAX_SAMPLES]
        ]
        found = replace(found, done=replace(done, failures=failures))
    return found


def _termination(pod: dict[str, Any]) -> dict[str, Any] | None:
    """How the Pod's worker container ended, None while it runs."""
    for status in pod.get("status", {}).get("containerStatuses", []):
        if status["name"] == names.CONTAINER:
            terminated: dict[str, Any] | None = status.get("state", {}).get("terminated")
            return terminated
    return None
