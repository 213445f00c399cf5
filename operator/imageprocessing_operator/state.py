"""What the operator knows of a request and its Jobs, read from the API's objects."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal

import msgspec
from imageprocessing_contract import names
from imageprocessing_contract.reasons import Reason
from imageprocessing_contract.report import Report
from imageprocessing_contract.request import Spec, parse_spec, spec_hash
from imageprocessing_contract.task import Step

from imageprocessing_operator.status import Status, parse_fields

_ATTEMPT = re.compile("[1-9][0-9]{0,2}")  # as many as the CRD has room for


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What one attempt to deliver the webhook came to; retry_after in seconds."""

    attempt: int
    generation: int
    """Of the spec that was read: what an edit changed was not tried."""
    outcome: Literal["delivered", "gone", "failed", "no secret"]
    reason: Reason
    message: str
    status_code: int | None = None
    retry_after: float | None = None


class LostReport(msgspec.Struct, frozen=True):
    """A finished step left no report that can be read; the message says why."""

    message: str


class Trouble(msgspec.Struct, frozen=True):
    """What keeps a Job's Pods from running; `since` is when it was first seen."""

    reason: Reason
    message: str
    since: datetime
    final: bool = False


class Interruptions(msgspec.Struct, frozen=True):
    """Pods that went while they ran, since the Job last got on."""

    count: int
    first: datetime
    last: datetime
    unsure: int = 0
    """Further ones of which it is not known yet whether they are done."""


class _Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of any ImageProcessingRequest."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    deleting: bool
    status: Status
    unreadable_status: dict[str, Any] = {}
    """Fields as they are stored that cannot be read; in `status` they are absent."""


class UnreadableRequest(_Seen, frozen=True, kw_only=True):
    """One whose spec this operator cannot read; `problem` names the field."""

    problem: str


class Request(_Seen, frozen=True, kw_only=True):
    """One with its spec; that has no inline source, only its hash counts here."""

    spec: Spec
    spec_hash: str
    inline: bool
    queue: str | None
    delivery: Delivery | None = None
    """The last attempt, until it is in status."""
    refused: Trouble | None = None
    """Why the last write to one of its Jobs was refused."""
    parallelism_cap: int = 0
    """The operator's own limit, Settings.worker_max_parallelism; 0 is none."""

    @property
    def max_parallelism(self) -> int:
        """How many of its Pods may run at a time."""
        wanted = self.spec.sharding.max_parallelism
        return min(wanted, self.parallelism_cap or wanted)

    @property
    def request_id(self) -> str:
        """Names the output, the records and the webhook's id."""
        return self.spec.request_id or self.uid


Seen = Request | UnreadableRequest
"""One as it was seen last."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One step's Job; report, trouble and interruptions are what was found out about it since."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    request_uid: str
    owned: bool
    step: Step
    attempt: int
    created: datetime
    deleting: bool
    suspended: bool
    parallelism: int
    completions: int
    let_go: bool
    """It has its TTL, and the operator has no more to do with it."""
    active: int
    ready: int
    terminating: int
    succeeded: int
    failed_indexes: int
    finished_pods: int
    """Pods that succeeded, or failed in a way that counts."""
    ended: Literal["Complete", "Failed"] | None
    end_message: str
    failed: int = 0
    """Pods that failed, whatever became of their shards since."""
    report: Report | LostReport | None = None
    trouble: Trouble | None = None
    interruptions: Interruptions | None = None

    @property
    def pods(self) -> str:
        """Label selector of its Pods, those of an earlier Job of its name left out."""
        return f"batch.kubernetes.io/controller-uid={self.uid}"


def read_request(body: dict[str, Any]) -> Seen:
    """The request of an API object.

    What the CRD lets through can be read, but that may be of another version, or younger than
    the object.
    """
    meta = body["metadata"]
    status, unreadable = parse_fields(body.get("status", {}))
    seen: dict[str, Any] = {
        "namespace": meta["namespace"],
        "name": meta["name"],
        "uid": meta["uid"],
        "generation": meta["generation"],
        "resource_version": meta["resourceVersion"],
        "deleting": "deletionTimestamp" in meta,
        "status": status,
        "unreadable_status": unreadable,
    }
    try:
        spec = parse_spec(body.get("spec"))
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        return UnreadableRequest(**seen, problem=f"spec{where.rstrip('`')}: {what}")
    digest = spec_hash(spec)
    inline = spec.source.inline is not None
    if inline:
        # Up to 100 KiB that nothing here reads again.
        spec = msgspec.structs.replace(spec, source=msgspec.structs.replace(spec.source, inline=""))
    return Request(
        **seen,
        spec=spec,
        spec_hash=digest,
        inline=inline,
        queue=meta.get("labels", {}).get(names.LABEL_QUEUE),
    )


def read_job(body: dict[str, Any]) -> Job | None:
    """The Job of an API object, None where it is not one of ours by its labels."""
    meta, spec, status = body["metadata"], body["spec"], body.get("status", {})
    labels = meta.get("labels", {})
    uid, step = labels.get(names.LABEL_REQUEST_UID), labels.get(names.LABEL_STEP)
    attempt = labels.get(names.LABEL_ATTEMPT, "")
    if not uid or step not in ("plan", "shards", "finalize") or not _ATTEMPT.fullmatch(attempt):
        return None
    owners = meta.get("ownerReferences", [])
    # Only Complete and Failed are the end: SuccessCriteriaMet and FailureTarget come up
    # to 7 s earlier, while Pods still run.
    end = next(
        (
            c
            for c in status.get("conditions", [])
            if c["type"] in ("Complete", "Failed") and c["status"] == "True"
        ),
        None,
    )
    return Job(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        request_uid=uid,
        owned=any(owner["uid"] == uid and owner.get("controller") for owner in owners),
        step=step,
        attempt=int(attempt),
        created=msgspec.convert(meta["creationTimestamp"], datetime),
        deleting="deletionTimestamp" in meta,
        suspended=spec.get("suspend", False),
        parallelism=spec.get("parallelism", 1),
        completions=spec.get("completions", 1),
        let_go=names.LABEL_FINISHED in labels,
        active=status.get("active", 0),
        ready=status.get("ready", 0),
        terminating=status.get("terminating", 0),
        succeeded=status.get("succeeded", 0),
        failed=status.get("failed", 0),
        failed_indexes=_count_indexes(status.get("failedIndexes", "")),
        finished_pods=status.get("succeeded", 0)
        + status.get("failed", 0)
        + sum(len(uids) for uids in status.get("uncountedTerminatedPods", {}).values()),
        ended=end["type"] if end else None,
        end_message=": ".join(part for part in (end.get("reason"), end.get("message")) if part)
        if end
        else "",
    )


def _count_indexes(text: str) -> int:
    """How many indexes "1,3-5" names; of 100,000 shards they take up to 14 ms for each event."""
    if not text:
        return 0
    parts = text.split(",")
    count = len(parts)
    for part in parts:
        if "-" in part:
            first, _, last = part.partition("-")
            count += int(last) - int(first)
    return count
