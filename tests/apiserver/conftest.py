"""A namespace with the operator at work, for each module of tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.apiserver.kube import Kube
from tests.apiserver.proxy import Proxy, proxied
from tests.apiserver.shop import Operator, Shop
from tests.cluster.cluster import Cluster
from tests.e2e.receiver import Receiver, receiving

ACCOUNT = "imageprocessing-worker"


@pytest.fixture(scope="module")
def shop(
    api_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Shop]:
    """The operator, and a namespace that is its only one; both are the module's own."""
    folder = tmp_path_factory.mktemp("operator")
    with open_shop(api_cluster, api_cluster.kubeconfig, folder, request) as shop:
        shop.operator.start()
        yield shop
        assert shop.operator.running, shop.operator.log
        assert shop.operator.stop() == 0, shop.operator.log
        assert "Traceback" not in shop.operator.log, shop.operator.log


@pytest.fixture(scope="module")
def proxy(api_cluster: Cluster) -> Iterator[Proxy]:
    """Stands between the API server and the operator of `proxied_shop`."""
    with proxied(api_cluster.kubeconfig) as found:
        yield found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Takes webhooks, at the address that operators here may reach."""
    with receiving("127.0.0.2") as found:
        yield found


@pytest.fixture(scope="module")
def proxied_shop(
    api_cluster: Cluster,
    proxy: Proxy,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Shop]:
    """The same behind the proxy; the operator has not been started."""
    folder = tmp_path_factory.mktemp("operator")
    kubeconfig = proxy.write_kubeconfig(folder / "kubeconfig")
    with open_shop(api_cluster, kubeconfig, folder, request) as shop:
        yield shop


@contextmanager
def open_shop(
    cluster: Cluster, kubeconfig: Path, folder: Path, request: pytest.FixtureRequest
) -> Iterator[Shop]:
    """A namespace named after the test's module, and an operator for it alone."""
    name = request.module.__name__.rpartition(".")[2].removeprefix("test_")
    with cluster.namespace(name) as namespace:
        operator = operator_of(namespace, kubeconfig, folder / "log")
        kube = Kube(cluster.kubeconfig, namespace)
        kube.create("serviceaccounts", {"metadata": {"name": ACCOUNT}})
        try:
            yield Shop(cluster, kube, operator)
        finally:
            if operator.running:
                operator.kill()
            kube.close()


def operator_of(namespace: str, kubeconfig: Path, log: Path) -> Operator:
    """An operator for one namespace, which may send webhooks to 127.0.0.2."""
    settings = {
        "namespaces": json.dumps([namespace]),
        "webhook_allowed_networks": '["127.0.0.2/32"]',
    }
    return Operator(kubeconfig, log, settings)
