"""Others who write status: by hand, at any field, or all the time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec
import pytest
from imageprocessing_operator.status import parse

from tests.apiserver import kubelet
from tests.apiserver.shop import SHARDED, Shop, hook
from tests.e2e.receiver import Receiver

STEPS = ("plan", "shards", "finalize")
END: dict[str, Callable[[Shop, str], None]] = {
    "plan": lambda shop, name: shop.finish_step(name, "plan", kubelet.planned(20, 2)),
    "shards": lambda shop, name: shop.finish_shards(name, 2),
    "finalize": lambda shop, name: shop.finish_step(name, "finalize", kubelet.finalized(20, 2)),
}


def write(shop: Shop, name: str, status: dict[str, Any]) -> None:
    """As somebody with kubectl edit --subresource=status."""
    shop.kube.patch("ipr", name, {"status": status}, "status")


REFUSED: list[dict[str, Any]] = [
    {"shards": {"total": None, "active": 1}},
    {"shards": {"total": 100_001}},
    {"images": {"processed": 1}},
    {"catalogue": {"rows": 1}},
    {"catalogue": {"rows": 1, "images": 1, "invalidRows": 0, "samples": [{}]}},
    {"failures": [{"line": 1}]},
    {"results": {"csvURL": "gs://b/r.csv"}},
    {"bytes": {"original": 1}},
    {"webhook": {"attempts": 1}},
    {"webhook": {"eventID": "e", "attempts": 2**31}},
    {"steps": {"plan": 2**31}},
    {"suspendedSeconds": 2**62},
    {"startTime": "0000-01-01T00:00:00Z"},
    {"startTime": "2026-01-01T00:00:00x5Z"},
    {"completionTime": "2026-01-01T00:00:00+99:99"},
    {"suspendTime": "yesterday"},
    {"conditions": [{"type": "Ready"}]},
]
"""What the operator could not read again, or not reckon with."""


def test_what_cannot_be_read_again_is_refused(shop: Shop) -> None:
    shop.apply("junk", suspend=True)
    shop.wait_said("junk", "Ready", "False", "Suspended")
    before = shop.status("junk")
    for status in REFUSED:
        with pytest.raises(httpx.HTTPStatusError, match="422 "):
            write(shop, "junk", status)
    assert shop.status("junk") == before


NEVER = "2999-12-31T23:59:59.5-23:59"
EDITS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "conditions": {"conditions": None},
    "ready": {
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Done",
                "message": "",
                "lastTransitionTime": NEVER,
            }
        ]
    },
    "catalogue": {"catalogue": None},
    "other-catalogue": {"catalogue": {"rows": 7, "images": 7, "invalidRows": 7}},
    "shards": {"shards": None},
    "one-shard": {"shards": {"total": 1, "active": 9, "succeeded": 9, "failed": 9}},
    "many-shards": {"shards": {"total": 100_000}},
    "images": {"images": None},
    "other-images": {"images": {"total": 2**63 - 1, "processed": 2**63 - 1, "failed": 3}},
    "steps": {"steps": None},
    "start": {"startTime": None},
    "late-start": {"startTime": NEVER},
    "suspended": {"suspendTime": NEVER, "suspendedSeconds": 3_153_600_000},
    "long-suspended": {"suspendTime": "2000-01-01T00:00:00Z", "startTime": NEVER},
    "end": {
        "completionTime": NEVER,
        "bytes": {"original": 1, "compressed": 1},
        "results": dict.fromkeys(("csvURL", "failedURL", "reportURL"), "gs://x"),
        "failures": [{"line": 1, "url": "u", "reason": "r", "message": "m"}],
    },
    "derived": {"requestID": "x", "specHash": "x", "observedGeneration": 2**62},
    "webhook": {"webhook": {"eventID": "x", "attempts": 1000, "nextAttemptTime": NEVER}},
}
"""Each field of status, as somebody leaves it behind."""


def outcome(status: dict[str, Any]) -> dict[str, Any]:
    """Status without times and what is the request's own; a default is as good as nothing."""
    status = msgspec.to_builtins(parse(status))
    own = {"requestID", "specHash", "startTime", "completionTime", "suspendedSeconds"}
    fields = {key: value for key, value in status.items() if key not in own}
    fields["conditions"] = {
        c["type"]: (c["status"], c["reason"], c["message"]) for c in fields["conditions"]
    }
    return fields


