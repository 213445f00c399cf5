"""Files of a claim, through a short-lived Pod that mounts it.

kubectl cp needs such a Pod as well. Its bytes come and go through exec: logs are rotated
at 10 MiB, and what a fast writer rotates away is lost.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import websocket
from imageprocessing_contract import names
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream
from kubernetes.stream.ws_client import ERROR_CHANNEL, WSClient

from imageprocessing_cli.cluster import BATCH, CORE, Cluster
from imageprocessing_cli.errors import CommandError, ServerError

Object = dict[str, Any]

_MOUNT = "/claim"
_START = 120
"""Seconds until the Pod must run: an image to pull, a volume to attach."""
_HOPELESS = {"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
"""What a container waits for in vain; a first ErrImagePull may pass."""
_LIFE = 3600
"""Seconds after which the kubelet ends a Pod whose command was killed."""
_SILENCE = 60  # seconds without a byte
_CHUNK = 1 << 16

# Exit codes are those of errno: words may be lost, a code is not.
_READ = """
import shutil, sys
try:
    with open(sys.argv[1], "rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer)
except OSError as error:
    sys.exit(error.errno)
"""
_WRITE = """
import os, pathlib, sys
path, left = pathlib.Path(sys.argv[1]), int(sys.argv[2])
part = path.with_name(f"{path.name}.{os.environ['HOSTNAME']}")
try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("wb") as file:
        while left:
            data = sys.stdin.buffer.read1(min(left, 65536))
            if not data:
                sys.exit(5)
            left -= file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
except OSError as error:
    sys.exit(error.errno)
"""


class ClaimPod:
    """A running Pod that mounts a claim; each method raises CommandError."""

    def __init__(self, cluster: Cluster, name: str, claim: str) -> None:
        self._cluster, self._name, self._claim = cluster, name, claim

    def read(self, path: str) -> Iterator[bytes]:
        """The file's bytes; not all of them came unless this ends without an error."""
        answer = self._exec(["python", "-c", _READ, f"{_MOUNT}/{path}"], stdin=False)
        yield from self._output(answer, path)

    def write(self, path: str, data: bytes) -> None:
        """Writes a file, which appears whole."""
        command = ["python", "-c", _WRITE, f"{_MOUNT}/{path}", str(len(data))]
        answer = self._exec(command, stdin=True)
        try:
            for start in range(0, len(data), _CHUNK):
                answer.write_stdin(data[start : start + _CHUNK])
        except (websocket.WebSocketException, OSError) as error:
            raise self._broken(path) from error
        for _ in self._output(answer, path):
            pass

    def _exec(self, command: list[str], *, stdin: bool) -> WSClient:
        try:
            answer: WSClient = stream(
                CoreV1Api(self._cluster.client).connect_get_namespaced_pod_exec,
                self._name,
                self._cluster.namespace,
                command=command,
                stdin=stdin,
                stdout=True,
                stderr=False,
                tty=False,
                _preload_content=False,
                binary=True,
            )
        except ApiException as error:
            raise CommandError(f"exec into the Pod {self._name}: {error.reason}") from error
        return answer

    def _output(self, answer: WSClient, path: str) -> Iterator[bytes]:
        status = b""
        quiet = 0
        try:
            while answer.is_open():
                answer.update(timeout=1)
                status += answer.read_channel(ERROR_CHANNEL)
                # Not read_stdout: the client would keep a copy of all that was ever read.
                data = answer.read_all()
                quiet = 0 if data or status else quiet + 1
                if data:
                    yield data
                if quiet > _SILENCE:
                    raise self._broken(path)
        except (websocket.WebSocketException, OSError) as error:
            raise self._broken(path) from error
        finally:
            answer.close()
        if code := _exit_code(status):
            what = os.strerror(code) if code > 0 else "the connection to the Pod broke off"
            raise CommandError(f"{path} in the claim {self._claim}: {what}")

    def _broken(self, path: str) -> CommandError:
        return CommandError(
            f"{path} in the claim {self._claim}: the connection to the Pod broke off"
        )


def _exit_code(status: bytes) -> int:
    """Of a metav1.Status, as exec ends with; -1 where there is none."""
    if not status:
        return -1
    said = json.loads(status)
    if said.get("status") == "Success":
        return 0
    causes = said.get("details", {}).get("causes", [])
    codes = [c["message"] for c in causes if c.get("reason") == "ExitCode"]
    return int(codes[0]) if codes else -1


@contextmanager
def claim_pod(
    cluster: Cluster, claim: str, image: str | None, *, read_only: bool
) -> Iterator[ClaimPod]:
    """A Pod for the block's time; raises CommandError where it does not run."""
    body = _pod(claim, _template(cluster, image), read_only=read_only)
    made = cluster.create(CORE, "pods", body)
    name = made["metadata"]["name"]
    try:
        _wait(cluster, name)
        yield ClaimPod(cluster, name, claim)
    finally:
        _delete(cluster, name)


def _template(cluster: Cluster, image: str | None) -> Object:
    """Image and how it is pulled, as the operator's own Jobs of this namespace have it."""
    if image:
        return {"image": image}
    labels = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
    jobs = cluster.list(BATCH, "jobs", labels)
    if jobs:
        job = max(jobs, key=lambda found: str(found["metadata"]["creationTimestamp"]))
        pod = job["spec"]["template"]["spec"]
        (container,) = (c for c in pod["containers"] if c["name"] == names.CONTAINER)
        found = {key: container[key] for key in ("image", "imagePullPolicy") if key in container}
        return found | {"imagePullSecrets": pod.get("imagePullSecrets", [])}
    message = (
        f"a claim is read and written by a Pod, and no Job in {cluster.namespace} says which image "
        "the workers have; name one that holds Python, such as the worker's: --image IMAGE"
    )
    raise CommandError(message)


def _pod(claim: str, template: Object, *, read_only: bool) -> Object:
    secrets = template.pop("imagePullSecrets", [])
    container = {
        "name": "claim",
        **template,
        "command": ["python", "-c", "import signal; signal.pause()"],
        "resources": {
            "requests": {"cpu": "50m", "memory": "64Mi"},
            "limits": {"cpu": "1", "memory": "128Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "claim", "mountPath": _MOUNT, "readOnly": read_only}],
    }
    user = 65532  # the worker's: its files are its own
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "ipr-", "labels": {names.LABEL_MANAGED_BY: "ipr"}},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _LIFE,
            # Python as a container's first process ignores SIGTERM.
            "terminationGracePeriodSeconds": 0,
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": user,
                "runAsGroup": user,
                "fsGroup": user,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "imagePullSecrets": secrets,
            "containers": [container],
            "volumes": [{"name": "claim", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }


def _wait(cluster: Cluster, name: str) -> None:
    end = time.monotonic() + _START
    while True:
        status = cluster.call("GET", cluster.path(CORE, "pods", name))["status"]
        if status["phase"] == "Running":
            return
        reason, message = _why(status)
        over = status["phase"] in {"Failed", "Succeeded"} or reason in _HOPELESS
        if over or time.monotonic() > end:
            raise CommandError(f"the Pod {name} for the claim does not run: {reason}: {message}")
        time.sleep(0.3)


def _why(status: Object) -> tuple[str, str]:
    """What the container waits for or ended with, else what the Pod waits for."""
    for container in status.get("containerStatuses", []):
        for state in ("waiting", "terminated"):
            if found := container["state"].get(state):
                return found.get("reason", ""), found.get("message", "")
    for condition in status.get("conditions", []):
        if condition["status"] == "False" and condition.get("message"):
            return condition.get("reason", ""), condition["message"]
    return status["phase"], f"not within {_START} s"


def _delete(cluster: Cluster, name: str) -> None:
    try:
        cluster.call("DELETE", cluster.path(CORE, "pods", name), body={"gracePeriodSeconds": 0})
    except ServerError as error:
        if error.status != 404:
            click.echo(f"warning: the Pod {name} is left over: {error.message}", err=True)
