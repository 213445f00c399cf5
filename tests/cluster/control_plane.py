"""etcd, the API server and the controllers: a Kubernetes without nodes, for which root is not needed."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cluster.build import Binaries
from tests.cluster.pki import write_kubeconfigs, write_pki
from tests.cluster.processes import Processes

FAST_JOBS = ("--kube-api-qps=500", "--kube-api-burst=1000", "--concurrent-job-syncs=20")
"""Without these (20 calls a second, 5 Job syncs) the Job controller ends 202 Jobs a minute."""


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class ControlPlane:
    """The processes that one API server needs, and a way to ask it."""

    def __init__(
        self,
        directory: Path,
        binaries: Binaries,
        processes: Processes,
        controller_flags: Sequence[str] = FAST_JOBS,
    ) -> None:
        self.directory = directory
        self.controller_flags = controller_flags
        self.binaries = binaries
        self.processes = processes
        self.kubeconfig = directory / "admin.kubeconfig"

    def start(self, *, address: str, service_cidr: str, service_ip: str, scheduler: bool) -> None:
        """Starts all parts and returns when the API server and its controllers are at work."""
        self.port = free_port()
        self.etcd = f"http://127.0.0.1:{free_port()}"
        pki = self.directory / "pki"
        write_pki(pki, ["127.0.0.1", service_ip, address])
        node_side = f"https://{address}:{self.port}"
        self.server = f"https://127.0.0.1:{self.port}"
        servers = {"admin": self.server, "node": node_side, "proxy": node_side, "dns": node_side}
        write_kubeconfigs(self.directory, servers)
        self.tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))

        self.start_etcd()
        self.address, self.service_cidr = address, service_cidr
        self.start_api_server()
        # The controllers exit if they come before the RBAC bootstrap that /readyz waits for.
        self.wait_ready()
        self.start_controllers()
        if scheduler:
            self.start_component(
                "kube-scheduler", "--leader-elect=false", *self.access("scheduler")
            )
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self.processes.wait("the default service account", lambda: self.get(account) is not None)

    def start_component(self, name: str, *flags: str) -> None:
        """Starts one part of the kube binary."""
        self.processes.start(name, self.binaries.kube, name, *flags)

    def start_etcd(self) -> None:
        """Starts etcd with the data that are there."""
        self.start_component(
            "etcd",
            f"--data-dir={self.directory}/etcd",
            f"--listen-client-url={self.etcd}",
            f"--listen-peer-url=http://127.0.0.1:{free_port()}",
        )

    def save(self, snapshot: Path) -> None:
        """Copies etcd's data; the API server waits for etcd meanwhile."""
        self.processes.stop("etcd")
        shutil.copytree(self.directory / "etcd", snapshot)
        self.start_etcd()
        self.wait_ready()

    def restore(self, snapshot: Path) -> None:
        """Begins again with what save() copied, as Kubernetes' handbook says: all stops first."""
        self.processes.stop("kube-controller-manager", "kube-apiserver", "etcd")
        shutil.rmtree(self.directory / "etcd")
        shutil.copytree(snapshot, self.directory / "etcd")
        self.start_etcd()
        self.start_api_server()
        self.wait_ready()
        self.start_controllers()

    def wait_ready(self) -> None:
        """Returns when the API server is ready."""
        self.processes.wait("the API server", lambda: self.get("/readyz") == b"ok")

    def start_api_server(self) -> None:
        """Starts the API server; Pods reach it at `address`."""
        pki = self.directory / "pki"
        self.start_component(
            "kube-apiserver",
            f"--etcd-servers={self.etcd}",
            f"--secure-port={self.port}",
            f"--advertise-address={self.address}",
            f"--service-cluster-ip-range={self.service_cidr}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--token-auth-file={pki}/tokens.csv",
            f"--client-ca-file={pki}/ca.crt",
            f"--tls-cert-file={pki}/api.crt",
            f"--tls-private-key-file={pki}/api.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/sa.pub",
            f"--service-account-signing-key-file={pki}/sa.key",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={pki}/kubelet-client.crt",
            f"--kubelet-client-key={pki}/kubelet-client.key",
        )

    def start_controllers(self) -> None:
        """Starts the controllers, the Job controller among them."""
        pki = self.directory / "pki"
        self.start_component(
            "kube-controller-manager",
            "--leader-elect=false",
            *self.access("controllers"),
            f"--service-account-private-key-file={pki}/sa.key",
            f"--root-ca-file={pki}/ca.crt",
            "--use-service-account-credentials",
            *self.controller_flags,
        )

    def access(self, user: str) -> list[str]:
        """How a component reaches the API server and checks those who call it."""
        path = self.directory / f"{user}.kubeconfig"
        kinds = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
        return [*(f"--{kind}={path}" for kind in kinds), f"--secure-port={free_port()}"]

    def get(self, path: str) -> bytes | None:
        """The API server's answer, or None when there is none."""
        request = urllib.request.Request(
            self.server + path, headers={"Authorization": "Bearer admin-token"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5, context=self.tls) as response:
                content: bytes = response.read()
                return content
        except (urllib.error.URLError, OSError):
            return None

    def get_object(self, path: str) -> dict[str, Any]:
        """The object at a path, empty when it is not there."""
        content: dict[str, Any] = json.loads(self.get(path) or b"{}")
        return content
