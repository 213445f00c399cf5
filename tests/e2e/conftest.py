"""The product as users install it: its chart, its images, real Pods and the emulators."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import tarfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from imageprocessing_contract import names

from tests import helm as helm_client
from tests import photos
from tests.cluster.cluster import Cluster, KubectlError, kubectl_environment
from tests.conftest import firestore_at, gcs_at, needs
from tests.e2e.receiver import Receiver, receiving
from tests.helm import CHART, RELEASE, SYSTEM

Helm = Callable[..., str]
WAIT = ["-n", SYSTEM, "--wait", "--timeout", "120s"]
INSTALL = ["upgrade", "--install", RELEASE, *WAIT, "--take-ownership", "--reset-values"]
"""Also an upgrade; the CRD may be there already, because all cluster tests share it."""
WORKER_ACCOUNT = "imageprocessing-worker"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
SMALL = {"requests": {"cpu": "50m", "memory": "128Mi"}}
"""Resources of worker Pods: the test node has two cores for all of them."""


@dataclass
class Tenant:
    """A namespace that may run requests, and how to speak of it."""

    cluster: Cluster
    namespace: str

    def apply(self, kind: str, name: str, **fields: Any) -> None:
        """Applies an object with these fields into the namespace."""
        version = "imageprocessing.dev/v1alpha1" if kind == "ImageProcessingRequest" else "v1"
        meta = {"name": name, "namespace": self.namespace}
        self.cluster.apply({"apiVersion": version, "kind": kind, "metadata": meta, **fields})

    def request(self, name: str, **spec: Any) -> None:
        """Applies a request whose Pods fit the test node."""
        self.apply("ImageProcessingRequest", name, spec={"worker": {"resources": SMALL}, **spec})

    def patch(self, name: str, **spec: Any) -> None:
        """Changes these fields of a request's spec."""
        patch = json.dumps({"spec": spec})
        here = ["-n", self.namespace, "--type=merge", "-p", patch]
        self.cluster.kubectl("patch", "ipr", name, *here)

    def catalogue(self, name: str, text: str) -> dict[str, Any]:
        """A ConfigMap with a catalogue; returns the source that refers to it."""
        self.apply("ConfigMap", name, data={"products.csv": text})
        return {"configMapKeyRef": {"name": name, "key": "products.csv"}}

    def status(self, name: str) -> dict[str, Any]:
        """The request's status."""
        found: dict[str, Any] = self.cluster.get("ipr", name, self.namespace)["status"]
        return found

    def wait_finished(self, name: str, seconds: float = 120) -> dict[str, Any]:
        """Waits as a pipeline would; returns the status."""
        try:
            self.cluster.wait(f"ipr/{name} -n {self.namespace} --for=condition=Finished", seconds)
        except KubectlError as error:
            raise AssertionError(f"{error}\n{self.story()}") from error
        return self.status(name)

    def story(self) -> str:
        """What somebody would look at who wants to know why nothing goes on."""
        here = ["-n", self.namespace]
        looks = [
            ["get", "ipr,jobs,pods", *here, "-o", "wide"],
            ["get", "ipr", *here, "-o", "yaml"],
            ["get", "events", *here],
            ["logs", *here, "-l", f"{names.LABEL_STEP}", "--tail=20", "--prefix"],
            ["logs", "-n", SYSTEM, f"deploy/{RELEASE}", "--tail=50"],
        ]
        return "\n".join(self._look(look) for look in looks)

    def _look(self, arguments: list[str]) -> str:
        try:
            return self.cluster.kubectl(*arguments)
        except KubectlError as error:
            return str(error)  # logs of a container that never started

    def jobs(self) -> list[dict[str, Any]]:
        """All Jobs of the namespace."""
        found = self.cluster.kubectl("get", "jobs", "-n", self.namespace, "-o", "json")
        items: list[dict[str, Any]] = json.loads(found)["items"]
        return items

    def pods(self) -> list[dict[str, Any]]:
        """All Pods of the namespace."""
        found = self.cluster.kubectl("get", "pods", "-n", self.namespace, "-o", "json")
        items: list[dict[str, Any]] = json.loads(found)["items"]
        return items


@pytest.fixture(scope="session")
def server_host(node_cluster: Cluster) -> str:
    """The address at which Pods reach this machine."""
    return node_cluster.node_ip


@pytest.fixture(scope="session")
def firestore_address(server_host: str) -> Iterator[str]:
    """Firestore's emulator where Pods reach it."""
    yield from firestore_at(server_host)


@pytest.fixture(scope="session")
def gcs_address(server_host: str) -> Iterator[str]:
    """Cloud Storage's emulator where Pods reach it."""
    yield from gcs_at(server_host)


