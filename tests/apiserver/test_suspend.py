"""Suspend, resume, parallelism and the deadline."""

from __future__ import annotations

from datetime import datetime

from imageprocessing_contract import task

from tests.apiserver import kubelet
from tests.apiserver.kube import Object, eventually
from tests.apiserver.shop import SHARDED, Shop

SUSPENDED = {
    "Ready": ("False", "Suspended"),
    "Reconciling": ("False", "Suspended"),
    "Stalled": ("False", "Suspended"),
    "Finished": ("False", "NotFinished"),
}


def is_suspended(job: Object) -> bool:
    return bool(job["spec"].get("suspend"))


def suspend(shop: Shop, name: str, job: str) -> None:
    """Suspends and waits until no Pod is left."""
    shop.edit(name, suspend=True)
    shop.wait_job(job, is_suspended)
    shop.wait_said(name, "Ready", "False", "Suspended")
    shop.kubelet.wait_pods(job, 0)
    said = shop.said(name)
    assert {kind: said[kind] for kind in SUSPENDED} == SUSPENDED


def resume(shop: Shop, name: str) -> None:
    shop.edit(name, suspend=False)


def test_suspend_and_resume_in_every_step(shop: Shop) -> None:
    shop.apply("paused", suspend=True, **SHARDED)
    shop.wait_said("paused", "Ready", "False", "Suspended")
    assert shop.jobs("paused") == []
    assert "startTime" not in shop.status("paused")
    shop.wait_events("paused")

    resume(shop, "paused")
    plan = shop.job("paused", "plan")
    shop.kubelet.wait_pods(plan)
    shop.wait_events("paused", "Started")
    suspend(shop, "paused", plan)
    resume(shop, "paused")
    shop.kubelet.finish(plan, kubelet.planned(20, 2))

    shards = shop.job("paused", "shards")
    shop.kubelet.wait_pods(shards, 2)
    suspend(shop, "paused", shards)
    resume(shop, "paused")
    for pod in shop.kubelet.wait_pods(shards, 2):
        shop.kubelet.end(pod)

    finalize = shop.job("paused", "finalize")
    shop.kubelet.wait_pods(finalize)
    suspend(shop, "paused", finalize)
    resume(shop, "paused")
    shop.kubelet.finish(finalize, kubelet.finalized(20, 2))
    status = shop.wait_finished("paused", "Succeeded")
    assert "suspendTime" not in status
    assert shop.steps("paused") == ["finalize-1", "plan-1", "shards-1"]


def test_parallelism_follows_the_request(shop: Shop) -> None:
    shop.apply("wider", sharding={"imagesPerShard": 10, "maxParallelism": 1})
    shop.finish_step("wider", "plan", kubelet.planned(30, 3))
    job = shop.job("wider", "shards")
    shop.kubelet.wait_pods(job, 1)
    shop.edit("wider", sharding={"maxParallelism": 2})
    shop.kubelet.wait_pods(job, 2)
    # No more than there are shards.
    shop.edit("wider", sharding={"maxParallelism": 9})
    shop.kubelet.wait_pods(job, 3)
    assert shop.kube.get("jobs", job)["spec"]["parallelism"] == 3
    shop.edit("wider", sharding={"maxParallelism": 1})
    shop.kubelet.wait_pods(job, 1)
    # Also while it is suspended.
    suspend(shop, "wider", job)
    shop.edit("wider", sharding={"maxParallelism": 2})
    resume(shop, "wider")
    shop.kubelet.wait_pods(job, 2)
    for count in (2, 1):
        shop.kubelet.end(shop.kubelet.wait_pods(job, count)[0])
    shop.kubelet.finish(job)
    shop.finish_step("wider", "finalize", kubelet.finalized(30, 3))
    shop.wait_finished("wider", "Succeeded")
    assert shop.steps("wider") == ["finalize-1", "plan-1", "shards-1"]


def cause(shop: Shop, job: str) -> str | None:
    """Why finalize was told to end early."""
    (container,) = shop.kube.get("jobs", job)["spec"]["template"]["spec"]["containers"]
    text = next(env["value"] for env in container["env"] if env["name"] == "IMAGEPROCESSING_TASK")
    return task.decode(text).cause


