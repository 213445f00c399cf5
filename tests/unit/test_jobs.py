"""The Job of each step."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from imageprocessing_contract import names, task
from imageprocessing_operator.actions import CreateJob
from imageprocessing_operator.jobs import build_job, read_task
from imageprocessing_operator.settings import Settings
from imageprocessing_operator.state import Request

from tests.unit.operator_state import UID, WEBHOOK, a_request

CLAIM = {"claimName": "images", "path": "a"}


def built(step: Any, request: Request | None = None, **settings: Any) -> dict[str, Any]:
    request = request or a_request()
    shards = 3 if step == "shards" else None
    wanted = CreateJob(step, 1, shards)
    return build_job(request, wanted, request.spec.source, Settings(**settings), None)


def pod(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["template"]["spec"]
    return found


def container(job: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod(job)["containers"]
    assert found["name"] == "worker"
    return dict(found)


@pytest.mark.parametrize("step", task.STEPS)
def test_restricted_pods(step: str) -> None:
    """What Pod Security's level restricted asks for, and no token of the API."""
    job = built(step)
    security = pod(job)["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(job)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert pod(job)["automountServiceAccountToken"] is False
    assert pod(job)["enableServiceLinks"] is False
    assert pod(job)["restartPolicy"] == "Never"


def test_names_labels_and_owner() -> None:
    meta = built("plan")["metadata"]
    assert meta["name"] == names.job_name("spring", UID, "plan")
    assert meta["labels"] == {
        names.LABEL_MANAGED_BY: "imageprocessing-operator",
        names.LABEL_REQUEST_UID: UID,
        names.LABEL_STEP: "plan",
        names.LABEL_ATTEMPT: "1",
    }
    (owner,) = meta["ownerReferences"]
    assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (UID, True, False)


ACTIONS = {"plan": "FailJob", "shards": "FailIndex", "finalize": "FailJob"}


@pytest.mark.parametrize("step", ACTIONS)
def test_what_counts_as_a_failure(step: str) -> None:
    spec = built(step)["spec"]
    final, interrupted, disrupted = spec["podFailurePolicy"]["rules"]
    assert (final["action"], final["onExitCodes"]["values"]) == (ACTIONS[step], [42])
    assert (interrupted["action"], interrupted["onExitCodes"]["values"]) == ("Ignore", [143])
    assert disrupted["action"] == "Ignore"
    assert spec["podReplacementPolicy"] == "Failed"
    # They would delete Pods with their reports, or stop shards that run.
    assert not {"activeDeadlineSeconds", "maxFailedIndexes", "ttlSecondsAfterFinished"} & set(spec)


def test_shards_are_indexed() -> None:
    spec = built(
        "shards",
        a_request(sharding={"imagesPerShard": 1, "maxParallelism": 2, "retriesPerShard": 4}),
    )["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 2)
    assert spec["backoffLimitPerIndex"] == 4
    assert "backoffLimit" not in spec
    assert built("shards")["spec"]["parallelism"] == 3
    assert built("plan")["spec"]["backoffLimit"] == 3


def test_a_queue_gets_the_job_suspended() -> None:
    job = built("plan", msgspec.structs.replace(a_request(), queue="images"))
    assert job["metadata"]["labels"][names.LABEL_QUEUE] == "images"
    assert job["spec"]["suspend"] is True
    assert "suspend" not in built("plan")["spec"]


DOLLARS = "1,$(HOME) $$ $x,https://x/$(y)\n"


def test_dollars_reach_the_worker_as_they_are() -> None:
    """The kubelet takes $(NAME) for a variable, and $$ for a dollar."""
    request = a_request(source={"http": {"url": "https://x/$(HOME)/a$$b"}})
    job = built("plan", request)
    assert read_task(job).source == request.spec.source
    (text,) = (env["value"] for env in container(job)["env"] if env["name"] == names.ENV_TASK)
    assert "$$(HOME)/a$$$$b" in text


@pytest.mark.parametrize("step", task.STEPS)
def test_only_plan_gets_the_inline_text(step: str) -> None:
    request = a_request(source={"inline": DOLLARS})
    wanted = CreateJob(step, 1, 2)  # type: ignore[arg-type]
    source = msgspec.structs.replace(request.spec.source, inline=DOLLARS)
    env = {
        entry["name"]: entry.get("value")
        for entry in container(build_job(request, wanted, source, Settings()))["env"]
    }
    assert "https://x/" not in (env[names.ENV_TASK] or "")
    expected = DOLLARS.replace("$", "$$") if step == "plan" else None
    assert env.get(names.ENV_INLINE_SOURCE) == expected


# Source, step, and the volume that the worker reads.
SOURCES: list[tuple[dict[str, Any], str, dict[str, Any] | None]] = [
    (
        {"configMapKeyRef": {"name": "products", "key": "a.csv"}},
        "plan",
        {"configMap": {"name": "products", "items": [{"key": "a.csv", "path": "a.csv"}]}},
    ),
    ({"persistentVolumeClaim": CLAIM}, "plan", {"persistentVolumeClaim": {"claimName": "images"}}),
    ({"persistentVolumeClaim": CLAIM}, "shards", None),
    ({"http": {"url": "https://x/a.csv"}}, "plan", None),
    ({"gcs": {"bucket": "b", "object": "a.csv"}}, "plan", None),
]


@pytest.mark.parametrize(("source", "step", "volume"), SOURCES)
def test_sources(source: dict[str, Any], step: str, volume: dict[str, Any] | None) -> None:
    job = built(step, a_request(source=source))
    found = [v for v in pod(job)["volumes"] if v["name"] == "source"]
    assert found == ([{"name": "source", **volume}] if volume else [])
    mounts = [m for m in container(job)["volumeMounts"] if m["name"] == "source"]
    expected = [{"name": "source", "mountPath": "/source", "readOnly": True}]
    assert mounts == (expected if volume else [])


# Output, path and base URL in the task.
OUTPUTS: list[tuple[dict[str, Any], str, str]] = [
    ({"gcs": {"bucket": "b"}}, UID, "https://storage.googleapis.com/b"),
    ({"gcs": {"bucket": "b", "prefix": "x/y"}}, f"x/y/{UID}", "https://storage.googleapis.com/b"),
    ({"persistentVolumeClaim": CLAIM}, f"a/{UID}", ""),
    ({"gcs": {"bucket": "b"}, "publicBaseURL": "https://cdn"}, UID, "https://cdn"),
]


@pytest.mark.parametrize(("output", "path", "base"), OUTPUTS)
def test_outputs(output: dict[str, Any], path: str, base: str) -> None:
    job = built("shards", a_request(output=output))
    found = read_task(job).output
    assert (found.path, found.base_url) == (path, base)
    mounted = any(m["name"] == "output" for m in container(job)["volumeMounts"])
    assert mounted == ("persistentVolumeClaim" in output)


def test_what_the_processed_csv_does_with_formulas() -> None:
    output = {"persistentVolumeClaim": CLAIM}
    assert read_task(built("finalize", a_request(output=output))).formulas == "Keep"
    output["formulas"] = "Neutralize"
    assert read_task(built("finalize", a_request(output=output))).formulas == "Neutralize"


def test_nothing_of_the_webhook_reaches_a_pod() -> None:
    job = built("plan", a_request(webhook=WEBHOOK))
    assert "hook" not in str(job)


def test_what_the_admin_sets() -> None:
    worker = {"resources": {"limits": {"memory": "1Gi"}}, "nodeSelector": {"a": "b"}}
    job = built(
        "plan",
        a_request(worker=worker),
        worker_image="registry/worker:1",
        worker_image_pull_secrets=["pull"],
        worker_env=[{"name": "A", "value": "$(B)"}],
        worker_resources={"limits": {"cpu": "1", "memory": "2Gi"}},
        worker_allowed_networks=["10.0.0.0/8"],
    )
    assert container(job)["image"] == "registry/worker:1"
    assert container(job)["resources"] == {"limits": {"cpu": "1", "memory": "1Gi"}}
    assert container(job)["env"][-1] == {"name": "A", "value": "$(B)"}
    assert pod(job)["imagePullSecrets"] == [{"name": "pull"}]
    assert pod(job)["nodeSelector"] == {"a": "b"}
    assert read_task(job).allowed_networks == ["10.0.0.0/8"]


def test_parallelism_is_capped() -> None:
    """By the operator's own limit, where it has one."""
    for cap, parallelism in ((0, 3), (2, 2), (9, 3)):
        request = msgspec.structs.replace(a_request(), parallelism_cap=cap)
        assert built("shards", request)["spec"]["parallelism"] == parallelism
