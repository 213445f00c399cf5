"""What all tests share: clusters, images and emulators, each started once and only when asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from tests.cluster import built, docker, emulators, kind
from tests.cluster.cluster import Cluster
from tests.cluster.given import given_cluster
from tests.cluster.images import images_archive


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests by the cluster they ask for, so that no mark is ever forgotten.

    Where tests run in two processes, one has the node, and a file's tests stay together.
    """
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & {"api_cluster", "node_cluster"}:
            item.add_marker(pytest.mark.cluster)
        if "node_cluster" in fixtures:
            item.add_marker(pytest.mark.node)
        group = "node" if "node_cluster" in fixtures else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def api_cluster() -> Iterator[Cluster]:
    """A control plane without nodes: the test plays the kubelet by writing Pod statuses."""
    with any_cluster(node=False) as cluster:
        cluster.install_crds()
        yield cluster


@pytest.fixture(scope="session")
def node_cluster() -> Iterator[Cluster]:
    """A cluster whose Pods really run."""
    with any_cluster(node=True) as cluster:
        cluster.install_crds()
        yield cluster


@pytest.fixture(scope="session")
def images(node_cluster: Cluster) -> None:
    """The node has imageprocessing-operator:dev and imageprocessing-worker:dev of these sources."""
    if node_cluster.load:
        needs(docker.missing())
        node_cluster.load(images_archive())


@pytest.fixture(scope="session")
def server_host() -> str:
    """The address for servers of the tests; of tests with Pods, one that those reach."""
    return "127.0.0.1"


@pytest.fixture(scope="session")
def firestore_address(server_host: str) -> Iterator[str]:
    """Firestore's emulator, as HOST:PORT."""
    yield from firestore_at(server_host)


def firestore_at(host: str) -> Iterator[str]:
    """What firestore_address does."""
    needs(emulators.missing_firestore())
    with emulators.firestore_emulator(host) as address:
        yield address


@pytest.fixture
def firestore(firestore_address: str) -> emulators.Firestore:
    """Firestore with a project that is new for each test."""
    return emulators.new_project(firestore_address)


@pytest.fixture(scope="session")
def gcs_address(server_host: str) -> Iterator[str]:
    """Cloud Storage's emulator, as HOST:PORT."""
    yield from gcs_at(server_host)


def gcs_at(host: str) -> Iterator[str]:
    """What gcs_address does."""
    needs(emulators.missing_gcs())
    with emulators.gcs_emulator(host) as address:
        yield address


@pytest.fixture
def gcs(gcs_address: str) -> emulators.Storage:
    """Cloud Storage with a bucket that is new for each test."""
    return emulators.new_bucket(gcs_address)


def any_cluster(*, node: bool) -> AbstractContextManager[Cluster]:
    """The one that KUBECONFIG names, or one by kind, or one that is built here."""
    if cluster := given_cluster(node=node):
        return contextlib.nullcontext(cluster)
    if kind.available():
        return kind.kind_cluster(node=node)
    needs(built.missing(node=node))
    return built.built_cluster(node=node)


def needs(reason: str | None) -> None:
    """Skips when something is missing; in CI that is a failure, or it would never be noticed."""
    if reason and os.environ.get("CI"):
        pytest.fail(f"CI must run this: {reason}")
    if reason:
        pytest.skip(reason)
