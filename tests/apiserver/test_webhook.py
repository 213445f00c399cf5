"""The webhook, to receivers of every kind."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tests.apiserver import kubelet
from tests.apiserver.kube import eventually
from tests.apiserver.shop import Shop, hook
from tests.e2e.receiver import SECRET, Receiver, receiving

ALLOWED, REFUSED = "127.0.0.2", "127.0.0.1"  # see the fixture shop


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
    finished(shop, "private", **hook(receiver.url.replace(ALLOWED, REFUSED)))
    shop.wait_said("private", "Notified", "False", "Retrying")
    assert "not a public address" in shop.condition("private", "Notified")["message"]
    assert receiver.received.empty()


def test_a_hung_receiver_delays_nobody(shop: Shop, receiver: Receiver) -> None:
    with socket.create_server((ALLOWED, 0)) as hung:
        url = f"http://{ALLOWED}:{hung.getsockname()[1]}/"
        finished(shop, "hung", **hook(url, timeoutSeconds=60))
        connection, _ = hung.accept()
        with connection:
            finished(shop, "swift", **hook(receiver.url))
            shop.wait_status("swift", settled=True)
            assert "lastAttemptTime" not in shop.status("hung")["webhook"]
            assert shop.said("hung")["Notified"] == ("False", "DeliveryPending")
        shop.wait_said("hung", "Notified", "False", "Retrying")


def test_a_secret_may_come_later(shop: Shop, receiver: Receiver) -> None:
    finished(shop, "secretless", **hook(receiver.url, secret="late"))
    shop.wait_said("secretless", "Notified", "False", "SecretNotFound")
    assert shop.said("secretless")["Ready"] == ("True", "Succeeded")
    assert "attempts" not in shop.status("secretless")["webhook"]
    shop.make_secret("late")
    shop.wait_status("secretless", settled=True, seconds=45)
    eventually(lambda: receiver.received.qsize() == 1, "one message")
