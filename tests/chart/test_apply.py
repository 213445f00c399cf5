"""The chart before a real API server: its schemas, its caps, and what it tells."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from imageprocessing_contract import names

from tests import helm
from tests.apiserver.kube import eventually
from tests.chart import golden, schemas
from tests.cluster import build
from tests.cluster.cluster import Cluster, KubectlError, kubectl_environment


@pytest.fixture(scope="module")
def cluster(api_cluster: Cluster) -> Iterator[Cluster]:
    """With the kinds of the Prometheus operator, which the chart has objects of."""
    kinds = ("servicemonitors", "prometheusrules")
    crds = [build.prometheus_crds() / f"monitoring.coreos.com_{kind}.yaml" for kind in kinds]
    for crd in crds:
        api_cluster.install_crd(crd)
    yield api_cluster
    for crd in crds:
        api_cluster.kubectl("delete", "-f", str(crd))


@pytest.mark.parametrize("case", golden.CASES)
def test_the_api_server_takes_it(cluster: Cluster, case: str) -> None:
    """Strictly: a field that it does not know is an error."""
    for namespace in (helm.SYSTEM, "shop", "outlet"):
        make = cluster.kubectl("create", "namespace", namespace, "--dry-run=client", "-o", "yaml")
        cluster.apply(make)
    apply = ["apply", "--dry-run=server", "--validate=strict", "-f"]
    said = cluster.kubectl(*apply, str(golden.file_of(case)))
    assert said.count("created (server dry run)") == len(
        helm.objects(golden.file_of(case).read_text())
    )


def test_kubeconform(cluster: Cluster, tmp_path: Path) -> None:
    """By the schemas of this very API server."""
    openapi = json.loads(cluster.kubectl("get", "--raw", "/openapi/v2"))
    assert "1.34" in openapi["info"]["version"], "as the chart's kubeVersion says"
    schemas.write_schemas(openapi, tmp_path)
    files = [str(golden.file_of(case)) for case in golden.CASES]
    place = ["-schema-location", f"{tmp_path}/{schemas.LOCATION}"]
    command = [str(build.kubeconform()), "-strict", "-summary", "-output", "json", *place, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    assert [r["msg"] for r in said.get("resources", [])] == []
    assert said["summary"]["valid"] > 20
    assert said["summary"]["skipped"] == 0


def test_notes(cluster: Cluster) -> None:
    """They tell what to do next, with the names of this release."""
    place = ["-n", helm.SYSTEM, "--set", "worker.serviceAccount.name=images,namespaces={shop}"]
    place += ["--set", "crds.enabled=false"]
    said = helm.run(
        *["install", "r", str(helm.CHART), "--dry-run=client", *place],
        environment=kubectl_environment(cluster.kubeconfig),
    )
    notes = said.partition("NOTES:")[2]
    assert "kubectl create serviceaccount images -n NAMESPACE" in notes
    assert "sees requests in shop." in notes
    assert "deploy/r" in notes


def sized(name: str, **worker: Any) -> str:
    """A request whose Pods need this."""
    return json.dumps(
        {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name},
            "spec": {
                "source": {"inline": "x"},
                "output": {"gcs": {"bucket": "shop"}},
                "suspend": True,
                "worker": worker,
            },
        }
    )


def test_caps(cluster: Cluster) -> None:
    """The API server refuses what is above worker.maxResources, in these namespaces alone."""
    with cluster.namespace("capped") as capped, cluster.namespace("free") as free:
        create = ["create", "-f", "-", "-n"]
        above = {"resources": {"limits": {"memory": "17Gi"}}}
        cluster.kubectl(*create, capped, stdin=sized("before", **above))
        values = "worker.maxResources.memory=16Gi,worker.maxResources.cpu=8"
        policy = helm.render(
            *["--set", f"{values},worker.maxResources.ephemeral-storage=10Gi"],
            *["--set", f"namespaces={{{capped}}}", "--show-only", "templates/caps.yaml"],
        )
        cluster.apply(policy)
        try:
            eventually(lambda: refused(cluster, capped, above), "the policy is at work")
            most = {"limits": {"memory": "16Gi", "cpu": 8}, "requests": {"memory": "16384Mi"}}
            cluster.kubectl(*create, capped, stdin=sized("most", resources=most))
            cluster.kubectl(*create, capped, stdin=sized("default"))
            cluster.kubectl(*create, free, stdin=sized("other", **above))
            for resources in (
                {"limits": {"cpu": "8001m"}},
                {"limits": {"ephemeral-storage": "11Gi"}},
                {"requests": {"cpu": 9}},
            ):
                assert refused(cluster, capped, {"resources": resources}), resources
            # One from before the cap goes on, but cannot take more.
            cluster.kubectl(*patch(capped, suspend=False))
            with pytest.raises(KubectlError, match="memory is above 16Gi"):
                cluster.kubectl(
                    *patch(capped, worker={"resources": {"limits": {"memory": "18Gi"}}})
                )
        finally:
            cluster.kubectl("delete", "-f", "-", stdin=policy)


def refused(cluster: Cluster, namespace: str, worker: dict[str, Any]) -> bool:
    """Whether a request that asks for this is refused for it."""
    create = ["create", "--dry-run=server", "-f", "-", "-n", namespace]
    try:
        cluster.kubectl(*create, stdin=sized("asked", **worker))
    except KubectlError as error:
        return "the most that this cluster allows" in str(error)
    return False


def patch(namespace: str, **spec: Any) -> list[str]:
    """Arguments of kubectl."""
    return [
        "patch",
        "ipr",
        "before",
        "-n",
        namespace,
        "--type=merge",
        "-p",
        json.dumps({"spec": spec}),
    ]
