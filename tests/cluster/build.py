"""Compiles Kubernetes and what belongs to it from Go modules, once, into the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.cache import cache_root, exclusive, project_cache

COMPONENTS = Path(__file__).resolve().parent / "components"
KUBERNETES = "1.34.4"
COREDNS = "github.com/coredns/coredns@v1.14.5"
HELM = "helm.sh/helm/v3/cmd/helm@v3.20.2"


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
