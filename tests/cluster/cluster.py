"""What tests know of a cluster, whichever kind it is."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

CRDS = Path(__file__).resolve().parents[2] / "crds"


class KubectlError(RuntimeError):
    """kubectl refused or failed; the message is what it wrote as errors, `output` the rest."""

    output: str = ""


class Load(Protocol):
    """Brings a Docker archive to the nodes."""

    def __call__(self, archive: Path) -> None: ...


@dataclass
class Cluster:
    """A Kubernetes API server, and for node clusters nodes that run Pods."""

    kubeconfig: Path
    # The address at which Pods reach servers that the test runs on this machine.
    node_ip: str
    # What a Pod or the operator may have to be allowed to reach: Pods, Services and node_ip.
    allowed_networks: Sequence[str]
    load: Load | None = None
    # Where the node, being this machine, may keep volumes; without it the cluster has a provisioner.
    volumes: Path | None = None

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """Runs kubectl and returns what it wrote."""
        done = subprocess.run(
            ["kubectl", *args],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=kubectl_environment(self.kubeconfig),
        )
        if done.returncode:
            error = KubectlError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
            error.output = done.stdout
            raise error
        return done.stdout

    def apply(self, manifest: dict[str, Any] | str) -> None:
        """Applies one manifest, or several as YAML."""
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        self.kubectl("apply", "-f", "-", stdin=text)

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        """An object as the API server has it."""
        found: dict[str, Any] = json.loads(
            self.kubectl("get", kind, name, "-n", namespace, "-o", "json")
        )
        return found

    @contextlib.contextmanager
    def namespace(self, prefix: str = "test") -> Iterator[str]:
        """A fresh namespace, deleted afterwards; the name is never used again."""
        name = f"{re.sub('[^a-z0-9]+', '-', prefix.lower())[:40].strip('-')}-{uuid.uuid4().hex[:8]}"
        self.kubectl("create", "namespace", name)
        try:
            self.wait(f"serviceaccount/default -n {name} --for=create")
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Runs `kubectl wait`; the condition is its arguments."""
        self.kubectl("wait", *condition.split(), f"--timeout={seconds:.0f}s")

    def install_crds(self) -> None:
        """Applies the project's CRDs and waits until they are served."""
        for file in sorted(CRDS.glob("*.yaml")):
            self.install_crd(file)

    def install_crd(self, file: Path) -> None:
        """Applies a CRD and waits until it is served."""
        self.kubectl("apply", "--server-side", "-f", str(file))
        # kubectl fails on a condition while there are none at all; they come with the names.
        plural = yaml.safe_load(file.read_text())["spec"]["names"]["plural"]
        self.wait(f"--for=jsonpath={{.status.acceptedNames.plural}}={plural} -f {file}")
        self.wait(f"--for=condition=Established -f {file}")


def kubectl_environment(kubeconfig: Path) -> dict[str, str]:
    """What kubectl and helm need to find a cluster."""
    return {**os.environ, "KUBECONFIG": str(kubeconfig)}