@pytest.fixture(scope="session")
def helm(node_cluster: Cluster) -> Helm:
    """Calls Helm for the node cluster: helm("install", "name", "charts/...", "-n", namespace)."""
    needs(helm_client.missing())
    environment = kubectl_environment(node_cluster.kubeconfig)
    return partial(helm_client.run, environment=environment)


@pytest.fixture(scope="session")
def values(
    node_cluster: Cluster,
    gcs_address: str,
    firestore_address: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The chart's values for the images and the emulators of this run."""
    networks = list(node_cluster.allowed_networks)
    image = {"tag": "dev", "pullPolicy": "IfNotPresent"}
    values = {
        "operator": {"image": image},
        "webhook": {"allowedNetworks": networks},
        "worker": {
            "image": image,
            "allowedNetworks": networks,
            "env": [
                {"name": "STORAGE_EMULATOR_HOST", "value": f"http://{gcs_address}"},
                {"name": "FIRESTORE_EMULATOR_HOST", "value": firestore_address},
            ],
        },
    }
    file = tmp_path_factory.mktemp("helm") / "values.json"
    file.write_text(json.dumps(values))
    return file


@pytest.fixture(scope="session")
def operator(node_cluster: Cluster, images: None, helm: Helm, values: Path) -> Iterator[Cluster]:
    """The operator, installed by Helm into a namespace with restricted Pod security."""
    node_cluster.kubectl("create", "namespace", SYSTEM)
    node_cluster.kubectl("label", "namespace", SYSTEM, RESTRICTED)
    helm(*INSTALL, str(CHART), "-f", str(values))
    yield node_cluster
    helm("uninstall", RELEASE, *WAIT)
    node_cluster.kubectl("delete", "namespace", SYSTEM, "--wait=false")


@pytest.fixture
def tenant(operator: Cluster) -> Iterator[Tenant]:
    """A fresh namespace with restricted Pod security and the workers' service account."""
    with operator.namespace("shop") as namespace:
        operator.kubectl("label", "namespace", namespace, RESTRICTED)
        operator.kubectl("create", "serviceaccount", WORKER_ACCOUNT, "-n", namespace)
        yield Tenant(operator, namespace)


@pytest.fixture(scope="session")
def photo_urls(operator: Cluster) -> Iterator[list[str]]:
    """URLs of 180 different photographs, served inside the cluster."""
    pictures = dict(photos.crops(180, 640, 480))
    with operator.namespace("photos") as namespace:
        container = {
            "name": "server",
            "image": "imageprocessing-worker:dev",
            "imagePullPolicy": "IfNotPresent",
            "command": ["python", "-m", "http.server", "8080", "--directory", "/photos"],
            "volumeMounts": [{"name": "photos", "mountPath": "/photos"}],
            "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        }
        meta = {"name": "photos", "namespace": namespace, "labels": {"app": "photos"}}
        spec = {"containers": [container], "volumes": [{"name": "photos", "emptyDir": {}}]}
        ports = {"selector": {"app": "photos"}, "ports": [{"port": 80, "targetPort": 8080}]}
        operator.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        operator.apply({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": ports})
        operator.wait(f"pod/photos -n {namespace} --for=condition=Ready", 60)
        unpack = "import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall"
        command = ["kubectl", "--kubeconfig", str(operator.kubeconfig), "exec", "-i", "photos"]
        subprocess.run(
            [
                *command,
                "-n",
                namespace,
                "--",
                "python",
                "-c",
                f"{unpack}('/photos', filter='data')",
            ],
            input=_tar(pictures),
            check=True,
        )
        host = f"photos.{namespace}.svc.cluster.local"
        yield [f"http://{host}/{name}" for name in pictures]


@pytest.fixture
def receiver(server_host: str) -> Iterator[Receiver]:
    """A webhook receiver that the operator's Pod reaches."""
    with receiving(server_host) as receiver:
        yield receiver


def rows_of(urls: list[str], rows: int) -> str:
    """A catalogue of `rows` products that share out the URLs in order."""
    each = len(urls) // rows
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["Serial Number", "Product Name", "Input Image Urls"])
    for row in range(rows):
        mine = urls[row * each : (row + 1) * each]
        writer.writerow([row + 1, f"Product {row + 1}", ",".join(mine)])
    return text.getvalue()


def fetch(address: str, bucket: str, name: str) -> bytes:
    """An object out of the emulator of Cloud Storage."""
    quoted = urllib.request.quote(name, safe="")
    url = f"http://{address}/storage/v1/b/{bucket}/o/{quoted}?alt=media"
    with urllib.request.urlopen(url, timeout=10) as response:
        data: bytes = response.read()
        return data


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
