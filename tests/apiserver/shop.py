"""A tenant's namespace and the operator that serves it."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import httpx
from imageprocessing_contract import names

from tests.apiserver.kube import Kube, Object, eventually
from tests.apiserver.kubelet import Kubelet
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import free_port
from tests.e2e.receiver import SECRET

SOURCE = {"configMapKeyRef": {"name": "products", "key": "products.csv"}}
OUTPUT = {"gcs": {"bucket": "catalogue"}}
SHARDED: dict[str, Any] = {"sharding": {"imagesPerShard": 10, "maxParallelism": 2}}
"""Of a spec: two shards at once, for a catalogue of more than ten images."""

# Importing takes two seconds of CPU: done once, for the many operators that tests start.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["imageprocessing_operator.__main__", __name__])
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Operator:
    """The operator as a process of its own."""

    def __init__(self, kubeconfig: Path, log: Path, settings: dict[str, str]) -> None:
        self._log = log
        self.http = f"http://127.0.0.1:{(port := free_port())}"
        settings = {"http_port": str(port), **settings}
        variables = {f"IMAGEPROCESSING_{name.upper()}": text for name, text in settings.items()}
        self._environment = {**variables, "KUBECONFIG": str(kubeconfig)}
        self._process: ForkServerProcess | None = None

    def start(self) -> None:
        self._process = _FORKS.Process(target=_run, args=(self._environment, self._log))
        self._process.start()

    def send(self, number: signal.Signals) -> None:
        """A signal, which may take its time."""
        os.kill(self.pid, number)

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Ends it; returns its exit code."""
        self.send(by)
        process, self._process = self._process, None
        assert process is not None
        process.join(20)
        assert process.exitcode is not None
        return process.exitcode

    def kill(self) -> None:
        """As a crash does."""
        assert self.stop(signal.SIGKILL) == -signal.SIGKILL

    @property
    def pid(self) -> int:
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.is_alive()

    @property
    def ready(self) -> bool:
        """What the kubelet would find."""
        try:
            return httpx.get(f"{self.http}/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    @property
    def readiness(self) -> str:
        """What /readyz says, or why it says nothing."""
        try:
            return httpx.get(f"{self.http}/readyz").text.strip()
        except httpx.TransportError as error:
            return str(error)

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""


def _run(environment: dict[str, str], log: Path) -> None:
    """In the forked process: what `python -m imageprocessing_operator` does."""
    # The server of forks ends with the test run, however that ends.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    from imageprocessing_operator.__main__ import main

    with log.open("ab") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.environ.update(environment)
    sys.exit(main())


def is_over(job: Object) -> bool:
    """Whether a Job has ended."""
    conditions = job.get("status", {}).get("conditions", [])
    return any(c["type"] in {"Complete", "Failed"} and c["status"] == "True" for c in conditions)


def hook(url: str, secret: str = "hook", **fields: Any) -> Object:
    """A request's webhook, signed with what Shop.make_secret() has made."""
    return {"url": url, "secretKeyRef": {"name": secret, "key": "key"}, **fields}


class Shop:
    """One namespace, what is in it, and how to wait for it."""

    def __init__(self, cluster: Cluster, kube: Kube, operator: Operator) -> None:
        self.cluster, self.kube, self.operator = cluster, kube, operator
        self.kubelet = Kubelet(kube)

    # -- requests ------------------------------------------------------------------

    def apply(self, name: str, *, labels: dict[str, str] | None = None, **spec: Any) -> Object:
        """Creates a request."""
        return self.kube.create("ipr", self.manifest(name, labels=labels, **spec))

    def manifest(self, name: str, *, labels: dict[str, str] | None = None, **spec: Any) -> Object:
        """A request that nobody has applied yet."""
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name, "labels": labels or {}},
            "spec": {"source": SOURCE, "output": OUTPUT, **spec},
        }

    def make_secret(self, name: str = "hook") -> None:
        """A Secret that signs webhooks."""
        body = {"metadata": {"name": name}, "stringData": {"key": SECRET}}
        self.kube.create("secrets", body)

    def edit(self, name: str, **spec: Any) -> Object:
        return self.kube.patch("ipr", name, {"spec": spec})

    def status(self, name: str) -> Object:
        found: Object = self.kube.get("ipr", name)["status"]
        return found

    def condition(self, name: str, kind: str) -> Object:
        """One condition; {} before the first visit."""
        conditions = self.status(name).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {})

    def said(self, name: str) -> dict[str, tuple[str, str]]:
        """Status and reason of each condition."""
        conditions = self.status(name).get("conditions", [])
        return {c["type"]: (c["status"], c["reason"]) for c in conditions}

    def wait_said(
        self, name: str, kind: str, status: str, reason: str, seconds: float = 60
    ) -> None:
        """Waits for a condition with this status and reason."""
        eventually(
            lambda: self.said(name).get(kind) == (status, reason),
            f"{kind} {status} {reason} of {name}; {self.status_line(name)}",
            seconds,
        )

    def wait_status(self, name: str, seconds: float = 60, **fields: Any) -> Object:
        """Waits until these fields of status have these values."""

        def look() -> Object | None:
            status = self.status(name)
            return status if all(status.get(k) == v for k, v in fields.items()) else None

        return eventually(look, f"{fields} of {name}", seconds)

    def wait_finished(self, name: str, reason: str, seconds: float = 60) -> Object:
        """Waits for the end and checks the outcome; returns the status."""
        eventually(
            lambda: self.said(name).get("Finished", ("", ""))[0] == "True",
            f"{name} Finished; {self.status_line(name)}",
            seconds,
        )
        status = self.status(name)
        assert self.said(name)["Ready"][1] == reason, status
        return status

    def status_line(self, name: str) -> str:
        return json.dumps(self.said(name))

    # -- Jobs ------------------------------------------------------------------------

    def jobs(self, name: str) -> list[Object]:
        """The Jobs of a request, by the name of each."""
        uid = self.kube.get("ipr", name)["metadata"]["uid"]
        return self.jobs_of(uid)

    def jobs_of(self, uid: str) -> list[Object]:
        found = self.kube.list("jobs", labels=f"{names.LABEL_REQUEST_UID}={uid}")
        return sorted(found, key=lambda job: str(job["metadata"]["name"]))

    def wait_no_jobs(self, uid: str) -> None:
        """Waits until a request's Jobs are gone."""
        eventually(lambda: not self.jobs_of(uid), f"no Job of {uid}")

    def steps(self, name: str) -> list[str]:
        """Step and attempt of each Job that is there."""
        labels = [job["metadata"]["labels"] for job in self.jobs(name)]
        return sorted(f"{m[names.LABEL_STEP]}-{m[names.LABEL_ATTEMPT]}" for m in labels)

    def job(self, name: str, step: str, attempt: int = 1, seconds: float = 60) -> str:
        """The name of a step's Job, once it is there."""
        uid = self.kube.get("ipr", name)["metadata"]["uid"]
        wanted = names.job_name(name, uid, step, attempt)
        eventually(lambda: self.find("jobs", wanted), f"Job {wanted}", seconds)
        return wanted

    def find(self, plural: str, name: str) -> Object | None:
        """An object, None where there is none."""
        try:
            return self.kube.get(plural, name)
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND:
                return None
            raise

    def wait_job(self, job: str, look: Any, seconds: float = 60) -> Object:
        """The Job, once `look` is true of it."""

        def found() -> Object | None:
            body = self.find("jobs", job)
            return body if body is not None and look(body) else None

        return eventually(found, f"Job {job}", seconds)

    def wait_events(self, name: str, *reasons: str) -> None:
        """Waits until the request has exactly these events, in whatever order."""
        fields = f"involvedObject.uid={self.kube.get('ipr', name)['metadata']['uid']}"
        eventually(
            lambda: (
                sorted(e["reason"] for e in self.kube.list("events", fields=fields))
                == sorted(reasons)
            ),
            f"events {reasons} of {name}",
        )

    # -- steps ------------------------------------------------------------------------

    def finish_step(
        self, name: str, step: str, message: bytes | str, code: int = 0, attempt: int = 1
    ) -> None:
        """Ends the Pod of a step that has one."""
        self.kubelet.finish(self.job(name, step, attempt), message, code)

    def finish_shards(self, name: str, count: int) -> None:
        """Ends every shard with success."""
        job = self.job(name, "shards")
        for pod in self.kubelet.wait_pods(job, count):
            self.kubelet.end(pod)
