"""The cluster from Go modules and Debian packages, for machines that reach no registry."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.build import components
from tests.cluster.cache import exclusive, project_cache
from tests.cluster.cgroups import remove_cgroup
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.node import Node
from tests.cluster.processes import Processes

PREFIX = "ipo-cluster-"
CONTROL_PLANE_PROGRAMS = {"go": "golang", "openssl": "openssl", "kubectl": "kubectl"}
NODE_PROGRAMS = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "nsenter": "util-linux",
    "ip": "iproute2",
}


def missing(*, node: bool) -> str | None:
    """Why this machine cannot run such a cluster, or None when it can."""
    programs = {**CONTROL_PLANE_PROGRAMS, **(NODE_PROGRAMS if node else {})}
    absent = [program for program in programs if not shutil.which(program)]
    if node and not Path("/usr/lib/cni/bridge").exists():
        absent.append("containernetworking-plugins")
    if absent:
        return f"not installed: {', '.join(absent)}"
    if node and os.geteuid() != 0:
        return "a node needs root"
    return None


@contextlib.contextmanager
def built_cluster(*, node: bool) -> Iterator[Cluster]:
    """Runs a cluster: in 3 to 9 s without a node, in about 12 s with one."""
    if node:
        with stopped_plane() as plane:
            yield start_with_node(plane)
    else:
        with control_plane() as plane:
            yield Cluster(plane.kubeconfig, "127.0.0.1", ["127.0.0.1/32"])


@contextlib.contextmanager
def control_plane() -> Iterator[ControlPlane]:
    """Runs a control plane alone."""
    with stopped_plane() as plane:
        plane.start(
            address="127.0.0.1",
            service_cidr="10.96.0.0/24",
            service_ip="10.96.0.1",
            scheduler=False,
        )
        yield plane


@contextlib.contextmanager
def stopped_plane() -> Iterator[ControlPlane]:
    """A control plane to start, whose processes end with the block."""
    binaries = components()
    with working_directory() as directory:
        processes = Processes(directory / "logs")
        try:
            yield ControlPlane(directory, binaries, processes)
        finally:
            processes.stop()


def start_with_node(plane: ControlPlane) -> Cluster:
    """Starts the control plane and the node."""
    directory = plane.directory
    node = Node(directory, plane.processes)
    network = node.make()
    plane.start(
        address=network.host_ip,
        service_cidr=network.service_cidr,
        service_ip=network.service_ip,
        scheduler=True,
    )
    node.start(plane)

    def load(archive: Path) -> None:
        with archive.open("rb") as stream:
            node.load(stream)

    networks = [network.pod_cidr, network.service_cidr, f"{network.host_ip}/32"]
    return Cluster(plane.kubeconfig, network.host_ip, networks, load, directory / "volumes")


@contextlib.contextmanager
def working_directory() -> Iterator[Path]:
    """A directory that no other cluster uses; it goes afterwards, with the cgroup of its name.

    A run that was killed leaves its files behind, no process: the next run sweeps them. The
    lock on a directory ends with the process that made it, so who gets it may sweep.
    """
    parent = Path(tempfile.gettempdir())
    with exclusive(project_cache() / "clusters.lock"):
        for stale in parent.glob(f"{PREFIX}*"):
            if stale.stat().st_uid == os.geteuid():
                sweep(stale)
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        lock = (directory / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield directory
    finally:
        remove(directory)
        lock.close()


def sweep(directory: Path) -> None:
    """Removes what a killed run left, unless the run is alive."""
    with (directory / "lock").open("a") as lock, contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(directory)


def remove(directory: Path) -> None:
    """Removes a cluster's files and cgroups."""
    if os.geteuid() == 0:
        remove_cgroup(directory.name)
    shutil.rmtree(directory)
