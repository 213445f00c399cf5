"""100,000 shards, the most that an Indexed Job allows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from imageprocessing_contract import names, report
from imageprocessing_operator.reconcile import reconcile
from imageprocessing_operator.state import read_job
from imageprocessing_operator.status import Shards, Status, Steps

from tests.unit.operator_state import NOW, UID, a_job, a_request, done

SHARDS = 100_000


def stored_job(failed: str) -> dict[str, Any]:
    labels = {
        names.LABEL_REQUEST_UID: UID,
        names.LABEL_STEP: "shards",
        names.LABEL_ATTEMPT: "1",
    }
    meta = {"creationTimestamp": "2026-03-01T12:00:00Z", "resourceVersion": "7", "labels": labels}
    return {
        "metadata": {"namespace": "shop", "name": "j", "uid": "u", **meta},
        "spec": {"completions": SHARDS, "parallelism": 10},
        "status": {"succeeded": 5, "failedIndexes": failed},
    }


@pytest.mark.parametrize(
    ("failed", "count"),
    [
        ("", 0),
        ("7", 1),
        ("1,3-5,7,9-10", 7),
        (f"0-{SHARDS - 1}", SHARDS),
        (",".join(map(str, range(0, SHARDS, 2))), SHARDS // 2),
    ],
)
def test_failed_indexes_are_counted(failed: str, count: int) -> None:
    job = read_job(stored_job(failed))
    assert job is not None
    assert job.failed_indexes == count


def test_the_status_of_any_number_of_shards_stays_small() -> None:
    """All that a report can carry, and every shard failed."""
    url = f"https://pictures.example/{'x' * 150}.jpg"
    failures = [
        report.Failure(line=n, url=url, reason="UnsupportedFormat", message="m" * 200)
        for n in range(SHARDS, SHARDS + 10)
    ]
    samples = [report.Sample(line=n, reason="InvalidURL", message="s" * 200) for n in range(10)]
    rows = 10**9
    catalogue = report.Catalogue(rows=rows, images=rows, invalid_rows=rows, samples=samples)
    total = done(rows - 5, rows, failures=failures, failed_shards=SHARDS)
    found = report.decode(
        report.encode(report.Report(step="finalize", catalogue=catalogue, done=total)).decode()
    )
    status = Status(start_time=NOW, shards=Shards(total=SHARDS), steps=Steps(plan=1, shards=1))
    running = a_job("shards", completions=SHARDS, succeeded=1, failed_indexes=SHARDS - 1, active=1)
    ended = a_job("finalize", ended="Complete", report=found)
    at_work = reconcile(a_request(status), [running], NOW).status
    finished = reconcile(a_request(at_work), [running, ended], NOW).status
    assert finished.failures
    assert finished.shards == Shards(total=SHARDS, failed=SHARDS)
    sizes = [len(msgspec.json.encode(status)) for status in (at_work, finished)]
    assert max(sizes) < 8192
    assert sizes[0] < 2048
