"""What keeps a Job's Pods from running, where no controller says so in the Job.

Where each cause shows was tried on Kubernetes 1.34: quota, Pod Security, service
account and priority class only as FailedCreate events of the Job; claims and
nodes in a Pod's condition; images and keys as the container's waiting reason;
volumes only as FailedMount events of the Pod.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from imageprocessing_contract import names
from imageprocessing_contract.reasons import Reason

from imageprocessing_operator.api import API, core_path
from imageprocessing_operator.state import Job, Trouble

_PODS = 5
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
    if job.active == 0:
        message = await _last_warning(api, job.namespace, job.uid, "FailedCreate")
        found = (Reason.PODS_NOT_CREATED, message) if message else None
    else:
        found = await _pending_pods(api, job)
    if found is None:
        return None
    reason, message = found
    message = _stable(message, job.name)
    # The same cause keeps the time at which it was first seen.
    known = job.trouble
    since = known.since if known and known.reason == reason else now
    return Trouble(reason, message, since)


async def _pending_pods(api: API, job: Job) -> tuple[Reason, str] | None:
    answer = await api.call(
        "GET",
        core_path("pods", job.namespace),
        query={
            "labelSelector": f"batch.kubernetes.io/controller-uid={job.uid}",
            "fieldSelector": "status.phase=Pending",
            "limit": _PODS,
        },
    )
    pods = answer.get("items", [])
    for pod in pods:
        if found := read_pod(pod):
            return found
    for pod in pods:
        meta = pod["metadata"]
        if message := await _last_warning(api, job.namespace, meta["uid"], "FailedMount"):
            return Reason.VOLUME_NOT_MOUNTED, message
    return None


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


async def _last_warning(api: API, namespace: str, uid: str, reason: str) -> str | None:
    answer = await api.call(
        "GET",
        core_path("events", namespace),
        query={"fieldSelector": f"involvedObject.uid={uid},reason={reason}", "limit": 10},
    )
    events = answer.get("items", [])
    last = max(events, key=lambda e: e.get("lastTimestamp") or "", default=None)
    return None if last is None else str(last.get("message", ""))


def _stable(message: str, job_name: str) -> str:
    """Without the generated ends of Pod names, or every look would change status."""
    pod = re.compile(re.escape(job_name) + r"(-\d+)?-[a-z0-9]{5}\b")
    return pod.sub(f"{job_name}-…", message)
