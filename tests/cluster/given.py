"""The cluster that KUBECONFIG names."""

from __future__ import annotations

import functools
import json
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from tests.cluster.cluster import Cluster
from tests.cluster.node import load_into


def given_cluster(*, node: bool) -> Cluster | None:
    """That cluster, or None when there is none, or it has nodes where the tests play the kubelet.

    TEST_NODE_IP is the address at which its Pods reach this machine, TEST_ALLOWED_NETWORKS
    what its Pods and Services live in. One of our own that runs by hand gets the images of the
    present sources; any other must have them.
    """
    if not (name := os.environ.get("KUBECONFIG")):
        return None
    cluster = Cluster(Path(name), "", [])
    if not node and json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]:
        return None
    cluster.node_ip = os.environ.get("TEST_NODE_IP") or address_towards(cluster)
    private = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
    cluster.allowed_networks = os.environ.get("TEST_ALLOWED_NETWORKS", private).split(",")
    socket_of_ours = Path(name).parent / "containerd.sock"
    if socket_of_ours.is_socket():
        cluster.volumes = Path(name).parent / "volumes"
        cluster.load = functools.partial(load_archive, socket_of_ours)
    return cluster


def load_archive(containerd: Path, archive: Path) -> None:
    """Gives a Docker archive to a node of ours."""
    with archive.open("rb") as stream:
        load_into(containerd, stream)


def address_towards(cluster: Cluster) -> str:
    """This machine's address on the way to the API server."""
    server = cluster.kubectl("config", "view", "--minify", "-o", "jsonpath={..server}")
    url = urlsplit(server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((url.hostname, url.port or 443))
        address: str = probe.getsockname()[0]
        return address
