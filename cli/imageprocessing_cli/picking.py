"""Whose log `ipr logs` shows. Pure."""

from __future__ import annotations

from typing import Any

from imageprocessing_contract import names

from imageprocessing_cli.errors import CommandError

Object = dict[str, Any]
JOB_LABEL = "batch.kubernetes.io/job-name"
_INDEX = "batch.kubernetes.io/job-completion-index"


def pick_pod(jobs: list[Object], pods: list[Object], shard: int | None) -> Object:
    """The Pod of the step that runs, or of what failed; with `shard` that shard's newest.

    Raises CommandError where there is none.
    """
    if shard is not None:
        pods = [pod for pod in pods if _index(pod) == str(shard)]
    elif jobs:
        job = min(jobs, key=_rank)["metadata"]["name"]
        pods = [pod for pod in pods if pod["metadata"]["labels"].get(JOB_LABEL) == job]
    if pods:
        newest = sorted(pods, key=_made, reverse=True)
        return newest[0] if shard is not None else min(newest, key=_order)
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


def _order(pod: Object) -> int:
    """A Pod that failed tells most, then one that runs."""
    return {"Failed": 0, "Running": 1, "Succeeded": 2}.get(pod["status"].get("phase", ""), 3)


def _made(pod: Object) -> str:
    return str(pod["metadata"]["creationTimestamp"])


def _newest_first(job: Object) -> str:
    """Sorts younger before older."""
    step = job["metadata"]["labels"][names.LABEL_STEP]
    return {"finalize": "0", "shards": "1", "plan": "2"}[step]


def _index(pod: Object) -> str | None:
    labels = pod["metadata"].get("labels", {})
    found: str | None = labels.get(_INDEX)
    return found
