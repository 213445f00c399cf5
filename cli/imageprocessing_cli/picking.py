"""Whose log `ipr logs` shows. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from imageprocessing_contract import names

from imageprocessing_cli.errors import CommandError

Object = dict[str, Any]
JOB_LABEL = "batch.kubernetes.io/job-name"
_INDEX = "batch.kubernetes.io/job-completion-index"
_PHASES = ("Failed", "Running", "Succeeded", "Pending")
"""A Pod that failed tells most, then one that runs."""
Find = Callable[[str, str], list[Object]]
"""Finds a request's Pods by a label and, unless empty, a phase: not all of them, but some."""


def pick_pod(jobs: list[Object], shard: int | None, find: Find) -> Object:
    """The Pod of the step that runs, or of what failed; with `shard` that shard's newest.

    Raises CommandError where there is none.
    """
    found: list[Object] = []
    if shard is not None:
        found = find(f"{_INDEX}={shard}", "")
    elif jobs:
        job = f"{JOB_LABEL}={min(jobs, key=_rank)['metadata']['name']}"
        found = next((pods for phase in _PHASES if (pods := find(job, phase))), [])
    if found:
        return max(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    whose = "" if shard is None else f" of shard {shard}"
    message = (
        f"there is no Pod{whose}, not yet or no more: Pods are kept for "
        "spec.jobTTLSecondsAfterFinished after their Job's end"
    )
    raise CommandError(message)


def _rank(job: Object) -> tuple[int, str]:
    """A step that runs is first, then one that failed, then the last one made."""
    conditions = {c["type"] for c in job["status"].get("conditions", []) if c["status"] == "True"}
    ended = 0 if not conditions & {"Complete", "Failed"} else 1 if "Failed" in conditions else 2
    return ended, _newest_first(job)


def _newest_first(job: Object) -> str:
    """Sorts younger before older."""
    step = job["metadata"]["labels"][names.LABEL_STEP]
    return {"finalize": "0", "shards": "1", "plan": "2"}[step]
