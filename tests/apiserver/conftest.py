"""A namespace with the operator at work, for each module of tests."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.apiserver.kube import Kube
from tests.apiserver.shop import Operator, Shop
from tests.cluster.cluster import Cluster

ACCOUNT = "imageprocessing-worker"


@pytest.fixture(scope="module")
def shop(
    api_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Shop]:
    """The operator, and a namespace that is its only one; both are the module's own."""
    name = request.module.__name__.rpartition(".")[2].removeprefix("test_")
    with api_cluster.namespace(name) as namespace:
        settings = {
            "namespaces": json.dumps([namespace]),
            "webhook_allowed_networks": '["127.0.0.2/32"]',
        }
        log = tmp_path_factory.mktemp("operator") / "log"
        operator = Operator(api_cluster.kubeconfig, log, settings)
        kube = Kube(api_cluster.kubeconfig, namespace)
        kube.create("serviceaccounts", {"metadata": {"name": ACCOUNT}})
        operator.start()
        try:
            yield Shop(api_cluster, kube, operator)
            assert operator.running, operator.log
            assert operator.stop() == 0, operator.log
            assert "Traceback" not in operator.log, operator.log
        finally:
            if operator.running:
                operator.kill()
            kube.close()
