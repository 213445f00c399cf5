"""Compiles Kubernetes and what belongs to it from Go modules, once, into the cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.cache import cache_root, exclusive, project_cache

COMPONENTS = Path(__file__).resolve().parent / "components"
TOOLS = COMPONENTS.parents[1] / "gitops" / "tools"
KUBERNETES = "1.34.4"
COREDNS = "github.com/coredns/coredns@v1.14.5"
HELM = "helm.sh/helm/v3/cmd/helm@v3.20.2"
KUBECONFORM = "github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0"
PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"


@dataclass(frozen=True)
class Binaries:
    """What a cluster is made of."""

    kube: Path
    coredns: Path


def components() -> Binaries:
    """All of Kubernetes in one binary, and CoreDNS: nine minutes on two cores, then nothing."""
    key = f"{KUBERNETES}-{digest_of_sources()}"
    directory = cache_root() / "test-cluster" / key
    with exclusive(directory / "lock"):
        kube = directory / "kube"
        if not kube.exists():
            # The API server reports this version, and clients choose by it what they may use.
            major, minor, _ = KUBERNETES.split(".")
            package = "-X k8s.io/component-base/version.git"
            flags = f"{package}Version=v{KUBERNETES} {package}Major={major} {package}Minor={minor}"
            part = kube.with_suffix(".part")
            command = ["go", "build", "-ldflags", f"-s -w {flags}", "-o", str(part), "."]
            subprocess.run(command, cwd=COMPONENTS, check=True)
            part.rename(kube)
        return Binaries(kube, go_install(COREDNS, directory))


def digest_of_sources() -> str:
    """What the build depends on: go.sum pins every module by its hash."""
    sources = (COMPONENTS / "main.go").read_bytes() + (COMPONENTS / "go.sum").read_bytes()
    return hashlib.sha256(sources).hexdigest()[:12]


def helm() -> Path:
    """The Helm client: the one installed, or one built into the cache (94 s)."""
    if found := shutil.which("helm"):
        return Path(found)
    directory = project_cache() / "bin"
    with exclusive(directory / "lock"):
        return go_install(HELM, directory)


def gitops_tools() -> Path:
    """tests/gitops/tools: what Flux and Argo CD make of our resource (95 s of CPU to build)."""
    sources = [TOOLS / name for name in ("main.go", "go.mod", "go.sum")]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:12]
    binary = project_cache() / "bin" / f"gitops-tools-{digest}"
    with exclusive(binary.parent / "lock"):
        if not binary.exists():
            part = binary.with_suffix(".part")
            subprocess.run(["go", "build", "-o", str(part), "."], cwd=TOOLS, check=True)
            part.rename(binary)
    return binary


def go_install(package: str, directory: Path) -> Path:
    """Builds a command as DIRECTORY/NAME-VERSION; it appears only when it is whole."""
    path, version = package.split("@")
    binary = directory / f"{Path(path).name}-{version}"
    if not binary.exists():
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as part:
            environment = {**os.environ, "GOBIN": part}
            subprocess.run(["go", "install", package], check=True, env=environment)
            (Path(part) / Path(path).name).rename(binary)
    return binary


def kubeconform() -> Path:
    """Checks manifests by JSON schemas (10 s to build)."""
    directory = project_cache() / "bin"
    with exclusive(directory / "lock"):
        return go_install(KUBECONFORM, directory)


def prometheus_crds() -> Path:
    """The directory with the Prometheus operator's CRDs, named monitoring.coreos.com_PLURAL.yaml."""
    command = ["go", "mod", "download", "-json", PROMETHEUS_OPERATOR]
    done = subprocess.run(command, capture_output=True, check=True)
    return Path(json.loads(done.stdout)["Dir"]) / "example" / "prometheus-operator-crd"


def promtool() -> Path | None:
    """Prometheus' checker of rules: the one installed, or Debian's, unpacked into the cache.

    None where there is neither, as Debian's needs root; its package would start a server if it were installed.
    """
    if found := shutil.which("promtool"):
        return Path(found)
    if not shutil.which("apt-get") or os.geteuid() != 0:
        return None
    directory = project_cache() / "promtool"
    binary = directory / "usr" / "bin" / "promtool"
    with exclusive(project_cache() / "promtool.lock"):
        if not binary.exists():
            with tempfile.TemporaryDirectory(dir=project_cache()) as part:
                for command in (["update"], ["download", "prometheus"]):
                    subprocess.run(["apt-get", "-qq", *command], check=True, cwd=part)
                (package,) = Path(part).glob("*.deb")
                unpacked = Path(part) / "unpacked"
                subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True)
                unpacked.rename(directory)
    return binary
