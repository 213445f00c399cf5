"""What end-to-end tests share: Helm, for the chart is how an operator gets there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests.cluster import build
from tests.cluster.cluster import Cluster, kubectl_environment
from tests.conftest import needs

Helm = Callable[..., str]


@pytest.fixture(scope="session")
def helm(node_cluster: Cluster) -> Helm:
    """Calls Helm for the node cluster: helm("install", "name", "charts/...", "-n", namespace)."""
    if not (shutil.which("helm") or shutil.which("go")):
        needs("not installed: helm, nor go to build it")
    program = build.helm()
    environment = kubectl_environment(node_cluster.kubeconfig)

    def run(*args: str) -> str:
        command = [str(program), *args]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, f"helm {' '.join(args)}: {done.stderr}"
        return done.stdout

    return run
