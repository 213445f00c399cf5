"""What a real kubelet and scheduler say of Pods that do not run is what the operator reads."""

from __future__ import annotations

import json
from typing import Any

from imageprocessing_contract import names

from tests.apiserver.kube import eventually
from tests.cluster.emulators import Storage
from tests.cluster.pki import NODE
from tests.e2e.conftest import SMALL, Tenant, rows_of


def reason(tenant: Tenant, name: str) -> tuple[str, str]:
    """Reconciling's reason and message."""
    conditions = tenant.status(name).get("conditions", [])
    found = next((c for c in conditions if c["type"] == "Reconciling"), {})
    return found.get("reason", ""), found.get("message", "")


def wait_reason(tenant: Tenant, name: str, wanted: str) -> str:
    """The message with that reason."""

    def look() -> str | None:
        said, message = reason(tenant, name)
        return message if said == wanted else None

    try:
        return eventually(look, f"{wanted} of {name}", seconds=75)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{tenant.story()}") from error


def pod_of(tenant: Tenant, name: str) -> dict[str, Any] | None:
    uid = tenant.cluster.get("ipr", name, tenant.namespace)["metadata"]["uid"]
    for pod in tenant.pods():
        if pod["metadata"]["labels"].get(names.LABEL_REQUEST_UID) == uid:
            return pod
    return None


def test_pods_that_do_not_run(tenant: Tenant, photo_urls: list[str], gcs: Storage) -> None:
    """All side by side, for each takes ten seconds to be looked at."""
    output = {"gcs": {"bucket": gcs.bucket}}
    source = tenant.catalogue("products", rows_of(photo_urls[:2], 2))
    nowhere = {"resources": SMALL, "nodeSelector": {"pool": tenant.namespace}}
    for name in ("no-node", "no-image"):
        tenant.request(name, source=source, output=output, worker=nowhere)
    tiny = {"resources": {"requests": {"memory": "24Mi"}, "limits": {"memory": "24Mi"}}}
    patient = {"retriesPerShard": 10}
    tenant.request("killed", source=source, output=output, worker=tiny, sharding=patient)
    missing = {"configMapKeyRef": {"name": "later", "key": "products.csv"}}
    tenant.request("no-config-map", source=missing, output=output)
    claim = {"persistentVolumeClaim": {"claimName": "nowhere", "path": "products.csv"}}
    tenant.request("no-claim", source=claim, output=output)

    messages = {
        name: wait_reason(tenant, name, wanted)
        for name, wanted in {
            "no-node": "Unschedulable",
            "no-image": "Unschedulable",
            "no-claim": "Unschedulable",
            "no-config-map": "VolumeNotMounted",
            "killed": "OOMKilled",
        }.items()
    }
    assert "node affinity/selector" in messages["no-node"]
    assert 'persistentvolumeclaim "nowhere" not found' in messages["no-claim"]
    assert 'configmap "later" not found' in messages["no-config-map"]

    # An image that is nowhere, before the Pod gets a node.
    here = ["-n", tenant.namespace]
    pod = eventually(lambda: pod_of(tenant, "no-image"), "the Pod of no-image")["metadata"]["name"]
    set_image(tenant, pod, "nowhere.invalid/worker:1")
    tenant.catalogue("later", rows_of(photo_urls[:2], 2))
    tenant.cluster.kubectl("label", "node", NODE, f"pool={tenant.namespace}")
    try:
        assert "nowhere.invalid/worker:1" in wait_reason(tenant, "no-image", "ImageNotPulled")
        set_image(tenant, pod, "imageprocessing-worker:dev")
        for name in ("no-node", "no-image", "no-config-map"):
            status = tenant.wait_finished(name)
            assert status["images"]["succeeded"] == 2
            stalled = next(c for c in status["conditions"] if c["type"] == "Stalled")
            assert stalled["status"] == "False"
    finally:
        tenant.cluster.kubectl("label", "node", NODE, "pool-")
    tenant.cluster.kubectl("delete", "ipr", "killed", "no-claim", *here)


def set_image(tenant: Tenant, pod: str, image: str) -> None:
    spec = {"containers": [{"name": names.CONTAINER, "image": image}]}
    patch = json.dumps({"spec": spec})
    tenant.cluster.kubectl("patch", "pod", pod, "-n", tenant.namespace, "-p", patch)
