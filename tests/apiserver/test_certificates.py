"""The operator's certificate ends, and a new one is in its file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.apiserver import kubelet
from tests.apiserver.conftest import open_shop
from tests.apiserver.kube import eventually
from tests.apiserver.shop import Shop
from tests.cluster.cluster import Cluster
from tests.unit.certificates import issued


def hand_over(pki: Path, folder: Path, *, expired: bool) -> None:
    """The operator's files hold a certificate like this from now on."""
    certificate, key = issued(pki, "operator", "system:masters", expired=expired)
    (folder / "certificate").write_bytes(certificate)
    (folder / "key").write_bytes(key)


@pytest.fixture
def pki(api_cluster: Cluster) -> Path:
    """Where the cluster's authority is."""
    found = api_cluster.kubeconfig.parent / "pki"
    if not (found / "ca.key").exists():
        pytest.skip("needs the key of the cluster's authority, which kind and others keep")
    return found


@pytest.fixture
def shop(
    api_cluster: Cluster, pki: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Shop]:
    """The operator with a certificate that has ended."""
    hand_over(pki, tmp_path, expired=True)
    config = yaml.safe_load(api_cluster.kubeconfig.read_text())
    files = {"client-certificate": tmp_path / "certificate", "client-key": tmp_path / "key"}
    config["users"][0]["user"] = {field: str(file) for field, file in files.items()}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    with open_shop(api_cluster, kubeconfig, tmp_path, request) as shop:
        shop.operator.start()
        yield shop
        assert shop.operator.stop() == 0, shop.operator.log
        assert "Traceback" not in shop.operator.log


def test_a_certificate_that_ends(shop: Shop, pki: Path, tmp_path: Path) -> None:
    """Calls and watches go on with the new one, without a new process."""
    eventually(lambda: shop.operator.readiness.endswith("is refused: 401"), "it says so")
    process = shop.operator.pid
    hand_over(pki, tmp_path, expired=False)
    eventually(lambda: shop.operator.ready, "the operator is ready")
    shop.apply("after")
    shop.finish_step("after", "plan", kubelet.whole(1))
    shop.wait_status("after", settled=True)
    assert shop.operator.running
    assert shop.operator.pid == process
