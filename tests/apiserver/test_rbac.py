"""The operator with the rights that the chart gives it: all that it needs, and no more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
from imageprocessing_contract import names

from tests import helm
from tests.apiserver import kubelet
from tests.apiserver.conftest import ACCOUNT, operator_of
from tests.apiserver.kube import Kube, eventually
from tests.apiserver.proxy import Call, Proxy
from tests.apiserver.shop import SHARDED, Shop, hook
from tests.apiserver.test_trouble import foreign_job
from tests.cluster.cluster import Cluster
from tests.conftest import needs
from tests.e2e.receiver import Receiver

Right = tuple[str, str, str]
"""API group, resource with subresource, verb."""


def rendered(*values: str) -> list[dict[str, Any]]:
    needs(helm.missing())
    files = ["templates/rbac.yaml", "templates/serviceaccount.yaml"]
    return helm.objects(helm.render(*values, *(f"--show-only={file}" for file in files)))


def rights(role: dict[str, Any]) -> set[Right]:
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def used(call: Call) -> Right | None:
    """The right that a call needs, as the API server reckons it; none for what there is."""
    if re.fullmatch(r"/api|/apis|/version|/api/v1|/apis/[^/]+/[^/]+", call.path):
        return None
    pattern = r"/(?:api/v1|apis/([^/]+)/[^/]+)/(?:namespaces/[^/]+/)?([^/]+)(?:/([^/]+)(/\w+)?)?"
    found = re.fullmatch(pattern, call.path)
    assert found, call.path
    group, resource, name, sub = found.groups()
    verb = call.method.lower()
    if call.method == "POST":
        verb = "create"
    elif call.method == "GET" and name is None:
        verb = "watch" if call.is_watch else "list"
    return group or "", resource + (sub or ""), verb


def test_the_charts_rights_are_enough_and_all_used(
    api_cluster: Cluster, proxy: Proxy, receiver: Receiver, tmp_path: Path
) -> None:
    """By the Role of one namespace; the ClusterRole has the same rules."""
    (cluster_role,) = (o for o in rendered() if o["kind"] == "ClusterRole")
    with api_cluster.namespace("rbac") as namespace:
        given = rendered("--namespace", namespace, "--set", f"namespaces={{{namespace}}}")
        (role,) = (o for o in given if o["kind"] == "Role")
        assert rights(cluster_role) == rights(role)
        api_cluster.kubectl("apply", "-f", "-", stdin=helm.text(given))
        token = api_cluster.kubectl("create", "token", helm.RELEASE, "-n", namespace).strip()
        kubeconfig = proxy.write_kubeconfig(tmp_path / "kubeconfig", token)
        operator = operator_of(namespace, kubeconfig, tmp_path / "log")
        kube = Kube(api_cluster.kubeconfig, namespace)
        kube.create("serviceaccounts", {"metadata": {"name": ACCOUNT}})
        shop = Shop(api_cluster, kube, operator)
        shop.make_secret()
        operator.start()
        try:
            everything_that_happens(shop, receiver.url)
            asked = {right for call in proxy.calls if (right := used(call))}
            # The rights of the token are what was used, and not the proxy's own.
            listed = httpx.get(
                f"{proxy.url}{kube.path('secrets')}", headers={"Authorization": f"Bearer {token}"}
            )
            assert listed.status_code == httpx.codes.FORBIDDEN
        finally:
            operator.kill()
            kube.close()
    assert asked == rights(role)
    assert "Forbidden" not in operator.log


def everything_that_happens(shop: Shop, url: str) -> None:
    """Requests that together make every kind of call."""
    # A webhook with its Secret, an inline source, a suspension and its end.
    shop.apply("whole", source={"inline": "products"}, webhook=hook(url), **SHARDED)
    shop.finish_step("whole", "plan", kubelet.planned(20, 2))
    shards = shop.job("whole", "shards")
    shop.edit("whole", suspend=True)
    shop.wait_said("whole", "Ready", "False", "Suspended")
    shop.edit("whole", suspend=False)
    shop.kubelet.wait_pods(shards, 2)
    shop.finish_shards("whole", 2)
    shop.finish_step("whole", "finalize", kubelet.finalized(20, 2))
    shop.wait_finished("whole", "Succeeded")
    shop.wait_said("whole", "Notified", "True", "Delivered")
    # No account for its Pods, a queue, and somebody who is faster.
    shop.kube.delete("serviceaccounts", ACCOUNT)
    shop.apply("waits")
    shop.apply("queued", labels={"kueue.x-k8s.io/queue-name": "images"})
    queued = shop.job("queued", "plan")
    shop.edit("queued", suspend=True)
    eventually(lambda: shop.find("jobs", queued) is None, "the Job is deleted")
    uid = shop.apply("taken", suspend=True)["metadata"]["uid"]
    shop.kube.create("jobs", foreign_job(names.job_name("taken", uid, "plan")))
    shop.edit("taken", suspend=False)
    shop.wait_said("taken", "Stalled", "True", "JobNameTaken")
    shop.wait_said("waits", "Reconciling", "True", "PodsNotCreated")


def test_no_way_up() -> None:
    """Nothing that gives more rights than the operator has, and no list of Secrets."""
    for values in ((), ("--set", "namespaces={a,b}")):
        for role in (o for o in rendered(*values) if o["kind"] in ("Role", "ClusterRole")):
            found = rights(role)
            assert not any("*" in part for right in found for part in right)
            assert {verb for _, resource, verb in found if resource == "secrets"} == {"get"}
            assert not {verb for *_, verb in found} & {"escalate", "bind", "impersonate"}
            ours = {resource for _, resource, verb in found if verb not in ("get", "list", "watch")}
            assert ours == {"imageprocessingrequests/status", "jobs", "events"}