def test_every_field_written_in_each_step(shop: Shop) -> None:
    """All come to the same end, with one Job a step."""
    names = {edit: f"by-hand-{edit}" for edit in EDITS}
    for name in names.values():
        shop.apply(name, **SHARDED)
    for step in STEPS:
        for name in names.values():
            shop.kubelet.wait_pods(shop.job(name, step), 2 if step == "shards" else 1)
        for edit, name in names.items():
            write(shop, name, EDITS[edit])
        for name in names.values():
            END[step](shop, name)
    expected: dict[str, Any] = {}
    for name in names.values():
        status = shop.wait_finished(name, "Succeeded")
        shop.wait_status(name, settled=True)
        status = shop.status(name)
        expected = expected or outcome(status)
        assert outcome(status) == expected, name
        assert shop.steps(name) == ["finalize-1", "plan-1", "shards-1"]
    assert "Traceback" not in shop.operator.log


def test_what_is_read_back_after_the_end(shop: Shop, receiver: Receiver) -> None:
    """The outbox, and what says that a request has settled."""
    shop.make_secret()
    edits = {
        "no-outbox": {"webhook": None},
        "no-finished": {"conditions": None},
        "no-status": None,
    }
    receiver.answers += [500] * len(edits)
    for name in edits:
        shop.apply(name, webhook=hook(receiver.url))
    for name in edits:
        shop.finish_step(name, "plan", kubelet.whole(2))
    ids = {}
    for name in edits:
        shop.wait_said(name, "Notified", "False", "Retrying")
        ids[name] = shop.status(name)["webhook"]["eventID"]
    for name, status in edits.items():
        cleared = dict.fromkeys(shop.status(name)) | {"observedGeneration": -1}
        write(shop, name, cleared if status is None else status)
    for name in edits:
        status = shop.wait_status(name, settled=True)
        assert shop.said(name)["Notified"] == ("True", "Delivered")
        assert status["webhook"]["eventID"] == ids[name]
        # It is looked at once more, and found to be as it was.
        write(shop, name, {"settled": False})
    for name in edits:
        shop.wait_status(name, settled=True)
    sent = {receiver.received.get()[0]["webhook-id"] for _ in range(receiver.received.qsize())}
    assert sent == set(ids.values())


FOREIGN = {
    "type": "example.com/Watched",
    "status": "True",
    "reason": "Looked",
    "message": "by another controller",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


@contextmanager
def another_writer(shop: Shop, name: str) -> Iterator[list[int]]:
    """Writes a condition of its own wherever that is missing; counts how often."""
    written, over = [0], threading.Event()

    def work() -> None:
        while not over.wait(0.02):
            found = shop.kube.get("ipr", name)
            conditions = found["status"].get("conditions", [])
            if any(c["type"] == FOREIGN["type"] for c in conditions):
                continue
            version = {"resourceVersion": found["metadata"]["resourceVersion"]}
            body = {"metadata": version, "status": {"conditions": [FOREIGN, *conditions]}}
            try:
                shop.kube.patch("ipr", name, body, "status")
            except httpx.HTTPStatusError:
                continue  # somebody else wrote meanwhile
            written[0] += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield written
    finally:
        over.set()
        thread.join()


def test_another_controller_writes_a_condition(shop: Shop) -> None:
    """It stays, so that nobody has to write it again."""
    shop.apply("watched", **SHARDED)
    shop.wait_said("watched", "Ready", "Unknown", "Planning")
    with another_writer(shop, "watched") as written:
        for step in STEPS:
            END[step](shop, "watched")
        shop.wait_finished("watched", "Succeeded")
        shop.wait_status("watched", settled=True)
    assert written == [1]
    assert shop.condition("watched", FOREIGN["type"]) == FOREIGN
