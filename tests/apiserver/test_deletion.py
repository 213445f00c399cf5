"""Requests that are deleted, with their namespace or alone, and their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from tests.apiserver import kubelet
from tests.apiserver.conftest import open_shop
from tests.apiserver.kube import Object, eventually
from tests.apiserver.proxy import Call, Proxy, proxied
from tests.apiserver.shop import SHARDED, Shop
from tests.cluster.cluster import Cluster

STEPS = ("plan", "shards", "finalize")


@pytest.fixture(scope="module")
def shop(proxied_shop: Shop) -> Iterator[Shop]:
    proxied_shop.operator.start()
    yield proxied_shop
    assert proxied_shop.operator.running
    assert "Traceback" not in proxied_shop.operator.log


ENDING = (*STEPS, "suspended")


@pytest.fixture(scope="module")
def ending(
    api_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[Shop, Proxy]]:
    """A namespace that is being deleted, with a request in each step and an operator of its own."""
    folder = tmp_path_factory.mktemp("ending")
    with (
        proxied(api_cluster.kubeconfig) as proxy,
        open_shop(
            api_cluster, proxy.write_kubeconfig(folder / "kubeconfig"), folder, request
        ) as shop,
    ):
        shop.operator.start()
        for step in ENDING:
            shop.apply(step, **SHARDED)
        for step in STEPS:
            bring_to(shop, step, step)
            shop.wait_events(step, "Started")
        shop.kubelet.wait_pods(bring_to(shop, "suspended", "shards"), 2)
        shop.edit("suspended", suspend=True)
        shop.wait_job(shop.job("suspended", "shards"), lambda job: job["spec"]["suspend"])
        requests = shop.kube.path("ipr")

        def hide(call: Call, line: bytes) -> list[bytes]:
            """That a request is deleted: its Jobs may be deleted first, or the other way round."""
            gone = b'"deletionTimestamp"' in line or line.startswith(b'{"type":"DELETED"')
            hidden = call.path == requests and gone and b'"name":"suspended"' not in line
            return [] if hidden else [line]

        proxy.events = hide
        proxy.calls.clear()
        api_cluster.kubectl("delete", "namespace", shop.kube.namespace, "--wait=false")
        yield shop, proxy


def bring_to(shop: Shop, name: str, step: str) -> str:
    """Ends what comes before the step; returns its Job."""
    if step != "plan":
        shop.finish_step(name, "plan", kubelet.planned(20, 2))
    if step == "finalize":
        shop.finish_shards(name, 2)
    return shop.job(name, step)


def end(shop: Shop, names: Iterable[str]) -> None:
    """Plays the rest of requests in their plan's own Pods."""
    for name in names:
        shop.finish_step(name, "plan", kubelet.whole(3))
    for name in names:
        shop.wait_finished(name, "Succeeded")
        assert shop.steps(name) == ["plan-1"]


def about(proxy: Proxy, *texts: str) -> list[Call]:
    """Writes that have one of these texts in their path or body."""
    return [
        call
        for call in proxy.writes()
        if any(text in f"{call.path} {call.body.decode()}" for text in texts)
    ]


HOLD = {"metadata": {"finalizers": ["tests.example/hold"]}}
RELEASE = {"metadata": {"finalizers": None}}


def is_deleting(job: Object) -> bool:
    return "deletionTimestamp" in job["metadata"]


def pass_by(shop: Shop, name: str) -> None:
    """Another request from its beginning to its end: what came before it has been seen."""
    shop.apply(name)
    shop.finish_step(name, "plan", kubelet.whole(1))
    shop.wait_status(name, settled=True)
    shop.wait_events(name, "Started", "Finished")


