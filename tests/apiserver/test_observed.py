"""What the operator tells of itself: metrics, probes and its log."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.apiserver import kubelet
from tests.apiserver.kube import eventually
from tests.apiserver.shop import Shop, hook
from tests.e2e.receiver import receiving


def samples(shop: Shop) -> dict[tuple[str, ...], float]:
    """Each sample's value, by its name and the values of its labels."""
    text = httpx.get(f"{shop.operator.http}/metrics").raise_for_status().text
    return {
        (sample.name.removeprefix("imageprocessing_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_what_was_done(shop: Shop) -> None:
    shop.make_secret()
    with receiving("127.0.0.2") as receiver:
        shop.apply("counted", webhook=hook(receiver.url))
        shop.job("counted", "plan")
        shop.wait_said("counted", "Ready", "Unknown", "Planning")
        assert samples(shop)["requests", "Planning"] == 1
        shop.finish_step("counted", "plan", kubelet.whole(5))
        shop.wait_status("counted", settled=True)
    found = samples(shop)
    assert ("requests", "Planning") not in found, "a settled request is not the operator's any more"
    assert found["requests_finished_total", "Succeeded"] == 1
    assert found["images_total", "succeeded"] == 5
    assert found["images_total", "failed"] == 0
    assert found["bytes_total", "original"] == 50
    assert found["bytes_total", "compressed"] == 25
    assert found["webhook_attempts_total", "delivered"] == 1
    assert found["api_calls_total", "201", "create"] >= 1
    assert found["api_calls_total", "200", "patch"] >= 3
    assert found["api_calls_total", "200", "watch"] == 2
    assert found["reconcile_seconds_count",] >= 3
    assert found["queue_depth",] == 0
    assert found["queue_age_seconds",] == 0
    ages = [value for name, value in found.items() if name[0] == "watch_age_seconds"]
    assert len(ages) == 2
    assert 0 <= min(ages) <= max(ages) < 300
    assert found["process_resident_memory_bytes",] > 1e6


def test_log_lines_are_json_and_name_their_request(shop: Shop) -> None:
    body = shop.apply("logged")
    job = shop.job("logged", "plan")
    lines: list[dict[str, Any]] = [json.loads(line) for line in shop.operator.log.splitlines()]
    (created,) = [line for line in lines if job in line["message"]]
    assert created["level"] == "INFO"
    assert created["logger"].startswith("imageprocessing_operator.")
    assert datetime.fromisoformat(created["time"]) <= datetime.now(UTC)
    assert created["request"] == {
        "namespace": shop.kube.namespace,
        "name": "logged",
        "uid": body["metadata"]["uid"],
    }


def test_it_is_ready_and_live(shop: Shop) -> None:
    http = shop.operator.http
    eventually(lambda: shop.operator.ready, "ready")
    assert httpx.get(f"{http}/livez").text == "ok\n"
