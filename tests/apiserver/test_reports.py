"""What a step's Pod says at its end: lost, garbled, or made to do harm."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from imageprocessing_contract import report

from tests.apiserver import kubelet
from tests.apiserver.shop import Shop, is_over

PLAN, FINALIZE = kubelet.whole(3), kubelet.finalized(3, 1)


def changed(message: bytes, **fields: Any) -> str:
    """A report with other fields."""
    return json.dumps({**json.loads(message), **fields})


def garbled(good: bytes, other: bytes) -> dict[str, bytes | str]:
    """A step's reports that say nothing; the other step's is one of them."""
    return {
        "no-message": "",
        "cut": good[:-9],
        "no-json": "Killed",
        "no-object": "[]",
        "other-version": changed(good, version=2),
        "other-step": other,
        "below-zero": changed(good, shards=-1),
        "absurd": changed(good, shards=2**31),
        "nested": "[" * 4096,
        "wrong-type": changed(good, done=["3 images"]),
        "huge": changed(good, done={"images": "i" * 500_000}),
    }


def test_a_report_that_cannot_be_read_means_another_attempt(shop: Shop) -> None:
    plans, finalizes = garbled(PLAN, FINALIZE), garbled(FINALIZE, PLAN)
    for case in plans:
        shop.apply(f"plan-{case}")
        shop.apply(f"finalize-{case}")
    for case, message in plans.items():
        shop.finish_step(f"plan-{case}", "plan", message)
        # It may have got past the plan: finalize is next.
        shop.finish_step(f"finalize-{case}", "plan", "", report.EXIT_FINAL)
    for case, message in finalizes.items():
        shop.finish_step(f"plan-{case}", "plan", PLAN, attempt=2)
        shop.finish_step(f"finalize-{case}", "finalize", message)
    for case in finalizes:
        shop.finish_step(f"finalize-{case}", "finalize", FINALIZE, attempt=2)
    for case in plans:
        status = shop.wait_finished(f"plan-{case}", "Succeeded")
        assert status["steps"] == {"plan": 2}
        assert shop.steps(f"plan-{case}") == ["plan-1", "plan-2"]
        status = shop.wait_finished(f"finalize-{case}", "Succeeded")
        assert status["steps"] == {"plan": 1, "finalize": 2}


def test_a_report_goes_with_its_pod(shop: Shop) -> None:
    """The Pod is deleted before the operator could read it; and after five times it ends."""
    shop.apply("unread")
    shop.apply("never")
    for attempt in range(1, 6):
        job = shop.job("never", "plan", attempt)
        if attempt > 1:
            shop.kubelet.finish(job, "")
            continue
        other = shop.job("unread", "plan")
        shop.operator.kill()
        shop.kubelet.finish(job, "")
        shop.kubelet.finish(other, kubelet.whole(3))
        shop.wait_job(other, is_over)
        for pod in shop.kube.list("pods", labels=f"batch.kubernetes.io/job-name={other}"):
            shop.kube.delete("pods", pod["metadata"]["name"])
        shop.operator.start()
        shop.finish_step("unread", "plan", kubelet.whole(3), attempt=2)
    shop.wait_finished("unread", "Succeeded")
    shop.wait_finished("never", "ReportLost")
    assert shop.status("never")["steps"] == {"plan": 5}


def test_an_error_that_nobody_knows_ends_the_request(shop: Shop) -> None:
    """One of a newer worker, and reasons that are no plan's."""
    reasons = {"newer": "NewerReason", "good": "Succeeded", "none": "", "escape": "\x1b[2J"}
    for name in reasons:
        shop.apply(f"unknown-{name}")
    for name, reason in reasons.items():
        message = kubelet.refused("plan", reason, "mind\x1b[2J https://u:p@x/y")
        shop.finish_step(f"unknown-{name}", "plan", message, report.EXIT_FINAL)
    for name in reasons:
        shop.wait_finished(f"unknown-{name}", "PlanFailed")
        assert shop.condition(f"unknown-{name}", "Ready")["message"] == "mind [2J https://x/y"


def test_a_report_beyond_the_bounds_of_status_is_cut(shop: Shop) -> None:
    wide = report.Failure(line=1, url="http://x/" + "u" * 300, reason="R" * 300, message="m" * 1200)
    hostile = report.Failure(
        line=2**63 - 1, url="http://u:p@x/\x1b]0;owned\x07?token=1", reason="\r", message="\x1b[2J"
    )
    totals = msgspec.structs.replace(
        kubelet.done(2), failures=[wide, hostile, *[wide] * 98], failed_shards=9
    )
    found = {
        step: report.Report(step=step, catalogue=kubelet.catalogue(2), shards=1, done=totals)
        for step in ("plan", "finalize")
    }
    for step in found:
        shop.apply(f"wide-{step}")
    shop.finish_step("wide-plan", "plan", msgspec.json.encode(found["plan"]))
    shop.finish_step("wide-finalize", "plan", "", report.EXIT_FINAL)
    shop.finish_step("wide-finalize", "finalize", msgspec.json.encode(found["finalize"]))
    for step in found:
        status = shop.wait_finished(f"wide-{step}", "Succeeded")
        failures = status["failures"]
        assert len(failures) == 10
        assert [len(failures[0][key]) for key in ("url", "reason", "message")] == [160, 256, 1024]
        clean = {"line": 2**63 - 1, "url": "http://x/ ]0;owned ", "reason": " ", "message": " [2J"}
        assert failures[1] == clean
        assert status["shards"] == {"total": 1, "active": 0, "succeeded": 0, "failed": 1}
