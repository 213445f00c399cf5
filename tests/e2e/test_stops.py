"""Suspend, resume and the deadline, with Pods that really stop and checkpoint."""

from __future__ import annotations

import csv
import io
from typing import Any

from imageprocessing_contract import names

from tests.cluster.emulators import Storage
from tests.e2e.conftest import Tenant, fetch, rows_of

ONE_BY_ONE = {"imagesPerShard": 10, "maxParallelism": 1}


def ready(status: dict[str, Any]) -> tuple[str, str]:
    """Status and reason of the condition Ready."""
    return next((c["status"], c["reason"]) for c in status["conditions"] if c["type"] == "Ready")


def test_suspend_and_resume(tenant: Tenant, photo_urls: list[str], gcs: Storage) -> None:
    """Suspended while shards run: its Pods end, nothing counts as failed, and it goes on."""
    urls = photo_urls[:60]
    tenant.request(
        "pause",
        requestID="pause",
        source={"inline": rows_of(urls, 30)},
        output={"gcs": {"bucket": gcs.bucket}},
        sharding=ONE_BY_ONE,
    )
    here = f"ipr/pause -n {tenant.namespace}"
    tenant.cluster.wait(f"{here} --for=jsonpath={{.status.shards.succeeded}}=1", 60)
    tenant.patch("pause", suspend=True)
    tenant.cluster.wait(f"{here} --for=jsonpath={{.status.conditions[0].reason}}=Suspended")
    uid = tenant.cluster.get("ipr", "pause", tenant.namespace)["metadata"]["uid"]
    job = names.job_name("pause", uid, "shards")
    tenant.cluster.wait(f"job/{job} -n {tenant.namespace} --for=condition=Suspended", 60)
    tenant.patch("pause", suspend=False)
    status = tenant.wait_finished("pause", 180)
    assert ready(status) == ("True", "Succeeded")
    assert status["images"]["succeeded"] == 60
    assert status["shards"] == {"total": 6, "active": 0, "succeeded": 6, "failed": 0}


def test_deadline_delivers_what_is_done(
    tenant: Tenant, photo_urls: list[str], gcs: Storage
) -> None:
    """18 shards one by one take a minute; after 20 s what there is gets delivered."""
    tenant.request(
        "late",
        requestID="late",
        source={"inline": rows_of(photo_urls, 60)},
        output={"gcs": {"bucket": gcs.bucket}},
        sharding=ONE_BY_ONE,
        activeDeadlineSeconds=20,
    )
    status = tenant.wait_finished("late", 180)
    assert ready(status) == ("False", "DeadlineExceeded")
    done = status["images"]["succeeded"]
    assert 0 < done < 180
    assert status["failures"][0]["reason"] == "ShardFailed"
    path = f"late/{names.processed_csv('late')}"
    rows = csv.DictReader(io.StringIO(fetch(gcs.address, gcs.bucket, path).decode()))
    outputs = [cell for row in rows for cell in row["Output Image Urls"].split(",")]
    assert len(outputs) == 180
    assert sum(1 for cell in outputs if cell) == done
