"""Pods that do not run, or do not end: it is said, nothing is hot, and it clears."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.apiserver import kubelet
from tests.apiserver.conftest import ACCOUNT
from tests.apiserver.kube import MERGE, Object, eventually
from tests.apiserver.proxy import Answer, Call, Proxy
from tests.apiserver.shop import Shop


@pytest.fixture(scope="module")
def shop(proxied_shop: Shop) -> Shop:
    proxied_shop.operator.start()
    return proxied_shop


@contextmanager
def a_node(shop: Shop, name: str) -> Iterator[None]:
    """A node whose kubelet never answers."""
    shop.cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    try:
        yield
    finally:
        shop.cluster.kubectl("delete", "node", name)


@contextmanager
def a_policy(shop: Shop, name: str, resource: str, operation: str, rule: str) -> Iterator[None]:
    """An admission policy of the namespace."""
    group, _, plural = resource.rpartition("/")
    selector = {"matchLabels": {"kubernetes.io/metadata.name": shop.kube.namespace}}
    rules: list[Object] = [
        {
            "apiGroups": [group],
            "apiVersions": ["v1"],
            "operations": [operation],
            "resources": [plural],
        }
    ]
    spec: Object = {
        "failurePolicy": "Fail",
        "matchConstraints": {"namespaceSelector": selector, "resourceRules": rules},
        "validations": [{"expression": rule, "message": "not in this namespace"}],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    for kind, body in (("", spec), ("Binding", binding)):
        shop.cluster.apply(
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": f"ValidatingAdmissionPolicy{kind}",
                "metadata": {"name": name},
                "spec": body,
            }
        )
    try:
        yield
    finally:
        for kind in ("binding", ""):
            shop.cluster.kubectl("delete", f"validatingadmissionpolicy{kind}", name)


def failures_to_create(shop: Shop, job: str) -> str:
    """What the Job controller says that it was refused."""
    uid = shop.kube.get("jobs", job)["metadata"]["uid"]
    events = shop.kube.list("events", fields=f"involvedObject.uid={uid},reason=FailedCreate")
    return " ".join(event["message"] for event in events)


CAUSES = {
    "unscheduled": "Unschedulable",
    "no-image": "ImageNotPulled",
    "no-key": "ContainerNotCreated",
    "no-volume": "VolumeNotMounted",
    "killed": "OOMKilled",
    "lost": "NodeLost",
    "no-policy": "PodsNotCreated",
    "no-quota": "PodsNotCreated",
    "no-account": "PodsNotCreated",
}
REFUSED = {
    "no-policy": "not in this namespace",
    "no-quota": "exceeded quota",
    "no-account": f'serviceaccount "{ACCOUNT}" not found',
}


def test_each_cause_is_said_and_clears(shop: Shop, proxy: Proxy) -> None:
    """All side by side, for each takes ten seconds."""
    node = f"node-of-{shop.kube.namespace}"
    with a_node(shop, node):
        pods = begin(shop)
        shop.kubelet.leave_unscheduled(pods["unscheduled"], "0/3 nodes are available")
        shop.kubelet.hold(pods["no-image"], "ImagePullBackOff", "not found")
        shop.kubelet.hold(pods["no-key"], "CreateContainerConfigError", "no key in Secret s")
        shop.kubelet.leave_unmounted(pods["no-volume"], 'configmap "products" not found')
        shop.kubelet.end(pods["killed"], code=137, reason="OOMKilled")
        shop.kubelet.bind(pods["lost"], node)
        shop.kubelet.start(pods["lost"])
        lost = shop.kube.path("pods", pods["lost"]["metadata"]["name"])
        shop.kube.call("DELETE", lost, json={"gracePeriodSeconds": 1})
        # The next try must be there before Pods are refused.
        shop.kubelet.wait_another(shop.job("killed", "plan"), pods["killed"]["metadata"]["uid"])
        rule = "!object.metadata.generateName.startsWith('no-policy')"
        with a_policy(shop, f"pods-{shop.kube.namespace}", "/pods", "CREATE", rule):
            refuse(shop)
            for name, reason in CAUSES.items():
                shop.wait_said(name, "Reconciling", "True", reason)
                said = shop.said(name)
                assert said["Ready"] == ("Unknown", "Planning")
                assert said["Stalled"][0] == "False"
            message = shop.condition("no-account", "Reconciling")["message"]
            assert REFUSED["no-account"] in message
            assert node in shop.condition("lost", "Reconciling")["message"]
            it_is_not_hot(shop, proxy)

        shop.kube.delete("resourcequotas", "none")
        shop.kube.create("serviceaccounts", {"metadata": {"name": ACCOUNT}})
        # Its kubelet is back; whoever deletes the Pod by force leaves it to the Job's finalizer.
        shop.kubelet.end(pods["lost"], code=143)
        for name in CAUSES:
            job = shop.job(name, "plan")
            (pod,) = shop.kubelet.wait_pods(job, seconds=90)
            shop.kubelet.start(pod)
        for name in CAUSES:
            if name != "killed":  # until its Pod ends, nobody knows
                shop.wait_said(name, "Reconciling", "True", "Progressing")
        for name in CAUSES:
            shop.finish_step(name, "plan", kubelet.whole(1))
            shop.wait_finished(name, "Succeeded")


@pytest.mark.long
def test_ten_minutes_of_trouble(shop: Shop, proxy: Proxy) -> None:
    """Then it is Stalled, after a look a minute; and it clears."""
    shop.apply("stalled")
    (pod,) = shop.kubelet.wait_pods(shop.job("stalled", "plan"))
    shop.kubelet.leave_unscheduled(pod, "0/3 nodes are available")
    shop.wait_said("stalled", "Reconciling", "True", "Unschedulable")
    proxy.calls.clear()
    shop.wait_said("stalled", "Stalled", "True", "Unschedulable", seconds=670)
    calls = [call for call in proxy.calls if not call.is_watch]
    assert len(calls) < 40, calls
    assert len([call for call in calls if call.path.endswith("/stalled/status")]) == 1
    shop.kubelet.start(pod)
    shop.wait_said("stalled", "Stalled", "False", "Progressing")
    assert shop.said("stalled")["Reconciling"] == ("True", "Progressing")
    shop.finish_step("stalled", "plan", kubelet.whole(1))
    shop.wait_finished("stalled", "Succeeded")


def test_an_end_waits_for_no_job(shop: Shop, proxy: Proxy) -> None:
    """A Job's TTL is refused for good, or for a while; the request has ended all the same."""
    for name in ("refused-ttl", "late-ttl"):
        shop.apply(name)
        shop.kubelet.wait_pods(shop.job(name, "plan"))
    refused, late = (shop.job(name, "plan") for name in ("refused-ttl", "late-ttl"))
    rule = "!has(object.spec.ttlSecondsAfterFinished)"
    ttl = {"spec": {"ttlSecondsAfterFinished": 1}}
    dry = f"{shop.kube.path('jobs', refused)}?dryRun=All"

    def holds() -> bool:
        return shop.kube.ask("PATCH", dry, json=ttl, headers=MERGE).status_code == 422

    with a_policy(shop, f"jobs-{shop.kube.namespace}", "batch/jobs", "UPDATE", rule):
        eventually(holds, "the policy holds")
        shop.kubelet.finish(refused, kubelet.whole(1))
        shop.wait_status("refused-ttl", settled=True)
        assert "ttlSecondsAfterFinished" not in shop.kube.get("jobs", refused)["spec"]
    why = f"refused-ttl: cannot let its Jobs go: the API server refuses to change Job {refused}"
    assert shop.operator.log.count(why) == 1
    eventually(lambda: not holds(), "the policy is gone")

    def fault(call: Call) -> Answer | None:
        return Answer(500) if call.method == "PATCH" and call.path.endswith(late) else None

    proxy.fault = fault
    shop.kubelet.finish(late, kubelet.whole(1))
    assert "settled" not in shop.wait_finished("late-ttl", "Succeeded")
    proxy.fault = lambda _: None
    shop.wait_status("late-ttl", settled=True)
    assert shop.kube.get("jobs", late)["spec"]["ttlSecondsAfterFinished"] == 3600


