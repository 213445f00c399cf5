"""Tab: names out of a real cluster, in a real bash and by the real kubectl."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from imageprocessing_contract import names

from tests.apiserver.kube import Kube
from tests.apiserver.shop import OUTPUT, SOURCE
from tests.cluster.cluster import Cluster

PROGRAMS = Path(sys.executable).parent


@pytest.fixture
def namespace(api_cluster: Cluster) -> Iterator[str]:
    """With the requests spring and summer."""
    with api_cluster.namespace("complete") as namespace:
        kube = Kube(api_cluster.kubeconfig, namespace)
        for name in ("spring", "summer"):
            body = {"apiVersion": names.API_VERSION, "kind": names.KIND}
            kube.create(
                "ipr",
                {**body, "metadata": {"name": name}, "spec": {"source": SOURCE, "output": OUTPUT}},
            )
        kube.close()
        yield namespace


@pytest.fixture
def environment(api_cluster: Cluster) -> dict[str, str]:
    """Where the programs of this environment are found, and the cluster."""
    return {
        **os.environ,
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "KUBECONFIG": str(api_cluster.kubeconfig),
        "TERM": "dumb",
    }


def typed(keys: str, environment: dict[str, str]) -> list[str]:
    """What an interactive bash runs for these keys: the words of each `ipr`, as <word><word>."""
    # The completion calls the program, and Enter calls this function.
    setup = """source <(ipr completion bash); ipr() { echo; printf '<%s>' "$@"; echo; }\n"""
    master, slave = pty.openpty()
    command = ["bash", "--norc", "--noprofile", "-i"]
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=subprocess.DEVNULL, env=environment
    ) as bash:
        os.close(slave)
        os.write(master, f"{setup}{keys}\nexit\n".encode())
        said = b""
        try:
            while chunk := os.read(master, 4096):
                said += chunk
        except OSError:
            pass  # how Linux says that nobody holds the other end any more
        finally:
            os.close(master)
            bash.kill()
    return [line for line in said.decode().split("\r\n") if line.startswith("<")]


def test_bash_completes_requests_and_namespaces(
    namespace: str, environment: dict[str, str]
) -> None:
    said = typed(f"ipr status -n {namespace} sp\t", environment)
    assert said == [f"<status><-n><{namespace}><spring>"]
    # The namespace's own name, and then what is in it.
    said = typed(f"ipr watch -n {namespace[:-1]}\tsu\t", environment)
    assert said == [f"<watch><-n><{namespace}><summer>"]


def test_kubectl_completes_its_plugin(namespace: str, environment: dict[str, str]) -> None:
    command = ["kubectl", "__complete", "ipr", "results", "-n", namespace, ""]
    ended = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert ended.stdout.splitlines() == ["spring", "summer", ":4"]
