"""Pods that are deleted, evicted or preempted before they are done."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from imageprocessing_contract import report

from tests.apiserver import kubelet
from tests.apiserver.kube import Object
from tests.apiserver.shop import Shop


def delete(shop: Shop, pod: Object) -> None:
    """By hand: SIGTERM is all that the worker is told."""
    shop.kubelet.end(pod, "", report.EXIT_INTERRUPTED)
    shop.kube.delete("pods", pod["metadata"]["name"])


def evict(shop: Shop, pod: Object) -> None:
    """As kubectl drain and autoscalers do."""
    name = pod["metadata"]["name"]
    body = {"metadata": {"name": name}, "deleteOptions": {"gracePeriodSeconds": 0}}
    shop.kube.call("POST", shop.kube.path("pods", name, "eviction"), json=body)


def evict_as_kubelet(shop: Shop, pod: Object) -> None:
    """A node under pressure: the Pod stays, as a failed one."""
    shop.kubelet.evict(pod)


WAYS: dict[str, Callable[[Shop, Object], None]] = {
    "deleted": delete,
    "evicted": evict,
    "node-pressure": evict_as_kubelet,
}


def start(shop: Shop, job: str, count: int) -> list[Object]:
    """All Pods of a Job run, and the Job says so."""
    for pod in shop.kubelet.wait_pods(job, count):
        shop.kubelet.start(pod)
    shop.wait_job(job, lambda body: body["status"].get("ready") == count)
    return shop.kubelet.pods(job)


def test_shards_that_never_get_done(shop: Shop) -> None:
    """It is no failure, and is said after more than run at once; it clears with a shard's end."""
    shop.apply("shards", sharding={"imagesPerShard": 10, "retriesPerShard": 0})
    shop.finish_step("shards", "plan", kubelet.planned(30, 3))
    job = shop.job("shards", "shards")
    pods = start(shop, job, 3)
    shop.wait_said("shards", "Reconciling", "True", "Progressing")
    for pod, end in zip(pods, WAYS.values(), strict=True):
        end(shop, pod)
    evict(shop, start(shop, job, 3)[0])
    # That three run again is not enough: the others did, too. Nor is another operator.
    first, second, third = start(shop, job, 3)
    shop.wait_said("shards", "Reconciling", "True", "PodsDisrupted")
    assert shop.said("shards")["Stalled"][0] == "False"
    shop.operator.kill()
    shop.operator.start()
    shop.apply("later")
    shop.wait_said("later", "Ready", "Unknown", "Planning")
    assert shop.said("shards")["Reconciling"] == ("True", "PodsDisrupted")
    shop.kubelet.end(first)
    shop.wait_said("shards", "Reconciling", "True", "Progressing")
    for pod in (second, third):
        shop.kubelet.end(pod)
    shop.finish_step("shards", "finalize", kubelet.finalized(30, 3))
    shop.wait_finished("shards", "Succeeded")
    assert shop.steps("shards") == ["finalize-1", "plan-1", "shards-1"]


@pytest.mark.long
def test_plans_that_never_get_done(shop: Shop) -> None:
    """The Job controller waits 10 s, 20 s, 40 s."""
    for way in WAYS:
        shop.apply(way, sharding={"retriesPerShard": 0})
    jobs = {way: shop.job(way, "plan") for way in WAYS}
    for _ in range(3):
        pods = {way: start(shop, job, 1)[0] for way, job in jobs.items()}
        for way, pod in pods.items():
            WAYS[way](shop, pod)
    for job in jobs.values():
        start(shop, job, 1)
    for way in WAYS:
        shop.wait_said(way, "Reconciling", "True", "PodsDisrupted")
    for way in WAYS:
        shop.finish_step(way, "plan", kubelet.whole(3))
        shop.wait_finished(way, "Succeeded")
        assert shop.steps(way) == ["plan-1"]
