"""The operator's token ends or changes, and its rights are taken away and given back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.apiserver import kubelet
from tests.apiserver.conftest import open_shop
from tests.apiserver.kube import Object, eventually
from tests.apiserver.proxy import Call, Proxy
from tests.apiserver.shop import Shop
from tests.cluster.cluster import Cluster

CHART = Path(__file__).resolve().parents[2] / "charts" / "imageprocessing-operator"
ACCOUNT = "the-operator"


def chart_rules() -> list[Object]:
    """What the chart allows the operator."""
    text = (CHART / "templates" / "rbac.yaml").read_text()
    rules = text.partition('define "imageprocessing.rules" -}}')[2].partition("{{- end }}")[0]
    found: list[Object] = yaml.safe_load(rules)
    return found


def rights(rules: list[Object]) -> list[tuple[str, str, str]]:
    """Group, resource and verb of each."""
    return [
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


class Access:
    """The operator's account: what it may do, and the file with its token."""

    def __init__(self, shop: Shop, token: Path) -> None:
        self._shop, self.token = shop, token
        shop.kube.create("serviceaccounts", {"metadata": {"name": ACCOUNT}})

    def give(self, rules: list[Object]) -> None:
        """Exactly these rights, once the API server goes by them."""
        here = {"namespace": self._shop.kube.namespace, "name": ACCOUNT}
        rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": here}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT}
        subject = {"kind": "ServiceAccount", **here}
        apply = self._shop.cluster.apply
        apply({**rbac, "kind": "Role", "rules": rules})
        apply({**rbac, "kind": "RoleBinding", "roleRef": role, "subjects": [subject]})
        wanted = set(rights(rules))
        for right in rights(chart_rules()):
            eventually(partial(self._is, right, right in wanted), f"{right} in {wanted}")

    def _is(self, right: tuple[str, str, str], allowed: bool) -> bool:
        return self._has(right) == allowed

    def _has(self, right: tuple[str, str, str]) -> bool:
        group, resource, verb = right
        resource, _, subresource = resource.partition("/")
        attributes = {
            "namespace": self._shop.kube.namespace,
            "group": group,
            "resource": resource,
            "subresource": subresource,
            "verb": verb,
        }
        user = f"system:serviceaccount:{self._shop.kube.namespace}:{ACCOUNT}"
        review = {"spec": {"user": user, "resourceAttributes": attributes}}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        answer = self._shop.kube.call("POST", path, json=review)
        return bool(answer["status"]["allowed"])

    def log_in(self, secret: str) -> None:
        """A new token, which is good until the Secret is deleted."""
        kube = self._shop.kube
        uid = kube.create("secrets", {"metadata": {"name": secret}})["metadata"]["uid"]
        bound = {"apiVersion": "v1", "kind": "Secret", "name": secret, "uid": uid}
        path = kube.path("serviceaccounts", ACCOUNT, "token")
        answer = kube.call("POST", path, json={"spec": {"boundObjectRef": bound}})
        self.token.write_text(answer["status"]["token"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("operator")


@pytest.fixture(scope="module")
def shop(
    api_cluster: Cluster, proxy: Proxy, folder: Path, request: pytest.FixtureRequest
) -> Iterator[Shop]:
    """The operator with an account of its own."""
    kubeconfig = proxy.write_kubeconfig(folder / "kubeconfig")
    config = yaml.safe_load(kubeconfig.read_text())
    config["users"][0]["user"] = {"tokenFile": str(folder / "token")}
    kubeconfig.write_text(yaml.safe_dump(config))
    with open_shop(api_cluster, kubeconfig, folder, request) as shop:
        yield shop
        assert "Traceback" not in shop.operator.log


@pytest.fixture(scope="module")
def access(shop: Shop, folder: Path) -> Access:
    access = Access(shop, folder / "token")
    access.give(chart_rules())
    access.log_in("first")
    shop.operator.start()
    return access


def finish(shop: Shop, name: str) -> None:
    shop.finish_step(name, "plan", kubelet.whole(1))
    shop.wait_status(name, settled=True)


def wait_ready(shop: Shop) -> None:
    eventually(lambda: shop.operator.ready, "the operator is ready")


def cut(proxy: Proxy) -> None:
    """Ends the watches: those that run are not asked for their rights."""
    proxy.down()
    proxy.up()


def without(verb: str, *resources: str) -> list[Object]:
    """The chart's rules without this verb, for these resources or for all."""
    found = []
    for rule in chart_rules():
        taken = not resources or set(resources) & set(rule["resources"])
        verbs = [kept for kept in rule["verbs"] if not (taken and kept == verb)]
        found += [{**rule, "verbs": verbs}] if verbs else []
    return found


def test_a_token_that_ends(shop: Shop, access: Access, proxy: Proxy) -> None:
    """Not hot while it is refused; the new one in the file is used."""
    wait_ready(shop)
    shop.kube.delete("secrets", "first")
    refused = shop.kube.path("ipr")
    token = access.token.read_text()

    def unknown() -> bool:
        headers = {"Authorization": f"Bearer {token}"}
        return shop.kube.ask("GET", refused, headers=headers).status_code == 401

    eventually(unknown, "the token is refused")
    watches: list[float] = []

    def note(call: Call) -> None:
        if call.is_watch and call.path == refused:
            watches.append(time.monotonic())

    proxy.fault = note
    cut(proxy)
    eventually(lambda: shop.operator.readiness.endswith("is refused: 401"), "it says so")
    eventually(lambda: len(watches) >= 2, "another try")
    assert watches[1] - watches[0] >= 4, "seconds"
    shop.apply("after")
    access.log_in("second")
    finish(shop, "after")
    wait_ready(shop)
    proxy.fault = lambda _: None


def test_rights_that_are_taken_and_given_back(shop: Shop, access: Access, proxy: Proxy) -> None:
    wait_ready(shop)
    access.give(without("create", "jobs"))
    shop.apply("no-create")
    shop.wait_said("no-create", "Stalled", "True", "JobRefused")
    assert "cannot create resource" in shop.condition("no-create", "Stalled")["message"]

    access.give(without("patch", "imageprocessingrequests/status"))
    shop.apply("no-status")
    shop.job("no-status", "plan")
    eventually(lambda: "cannot patch resource" in shop.operator.log, "it is logged")

    access.give([])
    proxy.calls.clear()
    cut(proxy)
    path = shop.kube.path("ipr")
    eventually(lambda: shop.operator.readiness.endswith("is refused: 403"), "it says so")
    shop.apply("blind")
    eventually(lambda: len(watches_of(proxy, path)) >= 3, "three tries")
    assert len(proxy.calls) < 100
    access.give(chart_rules())
    wait_ready(shop)
    names = ("no-create", "no-status", "blind")
    for name in names:
        finish(shop, name)

    access.give(without("watch"))
    cut(proxy)
    eventually(lambda: shop.operator.readiness.endswith("is refused: 403"), "it says so")
    shop.apply("unwatched")
    access.give(chart_rules())
    finish(shop, "unwatched")
    wait_ready(shop)
    assert shop.operator.running


def watches_of(proxy: Proxy, path: str) -> list[Any]:
    return [call for call in proxy.calls if call.is_watch and call.path == path]
