"""Small Jobs for tests that want something run in a Pod."""

from __future__ import annotations

from typing import Any

from tests.cluster.cluster import Cluster

WORKER = "imageprocessing-worker:dev"
OPERATOR = "imageprocessing-operator:dev"


def job(name: str, namespace: str, image: str, code: str) -> dict[str, Any]:
    """A Job of one restricted Pod that runs Python code in one of the project's images."""
    container = {
        "name": "worker",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["python", "-c", code],
        "securityContext": {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod = {
        "restartPolicy": "Never",
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }


def run_python(cluster: Cluster, namespace: str, image: str, code: str) -> str:
    """Runs Python code in a Pod of its own and returns what it printed."""
    cluster.apply(job("python", namespace, image, code))
    finished = ("--for=jsonpath={.status.conditions[-1:].type}", "job/python", "-n", namespace)
    cluster.kubectl("wait", f"{finished[0]}=Complete", *finished[1:], "--timeout=60s")
    return cluster.kubectl("logs", "job/python", "-n", namespace)
