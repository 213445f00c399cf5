"""What happens to the Jobs of a step while no operator is there to see it."""

from __future__ import annotations

from typing import Any

import pytest
from imageprocessing_contract import report

from tests.apiserver import kubelet
from tests.apiserver.shop import SHARDED, Shop, is_over

STEPS = ("plan", "shards", "finalize")
GOOD = {"plan": kubelet.planned(20, 2), "shards": b"", "finalize": kubelet.finalized(20, 2)}


def end(shop: Shop, job: str, step: str, code: int = 0) -> None:
    """All Pods of a Job."""
    for pod in shop.kubelet.wait_pods(job, 2 if step == "shards" else 1):
        shop.kubelet.end(pod, b"" if code else GOOD[step], code)


def fail(shop: Shop, job: str, step: str) -> None:
    """Without a word."""
    end(shop, job, step, report.EXIT_FINAL)
    shop.wait_job(job, is_over)


def delete(shop: Shop, job: str, _: str) -> None:
    shop.kube.delete("jobs", job)


def lose(shop: Shop, job: str, step: str) -> None:
    """It ends well, and its Pods are gone before anybody could read them."""
    end(shop, job, step)
    shop.wait_job(job, is_over)
    for pod in shop.kube.list("pods", labels=f"batch.kubernetes.io/job-name={job}"):
        shop.kube.delete("pods", pod["metadata"]["name"])


HAPPENS: dict[str, Any] = {"fails": fail, "deleted": delete, "lost": lose}
THEN: dict[tuple[str, str], tuple[str, int] | None] = {
    ("fails", "plan"): ("finalize", 1),  # it may have got past the plan
    ("fails", "shards"): ("finalize", 1),
    ("fails", "finalize"): None,
    ("deleted", "plan"): ("plan", 1),
    ("deleted", "shards"): ("shards", 1),
    ("deleted", "finalize"): ("finalize", 1),
    ("lost", "plan"): ("plan", 2),
    ("lost", "shards"): ("finalize", 1),  # what they did is in the output
    ("lost", "finalize"): ("finalize", 2),
}
"""The Job that comes next, by its step and attempt."""


@pytest.mark.parametrize("step", STEPS)
def test_seen_afterwards(shop: Shop, step: str) -> None:
    names = {what: f"{what}-{step}" for what in HAPPENS}
    for name in names.values():
        shop.apply(name, **SHARDED)
    jobs = {}
    for before in STEPS[: STEPS.index(step)]:
        for name in names.values():
            end(shop, shop.job(name, before), before)
    for what, name in names.items():
        jobs[what] = shop.job(name, step)
        shop.kubelet.wait_pods(jobs[what], 2 if step == "shards" else 1)
        # An event is written after status, and once.
        shop.wait_status(name, steps=dict.fromkeys(STEPS[: STEPS.index(step) + 1], 1))
        shop.wait_events(name, "Started")
    uids = {what: shop.kube.get("jobs", job)["metadata"]["uid"] for what, job in jobs.items()}
    shop.operator.kill()
    for what, happen in HAPPENS.items():
        happen(shop, jobs[what], step)
    shop.operator.start()
    for what, name in names.items():
        then = THEN[what, step]
        if then is None:
            shop.wait_finished(name, "FinalizeFailed")
            continue
        at, attempt = then
        job = shop.job(name, at, attempt)
        shop.wait_job(job, lambda body, what=what: body["metadata"]["uid"] != uids[what])
        end(shop, job, at)
        for after in STEPS[STEPS.index(at) + 1 :]:
            end(shop, shop.job(name, after), after)
    for what, name in names.items():
        if THEN[what, step] is not None:
            shop.wait_finished(name, "Succeeded")
