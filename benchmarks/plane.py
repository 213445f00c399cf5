"""A control plane without a node, and the operator as a process, for benchmarks."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import aiohttp
import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.driver import Driver
from benchmarks.measured import environment
from tests.apiserver.kube import connection_of
from tests.cluster.build import components
from tests.cluster.built import working_directory
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import FAST_JOBS, ControlPlane, free_port
from tests.cluster.processes import Processes

NAMESPACE = "bench"
_RECEIVER = "127.0.0.2"
"""Where webhooks go: the guard allows it by name."""


class Plane:
    """One API server with its controllers; processes are measured from outside."""

    def __init__(self, plane: ControlPlane, driver: Driver) -> None:
        self.driver = driver
        self._plane = plane
        self._http = ""

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU that each process has used, the driver's being this one's."""
        running = {name: process.pid for name, process in self._plane.processes.running.items()}
        pids: Mapping[str, int | None] = {**running, "driver": None}
        times = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
        return {name: used.user + used.system for name, used in times.items()}

    def start_operator(self) -> None:
        """As its image starts it; it is not waited for."""
        port = free_port()
        self._http = f"http://127.0.0.1:{port}"
        settings = {
            "KUBECONFIG": str(self._plane.kubeconfig),
            "IMAGEPROCESSING_HTTP_PORT": str(port),
            "IMAGEPROCESSING_NAMESPACES": "[]",
            "IMAGEPROCESSING_WEBHOOK_ALLOWED_NETWORKS": json.dumps([f"{_RECEIVER}/32"]),
        }
        command = (sys.executable, "-m", "imageprocessing_operator")
        self._plane.processes.start("operator", *command, env=environment(settings))

    def stop_operator(self) -> None:
        """At once."""
        self._plane.processes.stop("operator")

    async def ready(self) -> None:
        """Returns when the operator's readyz answers 200."""
        process = self._plane.processes.running["operator"]
        async with aiohttp.ClientSession() as session:
            while True:
                if process.poll() is not None:
                    raise RuntimeError(self._plane.processes.tail("operator"))
                try:
                    async with session.get(f"{self._http}/readyz") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientConnectionError:
                    pass  # it does not listen yet
                await asyncio.sleep(0.02)

    async def calls(self) -> dict[str, int]:
        """Calls of the operator by verb, as it counts them itself; watches are none."""
        async with aiohttp.ClientSession() as session, session.get(f"{self._http}/metrics") as page:
            families = text_string_to_metric_families(await page.text())
        found: dict[str, int] = {}
        for sample in (s for family in families for s in family.samples):
            if sample.name == "imageprocessing_api_calls_total":
                verb = sample.labels["verb"]
                found[verb] = found.get(verb, 0) + int(sample.value)
        found.pop("watch", None)
        return found

    def memory(self) -> int:
        """Bytes of the operator's PSS: its own pages, and its part of those it shares."""
        pid = self._plane.processes.running["operator"].pid
        pss: int = psutil.Process(pid).memory_full_info().pss
        return pss


@asynccontextmanager
async def control_plane(flags: Sequence[str] = FAST_JOBS) -> AsyncIterator[Plane]:
    """Runs one until the block ends; `flags` are the controller manager's."""
    with working_directory() as folder:
        processes = Processes(folder / "logs")
        plane = ControlPlane(folder, components(), processes, flags)
        try:
            plane.start(
                address="127.0.0.1",
                service_cidr="10.96.0.0/24",
                service_ip="10.96.0.1",
                scheduler=False,
            )
            cluster = Cluster(plane.kubeconfig, "127.0.0.1", [])
            cluster.install_crds()
            server, tls, headers = connection_of(plane.kubeconfig)
            async with (
                aiohttp.ClientSession(
                    server,
                    headers=headers,
                    connector=aiohttp.TCPConnector(limit=64, ssl=tls),
                    read_bufsize=2**22,
                ) as session,
                Driver.at_work(session, NAMESPACE, _RECEIVER) as driver,
            ):
                yield Plane(plane, driver)
        finally:
            processes.stop()


def since(begin: Mapping[str, float], end: Mapping[str, float]) -> dict[str, float]:
    """What was used, or counted, between two looks."""
    return {name: used - begin.get(name, 0) for name, used in end.items()}
