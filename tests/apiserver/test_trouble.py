"""What keeps a request from going on: it is said, and it clears when the cause goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import httpx
from imageprocessing_contract import names, task

from tests.apiserver import kubelet
from tests.apiserver.kube import Object, eventually
from tests.apiserver.shop import OUTPUT, SHARDED, Shop


def foreign_job(name: str) -> Object:
    """Somebody else's Job."""
    container = {"name": "c", "image": "i"}
    pod = {"restartPolicy": "Never", "containers": [container]}
    return {"metadata": {"name": name}, "spec": {"suspend": True, "template": {"spec": pod}}}


def failures_of(shop: Shop, job: str) -> str | None:
    """The id that a step's worker is given."""
    (container,) = shop.kube.get("jobs", job)["spec"]["template"]["spec"]["containers"]
    text = next(env["value"] for env in container["env"] if env["name"] == "IMAGEPROCESSING_TASK")
    return task.decode(text).failures_of


def test_what_blocks_a_request(shop: Shop) -> None:
    """Names that are taken, and other requests whose failures cannot be used."""
    uid = shop.apply("blocked", suspend=True)["metadata"]["uid"]
    name = names.job_name("blocked", uid, "plan")
    foreign = shop.kube.create("jobs", foreign_job(name))
    shop.edit("blocked", suspend=False)
    shop.apply("of-missing", source={"failuresOf": {"name": "first"}})
    shop.apply("of-missing-other", source={"failuresOf": {"name": "other"}})
    shop.wait_said("blocked", "Stalled", "True", "JobNameTaken")
    assert shop.said("blocked")["Reconciling"] == ("False", "JobNameTaken")
    assert shop.said("blocked")["Finished"] == ("False", "NotFinished")
    for waiting in ("of-missing", "of-missing-other"):
        shop.wait_said(waiting, "Stalled", "True", "SourceRequestNotUsable")
        assert shop.jobs(waiting) == []
    assert shop.kube.get("jobs", name)["metadata"]["uid"] == foreign["metadata"]["uid"]
    shop.kube.delete("jobs", name)

    shop.apply("first", requestID="first-id")
    shop.apply("other", output={"gcs": {"bucket": "another"}})
    shop.apply("of-running", source={"failuresOf": {"name": "first"}})
    shop.wait_said("of-running", "Reconciling", "True", "SourceRequestNotUsable")
    assert shop.said("of-running")["Stalled"][0] == "False"
    assert "not finished" in shop.condition("of-running", "Reconciling")["message"]
    for finished in ("first", "other"):
        shop.finish_step(finished, "plan", kubelet.whole(3, failed=1))
        shop.wait_finished(finished, "PartiallySucceeded")
    for waiting in ("of-running", "of-missing"):
        job = shop.job(waiting, "plan", seconds=45)
        assert failures_of(shop, job) == "first-id"
        shop.wait_said(waiting, "Reconciling", "True", "Progressing")
    made = shop.wait_job(name, lambda job: job["metadata"]["uid"] != foreign["metadata"]["uid"], 45)
    assert made["metadata"]["ownerReferences"][0]["uid"] == uid
    shop.wait_said("blocked", "Stalled", "False", "Progressing")
    eventually(
        lambda: "another output" in shop.condition("of-missing-other", "Stalled")["message"],
        "the other output is named",
        seconds=45,
    )

    # What the plan was given holds to the end, whatever becomes of the other request.
    shop.kube.delete("ipr", "first")
    shop.finish_step("of-running", "plan", kubelet.planned(20, 2))
    shop.finish_shards("of-running", 2)
    assert failures_of(shop, shop.job("of-running", "finalize")) == "first-id"
    output = shop.kube.get("ipr", "of-running")["spec"]["output"]
    assert output == {**OUTPUT, "formulas": "Keep"}


QUEUE = {"kueue.x-k8s.io/queue-name": "images"}


def test_kueue_decides_when_a_job_runs(shop: Shop) -> None:
    shop.apply("queued", labels=QUEUE, sharding={"imagesPerShard": 10, "maxParallelism": 2})
    plan = shop.job("queued", "plan")
    job = shop.kube.get("jobs", plan)
    assert job["spec"]["suspend"] is True
    assert QUEUE.items() <= job["metadata"]["labels"].items()
    shop.wait_said("queued", "Ready", "Unknown", "Planning")
    shop.kube.patch("jobs", plan, {"spec": {"suspend": False}})
    shop.kubelet.finish(plan, kubelet.planned(30, 3))

    shards = shop.job("queued", "shards")
    # Partial admission: fewer at once than was asked for.
    shop.kube.patch("jobs", shards, {"spec": {"suspend": False, "parallelism": 1}})
    (pod,) = shop.kubelet.wait_pods(shards)
    shop.kubelet.end(pod)
    shop.wait_status("queued", shards={"total": 3, "active": 1, "succeeded": 1, "failed": 0})
    assert shop.kube.get("jobs", shards)["spec"]["parallelism"] == 1

    # Preempted: Kueue suspends the Job, and the operator leaves it so.
    shop.kube.patch("jobs", shards, {"spec": {"suspend": True}})
    shop.wait_status("queued", shards={"total": 3, "active": 0, "succeeded": 1, "failed": 0})
    assert shop.kube.get("jobs", shards)["spec"]["suspend"] is True

    uid = shop.kube.get("jobs", shards)["metadata"]["uid"]
    shop.edit("queued", suspend=True)
    eventually(lambda: shop.find("jobs", shards) is None, "the Job is deleted")
    shop.wait_said("queued", "Ready", "False", "Suspended")
    shop.edit("queued", suspend=False)
    again = shop.wait_job(shards, lambda job: job["metadata"]["uid"] != uid)
    assert again["spec"]["suspend"] is True


