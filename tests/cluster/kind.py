"""Clusters by kind, for machines whose Docker can pull its node image."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.cluster import Cluster

NODE_IMAGE = os.environ.get("KIND_NODE_IMAGE", "kindest/node:v1.34.0")
NETWORKS = ["10.244.0.0/16", "10.96.0.0/16"]  # kind's defaults for Pods and Services


@functools.cache
def available() -> bool:
    """Whether kind is installed and Docker has its node image or can pull it."""
    if not (shutil.which("kind") and shutil.which("docker")):
        return False
    present = ("docker", "image", "inspect", NODE_IMAGE)
    pulled = ("docker", "pull", "--quiet", NODE_IMAGE)
    return any(
        subprocess.run(command, capture_output=True, check=False).returncode == 0
        for command in (present, pulled)
    )


@contextlib.contextmanager
def kind_cluster(*, node: bool) -> Iterator[Cluster]:
    """Runs a cluster of one node; without a node, its scheduler is stopped and Pods wait forever."""
    name = f"ipo-{'node' if node else 'api'}-{os.getpid()}"
    with tempfile.TemporaryDirectory() as directory:
        kubeconfig = Path(directory) / "kubeconfig"
        kind = ["kind", "--quiet"]
        where = ["--name", name, "--kubeconfig", str(kubeconfig)]
        try:
            image = ["--image", NODE_IMAGE, "--wait", "120s"]
            subprocess.run([*kind, "create", "cluster", *where, *image], check=True)
            if not node:
                scheduler = "/etc/kubernetes/manifests/kube-scheduler.yaml"
                move = ["docker", "exec", f"{name}-control-plane", "mv", scheduler, "/"]
                subprocess.run(move, check=True)

            def load(archive: Path) -> None:
                command = [*kind, "load", "image-archive", str(archive), "--name", name]
                subprocess.run(command, check=True)

            gateway = docker_gateway()
            yield Cluster(kubeconfig, gateway, [*NETWORKS, f"{gateway}/32"], load)
        finally:
            subprocess.run([*kind, "delete", "cluster", *where], check=True)


def docker_gateway() -> str:
    """This machine's address in kind's network."""
    shown = subprocess.run(
        ["docker", "network", "inspect", "kind"], check=True, capture_output=True
    )
    ranges = json.loads(shown.stdout)[0]["IPAM"]["Config"]
    gateways = (ipaddress.ip_address(entry["Gateway"]) for entry in ranges if "Gateway" in entry)
    return str(next(address for address in gateways if address.version == 4))
