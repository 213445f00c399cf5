"""The ways through plan, shards and finalize to the end."""

from __future__ import annotations

import httpx
import pytest
from imageprocessing_contract import report

from tests.apiserver import kubelet
from tests.apiserver.shop import SHARDED, Shop


def test_a_small_catalogue_takes_one_pod(shop: Shop) -> None:
    shop.apply("small", jobTTLSecondsAfterFinished=77)
    job = shop.job("small", "plan")
    shop.wait_said("small", "Ready", "Unknown", "Planning")
    assert shop.said("small") == {
        "Ready": ("Unknown", "Planning"),
        "Reconciling": ("True", "Progressing"),
        "Stalled": ("False", "Progressing"),
        "CatalogueValid": ("Unknown", "CataloguePending"),
        "Finished": ("False", "NotFinished"),
        "Notified": ("False", "NoWebhook"),
    }
    shop.kubelet.start(shop.kubelet.wait_pods(job)[0])
    shop.kubelet.finish(job, kubelet.whole(5))

    shop.cluster.wait(f"ipr/small -n {shop.kube.namespace} --for=condition=Finished", 20)
    status = shop.wait_status("small", settled=True)
    assert shop.said("small") == {
        "Ready": ("True", "Succeeded"),
        "Reconciling": ("False", "Succeeded"),
        "Stalled": ("False", "Succeeded"),
        "CatalogueValid": ("True", "CatalogueValid"),
        "Finished": ("True", "Succeeded"),
        "Notified": ("False", "NoWebhook"),
    }
    assert status["observedGeneration"] == 1
    assert status["images"] == {
        "total": 5, "processed": 5, "succeeded": 5, "failed": 0, "unchanged": 0,
    }  # fmt: skip
    assert status["shards"] == {"total": 1, "active": 0, "succeeded": 1, "failed": 0}
    assert status["bytes"] == {"original": 50, "compressed": 25}
    assert status["results"]["csvURL"] == "gs://b/r.csv"
    assert status["steps"] == {"plan": 1}
    assert shop.steps("small") == ["plan-1"]
    shop.wait_events("small", "Started", "Finished")
    assert shop.kube.get("jobs", job)["spec"]["ttlSecondsAfterFinished"] == 77
    table = shop.cluster.kubectl("get", "ipr", "small", "-n", shop.kube.namespace).splitlines()
    assert table[1].split()[:5] == ["small", "Succeeded", "5", "5", "0"]


def test_a_settled_request_is_history(shop: Shop) -> None:
    shop.apply("history")
    shop.finish_step("history", "plan", kubelet.whole(1))
    shop.wait_status("history", settled=True)
    shop.wait_events("history", "Started", "Finished")
    before = shop.kube.get("ipr", "history")
    with pytest.raises(httpx.HTTPStatusError, match="spec is immutable"):
        shop.edit("history", suspend=True)
    shop.operator.stop()
    shop.operator.start()
    # One after the other: when this one is done, the operator has seen the other, if it looks.
    shop.apply("later")
    shop.finish_step("later", "plan", kubelet.whole(1))
    shop.wait_status("later", settled=True)
    assert shop.kube.get("ipr", "history") == before
    shop.wait_events("history", "Started", "Finished")


