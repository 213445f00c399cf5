"""The test cluster itself: Pods run, servers are reached, and nothing outlives it."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import built, kind
from tests.cluster.cgroups import hierarchies
from tests.cluster.cluster import Cluster
from tests.cluster.jobs import WORKER, job, run_python
from tests.conftest import needs


@pytest.fixture
def server() -> Iterator[int]:
    """A web server of the test on this machine; its port."""
    handler = http.server.SimpleHTTPRequestHandler
    with http.server.ThreadingHTTPServer(("0.0.0.0", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running.server_port
        running.shutdown()
        thread.join()


def test_a_pod_reaches_the_test_and_the_services(
    node_cluster: Cluster, images: None, server: int
) -> None:
    code = f"""
import socket, urllib.request
print(urllib.request.urlopen("http://{node_cluster.node_ip}:{server}/").status)
print(socket.gethostbyname("kubernetes.default.svc.cluster.local"))
"""
    with node_cluster.namespace() as namespace:
        status, address = run_python(node_cluster, namespace, WORKER, code).split()
    assert status == "200"
    service = json.loads(node_cluster.kubectl("get", "service", "kubernetes", "-o", "json"))
    assert address == service["spec"]["clusterIP"]


def test_without_nodes_the_test_plays_the_kubelet(api_cluster: Cluster) -> None:
    with api_cluster.namespace() as namespace:
        api_cluster.apply(job("one", namespace, WORKER, ""))
        selector = f"-l batch.kubernetes.io/job-name=one -n {namespace}"
        api_cluster.wait(f"pod {selector} --for=create")
        done = json.dumps({"status": {"phase": "Succeeded"}})
        patch = ["--subresource=status", "--type=merge", "-p", done]
        pod = api_cluster.kubectl("get", "pod", *selector.split(), "-o", "name").strip()
        api_cluster.kubectl("patch", pod, "-n", namespace, *patch)
        api_cluster.wait(f"job/one -n {namespace} --for=condition=Complete")


def test_a_namespace_goes_with_its_block(api_cluster: Cluster) -> None:
    with api_cluster.namespace("What a Name") as namespace:
        assert namespace.startswith("what-a-name-")
    api_cluster.wait(f"namespace/{namespace} --for=delete")


@pytest.mark.cluster
@pytest.mark.node
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_run(how: signal.Signals) -> None:
    if os.environ.get("KUBECONFIG") or kind.available():
        pytest.skip("about the cluster that is built from Go modules; this run has another")
    needs(built.missing(node=True))
    rules = iptables()
    command = [sys.executable, "-m", "tests.cluster", "up"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert run.stdout
        variables = dict(word.split("=") for word in run.stdout.readline().split()[1:])
        kubeconfig = Path(variables["KUBECONFIG"])
        directory = kubeconfig.parent
        link = link_of(kubeconfig)
        processes = descendants(run.pid)
        assert len(processes) > 8
        assert alive(processes) == processes
    finally:
        run.send_signal(how)
        run.wait(timeout=60)
        assert run.stdout
        run.stdout.close()

    eventually(lambda: not alive(processes))
    eventually(lambda: interface(link[0]) != link)
    assert iptables() == rules
    assert str(directory) not in Path("/proc/self/mounts").read_text()
    if how == signal.SIGKILL:  # files stay until the next run
        assert directory.exists()
        with built.working_directory():
            pass
    assert not directory.exists()
    assert not [tree for tree in hierarchies() if (tree / directory.name).exists()]


def link_of(kubeconfig: Path) -> tuple[str, str]:
    """The name and the number of the interface that leads to the cluster's node."""
    path = "jsonpath={.status.addresses[0].address}"
    address = Cluster(kubeconfig, "", []).kubectl("get", "node", "node-1", "-o", path)
    route = subprocess.run(
        ["ip", "-json", "route", "get", address], check=True, capture_output=True
    )
    name: str = json.loads(route.stdout)[0]["dev"]
    return interface(name)


def interface(name: str) -> tuple[str, str]:
    """An interface's name and number, which is never used again."""
    index = Path("/sys/class/net", name, "ifindex")
    return name, index.read_text() if index.exists() else ""


def iptables() -> str:
    """The machine's own rules."""
    shown = subprocess.run(["iptables-save"], check=True, capture_output=True, text=True).stdout
    return "".join(line for line in shown.splitlines(True) if line.startswith("-A"))


def descendants(pid: int) -> set[tuple[int, str]]:
    """All processes below one, each with the time when it started."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        if fields := stat_of(int(stat.parent.name)):
            parents[int(stat.parent.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {(child, start) for child in found - {pid} if (start := started(child))}


def alive(processes: set[tuple[int, str]]) -> set[tuple[int, str]]:
    """Those that still are."""
    return {(pid, start) for pid, start in processes if started(pid) == start}


def started(pid: int) -> str | None:
    """When a process started, which tells it from a later one with its number; None if it ended."""
    fields = stat_of(pid)
    return fields[19] if fields and fields[0] != "Z" else None


def stat_of(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def eventually(holds: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
