"""Claims that Pods write to and tests read from."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from tests.cluster.cluster import Cluster, kubectl_environment
from tests.cluster.jobs import WORKER


def make_claim(cluster: Cluster, namespace: str, name: str) -> None:
    """A claim that non-root Pods may write to."""
    make_volume(cluster, namespace, name)
    claim: dict[str, object] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    if cluster.volumes:
        claim |= {"storageClassName": "", "volumeName": f"{namespace}-{name}"}
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": namespace},
            "spec": claim,
        }
    )


def make_volume(cluster: Cluster, namespace: str, name: str) -> None:
    """A volume for a claim of this name, where the cluster has no provisioner for one."""
    if not cluster.volumes:
        return
    # A folder of the node, which is this machine.
    folder = cluster.volumes / namespace / name
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": str(folder)},
        "storageClassName": "",
        "claimRef": {"namespace": namespace, "name": name},
    }
    metadata = {"name": f"{namespace}-{name}"}
    cluster.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec}
    )


def read_claim(cluster: Cluster, namespace: str, name: str, into: Path) -> Path:
    """Copies what a claim holds, through a Pod, so that it works on any cluster."""
    pod = f"read-{name}"
    container = {
        "name": "read",
        "image": WORKER,
        "imagePullPolicy": "Never",
        "command": ["python", "-c", "import signal; signal.pause()"],
        "volumeMounts": [{"name": "claim", "mountPath": "/claim", "readOnly": True}],
        # As restricted Pod security wants it; the image's own user may read.
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    volume = {"name": "claim", "persistentVolumeClaim": {"claimName": name}}
    spec = {
        "containers": [container],
        "volumes": [volume],
        # Python as a container's first process ignores SIGTERM.
        "terminationGracePeriodSeconds": 0,
    }
    metadata = {"name": pod, "namespace": namespace}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    cluster.wait(f"pod/{pod} -n {namespace} --for=condition=Ready")
    command = ["kubectl", "exec", "-n", namespace, pod, "--", "tar", "-C", "/claim", "-c", "."]
    environment = kubectl_environment(cluster.kubeconfig)
    copied = subprocess.run(command, check=True, capture_output=True, env=environment)
    with tarfile.open(fileobj=io.BytesIO(copied.stdout)) as archive:
        archive.extractall(into, filter="data")
    cluster.kubectl("delete", "pod", pod, "-n", namespace, "--wait=false")
    return into
