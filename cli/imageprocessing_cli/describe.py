"""What `ipr status NAME` says of one request. Pure."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from imageprocessing_contract import redact
from imageprocessing_contract.reasons import Condition, Reason
from imageprocessing_contract.report import failure_line
from imageprocessing_contract.request import Source, Spec, output_path, parse_spec
from imageprocessing_operator.outbox import DELAYS
from imageprocessing_operator.status import Status, Webhook
from rich.filesize import decimal

from imageprocessing_cli.advice import advice
from imageprocessing_cli.printing import number
from imageprocessing_cli.progress import (
    duration,
    headline,
    rate_text,
    status_of,
    working_seconds,
)

_QUIET = {Reason.SUCCEEDED, Reason.PLANNING, Reason.PROCESSING, Reason.FINALIZING}
"""Reasons of Ready with nothing to do."""
_SENT = {Reason.NO_WEBHOOK, Reason.DELIVERY_PENDING, Reason.DELIVERED}
_LONGEST_TIMEOUT = 60  # seconds: webhook.timeoutSeconds in the CRD

Lines = list[tuple[str, str]]
"""Labels and what stands beside them."""


def describe(request: dict[str, Any], now: datetime, flags: str = "") -> str:
    """The page for one request; `flags` go into the commands that it proposes."""
    spec, status = parse_spec(request["spec"]), status_of(request)
    meta = request["metadata"]
    request_id = status.request_id or spec.request_id or meta["uid"]
    facts: Lines = [
        ("Name", meta["name"]),
        ("Namespace", meta["namespace"]),
        ("Status", headline(status)),
        ("Source", _source(spec.source)),
        ("Output", _output(spec, request_id)),
        *_times(status, now),
        *_counts(status),
        *_results(status),
        *_webhook(status),
    ]
    parts = ["\n".join(f"{label:<11}{text}" for label, text in facts)]
    if status.catalogue and status.catalogue.samples:
        parts.append(
            _list(
                "Invalid rows",
                [f"line {s.line}: {s.reason}: {s.message}" for s in status.catalogue.samples],
            )
        )
    if status.failures:
        title = "Failed images"
        if status.images and status.images.failed > len(status.failures):
            title += f" (the first {len(status.failures)} of {status.images.failed})"
        parts.append(_list(title, [failure_line(f) for f in status.failures]))
    if steps := _to_do(meta["name"], spec, status, flags):
        parts.append(_list("What to do", steps))
    return "\n\n".join(parts)


def redeliver(name: str, spec: Spec, flags: str) -> str:
    """The command that has a given-up webhook delivered again: any edit of spec.webhook does."""
    seconds = spec.webhook.timeout_seconds if spec.webhook else 0
    seconds += 1 if seconds < _LONGEST_TIMEOUT else -1
    patch = json.dumps({"spec": {"webhook": {"timeoutSeconds": seconds}}})
    return f"kubectl patch ipr {name}{flags} --type=merge -p '{patch}'"


def _list(title: str, lines: list[str]) -> str:
    return "\n".join([title, *(f"  {line}" for line in lines)])


def _source(source: Source) -> str:
    if ref := source.config_map_key_ref:
        return f"key {ref.key} of the ConfigMap {ref.name}"
    if source.http:
        return redact.url(source.http.url)
    if source.gcs:
        return f"gs://{source.gcs.bucket}/{source.gcs.object}"
    if claim := source.persistent_volume_claim:
        return f"{claim.path} in the claim {claim.claim_name}"
    if source.failures_of:
        return f"what failed in {source.failures_of.name}"
    return "in the request itself"


def _output(spec: Spec, request_id: str) -> str:
    path = output_path(spec, request_id)
    if gcs := spec.output.gcs:
        return f"gs://{gcs.bucket}/{path}"
    claim = spec.output.persistent_volume_claim
    return f"{path} in the claim {claim.claim_name}" if claim else path


def _times(status: Status, now: datetime) -> Lines:
    if status.start_time is None:
        return []
    took = duration(timedelta(seconds=working_seconds(status, now)))
    verb = "took" if status.completion_time else "at work for"
    return [("Started", f"{status.start_time:%Y-%m-%d %H:%M:%S} UTC, {verb} {took}")]


def _counts(status: Status) -> Lines:
    found: Lines = []
    if catalogue := status.catalogue:
        invalid = (
            f", {number(catalogue.invalid_rows, 'invalid row')}" if catalogue.invalid_rows else ""
        )
        counts = f"{number(catalogue.rows, 'row')}, {number(catalogue.images, 'image')}"
        found.append(("Catalogue", f"{counts}{invalid}"))
    if images := status.images:
        over = status.is_true(Condition.FINISHED)
        text = f"{images.succeeded if over else images.processed} of {images.total} done"
        text += f", {images.failed} failed" if images.failed else ""
        text += f", {images.unchanged} unchanged" if images.unchanged else ""
        rate = rate_text(status)
        found.append(("Images", f"{text}, {rate}" if rate else text))
    if sizes := status.bytes:
        before, after = sizes.original, sizes.compressed
        saved = f" ({100 - 100 * after / before:.0f} % less)" if before else ""
        found.append(("Bytes", f"{decimal(before)} before, {decimal(after)} after{saved}"))
    if shards := status.shards:
        found.append(
            (
                "Shards",
                f"{shards.succeeded} of {shards.total} done, "
                f"{shards.active} running, {shards.failed} failed",
            )
        )
    return found


def _results(status: Status) -> Lines:
    if status.results is None:
        return []
    urls = status.results
    found: Lines = [("CSV", urls.csv_url), ("Report", urls.report_url)]
    if status.images and status.images.failed:
        found.append(("Failed", urls.failed_url))
    return found


def _webhook(status: Status) -> Lines:
    notified = status.condition(Condition.NOTIFIED)
    if notified is None or notified.reason == Reason.NO_WEBHOOK:
        return []
    text = f"{notified.reason}: {notified.message}" + _attempts(status.webhook)
    return [("Webhook", text)]


def _attempts(webhook: Webhook | None) -> str:
    if webhook is None or webhook.delivered_time is not None or not webhook.attempts:
        return ""
    said = f" (after {webhook.attempts} of {len(DELAYS)} attempts"
    if webhook.next_attempt_time is not None:
        said += f", the next at {webhook.next_attempt_time:%Y-%m-%d %H:%M:%S} UTC"
    return said + ")"


def _to_do(name: str, spec: Spec, status: Status, flags: str) -> list[str]:
    """What the page of reasons says of each that is not as it should be, and commands."""
    ready, notified = status.condition(Condition.READY), status.condition(Condition.NOTIFIED)
    reasons = [] if ready is None or ready.reason in _QUIET else [ready.reason]
    trouble = status.condition(Condition.RECONCILING)
    if trouble and trouble.status == "True" and trouble.reason != Reason.PROGRESSING:
        reasons.append(trouble.reason)
    if notified and notified.reason not in _SENT:
        reasons.append(notified.reason)
    reasons += [row.reason for row in (status.catalogue.samples if status.catalogue else [])]
    reasons += [failure.reason for failure in status.failures]
    steps = []
    for reason in dict.fromkeys(reasons):
        if found := advice().get(reason):
            steps.append(": ".join(filter(None, [reason, found.what_to_do or found.meaning])))
    if status.is_true(Condition.FINISHED) and status.images and status.images.failed:
        steps.append(f"the failures again: ipr retry {name}{flags}")
    if ready and ready.reason == Reason.SUSPENDED:
        steps.append(f"to go on: ipr resume {name}{flags}")
    if notified and notified.reason == Reason.GAVE_UP:
        steps.append(f"the webhook again: {redeliver(name, spec, flags)}")
    return steps
