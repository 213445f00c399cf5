""".status of a request: its shape, and the changes that a merge patch carries."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from imageprocessing_contract import report
from imageprocessing_contract.reasons import Condition


class _Camel(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Fields are camelCase on the wire, as Kubernetes has them."""


class ConditionStatus(_Camel, frozen=True):
    """One condition, as Kubernetes defines them (metav1.Condition)."""

    type: str
    status: str
    reason: str
    last_transition_time: datetime
    message: str = msgspec.field(default_factory=str)
    observed_generation: int | None = None


class Shards(_Camel, frozen=True, omit_defaults=False):
    """Counts of shards."""

    total: int
    active: int = 0
    succeeded: int = 0
    failed: int = 0


class Images(_Camel, frozen=True, omit_defaults=False):
    """Counts of images; processed is live, the rest exact at the end."""

    total: int
    processed: int = 0
    succeeded: int = 0
    failed: int = 0
    unchanged: int = 0


class Progress(_Camel, frozen=True):
    """How fast shards go; there while they run."""

    since: datetime
    """When they began, or were resumed."""
    processed_before: int = 0
    """Images that were done by then."""
    images_per_minute: int | None = None
    time_left: str | None = None
    """For people, such as 12m."""


class Steps(_Camel, frozen=True):
    """Attempt of each step that was begun, from 1; its Job may have been refused. 0 before."""

    plan: int = 0
    shards: int = 0
    finalize: int = 0


class Webhook(_Camel, frozen=True):
    """The outbox: what was sent, how it went, and when it is sent next."""

    event_id: str = msgspec.field(name="eventID")
    attempts: int = 0
    last_status_code: int | None = None
    last_attempt_time: datetime | None = None
    next_attempt_time: datetime | None = None
    delivered_time: datetime | None = None


class Status(_Camel, frozen=True):
    """.status; its size does not depend on the request's."""

    observed_generation: int = -1
    conditions: list[ConditionStatus] = []
    settled: bool = False
    request_id: str | None = msgspec.field(name="requestID", default=None)
    spec_hash: str | None = None
    start_time: datetime | None = None
    completion_time: datetime | None = None
    suspend_time: datetime | None = None
    suspended_seconds: int = 0
    catalogue: report.Catalogue | None = None
    shards: Shards | None = None
    images: Images | None = None
    progress: Progress | None = None
    bytes: report.Bytes | None = None
    results: report.Results | None = None
    failures: list[report.Failure] = []
    steps: Steps = Steps()
    webhook: Webhook | None = None

    def condition(self, kind: Condition) -> ConditionStatus | None:
        """The condition of that type, None before the first visit."""
        return next((c for c in self.conditions if c.type == kind), None)

    def is_true(self, kind: Condition) -> bool:
        """Whether the condition is there and True."""
        found = self.condition(kind)
        return found is not None and found.status == "True"


def parse(status: dict[str, Any]) -> Status:
    """Reads a stored status; raises msgspec.ValidationError where another CRD let it through."""
    return msgspec.convert(status, Status)


def parse_fields(status: dict[str, Any]) -> tuple[Status, dict[str, Any]]:
    """What of a stored status can be read, and the fields that cannot, as they are stored."""
    try:
        return parse(status), {}
    except msgspec.ValidationError:
        unreadable = {key: value for key, value in status.items() if not _is_readable(key, value)}
    return parse({key: status[key] for key in status.keys() - unreadable.keys()}), unreadable


def _is_readable(key: str, value: Any) -> bool:
    try:
        parse({key: value})
    except msgspec.ValidationError:
        return False
    return True


def changes(old: Status, new: Status, unreadable: dict[str, Any] | None = None) -> dict[str, Any]:
    """The merge patch (RFC 7386) that makes old new; {} where they are equal.

    `unreadable` is what is stored besides old; nothing of it stays.
    """
    return _changes({**msgspec.to_builtins(old), **(unreadable or {})}, msgspec.to_builtins(new))


def is_progress(patch: dict[str, Any]) -> bool:
    """Whether it only counts shards and images that are done."""
    return bool(patch) and patch.keys() <= {"shards", "images", "progress"}


def _changes(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := _changes(before, value):
                patch[key] = inner
        elif value != before:
            patch[key] = value
    return patch
