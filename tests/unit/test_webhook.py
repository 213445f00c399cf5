"""What one attempt to deliver comes to, with receivers of every kind."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from imageprocessing_contract.guard import Guard
from imageprocessing_contract.reasons import Reason
from imageprocessing_operator.state import Delivery, Request
from imageprocessing_operator.status import Status, Webhook
from imageprocessing_operator.webhook import _AT_ONCE_TO_ONE, Courier

from tests.e2e.receiver import SECRET
from tests.unit.certificates import self_signed
from tests.unit.operator_state import NOW, WEBHOOK, a_request
from tests.unit.raw_server import Exchange, RawServer

Answer = Callable[[Exchange], Awaitable[None]]
HERE = "127.0.0.1/32"


class Secrets:
    """An API with one Secret."""

    def __init__(self, secret: str = SECRET) -> None:
        self.secret = secret

    async def call(self, method: str, path: str) -> dict[str, Any]:
        return {"data": {"key": base64.b64encode(self.secret.encode()).decode()}}


def a_courier(*allowed: str, secret: str = SECRET) -> Courier:
    return Courier(Secrets(secret), Guard(allowed or (HERE,)))  # type: ignore[arg-type]


@pytest.mark.parametrize("secret", [f" {SECRET}\n", "whsec_QQ=="])
async def test_a_signing_secret(secret: str) -> None:
    async with RawServer(answer("200 Fine")) as server:
        delivery = await a_courier(secret=secret).deliver(to(server.url), 1)
    assert delivery.outcome == "delivered"


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_my-secret-password!",
        SECRET.removeprefix("whsec_"),
        "pässword",
        "whsec_QQ",
    ],
)
async def test_what_is_no_signing_secret_signs_nothing(secret: str) -> None:
    """Base64 is decoded strictly, as receivers do; a password of the namespace is no key."""
    async with RawServer(answer("200 Fine")) as server:
        delivery = await a_courier(secret=secret).deliver(to(server.url), 1)
    assert (delivery.outcome, delivery.reason) == ("no secret", Reason.SECRET_NOT_USABLE)
    assert "whsec_ and base64" in delivery.message
    assert server.heads == []


def to(url: str, timeout: int = 20) -> Request:
    """A finished request with a webhook."""
    webhook = Webhook(event_id="msg_1", next_attempt_time=NOW)
    status = Status(observed_generation=1, webhook=webhook, completion_time=NOW)
    return a_request(status, webhook={**WEBHOOK, "url": url, "timeoutSeconds": timeout})


def answer(status: str, **headers: str) -> Answer:
    return lambda exchange: exchange.reply(b"", status, **headers)


async def attempt(receiver: Answer, **options: Any) -> tuple[Delivery, RawServer]:
    async with RawServer(receiver, **options) as server:
        return await a_courier().deliver(to(server.url), 1), server


@pytest.mark.parametrize("code", [200, 201, 204, 299])
async def test_2xx_is_delivered(code: int) -> None:
    delivery, _ = await attempt(answer(f"{code} Fine"))
    assert (delivery.outcome, delivery.status_code) == ("delivered", code)


ANSWERS: dict[str, tuple[Answer, str, float | None]] = {
    "redirect": (answer("302 Found", Location="/elsewhere"), "failed", None),
    "error": (answer("500 Internal Server Error"), "failed", None),
    "gone": (answer("410 Gone"), "gone", None),
    "later": (answer("429 Too Many Requests", Retry_After="120"), "failed", 120),
    "past": (answer("503 No", Retry_After="Sun, 01 Mar 2026 12:00:00 GMT"), "failed", 0),
    "odd": (answer("503 No", Retry_After="a while"), "failed", None),
    "negative": (answer("429 No", Retry_After="-5"), "failed", None),
    "gone for ever": (
        answer("410 Gone", Retry_After="Mon, 01 Jan 99999999999 00:00:00 GMT"),
        "gone",
        None,
    ),
    "endless number": (answer("429 No", Retry_After="9" * 4000), "failed", float("inf")),
}


@pytest.mark.parametrize("kind", ANSWERS)
async def test_other_answers(kind: str) -> None:
    receiver, outcome, retry_after = ANSWERS[kind]
    delivery, server = await attempt(receiver)
    assert (delivery.outcome, delivery.retry_after) == (outcome, retry_after)
    assert delivery.message == f"the receiver answered {delivery.status_code}"
    assert len(server.heads) == 1, "no redirect is followed"


async def never(_: Exchange) -> None:
    await asyncio.Event().wait()


async def drip(exchange: Exchange) -> None:
    """A header that gets longer by the second; each byte alone is in time."""
    await exchange.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        await exchange.send(b"a")
        await asyncio.sleep(0.5)  # half of what the request waits for


async def informational(exchange: Exchange) -> None:
    while True:
        await exchange.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await asyncio.sleep(0.01)  # or the operator's loop would see nothing else


async def test_receivers_that_hang_end_with_the_time() -> None:
    courier = a_courier()
    async with RawServer(never) as one, RawServer(drip) as two, RawServer(informational) as three:
        found = await asyncio.gather(
            *(courier.deliver(to(server.url, timeout=1), 1) for server in (one, two, three))
        )
    for delivery in found:
        assert (delivery.outcome, delivery.status_code) == ("failed", None)
        assert delivery.message == "the receiver did not answer within 1 s"


async def endless_body(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await exchange.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")


async def endless_header(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        await exchange.send(b"a" * 0x10000)


async def garbage(exchange: Exchange) -> None:
    await exchange.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


async def leaves(exchange: Exchange) -> None:
    exchange.reset()


async def test_receivers_that_do_not_end_or_speak_no_http() -> None:
    delivery, _ = await attempt(endless_body)
    assert delivery.outcome == "delivered", "the body is not read"
    for receiver in (endless_header, garbage, leaves):
        delivery, _ = await attempt(receiver)
        assert (delivery.outcome, delivery.status_code) == ("failed", None)
        assert "did not answer within" not in delivery.message


@pytest.mark.parametrize(
    ("name", "expired", "trusted", "message"),
    [
        ("localhost", False, True, None),
        ("localhost", False, False, "self-signed certificate"),
        ("localhost", True, True, "certificate has expired"),
        ("another.test", False, True, "not valid for 'localhost'"),
    ],
)
async def test_certificates(
    name: str,
    expired: bool,
    trusted: bool,
    message: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pem = self_signed(tmp_path, name, expired=expired)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    async with RawServer(answer("204 No Content"), tls=tls) as server:
        delivery = await a_courier().deliver(to(f"https://localhost:{server.port}/"), 1)
    if message is None:
        assert delivery.outcome == "delivered"
    else:
        assert (delivery.outcome, server.heads) == ("failed", [])
        assert message in delivery.message


async def test_a_name_that_leads_inside_is_not_connected_to() -> None:
    async with RawServer(never) as server:
        delivery = await a_courier("127.0.0.9/32").deliver(to(f"http://localhost:{server.port}"), 1)
        assert server.heads == []
    assert delivery.message.startswith("not sent: ")


async def test_one_receiver_gets_so_many_at_once_and_holds_up_no_other() -> None:
    courier = a_courier()
    full, go = asyncio.Event(), asyncio.Event()
    at_once = most = 0

    async def hung(exchange: Exchange) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == _AT_ONCE_TO_ONE:
            full.set()
        await go.wait()
        at_once -= 1
        await exchange.reply(b"", "204 No Content")

    async with RawServer(hung) as receiver, RawServer(answer("204 No Content")) as other:
        many = [
            asyncio.create_task(courier.deliver(to(receiver.url), 1))
            for _ in range(_AT_ONCE_TO_ONE + 10)
        ]
        await full.wait()
        assert (await courier.deliver(to(other.url), 1)).outcome == "delivered"
        assert not any(task.done() for task in many)
        go.set()
        found = await asyncio.gather(*many)
    assert {delivery.outcome for delivery in found} == {"delivered"}
    assert most == _AT_ONCE_TO_ONE


async def test_names_whose_look_up_hangs_hold_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    look_up, go = socket.getaddrinfo, threading.Event()
    hanging, all_hang = count(1), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(host: str, *rest: Any, **options: Any) -> Any:
        if not host.endswith(".slow.test"):
            return look_up(host, *rest, **options)
        if next(hanging) == 50:
            loop.call_soon_threadsafe(all_hang.set)
        go.wait()
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    courier = a_courier()
    async with RawServer(answer("204 No Content")) as other, asyncio.TaskGroup() as tasks:
        urls = [f"http://{number}.slow.test/" for number in range(50)]
        many = [tasks.create_task(courier.deliver(to(url), 1)) for url in urls]
        try:
            async with asyncio.timeout(10):
                await all_hang.wait()
            found = await courier.deliver(to(f"http://localhost:{other.port}/"), 1)
        finally:
            go.set()
    assert found.outcome == "delivered"
    assert {task.result().outcome for task in many} == {"failed"}
