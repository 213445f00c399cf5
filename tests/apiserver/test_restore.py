"""An etcd that is restored from an older snapshot: versions run backwards, and history is another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.apiserver import kubelet
from tests.apiserver.conftest import ACCOUNT, open_shop
from tests.apiserver.kube import eventually
from tests.apiserver.shop import SHARDED, Shop
from tests.apiserver.test_observed import samples
from tests.cluster import built
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import ControlPlane
from tests.conftest import needs

AHEAD = 1500
"""Versions between snapshot and restore: a control plane that starts takes up some hundred."""


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    """One for this test alone, whose etcd may go back in time."""
    needs(built.missing(node=False))
    with built.control_plane() as plane:
        yield plane


@pytest.fixture
def shop(plane: ControlPlane, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shop]:
    cluster = Cluster(plane.kubeconfig, "127.0.0.1", [])
    cluster.install_crds()
    with open_shop(cluster, plane.kubeconfig, tmp_path, request) as shop:
        shop.operator.start()
        yield shop


def finish(shop: Shop, name: str) -> None:
    shop.finish_step(name, "plan", kubelet.planned(20, 2))
    shop.finish_shards(name, 2)
    shop.finish_step(name, "finalize", kubelet.finalized(20, 2))
    shop.wait_finished(name, "Succeeded")


@pytest.mark.cluster
def test_the_operator_lives_through_it(plane: ControlPlane, shop: Shop, tmp_path: Path) -> None:
    """Gone is forgotten, back is gone on with, and what was finished since is done again."""
    shop.apply("settled")
    shop.finish_step("settled", "plan", kubelet.whole(2))
    settled = shop.wait_status("settled", settled=True)
    for name in ("finished", "deleted"):
        shop.apply(name, **SHARDED)
        shop.kubelet.wait_pods(shop.job(name, "plan"))
        shop.wait_said(name, "Ready", "Unknown", "Planning")
    plane.save(tmp_path / "snapshot")

    finish(shop, "finished")
    shop.kube.delete("ipr", "deleted")
    for number in range(AHEAD):
        note = {"metadata": {"annotations": {"number": str(number)}}}
        shop.kube.patch("serviceaccounts", ACCOUNT, note)
    # The last that each watch sees is of a version that will not come again for long.
    lost = shop.apply("lost", requestID="lost")
    shop.wait_said("lost", "Ready", "Unknown", "Planning")
    shop.kubelet.wait_pods(shop.job("lost", "plan"))
    plane.restore(tmp_path / "snapshot")

    # Its Deployment starts it again.
    eventually(lambda: not shop.operator.running, "the operator ends")
    assert "etcd was restored" in shop.operator.log
    shop.operator.start()
    assert shop.status("settled") == settled
    for name in ("finished", "deleted"):
        finish(shop, name)
        assert shop.steps(name) == ["finalize-1", "plan-1", "shards-1"]
    assert shop.find("ipr", "lost") is None
    assert shop.jobs_of(lost["metadata"]["uid"]) == []
    again = shop.apply("lost", requestID="lost")
    # The plan finds done.json of the same spec.
    shop.finish_step("lost", "plan", kubelet.whole(2))
    status = shop.wait_finished("lost", "Succeeded")
    assert status["requestID"] == "lost"
    assert again["metadata"]["uid"] != lost["metadata"]["uid"]
    eventually(lambda: no_requests(shop), "no request is left to do")
    assert "Traceback" not in shop.operator.log


def no_requests(shop: Shop) -> bool:
    try:
        return not any(name[0] == "requests" for name in samples(shop))
    except httpx.TransportError:
        return False