def test_the_deadline(shop: Shop) -> None:
    """In the plan, in shards, and not while a request is suspended; side by side."""
    shop.apply("late-plan", activeDeadlineSeconds=2, **SHARDED)
    shop.apply("late-shards", activeDeadlineSeconds=4, **SHARDED)
    shop.apply("in-time", activeDeadlineSeconds=4, **SHARDED)
    shop.job("in-time", "plan")
    suspend(shop, "in-time", shop.job("in-time", "plan"))
    shop.finish_step("late-shards", "plan", kubelet.planned(20, 2))
    shards = shop.job("late-shards", "shards")
    shop.kubelet.end(shop.kubelet.wait_pods(shards, 2)[0])

    finalize = shop.job("late-plan", "finalize")
    assert cause(shop, finalize) == "DeadlineExceeded"
    assert is_suspended(shop.kube.get("jobs", shop.job("late-plan", "plan")))
    shop.kubelet.finish(finalize, kubelet.refused("finalize", "NotPlanned", "no plan"), 42)
    shop.wait_finished("late-plan", "DeadlineExceeded")

    finalize = shop.job("late-shards", "finalize")
    assert cause(shop, finalize) == "DeadlineExceeded"
    assert is_suspended(shop.kube.get("jobs", shards))
    report = kubelet.finalized(20, 2, failed=10, failed_shards=1, cause="DeadlineExceeded")
    shop.kubelet.finish(finalize, report)
    status = shop.wait_finished("late-shards", "DeadlineExceeded")
    assert status["results"]["csvURL"] == "gs://b/r.csv"
    assert shop.said("late-shards")["Stalled"] == ("True", "DeadlineExceeded")
    # What was stopped goes; what ended stays for its TTL.
    eventually(lambda: shop.find("jobs", shards) is None, "the shards Job is gone")

    begun = datetime.fromisoformat(shop.status("in-time")["startTime"])
    now = datetime.fromisoformat(kubelet.now())
    assert (now - begun).total_seconds() >= 4, "the deadline would have passed by now"
    resume(shop, "in-time")
    shop.finish_step("in-time", "plan", kubelet.whole(5))
    shop.wait_finished("in-time", "Succeeded")
    assert shop.steps("in-time") == ["plan-1"]


def test_the_deadline_later(shop: Shop) -> None:
    """In the one Pod, in finalize, and moved while the request runs; side by side."""
    shop.apply("one-pod", activeDeadlineSeconds=1)
    shop.apply("finalizing")
    shop.apply("shorter", **SHARDED)
    shop.apply("longer", **SHARDED)
    suspend(shop, "longer", shop.job("longer", "plan"))
    shop.edit("longer", activeDeadlineSeconds=1)
    # A plan that fails without a word may have got past the plan.
    shop.finish_step("finalizing", "plan", "", 42)
    finalizing = shop.job("finalizing", "finalize")
    uid = shop.kube.get("jobs", finalizing)["metadata"]["uid"]
    shop.finish_step("shorter", "plan", kubelet.planned(20, 2))
    shop.kubelet.wait_pods(shop.job("shorter", "shards"), 2)
    for name in ("shorter", "finalizing"):
        shop.edit(name, activeDeadlineSeconds=1)

    for name in ("one-pod", "shorter"):
        job = shop.job(name, "finalize")
        assert cause(shop, job) == "DeadlineExceeded"
        found = kubelet.finalized(20, 2, failed=10, failed_shards=1, cause="DeadlineExceeded")
        shop.kubelet.finish(job, found)
        status = shop.wait_finished(name, "DeadlineExceeded")
        assert status["results"]["csvURL"] == "gs://b/r.csv"

    # Past the deadline by now: what has been done is still delivered, and was not cut short.
    shop.kube.delete("jobs", finalizing)
    shop.wait_job(finalizing, lambda job: job["metadata"]["uid"] != uid)
    assert cause(shop, finalizing) is None
    shop.kubelet.finish(finalizing, kubelet.finalized(20, 1))
    shop.wait_finished("finalizing", "Succeeded")

    shop.edit("longer", suspend=False, activeDeadlineSeconds=600)
    shop.finish_step("longer", "plan", kubelet.planned(20, 2))
    shop.finish_shards("longer", 2)
    shop.finish_step("longer", "finalize", kubelet.finalized(20, 2))
    shop.wait_finished("longer", "Succeeded")
