"""Crashes of the operator, and what people and clusters delete in between."""

from __future__ import annotations

from collections.abc import Callable

from imageprocessing_contract import report

from tests.apiserver import kubelet
from tests.apiserver.shop import SHARDED, Shop, is_over


def end_plan(shop: Shop, name: str) -> None:
    shop.finish_step(name, "plan", kubelet.planned(20, 2))


def end_shards(shop: Shop, name: str) -> None:
    shop.finish_shards(name, 2)


def end_finalize(shop: Shop, name: str) -> None:
    shop.finish_step(name, "finalize", kubelet.finalized(20, 2))


STEPS: list[tuple[str, Callable[[Shop, str], None]]] = [
    ("plan", end_plan),
    ("shards", end_shards),
    ("finalize", end_finalize),
]


def test_the_operator_is_killed_during_each_step(shop: Shop) -> None:
    """Once while the step's Pods run, and once with the end of the step unseen."""
    shop.apply("crash", **SHARDED)
    # An event is written last and once: killed before it, the operator never makes up for it.
    shop.wait_events("crash", "Started")
    uids: dict[str, str] = {}
    for step, end in STEPS:
        job = shop.job("crash", step)
        shop.kubelet.wait_pods(job, 2 if step == "shards" else 1)
        uids[job] = shop.kube.get("jobs", job)["metadata"]["uid"]
        shop.operator.kill()
        end(shop, "crash")
        shop.wait_job(job, is_over)
        shop.operator.start()
    status = shop.wait_finished("crash", "Succeeded")
    assert status["steps"] == {"plan": 1, "shards": 1, "finalize": 1}
    jobs = shop.jobs("crash")
    assert {job["metadata"]["name"]: job["metadata"]["uid"] for job in jobs} == uids
    shop.wait_events("crash", "Started", "Finished")


def test_a_lost_status_is_found_again(shop: Shop) -> None:
    """Killed between the creation of a Job and the status: the Job is adopted."""
    shop.apply("lost-status", **SHARDED)
    end_plan(shop, "lost-status")
    job = shop.job("lost-status", "shards")
    uid = shop.kube.get("jobs", job)["metadata"]["uid"]
    shop.wait_said("lost-status", "Ready", "Unknown", "Processing")
    shop.operator.kill()
    old = shop.status("lost-status")
    nothing = {
        "observedGeneration": -1,
        **{key: None for key in old if key != "observedGeneration"},
    }
    shop.kube.patch("ipr", "lost-status", {"status": nothing}, "status")
    shop.operator.start()
    shop.wait_said("lost-status", "Ready", "Unknown", "Processing")
    again = shop.status("lost-status")
    assert again["images"]["total"] == 20
    assert shop.kube.get("jobs", job)["metadata"]["uid"] == uid
    end_shards(shop, "lost-status")
    end_finalize(shop, "lost-status")
    shop.wait_finished("lost-status", "Succeeded")


def test_jobs_that_somebody_deletes_are_made_again(shop: Shop) -> None:
    shop.apply("deleted", **SHARDED)
    for step, end in STEPS:
        job = shop.job("deleted", step)
        uid = shop.kube.get("jobs", job)["metadata"]["uid"]
        shop.kube.delete("jobs", job)
        shop.wait_job(job, lambda body, uid=uid: body["metadata"]["uid"] != uid)
        end(shop, "deleted")
    shop.wait_finished("deleted", "Succeeded")
    assert shop.steps("deleted") == ["finalize-1", "plan-1", "shards-1"]


def test_requests_that_are_deleted_take_their_jobs_along(shop: Shop) -> None:
    """In each step; the next of the same name is another request."""
    for count in range(3):
        uid = shop.apply("gone", **SHARDED)["metadata"]["uid"]
        for step, end in STEPS[:count]:
            shop.job("gone", step)
            end(shop, "gone")
        job = shop.job("gone", STEPS[count][0])
        shop.kube.delete("ipr", "gone")
        # Made again at once, so that the old one's last events come to the new one.
        new = shop.apply("gone", **SHARDED)["metadata"]["uid"]
        shop.wait_no_jobs(uid)
        assert shop.job("gone", "plan") != job
        end_plan(shop, "gone")
        end_shards(shop, "gone")
        end_finalize(shop, "gone")
        shop.wait_finished("gone", "Succeeded")
        assert shop.kube.get("ipr", "gone")["metadata"]["uid"] == new
        assert shop.jobs_of(uid) == []
        shop.kube.delete("ipr", "gone")


def test_pods_that_fail_are_tried_again(shop: Shop) -> None:
    """An interruption does not count as a try. The Job controller waits 10 s each time."""
    retries = {report.EXIT_RETRY: 1, report.EXIT_INTERRUPTED: 0}
    first: dict[int, str] = {}
    for code, count in retries.items():
        shop.apply(f"exit-{code}", sharding={"retriesPerShard": count})
    for code in retries:
        (pod,) = shop.kubelet.wait_pods(shop.job(f"exit-{code}", "plan"))
        first[code] = pod["metadata"]["uid"]
        shop.kubelet.end(pod, "", code)
    for code in retries:
        name = f"exit-{code}"
        job = shop.job(name, "plan")
        shop.kubelet.wait_another(job, first[code])
        shop.kubelet.finish(job, kubelet.whole(1))
        shop.wait_finished(name, "Succeeded")
        assert shop.steps(name) == ["plan-1"]
