"""Every state that a request can be in, as the operator says it, and what GitOps tools make of it."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml
from imageprocessing_contract import names
from imageprocessing_contract.reasons import Condition, Reason
from imageprocessing_operator import conditions
from imageprocessing_operator.conditions import Phase, Said
from imageprocessing_operator.status import Status

from tests.apiserver.kube import Kube
from tests.cluster import build
from tests.cluster.cluster import Cluster, KubectlError

DOCS = Path(__file__).resolve().parents[2] / "docs"
BEGIN, END = "<!-- states -->", "<!-- end of states -->"
_SCRIPT = "resource.customizations.health.imageprocessing.dev_ImageProcessingRequest"
_NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WAITS = ("Finished", "Ready", "Stalled")
"""Conditions that `kubectl wait` is asked for."""

STEPS = (Reason.PLANNING, Reason.PROCESSING, Reason.FINALIZING)
TROUBLES = (
    Reason.PODS_NOT_CREATED,
    Reason.UNSCHEDULABLE,
    Reason.IMAGE_NOT_PULLED,
    Reason.CONTAINER_NOT_CREATED,
    Reason.VOLUME_NOT_MOUNTED,
    Reason.NODE_LOST,
    Reason.OOM_KILLED,
    Reason.PODS_DISRUPTED,
    Reason.JOB_CHANGE_REFUSED,
    Reason.SOURCE_REQUEST_NOT_USABLE,
)
"""Reconciling's reason first, Stalled's after ten minutes."""
REFUSALS = (
    Reason.JOB_NAME_TAKEN,
    Reason.JOB_REFUSED,
    Reason.NAMESPACE_TERMINATING,
    Reason.SPEC_UNREADABLE,
)
"""Stalled at once."""
SUCCESSES = (Reason.SUCCEEDED, Reason.PARTIALLY_SUCCEEDED)
FAILURES = (
    Reason.TOO_MANY_FAILED_IMAGES,
    Reason.ALL_IMAGES_FAILED,
    Reason.DEADLINE_EXCEEDED,
    Reason.CATALOGUE_INVALID,
    Reason.SOURCE_NOT_READABLE,
    Reason.SOURCE_REQUEST_NOT_USABLE,
    Reason.OUTPUT_NOT_WRITABLE,
    Reason.REQUEST_ID_CONFLICT,
    Reason.PLAN_FAILED,
    Reason.SHARD_FAILED,
    Reason.FINALIZE_FAILED,
    Reason.NOT_PLANNED,
    Reason.REPORT_LOST,
)
WEBHOOK = (
    Reason.NO_WEBHOOK,
    Reason.DELIVERY_PENDING,
    Reason.RETRYING,
    Reason.GAVE_UP,
    Reason.SECRET_NOT_FOUND,
    Reason.SECRET_NOT_USABLE,
    Reason.SPEC_UNREADABLE,
)


class State(NamedTuple):
    """One row of the table in DESIGN section 3, for one reason."""

    row: str
    reason: str
    status: dict[str, Any]
    deleted: bool = False


class Answer(NamedTuple):
    """What the tools say of it."""

    kstatus: str
    argo: str
    waits: tuple[bool, ...]
    """By WAITS."""


EXPECTED: dict[str, Answer] = {
    "not seen yet": Answer("InProgress", "Progressing", (False, False, False)),
    "edited, not seen yet": Answer("InProgress", "Progressing", (False, False, False)),
    "running": Answer("InProgress", "Progressing", (False, False, False)),
    "running, with trouble": Answer("InProgress", "Progressing", (False, False, False)),
    "suspended": Answer("InProgress", "Suspended", (False, False, False)),
    "blocked": Answer("Failed", "Degraded", (False, False, True)),
    "succeeded": Answer("Current", "Healthy", (True, True, False)),
    "succeeded, webhook": Answer("Current", "Healthy", (True, True, False)),
    "failed": Answer("Failed", "Degraded", (True, False, True)),
    "failed, webhook": Answer("Failed", "Degraded", (True, False, True)),
    "being deleted": Answer("Terminating", "Progressing", (False, False, False)),
}


def states() -> list[State]:
    """All of them."""
    succeeded = conditions.succeeded(Reason.SUCCEEDED, "4 of 4 images done")
    failed = conditions.failed(Reason.ALL_IMAGES_FAILED, "0 of 4 images done")
    trouble = {why: Said("True", why, "why") for why in TROUBLES}
    running = conditions.running(Reason.PLANNING, "under way")
    return [
        State("not seen yet", "", {}),
        State("edited, not seen yet", "", said(succeeded, generation=0)),
        *(State("running", why, said(conditions.running(why, "under way"))) for why in STEPS),
        *(
            State(
                "running, with trouble", why, said(conditions.running(STEPS[0], "", trouble[why]))
            )
            for why in TROUBLES
        ),
        State("suspended", Reason.SUSPENDED, said(conditions.suspended())),
        *(
            State("blocked", why, said(conditions.blocked(why, "why")))
            for why in (*TROUBLES, *REFUSALS)
        ),
        *(State("succeeded", why, said(conditions.succeeded(why, "done"))) for why in SUCCESSES),
        *(State("failed", why, said(conditions.failed(why, "why"))) for why in FAILURES),
        *(
            State(f"{row}, webhook", why, said(phase, notified=Said(truth, why)))
            for row, phase in (("succeeded", succeeded), ("failed", failed))
            for truth, why in (*(("False", why) for why in WEBHOOK), ("True", Reason.DELIVERED))
        ),
        State("being deleted", "", said(running), deleted=True),
    ]


def said(phase: Phase, *, generation: int = 1, notified: Said | None = None) -> dict[str, Any]:
    """A status as the operator writes it."""
    pending = phase.finished.status == "False"
    catalogue = Reason.CATALOGUE_PENDING if pending else Reason.CATALOGUE_VALID
    found = conditions.apply(
        Status(),
        generation,
        _NOW,
        {
            Condition.READY: phase.ready,
            Condition.RECONCILING: phase.reconciling,
            Condition.STALLED: phase.stalled,
            Condition.FINISHED: phase.finished,
            Condition.CATALOGUE_VALID: Said("Unknown" if pending else "True", catalogue),
            Condition.NOTIFIED: notified or Said("False", Reason.NO_WEBHOOK),
        },
    )
    status = Status(observed_generation=generation, conditions=found)
    fields: dict[str, Any] = msgspec.to_builtins(status)
    return fields


def script() -> str:
    """The health script as docs/gitops ships it."""
    data = yaml.safe_load((DOCS / "gitops" / "argocd-cm.yaml").read_text())["data"]
    found: str = data[_SCRIPT]
    return found


def ask(cluster: Cluster, namespace: str, directory: Path) -> list[tuple[State, Answer]]:
    """Brings a request into each state, and asks the tools about the API server's objects."""
    found = states()
    kube = Kube(cluster.kubeconfig, namespace)
    try:
        bodies = [make(kube, f"state-{number}", state) for number, state in enumerate(found)]
        lua = directory / "health.lua"
        lua.write_text(script())
        command = [str(build.gitops_tools()), "health", str(lua)]
        objects = "\n".join(map(json.dumps, bodies))
        done = subprocess.run(command, input=objects, capture_output=True, text=True, check=True)
        tools = [json.loads(line) for line in done.stdout.splitlines()]
        # kubectl makes five calls a second, at most.
        with ThreadPoolExecutor() as threads:
            met = list(threads.map(partial(waited, cluster, namespace), WAITS))
    finally:
        for body in kube.list("ipr"):
            patch = {"metadata": {"finalizers": None}}
            kube.patch("ipr", body["metadata"]["name"], patch)
        kube.close()
    return [
        (
            state,
            Answer(
                tool["kstatus"],
                tool["argo"]["status"],
                tuple(body["metadata"]["name"] in one for one in met),
            ),
        )
        for state, body, tool in zip(found, bodies, tools, strict=True)
    ]


