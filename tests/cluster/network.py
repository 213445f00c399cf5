"""The network between this machine and a node that lives in network namespaces of its own."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass


class NoNetworkError(RuntimeError):
    """No link could be made."""


@dataclass(frozen=True)
class Network:
    """The addresses of one cluster; its slot keeps clusters that run side by side apart."""

    slot: int

    @property
    def link(self) -> str:
        """The machine's end of the link; the other end is the node's eth0."""
        return f"ipo-node{self.slot}"

    @property
    def host_ip(self) -> str:
        """This machine as the node and its Pods see it."""
        return f"10.245.{self.slot}.1"

    @property
    def node_ip(self) -> str:
        """The node as this machine sees it."""
        return f"10.245.{self.slot}.2"

    @property
    def pod_cidr(self) -> str:
        """The addresses of Pods."""
        return f"10.244.{self.slot}.0/24"

    @property
    def service_cidr(self) -> str:
        """The addresses of Services."""
        return f"10.96.{self.slot}.0/24"

    @property
    def service_ip(self) -> str:
        """The API server's own Service."""
        return f"10.96.{self.slot}.1"


def connect(namespace: int) -> Network:
    """Links the network namespace of the process to this machine.

    Everything made here is the link, with its address and routes, and it goes with the
    namespace. Neither iptables nor settings of this machine are touched.
    """
    slots = range(1, 255)
    for network in map(Network, slots):
        peer = ["peer", "name", "eth0", "netns", str(namespace)]
        added = ip("link", "add", network.link, "type", "veth", *peer)
        if added.returncode == 0:
            break
        if "File exists" not in added.stderr:
            raise NoNetworkError(added.stderr)
    else:
        raise NoNetworkError("no free slot for a node's link")
    for command in (
        ("addr", "add", f"{network.host_ip}/24", "dev", network.link),
        ("link", "set", network.link, "up"),
        ("route", "add", network.pod_cidr, "via", network.node_ip),
        ("route", "add", network.service_cidr, "via", network.node_ip),
    ):
        done = ip(*command)
        if done.returncode:
            raise NoNetworkError(f"ip {' '.join(command)}: {done.stderr}")
    return network


def links() -> set[str]:
    """The names of this machine's interfaces."""
    shown = subprocess.run(["ip", "-json", "link"], check=True, capture_output=True)
    return {link["ifname"] for link in json.loads(shown.stdout)}


def ip(*args: str) -> subprocess.CompletedProcess[str]:
    """One call of the ip command."""
    return subprocess.run(["ip", *args], capture_output=True, text=True, check=False)
