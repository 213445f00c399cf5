"""How many calls a request costs the API server, all of them counted at a proxy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.apiserver import kubelet
from tests.apiserver.kube import eventually
from tests.apiserver.proxy import Call, Proxy
from tests.apiserver.shop import Shop, hook
from tests.e2e.receiver import receiving


@pytest.fixture(scope="module")
def shop(proxied_shop: Shop) -> Shop:
    proxied_shop.make_secret()
    proxied_shop.operator.start()
    return proxied_shop


@pytest.fixture
def webhook() -> Iterator[dict[str, Any]]:
    with receiving("127.0.0.2") as receiver:
        yield hook(receiver.url)


def counted(shop: Shop, proxy: Proxy, name: str) -> list[Call]:
    """The calls about a request that is settled, once its last event is written."""
    shop.wait_status(name, settled=True)
    shop.wait_events(name, "Started", "Finished", "WebhookDelivered")
    found = shop.kube.get("ipr", name)
    texts = (name, found["metadata"]["uid"], *(j["metadata"]["uid"] for j in shop.jobs(name)))
    about = [
        call
        for call in proxy.calls
        if any(text in f"{call.path}?{call.query} {call.body.decode()}" for text in texts)
        or call.path.endswith("/secrets/hook")
    ]
    proxy.calls.clear()
    return about


def test_a_small_request_takes_ten_calls(shop: Shop, proxy: Proxy, webhook: dict[str, Any]) -> None:
    shop.apply("small", webhook=webhook)
    job = shop.job("small", "plan")
    shop.kubelet.start(shop.kubelet.wait_pods(job)[0])
    shop.wait_said("small", "Ready", "Unknown", "Planning")
    shop.kubelet.finish(job, kubelet.whole(5))
    calls = counted(shop, proxy, "small")
    assert len(calls) <= 10, calls


def test_a_request_with_shards_takes_eighteen_calls(
    shop: Shop, proxy: Proxy, webhook: dict[str, Any]
) -> None:
    shop.apply("large", webhook=webhook, sharding={"imagesPerShard": 10, "maxParallelism": 3})
    shop.finish_step("large", "plan", kubelet.planned(30, 3))
    job = shop.job("large", "shards")
    for pod in shop.kubelet.wait_pods(job, 3):
        shop.kubelet.start(pod)
    for pod in shop.kubelet.wait_pods(job, 3):
        shop.kubelet.end(pod)
    shop.finish_step("large", "finalize", kubelet.finalized(30, 3))
    calls = counted(shop, proxy, "large")
    assert len(calls) <= 18, calls


def test_progress_that_waited_is_written_without_another_event(
    shop: Shop, proxy: Proxy, webhook: dict[str, Any]
) -> None:
    shop.apply("paced", webhook=webhook, sharding={"imagesPerShard": 1, "maxParallelism": 8})
    shop.finish_step("paced", "plan", kubelet.planned(8, 8))
    job = shop.job("paced", "shards")
    pods = shop.kubelet.wait_pods(job, 8)
    for pod in pods[:7]:
        shop.kubelet.end(pod)
    eventually(lambda: shop.status("paced")["shards"].get("succeeded") == 7, "seven shards done")
    assert shop.status("paced")["images"]["processed"] == 7
    shop.kubelet.end(pods[7])
    shop.finish_step("paced", "finalize", kubelet.finalized(8, 8))
    counted(shop, proxy, "paced")