def make(kube: Kube, name: str, state: State) -> dict[str, Any]:
    """A request in this state; nothing else writes to it."""
    spec = {"source": {"inline": "x"}, "output": {"gcs": {"bucket": "shop"}}}
    # The finalizer is what holds a request that is being deleted.
    meta = {"name": name, "finalizers": ["imageprocessing.test/held"]}
    body = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": meta, "spec": spec}
    kube.create("ipr", body)
    if state.status:
        kube.patch("ipr", name, {"status": state.status}, "status")
    if state.deleted:
        kube.delete("ipr", name)
    return kube.get("ipr", name)


def waited(cluster: Cluster, namespace: str, condition: str) -> set[str]:
    """The requests for which `kubectl wait` returns at once."""
    try:
        said = cluster.kubectl(
            "wait", "ipr", "--all", "-n", namespace, f"--for=condition={condition}", "--timeout=0"
        )
    except KubectlError as error:
        said = error.output
    met = (line for line in said.splitlines() if line.endswith("condition met"))
    return {line.split()[0].partition("/")[2] for line in met}


def table(asked: list[tuple[State, Answer]]) -> str:
    """The answers for docs/gitops.md, the reasons with one answer in one row."""
    rows: dict[tuple[str, Answer], list[str]] = {}
    for state, answer in asked:
        rows.setdefault((state.row, answer), []).append(state.reason)
    lines = [
        "| State | Reason | kstatus (Flux) | Argo CD | `kubectl wait --for=condition=...` returns |",
        "|---|---|---|---|---|",
    ]
    for (row, answer), reasons in rows.items():
        met = ", ".join(w for w, yes in zip(WAITS, answer.waits, strict=True) if yes) or "no"
        why = ", ".join(reason for reason in reasons if reason) or "-"
        lines.append(f"| {row} | {why} | {answer.kstatus} | {answer.argo} | {met} |")
    return "\n".join(lines)
