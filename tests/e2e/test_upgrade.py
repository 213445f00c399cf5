"""The chart upgraded and uninstalled while requests run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from imageprocessing_contract import names

from tests.cluster.emulators import Storage
from tests.e2e.conftest import INSTALL, WAIT, Helm, Tenant, rows_of
from tests.helm import CHART, RELEASE, SYSTEM

PREVIOUS = Path(__file__).parent / "previous" / "imageprocessing-operator-0.1.0.tgz"
HELD = {"imageprocessing.test/held": "no"}
"""No node has this label until the test gives it."""


@pytest.fixture
def upgrade(tenant: Tenant, helm: Helm, values: Path) -> Iterator[Helm]:
    """Brings a chart to the release; afterwards it is this one again."""

    def bring(chart: Path) -> str:
        said: str = helm(*INSTALL, str(chart), "-f", str(values))
        return said

    yield bring
    bring(CHART)


def with_another_field(directory: Path) -> Path:
    """This chart, and a CRD of a later version."""
    chart = Path(shutil.copytree(CHART, directory / "chart"))
    crd = chart / "files" / "crd.yaml"
    suspend = "                suspend:\n"
    note = "                note: {type: string, description: New.}\n"
    text = crd.read_text()
    assert text.count(suspend) == 1
    crd.write_text(text.replace(suspend, note + suspend))
    return chart


def test_upgrade_with_requests(
    tenant: Tenant, photo_urls: list[str], gcs: Storage, upgrade: Helm, tmp_path: Path
) -> None:
    """From the previous chart to one with another CRD: nothing is lost or done twice."""
    cluster, namespace = tenant.cluster, tenant.namespace
    upgrade(PREVIOUS)
    source = tenant.catalogue("products", rows_of(photo_urls[:8], 4))
    output = {"gcs": {"bucket": gcs.bucket}}
    tenant.request("before", source=source, output=output)
    tenant.wait_finished("before")
    settled = cluster.get("ipr", "before", namespace)
    tenant.request(
        *["over"],
        source=source,
        output=output,
        sharding={"imagesPerShard": 4},
        worker={"nodeSelector": HELD},
    )
    uid = cluster.get("ipr", "over", namespace)["metadata"]["uid"]
    plan = names.job_name("over", uid, "plan")
    cluster.wait(f"job/{plan} -n {namespace} --for=create")

    upgrade(with_another_field(tmp_path))
    assert "New." in cluster.kubectl("explain", "ipr.spec.note")
    (key, value), *_ = HELD.items()
    cluster.kubectl("label", "nodes", "--all", f"{key}={value}")
    try:
        status = tenant.wait_finished("over")
    finally:
        cluster.kubectl("label", "nodes", "--all", f"{key}-")
    assert status["images"]["succeeded"] == 8
    assert status["steps"] == {"plan": 1, "shards": 1, "finalize": 1}
    assert cluster.get("ipr", "before", namespace) == settled


def test_uninstall_keeps_requests(
    tenant: Tenant, photo_urls: list[str], gcs: Storage, helm: Helm, upgrade: Helm
) -> None:
    """And the CRD; what was applied meanwhile is done once the operator is back."""
    cluster, namespace = tenant.cluster, tenant.namespace
    source = tenant.catalogue("products", rows_of(photo_urls[:2], 1))
    fields = {"source": source, "output": {"gcs": {"bucket": gcs.bucket}}}
    tenant.request("kept", suspend=True, **fields)
    kept = cluster.get("ipr", "kept", namespace)["metadata"]["uid"]
    helm("uninstall", RELEASE, *WAIT)
    label = f"app.kubernetes.io/instance={RELEASE}"
    cluster.wait(f"pod -n {SYSTEM} -l {label} --for=delete")
    assert cluster.kubectl("get", "all,serviceaccounts", "-n", SYSTEM, "-l", label) == ""
    assert cluster.kubectl("get", "clusterroles,clusterrolebindings", "-l", label) == ""
    assert cluster.get("ipr", "kept", namespace)["metadata"]["uid"] == kept
    tenant.request("meanwhile", **fields)
    upgrade(CHART)
    tenant.wait_finished("meanwhile")
    assert cluster.get("ipr", "meanwhile", namespace)["status"]["images"]["succeeded"] == 2
