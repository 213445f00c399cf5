"""The API server is gone, answers with errors, or sends watches astray."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from itertools import count

import pytest

from tests.apiserver import kubelet
from tests.apiserver.kube import eventually
from tests.apiserver.proxy import Answer, Call, Proxy
from tests.apiserver.shop import SHARDED, Shop


@pytest.fixture(autouse=True)
def faults_end(proxy: Proxy) -> Iterator[None]:
    yield
    proxy.fault = lambda _: None
    proxy.events = lambda _, line: (line,)


@pytest.fixture
def shop(proxied_shop: Shop) -> Shop:
    """The operator at work, whatever became of an earlier one."""
    operator = proxied_shop.operator
    if not operator.running:
        operator.start()
    eventually(lambda: operator.ready, "the operator is ready")
    return proxied_shop


def finish(shop: Shop, name: str) -> None:
    shop.finish_step(name, "plan", kubelet.planned(20, 2))
    finish_shards(shop, name)


def finish_shards(shop: Shop, name: str) -> None:
    shop.finish_shards(name, 2)
    shop.finish_step(name, "finalize", kubelet.finalized(20, 2))
    shop.wait_finished(name, "Succeeded")
    assert shop.steps(name) == ["finalize-1", "plan-1", "shards-1"]


@pytest.mark.parametrize(
    "seconds",
    [5, pytest.param(60, marks=pytest.mark.long), pytest.param(300, marks=pytest.mark.long)],
)
def test_the_api_server_is_gone(shop: Shop, proxy: Proxy, seconds: int) -> None:
    """A step ends meanwhile, and a request comes."""
    name = f"outage-{seconds}"
    shop.apply(name, **SHARDED)
    job = shop.job(name, "plan")
    shop.wait_said(name, "Ready", "Unknown", "Planning")
    proxy.down()
    shop.kubelet.finish(job, kubelet.planned(20, 2))
    shop.apply(f"{name}-new")
    before = len(proxy.calls)
    time.sleep(seconds)  # this long is what is tried
    assert len(proxy.calls) == before
    assert shop.operator.running
    assert shop.jobs(f"{name}-new") == []
    proxy.up()
    finish_shards(shop, name)
    shop.finish_step(f"{name}-new", "plan", kubelet.whole(2))
    shop.wait_finished(f"{name}-new", "Succeeded")
    assert "Traceback" not in shop.operator.log


STATUS = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "told to"}


def failing(status: int, reason: str, **headers: str) -> Answer:
    body = json.dumps({**STATUS, "code": status, "reason": reason}).encode()
    return Answer(status, body, {"Content-Type": "application/json", **headers})


ERRORS = {
    "500": failing(500, "InternalError"),
    "503": failing(503, "ServiceUnavailable"),
    "429": failing(429, "TooManyRequests", **{"Retry-After": "1"}),
    "html": Answer(502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html"}),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_every_second_call_fails(shop: Shop, proxy: Proxy, kind: str) -> None:
    """Watches, lists, reads and writes alike, so that each is met."""
    numbers = count()
    proxy.fault = lambda _: ERRORS[kind] if next(numbers) % 2 else None
    shop.apply(f"second-{kind}", **SHARDED)
    finish(shop, f"second-{kind}")
    assert shop.operator.running


def test_429_is_waited_out(shop: Shop, proxy: Proxy) -> None:
    """No call before the time that the API server asks for."""
    asked: list[float] = []

    def fault(call: Call) -> Answer | None:
        if call.method != "POST" or not call.path.endswith("/jobs"):
            return None
        asked.append(time.monotonic())
        return failing(429, "TooManyRequests", **{"Retry-After": "3"}) if len(asked) < 2 else None

    proxy.fault = fault
    shop.apply("later")
    shop.job("later", "plan")
    assert asked[1] - asked[0] >= 3


def error_event(code: int, reason: str) -> bytes:
    body = {"type": "ERROR", "object": {**STATUS, "code": code, "reason": reason}}
    return json.dumps(body).encode() + b"\n"


@pytest.mark.parametrize(
    ("code", "reason"), [(500, "InternalError"), (410, "Expired"), (429, "TooManyRequests")]
)
def test_an_error_inside_a_watch(shop: Shop, proxy: Proxy, code: int, reason: str) -> None:
    """Afterwards the process works, or it has ended and its Deployment starts another one."""
    errors = {"jobs", "imageprocessingrequests"}

    def events(call: Call, line: bytes) -> Iterable[bytes]:
        kind = call.path.rpartition("/")[2]
        if kind in errors:
            errors.discard(kind)
            return (error_event(code, reason),)
        return (line,)

    proxy.events = events
    name = f"inside-{code}"
    shop.apply(name, **SHARDED)

    def step(count: int) -> bool:
        if not shop.operator.running:
            shop.operator.start()
        return len(shop.jobs(name)) == count

    eventually(lambda: step(1), f"the plan of {name}")
    shop.kubelet.finish(shop.job(name, "plan"), kubelet.planned(20, 2))
    eventually(lambda: step(2), f"the shards of {name}")
    assert not errors, "an event of each watch was replaced"
    finish_shards(shop, name)


def test_deletions_in_the_gap_of_a_watch(shop: Shop, proxy: Proxy) -> None:
    """In place of a Job's deletion comes 410: the watch begins anew, and never tells of it."""
    shop.apply("gap", **SHARDED)
    job = shop.job("gap", "plan")
    shop.wait_said("gap", "Ready", "Unknown", "Planning")
    uid = shop.kube.get("jobs", job)["metadata"]["uid"]

    def events(_: Call, line: bytes) -> Iterable[bytes]:
        event = json.loads(line)
        deleted = event["type"] == "DELETED" and event["object"]["metadata"].get("uid") == uid
        return (error_event(410, "Expired") if deleted else line,)

    proxy.events = events
    shop.kube.delete("jobs", job)
    shop.wait_job(job, lambda body: body["metadata"]["uid"] != uid)
    finish(shop, "gap")


def test_duplicated_and_reordered_events(shop: Shop, proxy: Proxy) -> None:
    """Each event comes twice, and once more after the next one."""
    late: dict[str, bytes] = {}

    def events(call: Call, line: bytes) -> Iterable[bytes]:
        before = late.get(call.path, b"")
        late[call.path] = line
        return (line, line, before)

    proxy.events = events
    for name in ("order-1", "order-2"):
        shop.apply(name, **SHARDED)
        finish(shop, name)
    assert shop.status("order-1")["steps"] == {"plan": 1, "shards": 1, "finalize": 1}


@pytest.mark.long
def test_a_watch_goes_silent(shop: Shop, proxy: Proxy) -> None:
    """The connections stay open and nothing comes: noticed after 70 s without a bookmark."""
    shop.apply("silent", **SHARDED)
    job = shop.job("silent", "plan")
    shop.wait_said("silent", "Ready", "Unknown", "Planning")
    deaf = [call for call in proxy.calls if call.is_watch]
    lost: list[bytes] = []

    def events(call: Call, line: bytes) -> Iterable[bytes]:
        if any(call is one for one in deaf):
            lost.append(line)
            return ()
        return (line,)

    proxy.events = events
    shop.kubelet.finish(job, kubelet.planned(20, 2))
    shop.job("silent", "shards", seconds=120)
    assert lost
    finish_shards(shop, "silent")
