"""The Job of a step, as a plain object. Pure."""

from __future__ import annotations

from typing import Any

from imageprocessing_contract import names, report, task
from imageprocessing_contract.request import Source, output_path
from imageprocessing_contract.task import Output, Step, Task

from imageprocessing_operator.actions import CreateJob
from imageprocessing_operator.settings import Settings
from imageprocessing_operator.state import Request

_USER = 65532  # "nonroot" of the distroless images; the Dockerfiles use the same
_GRACE = 30
"""Seconds from SIGTERM to SIGKILL: one checkpoint takes about two, uploads under way may
take as long as the bucket lets them."""


def build_job(
    request: Request,
    wanted: CreateJob,
    source: Source,
    settings: Settings,
    failures_of: str | None = None,
) -> dict[str, Any]:
    """The Job for batch/v1; `source` has the inline text that a cached request lacks."""
    labels = {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_REQUEST_UID: request.uid,
        names.LABEL_STEP: wanted.step,
        names.LABEL_ATTEMPT: str(wanted.attempt),
    }
    queued = {names.LABEL_QUEUE: request.queue} if request.queue else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.job_name(request.name, request.uid, wanted.step, wanted.attempt),
            "namespace": request.namespace,
            "labels": labels | queued,
            "ownerReferences": [_owner(request)],
        },
        "spec": {
            **_completion(request, wanted),
            # A Job in a queue starts suspended: Kueue lets it go.
            **({"suspend": True} if request.queue else {}),
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _failure_rules(wanted.step)},
            "template": {
                "metadata": {"labels": labels},
                "spec": _pod(request, wanted, source, settings, failures_of),
            },
        },
    }


def read_task(job: dict[str, Any]) -> Task:
    """The task that a Job was built with."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (text,) = (env["value"] for env in container["env"] if env["name"] == names.ENV_TASK)
    return task.decode(text.replace("$$", "$"))


def _owner(request: Request) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": request.name,
        "uid": request.uid,
        "controller": True,
        # True would need a permission on the finalizers of requests, and a foreground
        # deletion would wait for Pods.
        "blockOwnerDeletion": False,
    }


def _completion(request: Request, wanted: CreateJob) -> dict[str, Any]:
    """How often a step may fail, and for shards how many run at a time."""
    sharding = request.spec.sharding
    if wanted.step != "shards":
        return {"backoffLimit": sharding.retries_per_shard}
    total = wanted.shards or 1
    return {
        "completionMode": "Indexed",
        "completions": total,
        "parallelism": min(request.max_parallelism, total),
        # No maxFailedIndexes: reaching it kills the shards that run.
        "backoffLimitPerIndex": sharding.retries_per_shard,
    }


def _failure_rules(step: Step) -> list[dict[str, Any]]:
    def on_exit(code: int, action: str) -> dict[str, Any]:
        codes = {"containerName": names.CONTAINER, "operator": "In", "values": [code]}
        return {"action": action, "onExitCodes": codes}

    return [
        on_exit(report.EXIT_FINAL, "FailIndex" if step == "shards" else "FailJob"),
        # A plain Pod deletion sets no DisruptionTarget: this exit code is all that tells.
        on_exit(report.EXIT_INTERRUPTED, "Ignore"),
        {
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
    ]


def _pod(
    request: Request,
    wanted: CreateJob,
    source: Source,
    settings: Settings,
    failures_of: str | None,
) -> dict[str, Any]:
    spec = request.spec
    volumes, mounts = _volumes(request, wanted.step)
    worker = spec.worker
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "serviceAccountName": settings.worker_service_account,
        "terminationGracePeriodSeconds": _GRACE,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": names.CONTAINER,
                "image": settings.worker_image,
                "imagePullPolicy": settings.worker_image_pull_policy,
                "env": _env(request, wanted, source, settings, failures_of),
                "resources": _resources(settings.worker_resources, worker.resources),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                },
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }
    if worker.node_selector:
        pod["nodeSelector"] = worker.node_selector
    if worker.tolerations:
        pod["tolerations"] = worker.tolerations
    if worker.priority_class_name:
        pod["priorityClassName"] = worker.priority_class_name
    if settings.worker_image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": n} for n in settings.worker_image_pull_secrets]
    return pod


def _resources(defaults: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The request's resources over the operator's defaults, each quantity by itself."""
    merged = {
        kind: {**defaults.get(kind, {}), **wanted.get(kind, {})} for kind in ("requests", "limits")
    }
    return {kind: quantities for kind, quantities in merged.items() if quantities}


def _volumes(request: Request, step: Step) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108
    source, output = request.spec.source, request.spec.output
    read_only = {"name": "source", "mountPath": names.SOURCE_MOUNT, "readOnly": True}
    if step == "plan" and (ref := source.config_map_key_ref):
        items = [{"key": ref.key, "path": ref.key}]
        volumes.append({"name": "source", "configMap": {"name": ref.name, "items": items}})
        mounts.append(read_only)
    if claim := output.persistent_volume_claim:
        volumes.append(_claim("output", claim.claim_name))
        mounts.append({"name": "output", "mountPath": names.OUTPUT_MOUNT})
    if step == "plan" and (claim := source.persistent_volume_claim):
        # The kubelet never mounts a claim that a Pod has as two volumes (tried).
        held = output.persistent_volume_claim
        if held is not None and held.claim_name == claim.claim_name:
            read_only["name"] = "output"
        else:
            volumes.append(_claim("source", claim.claim_name))
        mounts.append(read_only)
    return volumes, mounts


def _claim(name: str, claim: str) -> dict[str, Any]:
    return {"name": name, "persistentVolumeClaim": {"claimName": claim}}


def _env(
    request: Request,
    wanted: CreateJob,
    source: Source,
    settings: Settings,
    failures_of: str | None,
) -> list[dict[str, Any]]:
    spec, output = request.spec, request.spec.output
    given = Task(
        step=wanted.step,
        namespace=request.namespace,
        name=request.name,
        request_id=request.request_id,
        spec_hash=request.spec_hash,
        source=source,
        output=Output(
            path=output_path(spec, request.request_id),
            base_url=output.public_base_url
            or _default_url(output.gcs.bucket if output.gcs else None),
            bucket=output.gcs.bucket if output.gcs else None,
            root=names.OUTPUT_MOUNT if output.persistent_volume_claim else None,
            firestore=output.firestore,
        ),
        compression=spec.compression,
        download=spec.download,
        images_per_shard=spec.sharding.images_per_shard,
        invalid_rows=spec.failure_policy.invalid_rows,
        formulas=output.formulas,
        failures_of=failures_of,
        cause=wanted.cause,
        allowed_networks=settings.worker_allowed_networks,
    )
    pod_uid = {"fieldRef": {"fieldPath": "metadata.uid"}}
    env: list[dict[str, Any]] = [
        {"name": names.ENV_TASK, "value": _literal(task.encode(given))},
        {"name": names.ENV_POD_UID, "valueFrom": pod_uid},
    ]
    if wanted.step == "plan" and source.inline is not None:
        env.append({"name": names.ENV_INLINE_SOURCE, "value": _literal(source.inline)})
    return env + settings.worker_env


def _default_url(bucket: str | None) -> str:
    return f"https://storage.googleapis.com/{bucket}" if bucket else ""


def _literal(value: str) -> str:
    """The kubelet expands $(NAME) in values; $$ stands for one dollar sign."""
    return value.replace("$", "$$")
