"""The operator's Pod killed in each step: the request still ends, once."""

from __future__ import annotations

import pytest
from imageprocessing_contract import names

from tests.cluster.emulators import Storage
from tests.e2e.conftest import RELEASE, SYSTEM, Tenant, rows_of
from tests.e2e.receiver import SECRET, Receiver


def kill_operator(tenant: Tenant) -> None:
    """SIGKILL: the Pod goes without a grace period, and its Deployment makes another."""
    label = f"app.kubernetes.io/instance={RELEASE}"
    tenant.cluster.kubectl(
        "delete", "pod", "-n", SYSTEM, "-l", label, "--grace-period=0", "--force"
    )


@pytest.mark.parametrize("step", ["plan", "shards", "finalize"])
def test_operator_killed(
    tenant: Tenant, photo_urls: list[str], gcs: Storage, receiver: Receiver, step: str
) -> None:
    """Killed as soon as the step's Job is there."""
    source = tenant.catalogue("products", rows_of(photo_urls[:40], 20))
    tenant.apply("Secret", "hook", stringData={"secret": SECRET})
    tenant.request(
        "killed",
        source=source,
        output={"gcs": {"bucket": gcs.bucket}},
        sharding={"imagesPerShard": 20},
        webhook={"url": receiver.url, "secretKeyRef": {"name": "hook", "key": "secret"}},
    )
    uid = tenant.cluster.get("ipr", "killed", tenant.namespace)["metadata"]["uid"]
    job = names.job_name("killed", uid, step)
    tenant.cluster.wait(f"job/{job} -n {tenant.namespace} --for=create", 90)
    kill_operator(tenant)
    status = tenant.wait_finished("killed", 180)
    assert status["images"] == {
        "total": 40, "processed": 40, "succeeded": 40, "failed": 0, "unchanged": 0
    }  # fmt: skip
    steps = [job["metadata"]["labels"][names.LABEL_STEP] for job in tenant.jobs()]
    assert sorted(steps) == ["finalize", "plan", "shards"]
    tenant.cluster.wait(f"ipr/killed -n {tenant.namespace} --for=condition=Notified", 60)
    headers, _ = receiver.received.get_nowait()
    assert headers["webhook-id"] == status["webhook"]["eventID"]
    assert receiver.received.empty()