def begin(shop: Shop) -> dict[str, Object]:
    """Requests with a Pod each, before any Pod is refused."""
    names = [name for name in CAUSES if name not in REFUSED]
    for name in names:
        shop.apply(name)
    return {name: shop.kubelet.wait_pods(shop.job(name, "plan"))[0] for name in names}


def refuse(shop: Shop) -> None:
    """Requests whose Pods are refused, each for its reason before there is another."""

    def apply(name: str) -> None:
        shop.apply(name)
        job = shop.job(name, "plan")
        eventually(lambda: REFUSED[name] in failures_to_create(shop, job), f"{name} is refused")

    eventually(lambda: refuses_pods(shop), "the policy holds")
    apply("no-policy")
    hard = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    shop.kube.create("resourcequotas", hard)
    eventually(
        lambda: "hard" in shop.kube.get("resourcequotas", "none").get("status", {}), "a quota"
    )
    apply("no-quota")
    shop.kube.delete("serviceaccounts", ACCOUNT)
    apply("no-account")


def refuses_pods(shop: Shop) -> bool:
    pod: dict[str, Any] = {
        "metadata": {"generateName": "no-policy-"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    path = shop.kube.path("pods") + "?dryRun=All"
    answer = shop.kube.ask("POST", path, json=pod)
    return answer.status_code == 422 and "not in this namespace" in answer.text


def it_is_not_hot(shop: Shop, proxy: Proxy) -> None:
    """Until the Job controller has failed, and the operator looked, under another Pod's name."""
    jobs = {name: shop.kube.get("jobs", shop.job(name, "plan")) for name in CAUSES}
    proxy.calls.clear()

    def looks(name: str) -> int:
        uid = jobs[name]["metadata"]["uid"]
        return len([c for c in proxy.calls if uid in c.query and not c.is_watch])

    eventually(lambda: looks("no-account") >= 1, "another look")
    # By now the missing account may be what refuses these two.
    changing = ("/no-policy/status", "/no-quota/status")
    assert not [c for c in proxy.writes() if "/status" in c.path and not c.path.endswith(changing)]
    assert max(looks(name) for name in CAUSES) <= 10
