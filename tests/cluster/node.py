"""A node that really runs Pods: containerd, kubelet, kube-proxy and CoreDNS, without a machine of its own.

The node lives in process, mount and network namespaces whose first process is ours. When that
one ends, however it ends, the kernel ends every container and takes mounts, interfaces and
iptables rules away. What is left are files and empty cgroups, and those we remove.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import IO

from tests.cluster.cgroups import make_cgroup
from tests.cluster.control_plane import ControlPlane
from tests.cluster.network import Network, connect
from tests.cluster.pause import PAUSE_IMAGE, pause_archive
from tests.cluster.pki import NODE
from tests.cluster.processes import Processes

# A private /run (sockets, the iptables lock), /var/lib (CNI) and /var/log (Pods), writable and
# gone with the namespace. The first process ignores SIGCHLD so that no orphan stays a zombie, and
# ends when its stdin does.
FIRST_PROCESS = """\
set -e
mount --make-rshared /
for directory in /run /var/lib /var/log; do mount -t tmpfs tmpfs $directory; done
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
: > "$1"
trap '' CHLD
exec cat
"""


class Node:
    """The one node of a cluster."""

    def __init__(self, directory: Path, processes: Processes) -> None:
        self.directory = directory
        self.processes = processes
        self.cgroup = directory.name
        self.socket = directory / "containerd.sock"

    def make(self) -> Network:
        """Makes the namespaces, still without Kubernetes, and links them to this machine."""
        ready = self.directory / "namespaces"
        spaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        script = ["sh", "-c", FIRST_PROCESS, "-", ready]
        first = self.processes.start(
            "namespaces", "unshare", *spaces, *script, ends_with_stdin=True
        )
        self.processes.wait("the namespaces", ready.exists)
        self.namespaces = first.pid
        self.network = connect(first.pid)
        for command in (
            ("addr", "add", f"{self.network.node_ip}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "via", self.network.host_ip),
        ):
            subprocess.run([*self.enter(), "ip", *command], check=True)
        return self.network

    def start(self, control_plane: ControlPlane) -> None:
        """Starts what runs Pods and returns when the node is Ready."""
        kube = control_plane.binaries.kube
        self.start_containerd()
        self.start_dns(control_plane)
        make_cgroup(self.cgroup)
        self.start_inside(
            "kubelet",
            kube,
            "kubelet",
            f"--config={self.write('kubelet.json', self.kubelet_config())}",
            f"--kubeconfig={self.directory}/node.kubeconfig",
            f"--hostname-override={NODE}",
            f"--node-ip={self.network.node_ip}",
            f"--root-dir={self.directory}/kubelet",
            f"--cert-dir={self.directory}/kubelet-pki",
        )
        proxy = self.write("kube-proxy.json", self.proxy_config())
        self.start_inside("kube-proxy", kube, "kube-proxy", f"--config={proxy}")

        def ready() -> bool:
            status = control_plane.get_object(f"/api/v1/nodes/{NODE}").get("status", {})
            conditions = status.get("conditions", [])
            return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

        self.processes.wait("the node", ready, seconds=90)

    def load(self, archive: IO[bytes]) -> None:
        """Imports a Docker archive, so that Pods find its images without a registry."""
        load_into(self.socket, archive)

    def start_containerd(self) -> None:
        """Starts containerd with the bridge network, and gives it the pause image."""
        networks = self.directory / "cni"
        networks.mkdir()
        self.write("cni/10-bridge.conflist", self.cni_config())
        config = self.directory / "containerd.toml"
        config.write_text(f"""\
version = 2
root = "{self.directory}/containerd"
state = "/run/containerd"
[grpc]
  address = "{self.socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # A container without CAP_SYS_RESOURCE may not lower the score.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{networks}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
""")
        self.start_inside("containerd", "containerd", "-c", config)
        self.processes.wait("containerd", self.answers)
        with pause_archive().open("rb") as archive:
            self.load(archive)

    def start_dns(self, control_plane: ControlPlane) -> None:
        """Starts CoreDNS for Services; any other name does not exist, so no test needs the world."""
        corefile = self.directory / "Corefile"
        corefile.write_text(f"""\
cluster.local:53 in-addr.arpa:53 {{
    bind {self.network.node_ip}
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {self.directory}/dns.kubeconfig
    }}
}}
.:53 {{
    bind {self.network.node_ip}
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
""")
        self.start_inside("coredns", control_plane.binaries.coredns, "-conf", corefile)

    def kubelet_config(self) -> dict[str, object]:
        """The kubelet's settings."""
        resolv_conf = self.directory / "resolv.conf"
        resolv_conf.write_text(f"nameserver {self.network.node_ip}\n")
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{self.directory}/pki/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "clusterDomain": "cluster.local",
            "clusterDNS": [self.network.node_ip],
            "resolvConf": str(resolv_conf),
            "volumePluginDir": f"{self.directory}/volume-plugins",
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
        }

    def proxy_config(self) -> dict[str, object]:
        """kube-proxy's settings."""
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": self.network.pod_cidr,
            "hostnameOverride": NODE,
            "nodePortAddresses": ["primary"],
            "clientConnection": {"kubeconfig": f"{self.directory}/proxy.kubeconfig"},
            # Zero leaves the machine's conntrack settings alone; writing them fails in a container.
            "conntrack": {"maxPerCore": 0, "min": 0},
        }

    def cni_config(self) -> dict[str, object]:
        """The Pods' network: a bridge inside the node, routed to this machine without NAT."""
        addresses = {
            "type": "host-local",
            "dataDir": f"{self.directory}/ipam",
            "ranges": [[{"subnet": self.network.pod_cidr}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True}
        port_map = {"type": "portmap", "capabilities": {"portMappings": True}}
        plugins = [{**bridge, "ipam": addresses}, port_map]
        return {"cniVersion": "1.0.0", "name": "pods", "plugins": plugins}

    def write(self, name: str, config: dict[str, object]) -> Path:
        """Writes a configuration file."""
        path = self.directory / name
        path.write_text(json.dumps(config, indent=1))
        return path

    def start_inside(self, name: str, *command: object) -> None:
        """Starts a process inside the node."""
        self.processes.start(name, *self.enter(), *command)

    def enter(self) -> list[str]:
        """The command that brings another one into the node."""
        spaces = f"/proc/{self.namespaces}/ns"
        kinds = {"net": "net", "mount": "mnt", "pid": "pid_for_children"}
        return ["nsenter", *(f"--{kind}={spaces}/{file}" for kind, file in kinds.items()), "--"]

    def answers(self) -> bool:
        """Whether containerd serves."""
        command = ["ctr", "-a", str(self.socket), "version"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def load_into(socket: Path, archive: IO[bytes]) -> None:
    """Imports a Docker archive into the containerd behind a socket, for the kubelet's use."""
    command = ["ctr", "-a", str(socket), "-n", "k8s.io", "images", "import", "-"]
    done = subprocess.run(command, stdin=archive, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