def test_shards_run_and_finalize_tells_the_totals(shop: Shop) -> None:
    shop.apply("large", **SHARDED)
    shop.finish_step("large", "plan", kubelet.planned(30, 3))
    job = shop.job("large", "shards")
    spec = shop.kube.get("jobs", job)["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 2)
    assert spec["backoffLimitPerIndex"] == 3
    rules = spec["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["FailIndex", "Ignore", "Ignore"]
    shop.wait_said("large", "Ready", "Unknown", "Processing")
    assert shop.said("large")["CatalogueValid"] == ("True", "CatalogueValid")

    first, second = shop.kubelet.wait_pods(job, 2)
    shop.kubelet.end(first)
    images = {"total": 30, "processed": 10, "succeeded": 0, "failed": 0, "unchanged": 0}
    shop.wait_status("large", images=images)
    shop.wait_status("large", shards={"total": 3, "active": 2, "succeeded": 1, "failed": 0})
    # A shard that says 42 is a failed one at once, and the others go on.
    shop.kubelet.end(second, code=report.EXIT_FINAL)
    shop.wait_status("large", images={**images, "processed": 20})
    assert shop.status("large")["progress"]["imagesPerMinute"] > 0
    assert shop.status("large")["progress"]["timeLeft"]
    shop.kubelet.finish(job)

    shop.finish_step("large", "finalize", kubelet.finalized(30, 3, failed=10, failed_shards=1))
    status = shop.wait_finished("large", "PartiallySucceeded")
    assert "progress" not in status
    assert status["images"]["failed"] == 10
    assert status["shards"] == {"total": 3, "active": 0, "succeeded": 2, "failed": 1}
    assert len(status["failures"]) == 10
    assert status["steps"] == {"plan": 1, "shards": 1, "finalize": 1}
    assert shop.steps("large") == ["finalize-1", "plan-1", "shards-1"]
    assert all("ttlSecondsAfterFinished" in j["spec"] for j in shop.jobs("large"))


OUTCOMES: list[tuple[str, int | str, int, str, str]] = [
    ("none-failed", 0, 0, "True", "Succeeded"),
    ("as-many", 2, 2, "True", "PartiallySucceeded"),
    ("one-more", 2, 3, "False", "TooManyFailedImages"),
    ("share", "15%", 3, "True", "PartiallySucceeded"),
    ("share-more", "14%", 3, "False", "TooManyFailedImages"),
    ("all", "100%", 20, "False", "AllImagesFailed"),
]
"""Name, maxFailedImages, images that failed of 20, and Ready's status and reason."""


def test_outcomes(shop: Shop) -> None:
    """All at once: the time goes into the Job controller's pauses."""
    for name, limit, _, _, _ in OUTCOMES:
        shop.apply(name, failurePolicy={"maxFailedImages": limit}, **SHARDED)
    for name, *_ in OUTCOMES:
        shop.finish_step(name, "plan", kubelet.planned(20, 2))
    for name, *_ in OUTCOMES:
        shop.finish_shards(name, 2)
    for name, _, failed, _, _ in OUTCOMES:
        shop.finish_step(name, "finalize", kubelet.finalized(20, 2, failed))
    for name, _, _, ready, reason in OUTCOMES:
        status = shop.wait_finished(name, reason)
        said = shop.said(name)
        assert said["Ready"][0] == ready
        assert said["Stalled"][0] == ("False" if ready == "True" else "True")
        assert said["Reconciling"][0] == "False"
        assert status["results"]["csvURL"] == "gs://b/r.csv"
        shop.wait_events(name, "Started", "Finished" if ready == "True" else "Failed")


def test_an_invalid_catalogue_is_final(shop: Shop) -> None:
    shop.apply("broken")
    sample = report.Sample(line=3, reason="InvalidURL", message="no host")
    found = kubelet.refused(
        "plan",
        "CatalogueInvalid",
        "line 3: no host",
        catalogue=kubelet.catalogue(2, invalid_rows=1, samples=[sample]),
    )
    shop.finish_step("broken", "plan", found, report.EXIT_FINAL)
    status = shop.wait_finished("broken", "CatalogueInvalid")
    assert shop.said("broken")["CatalogueValid"] == ("False", "CatalogueInvalid")
    assert shop.said("broken")["Stalled"] == ("True", "CatalogueInvalid")
    samples = [{"line": 3, "reason": "InvalidURL", "message": "no host"}]
    assert status["catalogue"]["samples"] == samples
    assert shop.steps("broken") == ["plan-1"]


def test_another_request_has_the_id(shop: Shop) -> None:
    shop.apply("conflict", requestID="taken")
    message = kubelet.refused("plan", "RequestIDConflict", "done.json is of another spec")
    shop.finish_step("conflict", "plan", message, report.EXIT_FINAL)
    shop.wait_finished("conflict", "RequestIDConflict")
    assert shop.status("conflict")["requestID"] == "taken"
