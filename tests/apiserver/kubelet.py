"""The test as kubelet: it ends the Pods that the Job controller makes as it likes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from imageprocessing_contract import report

from tests.apiserver.kube import Kube, Object, eventually

INDEX = "batch.kubernetes.io/job-completion-index"
RESULTS = report.Results(csv_url="gs://b/r.csv", failed_url="gs://b/f.csv", report_url="gs://b/r")


def catalogue(images: int, **fields: Any) -> report.Catalogue:
    """What a plan says of a catalogue with one image a row."""
    return report.Catalogue(rows=images, images=images, **{"invalid_rows": 0, **fields})


def done(total: int, failed: int = 0, **fields: Any) -> report.Done:
    """Totals of a request of which `failed` images failed."""
    images = report.Images(total=total, succeeded=total - failed, failed=failed, unchanged=0)
    sizes = report.Bytes(original=10 * total, compressed=5 * total)
    failures = [
        report.Failure(line=n + 2, url=f"http://x/{n}", reason="HTTPError", message="404")
        for n in range(min(failed, 10))
    ]
    return report.Done(images=images, bytes=sizes, results=RESULTS, failures=failures, **fields)


def planned(images: int, shards: int) -> bytes:
    """The report of a plan that leaves the work to shards."""
    return report.encode(report.Report(step="plan", catalogue=catalogue(images), shards=shards))


def whole(images: int, failed: int = 0) -> bytes:
    """The report of a plan that did all of it in its own Pod."""
    found = report.Report(
        step="plan", catalogue=catalogue(images), shards=1, done=done(images, failed)
    )
    return report.encode(found)


def finalized(images: int, shards: int, failed: int = 0, **fields: Any) -> bytes:
    """The report of finalize."""
    found = report.Report(
        step="finalize",
        catalogue=catalogue(images),
        shards=shards,
        done=done(images, failed, **fields),
    )
    return report.encode(found)


def refused(step: Any, reason: str, message: str, **fields: Any) -> bytes:
    """The report of a step that cannot succeed."""
    error = report.Error(reason=reason, message=message)
    return report.encode(report.Report(step=step, error=error, **fields))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _index(pod: Object) -> int:
    return int(pod["metadata"].get("annotations", {}).get(INDEX, "0"))


class Kubelet:
    """Writes the statuses of one namespace's Pods."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    def pods(self, job: str) -> list[Object]:
        """Pods of a Job that have not ended, in the order of their indexes."""
        found = self._kube.list("pods", labels=f"batch.kubernetes.io/job-name={job}")
        living = [
            pod
            for pod in found
            if pod["status"]["phase"] in {"Pending", "Running"}
            and "deletionTimestamp" not in pod["metadata"]
        ]
        return sorted(living, key=_index)

    def wait_pods(self, job: str, count: int = 1, seconds: float = 60) -> list[Object]:
        """Exactly so many Pods, once they are there."""

        def look() -> tuple[list[Object]] | None:
            pods = self.pods(job)
            return (pods,) if len(pods) == count else None

        return eventually(look, f"{count} Pods of {job}", seconds)[0]

    def wait_another(self, job: str, uid: str) -> None:
        """A Pod that is not the one with this UID; the Job controller waits 10 s after failures."""
        eventually(
            lambda: any(pod["metadata"]["uid"] != uid for pod in self.pods(job)),
            f"another Pod of {job}",
            seconds=30,
        )

    def start(self, pod: Object) -> None:
        """The worker runs."""
        running = {"name": "worker", "state": {"running": {"startedAt": now()}}}
        self._write(pod, "Running", running, ready=True)

    def end(
        self, pod: Object, message: bytes | str = b"", code: int = 0, reason: str | None = None
    ) -> None:
        """The worker has ended with this exit code and this termination message."""
        text = message.decode() if isinstance(message, bytes) else message
        end = {
            "exitCode": code,
            "reason": reason or ("Error" if code else "Completed"),
            "message": text,
            "startedAt": now(),
            "finishedAt": now(),
        }
        phase = "Failed" if code else "Succeeded"
        self._write(pod, phase, {"name": "worker", "state": {"terminated": end}}, ready=False)

    def evict(self, pod: Object) -> None:
        """The node has too little memory: the Pod fails, and stays as it is."""
        disrupted = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "TerminationByKubelet",
            "message": "The node was low on resource: memory.",
        }
        status = {
            "phase": "Failed",
            "reason": "Evicted",
            "message": disrupted["message"],
            "conditions": [disrupted],
            "containerStatuses": [],
        }
        self._kube.patch("pods", pod["metadata"]["name"], {"status": status}, "status")

    def hold(self, pod: Object, reason: str, message: str) -> None:
        """The worker cannot be started."""
        waiting = {"name": "worker", "state": {"waiting": {"reason": reason, "message": message}}}
        self._write(pod, "Pending", waiting, ready=False)

    def leave_unscheduled(self, pod: Object, message: str) -> None:
        """No node takes the Pod."""
        unscheduled = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
        }
        status = {"conditions": [unscheduled]}
        self._kube.patch("pods", pod["metadata"]["name"], {"status": status}, "status")

    def leave_unmounted(self, pod: Object, message: str) -> None:
        """A volume is missing, which no status says."""
        meta = pod["metadata"]
        event = {
            "metadata": {"generateName": f"{meta['name']}."},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
            "type": "Warning",
            "reason": "FailedMount",
            "message": message,
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "count": 1,
        }
        self._kube.create("events", event)

    def bind(self, pod: Object, node: str) -> None:
        """The Pod is the node's: only that one, or force, ends it."""
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        meta = {"name": pod["metadata"]["name"]}
        path = self._kube.path("pods", meta["name"], "binding")
        self._kube.call("POST", path, json={"metadata": meta, "target": target})

    def finish(self, job: str, message: bytes | str = b"", code: int = 0) -> None:
        """Ends the one Pod of a Job."""
        (pod,) = self.wait_pods(job)
        self.end(pod, message, code)

    def _write(self, pod: Object, phase: str, container: Object, *, ready: bool) -> None:
        whole = {"ready": ready, "restartCount": 0, "image": "i", "imageID": "i", **container}
        conditions = [
            {
                "type": kind,
                "status": "True" if ready else "False",
                "lastTransitionTime": now(),
            }
            for kind in ("Ready", "ContainersReady")
        ]
        status = {
            "phase": phase,
            "startTime": now(),
            "conditions": conditions,
            "containerStatuses": [whole],
        }
        self._kube.patch("pods", pod["metadata"]["name"], {"status": status}, "status")
