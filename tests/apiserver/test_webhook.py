"""The webhook, to receivers of every kind."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from imageprocessing_operator.outbox import DELAYS
from standardwebhooks.webhooks import Webhook

from tests.apiserver import kubelet
from tests.apiserver.kube import Object, eventually
from tests.apiserver.shop import Shop, hook
from tests.cluster.control_plane import free_port
from tests.e2e.receiver import SECRET, Answer, Receiver, receiving
from tests.pages import ROOT

ALLOWED, REFUSED = "127.0.0.2", "127.0.0.1"  # see the fixture shop
ANOTHER_SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(ALLOWED) as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def secret(shop: Shop) -> None:
    shop.make_secret("hook")


def finished(shop: Shop, name: str, **webhook: Any) -> None:
    """A request that succeeds, with a webhook."""
    shop.apply(name, webhook=webhook)
    shop.finish_step(name, "plan", kubelet.whole(2))


def test_the_example_receiver_believes_the_operator_alone(shop: Shop) -> None:
    """examples/webhook_receiver.py, as its first lines say to start it."""
    port = str(free_port())
    environment = {**os.environ, "WEBHOOK_SECRET": SECRET, "PORT": port}
    command = [sys.executable, str(ROOT / "examples" / "webhook_receiver.py")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as example:
        try:
            url = f"http://{ALLOWED}:{port}/"
            eventually(lambda: is_up(url), "the example listens")
            finished(shop, "example", **hook(url))
            shop.wait_said("example", "Notified", "True", "Delivered")
            forged = Webhook(ANOTHER_SECRET).sign("msg_1", datetime.now(UTC), "{}")
            headers = {"webhook-id": "msg_1", "webhook-signature": forged}
            headers["webhook-timestamp"] = str(int(datetime.now(UTC).timestamp()))
            answer = httpx.post(url, content="{}", headers=headers)
            assert answer.status_code == httpx.codes.UNAUTHORIZED
        finally:
            example.kill()
        _, said = example.communicate()
    told = [line for line in said.splitlines() if line.startswith("INFO:root:")]
    request_id = shop.status("example")["requestID"]
    assert told == [f"INFO:root:{request_id} completed: gs://b/r.csv"]


def is_up(url: str) -> bool:
    try:
        httpx.get(url)
    except httpx.TransportError:
        return False
    return True


def test_it_is_delivered_once_and_verifies(shop: Shop, receiver: Receiver) -> None:
    finished(shop, "told", **hook(receiver.url))
    status = shop.wait_status("told", settled=True)
    headers, body = receiver.received.get_nowait()
    message = Webhook(SECRET).verify(body, headers)
    assert message == {
        "type": "imageprocessingrequest.finished",
        "timestamp": status["completionTime"],
        "data": {
            "request_id": status["requestID"],
            "status": "completed",
            "csv_url": "gs://b/r.csv",
            "namespace": shop.kube.namespace,
            "name": "told",
            "images": {"total": 2, "succeeded": 2, "failed": 0},
            "failed_url": "gs://b/f.csv",
            "report_url": "gs://b/r",
        },
    }
    assert headers["webhook-id"] == status["webhook"]["eventID"]
    assert status["webhook"]["attempts"] == 1
    assert status["webhook"]["lastStatusCode"] == 204
    assert "nextAttemptTime" not in status["webhook"]
    assert shop.said("told")["Notified"] == ("True", "Delivered")
    shop.wait_events("told", "Started", "Finished", "WebhookDelivered")
    # A restart finds nothing to do.
    shop.operator.kill()
    shop.operator.start()
    finished(shop, "told-later", **hook(receiver.url))
    shop.wait_status("told-later", settled=True)
    assert receiver.received.get_nowait()[0]["webhook-id"] != headers["webhook-id"]
    assert receiver.received.empty()


def test_a_request_that_failed_is_told_too(shop: Shop, receiver: Receiver) -> None:
    shop.apply("told-failed", webhook=hook(receiver.url))
    message = kubelet.refused("plan", "SourceNotReadable", "no such object")
    shop.finish_step("told-failed", "plan", message, 42)
    shop.wait_status("told-failed", settled=True)
    _, body = receiver.received.get_nowait()
    assert json.loads(body)["data"]["status"] == "failed"
    assert json.loads(body)["data"]["csv_url"] is None
    assert shop.said("told-failed")["Ready"] == ("False", "SourceNotReadable")


def test_a_receiver_in_trouble_is_tried_again(shop: Shop, receiver: Receiver) -> None:
    receiver.answers.append(500)
    finished(shop, "retried", **hook(receiver.url))
    shop.wait_said("retried", "Notified", "False", "Retrying")
    status = shop.status("retried")
    assert status["webhook"]["attempts"] == 1
    assert status["webhook"]["lastStatusCode"] == 500
    assert status["webhook"]["nextAttemptTime"] > status["webhook"]["lastAttemptTime"]
    assert "settled" not in status
    assert shop.said("retried")["Ready"] == ("True", "Succeeded")
    # A crash between two attempts changes nothing.
    shop.operator.kill()
    shop.operator.start()
    status = shop.wait_status("retried", settled=True)
    assert status["webhook"]["attempts"] == 2
    assert status["webhook"]["lastStatusCode"] == 204
    (first, body), (second, again) = (receiver.received.get_nowait() for _ in range(2))
    assert (first["webhook-id"], body) == (second["webhook-id"], again)
    assert receiver.received.empty()


def test_gone_gives_up_until_the_spec_is_edited(shop: Shop, receiver: Receiver) -> None:
    receiver.answers.append(410)
    finished(shop, "given-up", **hook(receiver.url))
    shop.wait_said("given-up", "Notified", "False", "GaveUp")
    status = shop.status("given-up")
    assert "nextAttemptTime" not in status["webhook"]
    assert "settled" not in status
    shop.wait_events("given-up", "Started", "Finished", "WebhookGivenUp")
    shop.edit("given-up", webhook={"url": f"{receiver.url}/new"})
    status = shop.wait_status("given-up", settled=True)
    assert status["webhook"]["attempts"] == 1
    assert receiver.received.qsize() == 2, "once before the edit, once after it"


def test_a_private_address_is_never_connected_to(shop: Shop, receiver: Receiver) -> None:
    """Written as one, or what a name leads to."""
    for name, host in (("private", REFUSED), ("private-name", "localhost")):
        finished(shop, name, **hook(receiver.url.replace(ALLOWED, host)))
        shop.wait_said(name, "Notified", "False", "Retrying")
        assert "not a public address" in shop.condition(name, "Notified")["message"]
    assert receiver.received.empty()


def attempted(shop: Shop, name: str, attempts: int) -> Object:
    """The outbox after so many attempts, of which the last failed."""

    def look() -> Object | None:
        webhook: Object = shop.status(name).get("webhook", {})
        return webhook if webhook.get("attempts") == attempts else None

    return eventually(look, f"attempt {attempts} of {name}")


def send_now(shop: Shop, name: str) -> None:
    """What an administrator does who does not want to wait for the next attempt."""
    webhook = {"nextAttemptTime": kubelet.now()}
    shop.kube.patch("ipr", name, {"status": {"webhook": webhook}}, "status")


def pause(webhook: Object) -> float:
    """Seconds between the last attempt and the next one."""
    last, following = webhook["lastAttemptTime"], webhook["nextAttemptTime"]
    return (datetime.fromisoformat(following) - datetime.fromisoformat(last)).total_seconds()


def test_500_until_the_fourth_attempt(shop: Shop, receiver: Receiver) -> None:
    receiver.answers += [500, 500, 500]
    finished(shop, "fourth", **hook(receiver.url))
    for attempt in (1, 2, 3):
        webhook = attempted(shop, "fourth", attempt)
        assert webhook["lastStatusCode"] == 500
        assert DELAYS[attempt] <= pause(webhook) <= 1.1 * DELAYS[attempt] + 1
        send_now(shop, "fourth")
    status = shop.wait_status("fourth", settled=True)
    assert status["webhook"]["attempts"] == 4
    received = [receiver.received.get_nowait() for _ in range(4)]
    assert receiver.received.empty()
    assert len({(headers["webhook-id"], body) for headers, body in received}) == 1
    for headers, body in received:
        Webhook(SECRET).verify(body, headers)


def test_429_and_302(shop: Shop, receiver: Receiver) -> None:
    receiver.answers.append(Answer(429, {"Retry-After": "120"}))
    finished(shop, "throttled", **hook(receiver.url))
    assert 120 <= pause(attempted(shop, "throttled", 1)) <= 121
    send_now(shop, "throttled")
    shop.wait_status("throttled", settled=True)
    assert receiver.received.qsize() == 2

    with receiving(ALLOWED) as elsewhere:
        receiver.answers.append(Answer(302, {"Location": elsewhere.url}))
        finished(shop, "moved", **hook(receiver.url))
        assert attempted(shop, "moved", 1)["lastStatusCode"] == 302
        send_now(shop, "moved")
        shop.wait_status("moved", settled=True)
        assert elsewhere.received.empty()


def test_hung_receivers_delay_nobody(shop: Shop, receiver: Receiver) -> None:
    """Fifty of them, for as long as another is delivered and further requests come and end."""
    names = [f"hung-{number}" for number in range(50)]
    with ExitStack() as stack:
        hung = [stack.enter_context(socket.create_server((ALLOWED, 0))) for _ in names]
        for name, server in zip(names, hung, strict=True):
            server.settimeout(60)
            url = f"http://{ALLOWED}:{server.getsockname()[1]}/"
            shop.apply(name, webhook=hook(url, timeoutSeconds=60))
        pods = [shop.kubelet.wait_pods(shop.job(name, "plan"))[0] for name in names]
        for pod in pods:
            shop.kubelet.end(pod, kubelet.whole(2))
        connections = [stack.enter_context(server.accept()[0]) for server in hung]

        finished(shop, "swift", **hook(receiver.url))
        shop.wait_status("swift", settled=True)
        shop.apply("other")
        shop.finish_step("other", "plan", kubelet.whole(2))
        shop.wait_finished("other", "Succeeded")
        for name, connection in zip(names, connections, strict=True):
            assert connection.recv(2**16).startswith(b"POST / ")
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):  # it is still open
                connection.recv(2**16)
            assert "lastAttemptTime" not in shop.status(name)["webhook"]
    attempted(shop, names[0], 1)
    for name in names:
        shop.kube.delete("ipr", name)


def test_secrets_that_come_late_or_change(shop: Shop, receiver: Receiver) -> None:
    """One is missing, one lacks its key, one changes between two attempts."""
    shop.kube.create("secrets", {"metadata": {"name": "keyless"}, "stringData": {"other": SECRET}})
    for name in ("late", "keyless"):
        finished(shop, name, **hook(receiver.url, secret=name))
        shop.wait_said(name, "Notified", "False", "SecretNotFound")
        assert shop.said(name)["Ready"] == ("True", "Succeeded")
        assert "attempts" not in shop.status(name)["webhook"]
    assert "no key key" in shop.condition("keyless", "Notified")["message"]
    shop.make_secret("late")
    shop.kube.patch("secrets", "keyless", {"stringData": {"key": SECRET}})
    for name in ("late", "keyless"):
        send_now(shop, name)
        shop.wait_status(name, settled=True)
        headers, body = receiver.received.get_nowait()
        Webhook(SECRET).verify(body, headers)

    receiver.answers.append(500)
    shop.make_secret("rotated")
    finished(shop, "rotated", **hook(receiver.url, secret="rotated"))
    attempted(shop, "rotated", 1)
    shop.kube.patch("secrets", "rotated", {"stringData": {"key": ANOTHER_SECRET}})
    send_now(shop, "rotated")
    shop.wait_status("rotated", settled=True)
    (before, body), (after, again) = (receiver.received.get_nowait() for _ in range(2))
    assert body == again
    Webhook(SECRET).verify(body, before)
    Webhook(ANOTHER_SECRET).verify(body, after)
