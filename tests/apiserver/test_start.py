"""A start with much history, which is neither loaded nor touched."""

from __future__ import annotations

import asyncio

import aiohttp
import httpx
from imageprocessing_contract import names
from prometheus_client.parser import text_string_to_metric_families

from tests.apiserver import kubelet
from tests.apiserver.kube import MERGE, connection_of, eventually
from tests.apiserver.proxy import Proxy
from tests.apiserver.shop import OUTPUT, SOURCE, Shop

REQUESTS, SETTLED = 2001, 1900  # the rest is more than a page of a list
NEW = REQUESTS - SETTLED
WORKING = 20
"""Of the new ones; the others are suspended, so that the Job controller has less to do."""
AT_ONCE = 16


async def fill(shop: Shop) -> None:
    """Requests that are history, `old-N`, and some that are not, `new-N`."""
    server, tls, headers = connection_of(shop.cluster.kubeconfig)
    numbers = iter(range(REQUESTS))

    async def make() -> None:
        for number in numbers:
            settled = number >= NEW
            name = f"{'old' if settled else 'new'}-{number}"
            body = {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "metadata": {"name": name},
                "spec": {"source": SOURCE, "output": OUTPUT, "suspend": WORKING <= number < NEW},
            }
            async with session.post(shop.kube.path("ipr"), json=body) as answer:
                answer.raise_for_status()
            if settled:
                path = shop.kube.path("ipr", name, "status")
                status = {"status": {"settled": True}}
                async with session.patch(path, json=status, headers=MERGE) as answer:
                    answer.raise_for_status()

    connector = aiohttp.TCPConnector(ssl=tls)
    async with (
        aiohttp.ClientSession(server, headers=headers, connector=connector) as session,
        asyncio.TaskGroup() as tasks,
    ):
        for _ in range(AT_ONCE):
            tasks.create_task(make())


def known(shop: Shop) -> float:
    """How many requests the operator has in its memory."""
    families = text_string_to_metric_families(httpx.get(f"{shop.operator.http}/metrics").text)
    samples = (sample for family in families for sample in family.samples)
    return sum(s.value for s in samples if s.name == "imageprocessing_requests")


def seen(shop: Shop) -> int:
    """How many requests that are not settled have their conditions."""
    found = shop.kube.list("ipr", fields="status.settled!=true")
    return sum("conditions" in request["status"] for request in found)


def test_a_start_with_1900_settled_requests(proxied_shop: Shop, proxy: Proxy) -> None:
    shop = proxied_shop
    shop.operator.start()
    shop.apply("old-done")
    shop.finish_step("old-done", "plan", kubelet.whole(1))
    shop.wait_status("old-done", settled=True)
    assert known(shop) == 0
    shop.operator.stop()

    asyncio.run(fill(shop))
    proxy.calls.clear()
    shop.operator.start()
    eventually(lambda: seen(shop) == NEW, "all are seen")
    assert known(shop) == NEW
    done = shop.jobs("old-done")
    assert len(done) == 1
    assert len(shop.kube.list("jobs")) == WORKING + len(done)
    shop.finish_step("new-0", "plan", kubelet.whole(1))
    shop.wait_status("new-0", settled=True)

    history = ["/old-", *(job["metadata"]["uid"] for job in done)]
    history.append(shop.kube.get("ipr", "old-done")["metadata"]["uid"])
    for call in proxy.calls:
        text = f"{call.path}?{call.query} {call.body.decode()}"
        assert not any(name in text for name in history), call
    # What the operator was told at its start: the same lists again.
    lists = {(c.path, c.query) for c in proxy.calls if "Selector" in c.query and not c.is_watch}
    for path, query in lists:
        items = shop.kube.call("GET", f"{path}?{query}")["items"]
        assert len(items) <= NEW, path
        assert not any(item["metadata"]["name"].startswith("old-") for item in items)
    assert {path.rpartition("/")[2] for path, _ in lists} >= {"jobs", names.PLURAL}
