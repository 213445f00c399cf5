"""An old operator and a new one at once: Recreate makes it rare, a lost node does not."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest
from imageprocessing_contract import names

from tests.apiserver import kubelet
from tests.apiserver.conftest import operator_of
from tests.apiserver.kube import Object, eventually
from tests.apiserver.proxy import Answer, Proxy, proxied
from tests.apiserver.shop import SHARDED, Shop, hook
from tests.cluster.cluster import Cluster
from tests.e2e.receiver import receiving

WRITES = 30
"""Of status and Jobs about one request, by both together."""


@pytest.fixture(scope="module")
def second(api_cluster: Cluster) -> Iterator[Proxy]:
    """The second operator's way to the API server."""
    with proxied(api_cluster.kubeconfig) as found:
        yield found


@pytest.fixture(scope="module")
def shop(
    proxied_shop: Shop, second: Proxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """Both operators at work in one namespace."""
    folder = tmp_path_factory.mktemp("second")
    kubeconfig = second.write_kubeconfig(folder / "kubeconfig")
    other = operator_of(proxied_shop.kube.namespace, kubeconfig, folder / "log")
    proxied_shop.make_secret()
    operators = (proxied_shop.operator, other)
    try:
        for operator in operators:
            operator.start()
        for operator in operators:
            eventually(lambda operator=operator: operator.ready, "both are at work")
        yield proxied_shop
        for operator in operators:
            assert operator.running
            assert "Traceback" not in operator.log
    finally:
        if other.running:
            other.kill()


REPORTS = {
    "plan": kubelet.planned(20, 2),
    "shards": b"",
    "finalize": kubelet.finalized(20, 2),
}


class Stream:
    """Requests that come one after the other, and what became of each."""

    def __init__(self, shop: Shop, url: str) -> None:
        self._shop, self._url = shop, url
        self.uids: dict[str, str] = {}
        self._before = {job["metadata"]["uid"] for job in shop.kube.list("jobs")}
        self.jobs: dict[str, str] = {}
        self._ended: set[str] = set()
        self._stamp = len(self._before)

    def come(self) -> None:
        """One more: every second one in its plan's Pod alone, every fifth with a webhook."""
        number = len(self.uids)
        name, fields = f"both-{self._stamp}-{number}", {} if number % 2 else SHARDED
        webhook = {"webhook": hook(self._url)} if number % 5 == 0 else {}
        self.uids[name] = self._shop.apply(name, **fields, **webhook)["metadata"]["uid"]

    def play(self) -> None:
        """Ends each Pod that is there."""
        kube = self._shop.kube
        steps = {}
        for job in kube.list("jobs"):
            meta = job["metadata"]
            if meta["uid"] in self._before:
                continue
            self.jobs[meta["uid"]] = meta["name"]
            owner = meta["ownerReferences"][0]["name"]
            steps[meta["name"]] = (owner, meta["labels"][names.LABEL_STEP])
        for pod in kube.list("pods", fields="status.phase=Pending"):
            owner, step = steps.get(pod["metadata"]["labels"]["job-name"], ("", ""))
            if not owner or pod["metadata"]["uid"] in self._ended:
                continue
            self._ended.add(pod["metadata"]["uid"])
            whole = int(owner.rpartition("-")[2]) % 2
            self._shop.kubelet.end(pod, kubelet.whole(5) if whole else REPORTS[step])

    def settled(self) -> bool:
        self.play()
        found = self._shop.kube.list("ipr")
        return all(request["status"].get("settled") for request in found)


def about(proxy: Proxy, request: Object) -> list[str]:
    """Writes of status and Jobs about a request."""
    meta = request["metadata"]
    found = []
    for call in proxy.writes():
        if "/events" in call.path:
            continue
        if call.path.endswith(f"/{meta['name']}/status") or meta["uid"] in call.body.decode():
            found.append(f"{call.method} {call.path.rpartition('/namespaces/')[2]}")
    return found


def wrote(proxy: Proxy, name: str, text: str) -> bool:
    """Whether a status with this text was written."""
    return any(
        call.path.endswith(f"/{name}/status") and text in call.body.decode()
        for call in proxy.writes()
    )


@pytest.mark.parametrize("seconds", [8, pytest.param(60, marks=pytest.mark.long)])
def test_two_operators_at_once(shop: Shop, proxy: Proxy, second: Proxy, seconds: int) -> None:
    """A stream of requests comes to the same end as with one: one Job a step, one webhook-id."""
    with receiving("127.0.0.2") as receiver:
        stream = Stream(shop, receiver.url)
        end = time.monotonic() + seconds
        while time.monotonic() < end:  # this long is what is tried
            stream.come()
            stream.play()
        eventually(stream.settled, "all are settled")
        ids = Counter(
            receiver.received.get()[0]["webhook-id"] for _ in range(receiver.received.qsize())
        )
    found = [shop.kube.get("ipr", name) for name in stream.uids]
    assert len(found) >= 10
    most: list[str] = []
    for request in found:
        status = request["status"]
        ready = next(c for c in status["conditions"] if c["type"] == "Ready")
        assert ready["reason"] == "Succeeded", request
        most = max(most, about(proxy, request) + about(second, request), key=len)
    assert len(most) <= WRITES, Counter(most)
    assert len(set(stream.jobs.values())) == len(stream.jobs), "a Job was made twice"
    sharded = sum(1 for number in range(len(found)) if number % 2 == 0)
    assert len(stream.jobs) == len(found) + 2 * sharded
    assert len(ids) == sum(1 for request in found if "webhook" in request["spec"])


def test_what_only_one_has_seen_is_no_fight(shop: Shop, proxy: Proxy, second: Proxy) -> None:
    """The other one would write at once that all is well, and so on."""
    empty = Answer(200, b'{"items": []}', {"Content-Type": "application/json"})
    second.fault = lambda call: empty if call.path == shop.kube.path("pods") else None
    shop.apply("troubled")
    (pod,) = shop.kubelet.wait_pods(shop.job("troubled", "plan"))
    shop.kubelet.leave_unscheduled(pod, "0/3 nodes are available")
    # By their writes: what one says may be gone a moment later.
    eventually(lambda: wrote(proxy, "troubled", "Unschedulable"), "one says what it has seen")
    answers = len(about(second, shop.kube.get("ipr", "troubled")))
    eventually(
        lambda: len(about(second, shop.kube.get("ipr", "troubled"))) > answers,
        "the other one says what it has not",
        seconds=120,
    )
    time.sleep(5)  # a fight makes 30 writes a second
    second.fault = lambda _: None
    shop.kubelet.finish(shop.job("troubled", "plan"), kubelet.whole(1))
    shop.wait_status("troubled", settled=True)
    request = shop.kube.get("ipr", "troubled")
    found = about(proxy, request) + about(second, request)
    assert len(found) <= WRITES, Counter(found)
