"""Where each trouble shows; the API is a table of answers."""

from __future__ import annotations

from typing import Any

import pytest
from imageprocessing_contract.reasons import Reason
from imageprocessing_operator.api import APIError
from imageprocessing_operator.state import Trouble
from imageprocessing_operator.trouble import find_trouble, read_pod

from tests.unit.operator_state import NOW, a_job, after


class Answers:
    """An API with events by (uid, reason) and Pods."""

    def __init__(self, events: dict[str, list[dict[str, Any]]], pods: list[dict[str, Any]]) -> None:
        self.events, self.pods = events, pods
        self.refusal: APIError | None = None

    async def call(
        self, method: str, path: str, *, query: dict[str, Any], body: Any = None
    ) -> dict[str, Any]:
        if body is not None:
            assert (method, query) == ("POST", {"dryRun": "All"})
            if self.refusal:
                raise self.refusal
            return {}
        if path.endswith("/pods"):
            return {"items": self.pods}
        return {"items": self.events.get(query["fieldSelector"], [])}


async def look(job: Any, events: Any = None, pods: Any = None, now: Any = NOW) -> Trouble | None:
    return await find_trouble(Answers(events or {}, pods or []), job, now)  # type: ignore[arg-type]


def event(message: str, second: int) -> dict[str, Any]:
    return {"message": message, "lastTimestamp": f"2026-03-01T12:00:{second:02}Z"}


def events_of(uid: str, **reasons: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {f"involvedObject.uid={uid},reason={name}": found for name, found in reasons.items()}


NO_POD = a_job("plan", active=0, ready=0)
FAILED = [event("older", 1), event('pods "spring-plan-x7k2p" is forbidden: quota', 5)]


async def test_pods_that_were_refused() -> None:
    found = await look(NO_POD, events_of("plan-1", FailedCreate=FAILED))
    assert found is not None
    assert found.reason == Reason.PODS_NOT_CREATED
    assert found.message == 'pods "spring-plan-…" is forbidden: quota'


async def test_a_refusal_before_the_last_pod_is_history() -> None:
    created = [event("made", 6)]
    events = events_of("plan-1", FailedCreate=FAILED, SuccessfulCreate=created)
    assert await look(NO_POD, events) is None
    events = events_of("plan-1", FailedCreate=FAILED, SuccessfulCreate=[event("made", 4)])
    assert await look(NO_POD, events) is not None


@pytest.mark.parametrize(
    ("causes", "reason"), [(["NamespaceTerminating"], Reason.NAMESPACE_TERMINATING), ([], None)]
)
async def test_nothing_can_be_created(causes: list[str], reason: Reason | None) -> None:
    """Of a namespace that terminates no event tells; another refusal is none of ours."""
    answers = Answers({}, [])
    answers.refusal = APIError(403, "Forbidden", "no", causes=causes)
    found = await find_trouble(answers, NO_POD, NOW)  # type: ignore[arg-type]
    assert (found and found.reason) == reason
    assert found is None or found.final


def waiting(reason: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": "m"}}
    return {"status": {"containerStatuses": [{"name": "worker", "state": state}]}}


UNSCHEDULED = {
    "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "m"}]}
}
PODS: list[tuple[dict[str, Any], tuple[Reason, str] | None]] = [
    (UNSCHEDULED, (Reason.UNSCHEDULABLE, "m")),
    (waiting("ImagePullBackOff"), (Reason.IMAGE_NOT_PULLED, "ImagePullBackOff: m")),
    (waiting("ErrImageNeverPull"), (Reason.IMAGE_NOT_PULLED, "ErrImageNeverPull: m")),
    (
        waiting("CreateContainerConfigError"),
        (Reason.CONTAINER_NOT_CREATED, "CreateContainerConfigError: m"),
    ),
    (waiting("ContainerCreating"), None),
    ({}, None),
]


@pytest.mark.parametrize(("pod", "found"), PODS)
def test_what_a_pod_says(pod: dict[str, Any], found: tuple[Reason, str] | None) -> None:
    assert read_pod(pod) == found


async def test_a_volume_shows_in_an_event_of_the_pod_only() -> None:
    pods = [{"metadata": {"uid": "p"}}]
    events = events_of("p", FailedMount=[event('configmap "products" not found', 1)])
    found = await look(a_job("plan", ready=0), events, pods)
    assert found == Trouble(Reason.VOLUME_NOT_MOUNTED, 'configmap "products" not found', NOW)


async def test_the_same_cause_keeps_its_time() -> None:
    pods = [{"metadata": {"uid": "p"}, **UNSCHEDULED}]
    job = a_job("plan", ready=0, trouble=Trouble(Reason.UNSCHEDULABLE, "other words", NOW))
    found = await look(job, pods=pods, now=after(60))
    assert found == Trouble(Reason.UNSCHEDULABLE, "m", NOW)
    job = a_job("plan", ready=0, trouble=Trouble(Reason.IMAGE_NOT_PULLED, "m", NOW))
    found = await look(job, pods=pods, now=after(60))
    assert found is not None
    assert found.since == after(60)


def failed(reason: str, second: int | None) -> dict[str, Any]:
    """A Pod that ended then; of one that nobody saw end, the kubelet writes null."""
    when = None if second is None else f"2026-03-01T12:00:{second:02}Z"
    end = {"reason": reason, "finishedAt": when}
    return {"status": {"containerStatuses": [{"name": "worker", "state": {"terminated": end}}]}}


@pytest.mark.parametrize(
    ("pods", "seconds", "killed"),
    [
        ([failed("Error", 1), failed("OOMKilled", 5)], 600, True),
        ([failed("Error", 1), failed("OOMKilled", 5)], 610, False),
        ([failed("OOMKilled", 1), failed("Error", 5)], 10, False),
        ([failed("OOMKilled", 1), failed("ContainerStatusUnknown", None)], 10, True),
        ([], 10, False),
    ],
)
async def test_pods_that_need_more_memory(
    pods: list[dict[str, Any]], seconds: int, killed: bool
) -> None:
    """The last one that failed counts, for as long as it may be waited for."""
    found = await look(a_job("plan", active=0, ready=0, failed=2), pods=pods, now=after(seconds))
    assert (found is not None and found.reason == Reason.OOM_KILLED) == killed
    assert await look(NO_POD, pods=pods, now=after(seconds)) is None


@pytest.mark.parametrize(
    ("seconds", "phase", "lost"),
    [(9, "Running", False), (11, "Running", True), (11, "Failed", False)],
)
async def test_a_node_that_does_not_answer(seconds: int, phase: str, lost: bool) -> None:
    pod = {
        "metadata": {"deletionTimestamp": "2026-03-01T12:00:00Z"},
        "spec": {"nodeName": "n1"},
        "status": {"phase": phase},
    }
    found = await look(a_job("shards", terminating=1), pods=[pod], now=after(seconds))
    assert (
        found is not None and found.reason == Reason.NODE_LOST and "n1" in found.message
    ) == lost