@pytest.mark.usefixtures("ending")  # begins with this one, as it takes its time
def test_deleted_in_the_foreground_in_each_step(shop: Shop, proxy: Proxy) -> None:
    """Nothing is written or made while it goes, whatever becomes of its Jobs."""
    going = {step: f"going-{step}" for step in STEPS}
    uids = {step: shop.apply(name, **SHARDED)["metadata"]["uid"] for step, name in going.items()}
    jobs = {step: bring_to(shop, name, step) for step, name in going.items()}
    for step, name in going.items():
        shop.wait_status(name, steps=dict.fromkeys(STEPS[: STEPS.index(step) + 1], 1))
        # Somebody else's finalizers, so that there is a time in which they are being deleted.
        shop.kube.patch("ipr", name, HOLD)
        shop.kube.patch("jobs", jobs[step], HOLD)
        shop.kube.delete("ipr", name, "Foreground")
        shop.wait_job(jobs[step], is_deleting)
    pass_by(shop, "first")
    proxy.calls.clear()
    for step, job in jobs.items():
        shop.kube.patch("jobs", job, RELEASE)
        shop.wait_no_jobs(uids[step])
    pass_by(shop, "second")
    assert about(proxy, *uids.values(), *going.values()) == []

    for step, name in going.items():
        shop.kube.patch("ipr", name, RELEASE)
        eventually(lambda name=name: shop.find("ipr", name) is None, f"{name} is gone")
        uids[step] = shop.apply(name, **SHARDED)["metadata"]["uid"]
    end(shop, going.values())


def test_the_next_of_the_name_while_old_jobs_end(shop: Shop) -> None:
    """Deleted either way; the old Pods end as if nothing had happened."""
    ways = {"plan": "Background", "shards": "Foreground", "finalize": "Background"}
    going = {step: f"again-{step}" for step in STEPS}
    old = {step: shop.apply(name, **SHARDED)["metadata"]["uid"] for step, name in going.items()}
    jobs = {step: bring_to(shop, name, step) for step, name in going.items()}
    for step, name in going.items():
        shop.kube.patch("jobs", jobs[step], HOLD)
        shop.kube.delete("ipr", name, ways[step])
        eventually(lambda name=name: shop.find("ipr", name) is None, f"{name} is gone")
        shop.apply(name, **SHARDED)
    for step, name in going.items():
        shop.wait_job(jobs[step], is_deleting)
        shop.job(name, "plan")
        shop.kube.patch("jobs", jobs[step], RELEASE)
        shop.wait_no_jobs(old[step])
    end(shop, going.values())


NAMES = [
    "n" * 253,
    f"{'n' * 29}.{'n' * 60}.{'n' * 60}",
    f"{'n' * 49}.{'n' * 9}",
    "pair.of.names",
    "pair-of-names",
    "pair.of-names",
    "1.2.3",
]
"""Of all lengths, with dots where names are cut, and equal when dots become dashes."""


def test_names(shop: Shop) -> None:
    for name in NAMES:
        shop.apply(name, **SHARDED)
    jobs = [shop.job(name, "plan") for name in NAMES]
    for name in NAMES:
        shop.finish_step(name, "plan", kubelet.planned(20, 2))
    jobs += [shop.job(name, "shards") for name in NAMES]
    for name in NAMES:
        shop.finish_shards(name, 2)
    jobs += [shop.job(name, "finalize") for name in NAMES]
    for name in NAMES:
        shop.finish_step(name, "finalize", kubelet.finalized(20, 2))
    assert len(set(jobs)) == 3 * len(NAMES)
    assert all(len(job) <= 63 and "." not in job for job in jobs)
    for name in NAMES:
        shop.wait_finished(name, "Succeeded")
        shop.wait_events(name, "Started", "Finished")


def test_the_namespace_terminates(ending: tuple[Shop, Proxy]) -> None:
    """Nothing holds it up, and nothing turns in a loop because new Jobs are refused."""
    shop, proxy = ending
    # Pods are deleted first, and what else there is once they are gone.
    eventually(lambda: not shop.kube.list("pods"), "no Pod holds the namespace", 120)
    jobs = shop.kube.path("jobs")
    eventually(
        lambda: any(call.method == "POST" and call.path == jobs for call in proxy.writes()),
        "a Job is refused",
    )
    # Jobs are tried again every 30 s, at the events of old ones, and at those of our own status.
    assert len(proxy.writes()) <= 20 * len(ENDING), proxy.writes()
    assert shop.operator.running
    assert "Traceback" not in shop.operator.log