_ADMISSION = {"apiVersion": "admissionregistration.k8s.io/v1"}
_UNCHANGED = (
    "request.operation == 'UPDATE' && object.spec.suspend == oldObject.spec.suspend"
    " && object.spec.parallelism == oldObject.spec.parallelism"
)


@contextmanager
def frozen_jobs(shop: Shop, *jobs: str) -> Iterator[str]:
    """A policy by which Jobs of the namespace stay as they are; its name."""
    name = f"{shop.kube.namespace}-frozen"
    meta = {"metadata": {"name": name}}
    rule = {
        "apiGroups": ["batch"],
        "apiVersions": ["v1"],
        "operations": ["UPDATE", "DELETE"],
        "resources": ["jobs"],
    }
    here = {"matchLabels": {"kubernetes.io/metadata.name": shop.kube.namespace}}
    validations = [{"expression": _UNCHANGED, "message": "Jobs are frozen"}]
    policy = {"matchConstraints": {"resourceRules": [rule]}, "validations": validations}
    binding = {
        "policyName": name,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": here},
    }
    kind = "ValidatingAdmissionPolicy"
    shop.cluster.apply({**_ADMISSION, "kind": kind, **meta, "spec": policy})
    shop.cluster.apply({**_ADMISSION, "kind": f"{kind}Binding", **meta, "spec": binding})

    def is_frozen(job: str) -> bool:
        found = shop.find("jobs", job)
        if found is None:
            return False
        other = {"spec": {"suspend": not found["spec"]["suspend"]}}
        path = shop.kube.path("jobs", job) + "?dryRun=All"
        headers = {"Content-Type": "application/merge-patch+json"}
        response = shop.kube.ask("PATCH", path, json=other, headers=headers)
        return response.status_code == httpx.codes.UNPROCESSABLE_ENTITY

    try:
        for job in jobs:
            eventually(partial(is_frozen, job), f"{job} is frozen")
        yield name
    finally:
        shop.cluster.kubectl("delete", f"{kind}Binding,{kind}", name)
    for job in jobs:
        eventually(lambda job=job: not is_frozen(job), f"{job} is free")


def test_changes_of_jobs_that_are_refused(shop: Shop) -> None:
    """A policy may stand in the way of suspending, of deleting, and of fewer Pods."""
    shop.apply("fewer", **SHARDED)
    shop.finish_step("fewer", "plan", kubelet.planned(30, 3))
    shop.apply("held")
    shop.apply("queued-held", labels=QUEUE)
    fewer, held = shop.job("fewer", "shards"), shop.job("held", "plan")
    queued = shop.job("queued-held", "plan")
    for name, step in (("fewer", "Processing"), ("held", "Planning"), ("queued-held", "Planning")):
        shop.wait_said(name, "Ready", "Unknown", step)
    with frozen_jobs(shop, fewer, held, queued) as policy:
        for name in ("held", "queued-held"):
            shop.edit(name, suspend=True)
        shop.edit("fewer", sharding={"maxParallelism": 1})
        # Not at once what blocks it, for it goes on as it is.
        shop.wait_said("fewer", "Reconciling", "True", "JobChangeRefused")
        assert shop.said("fewer")["Stalled"] == ("False", "Progressing")
        assert policy in shop.condition("fewer", "Reconciling")["message"]
        for name in ("held", "queued-held"):
            shop.wait_said(name, "Stalled", "True", "JobChangeRefused")
            assert shop.said(name)["Ready"] == ("False", "JobChangeRefused")
        # What is not wanted any more is in nobody's way.
        shop.edit("fewer", sharding={"maxParallelism": 2})
        shop.wait_said("fewer", "Reconciling", "True", "Progressing")
        shop.edit("fewer", sharding={"maxParallelism": 1})
        shop.wait_said("fewer", "Reconciling", "True", "JobChangeRefused")
    shop.wait_job(fewer, lambda job: job["spec"]["parallelism"] == 1)
    shop.wait_said("fewer", "Reconciling", "True", "Progressing")
    for name in ("held", "queued-held"):
        # Tried again every 30 s, or as soon as there is news.
        shop.edit(name, jobTTLSecondsAfterFinished=60)
        shop.wait_said(name, "Ready", "False", "Suspended")
        assert shop.said(name)["Stalled"] == ("False", "Suspended")
    assert shop.kube.get("jobs", held)["spec"]["suspend"] is True
    eventually(lambda: shop.find("jobs", queued) is None, "the Job is deleted")
