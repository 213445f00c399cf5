"""What keeps a Job's Pods from running, where no controller says so in the Job.

Where each cause shows was tried on Kubernetes 1.34: quota, Pod Security, service
account and priority class only as FailedCreate events of the Job; claims and
nodes in a Pod's condition; images and keys as the container's waiting reason;
volumes only as FailedMount events of the Pod.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from imageprocessing_contract import names
from imageprocessing_contract.reasons import Reason

from imageprocessing_operator.api import API, APIError, Object, core_path
from imageprocessing_operator.reports import ended_at, termination
from imageprocessing_operator.state import Job, Trouble

_PODS = 5
_FAILED_PODS = 100
_EVENTS = 50
"""Those of one object and reason: about ten, until Kubernetes puts them into one."""
_LONGEST_BACKOFF = timedelta(minutes=10)
"""Until the Job controller tries a failed Pod again: what failed longer ago is history."""
_TERMINATING_PODS = 50
_LATE = timedelta(seconds=10)
"""How long after its grace period a Pod may still be there."""
_WAITING = {
    "ErrImagePull": Reason.IMAGE_NOT_PULLED,
    "ImagePullBackOff": Reason.IMAGE_NOT_PULLED,
    "InvalidImageName": Reason.IMAGE_NOT_PULLED,
    "ErrImageNeverPull": Reason.IMAGE_NOT_PULLED,
    "CreateContainerConfigError": Reason.CONTAINER_NOT_CREATED,
    "CreateContainerError": Reason.CONTAINER_NOT_CREATED,
    "RunContainerError": Reason.CONTAINER_NOT_CREATED,
}


async def find_trouble(api: API, job: Job, now: datetime) -> Trouble | None:
    """One look at the Job's events or at its pending Pods; raises APIError."""
    if job.terminating:
        found = await _late_pods(api, job, now)
    elif job.active == 0:
        found = await _no_pods(api, job)
    else:
        found = await _pending_pods(api, job)
    if found is None and job.failed:
        found = await _killed_pods(api, job, now)
    if found is None:
        return None
    reason, message = found
    message = _stable(message, job.name)
    # The same cause keeps the time at which it was first seen.
    known = job.trouble
    since = known.since if known and known.reason == reason else now
    return Trouble(reason, message, since, final=reason == Reason.NAMESPACE_TERMINATING)


async def _late_pods(api: API, job: Job, now: datetime) -> tuple[Reason, str] | None:
    """A Pod that should have ended: its node does not answer, so no other takes its place."""
    for pod in await _pods(api, job, _TERMINATING_PODS):
        # The grace period is in it.
        end = pod["metadata"].get("deletionTimestamp")
        ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if end and not ended and datetime.fromisoformat(end) + _LATE < now:
            node = pod.get("spec", {}).get("nodeName", "none")
            return Reason.NODE_LOST, f"node {node} has not ended a Pod that was due by {end}"
    return None


async def _no_pods(api: API, job: Job) -> tuple[Reason, str] | None:
    """Pods that the Job controller was refused, if the last one was."""
    failed = await _last_event(api, job.namespace, job.uid, "FailedCreate")
    if failed is None:
        # Of that no event can tell.
        return await _terminating_namespace(api, job.namespace)
    created = await _last_event(api, job.namespace, job.uid, "SuccessfulCreate")
    # Events live for an hour: an old one says nothing about a Job between two Pods.
    if created is not None and created["lastTimestamp"] > failed["lastTimestamp"]:
        return None
    return Reason.PODS_NOT_CREATED, failed.get("message", "")


async def _terminating_namespace(api: API, namespace: str) -> tuple[Reason, str] | None:
    """Whether anything can be created; asked in a way that creates nothing."""
    body = {
        "metadata": {"generateName": "nothing-", "namespace": namespace},
        "involvedObject": {"namespace": namespace},
    }
    try:
        await api.call("POST", core_path("events", namespace), query={"dryRun": "All"}, body=body)
    except APIError as error:
        if error.namespace_terminates:
            return Reason.NAMESPACE_TERMINATING, f"namespace {namespace} is being deleted"
        if error.status != 403:
            raise
    return None


async def _pending_pods(api: API, job: Job) -> tuple[Reason, str] | None:
    pods = await _pods(api, job, _PODS, fieldSelector="status.phase=Pending")
    for pod in pods:
        if found := read_pod(pod):
            return found
    for pod in pods:
        meta = pod["metadata"]
        if event := await _last_event(api, job.namespace, meta["uid"], "FailedMount"):
            return Reason.VOLUME_NOT_MOUNTED, event.get("message", "")
    return None


async def _killed_pods(api: API, job: Job, now: datetime) -> tuple[Reason, str] | None:
    """The last Pod that failed, if it needed more memory than it may have."""
    pods = await _pods(api, job, _FAILED_PODS, fieldSelector="status.phase=Failed")
    ends = [end for pod in pods if (end := termination(pod)) is not None]
    last = max(ends, key=ended_at, default={})
    if last.get("reason") != "OOMKilled":
        return None
    if datetime.fromisoformat(last["finishedAt"]) + _LONGEST_BACKOFF < now:
        return None
    return Reason.OOM_KILLED, "the worker was killed: it needs more memory than its limit"


def read_pod(pod: dict[str, Any]) -> tuple[Reason, str] | None:
    """What a pending Pod's own status says is wrong."""
    status = pod.get("status", {})
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Reason.UNSCHEDULABLE, condition.get("message", "")
    for container in status.get("containerStatuses", []):
        waiting = container.get("state", {}).get("waiting", {})
        reason = _WAITING.get(waiting.get("reason", ""))
        if container["name"] == names.CONTAINER and reason:
            return reason, f"{waiting['reason']}: {waiting.get('message', '')}"
    return None


async def _pods(api: API, job: Job, limit: int, **query: str) -> list[Object]:
    """The first Pods of a Job."""
    answer = await api.call(
        "GET",
        core_path("pods", job.namespace),
        query={"labelSelector": job.pods, "limit": limit, **query},
    )
    found: list[Object] = answer.get("items", [])
    return found


async def _last_event(api: API, namespace: str, uid: str, reason: str) -> Object | None:
    answer = await api.call(
        "GET",
        core_path("events", namespace),
        query={"fieldSelector": f"involvedObject.uid={uid},reason={reason}", "limit": _EVENTS},
    )
    events = [event for event in answer.get("items", []) if event.get("lastTimestamp")]
    return max(events, key=lambda e: str(e["lastTimestamp"]), default=None)


def _stable(message: str, job_name: str) -> str:
    """Without the generated ends of Pod names, or every look would change status."""
    pod = re.compile(re.escape(job_name) + r"(-\d+)?-[a-z0-9]{5}\b")
    return pod.sub(f"{job_name}-…", message)
