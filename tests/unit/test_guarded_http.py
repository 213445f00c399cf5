import asyncio
import ssl
from pathlib import Path

import httpx
import pytest
from imageprocessing_contract.guard import Guard
from imageprocessing_operator.guarded_http import (
    AddressNotAllowedError,
    Resolve,
    guarded_client,
    resolve,
)

from tests.unit.certificates import self_signed
from tests.unit.raw_server import Exchange, RawServer


async def accept(exchange: Exchange) -> None:
    await exchange.reply(b"thanks")


def client(*allowed: str, timeout: float = 20, resolve: Resolve = resolve) -> httpx.AsyncClient:
    return guarded_client(
        Guard(allowed), timeout=timeout, tls=ssl.create_default_context(), resolve=resolve
    )


def answering(*lists: list[str]) -> Resolve:
    """Each look-up takes the next list of addresses."""
    left = list(lists)

    async def look_up(host: str) -> list[str]:
        return left.pop(0)

    return look_up


async def test_an_allowed_receiver_gets_the_post_as_it_is() -> None:
    async with RawServer(accept) as server, client("127.0.0.1/32") as http:
        response = await http.post(f"{server.url}/a%2Fb?t=%2b", content=b"")
        assert (response.status_code, response.content) == (200, b"thanks")
        assert server.lines == [b"POST /a%2Fb?t=%2b HTTP/1.1"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "127.1", "0x7f.0.0.1", "[::ffff:127.0.0.1]"]
)
async def test_loopback_is_refused_however_it_is_written(host: str) -> None:
    async with RawServer(accept) as server, client() as http:
        with pytest.raises(AddressNotAllowedError):
            await http.post(f"http://{host}:{server.port}/")
        assert server.heads == []


async def test_userinfo_is_refused() -> None:
    async with RawServer(accept) as server, client("127.0.0.1/32") as http:
        with pytest.raises(AddressNotAllowedError, match="user name"):
            await http.post(f"http://user:secret@127.0.0.1:{server.port}/")
        assert server.heads == []


async def test_the_address_that_was_checked_is_the_one_that_is_used() -> None:
    # A second look-up would lead inside.
    names = answering(["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"])
    async with RawServer(accept) as server, RawServer(accept, "127.0.0.2", server.port) as inner:
        async with client("127.0.0.1/32", resolve=names) as http:
            url = f"http://rebind.test:{server.port}/"
            assert (await http.post(url)).is_success
            with pytest.raises(AddressNotAllowedError, match="Loopback"):
                await http.post(url)
        assert inner.heads == []
        assert b"Host: rebind.test:" in server.heads[0]


async def test_of_several_addresses_the_allowed_ones_are_tried_in_turn() -> None:
    names = answering(["127.0.0.2", "127.0.0.3", "127.0.0.1"])
    async with RawServer(accept) as server, RawServer(accept, "127.0.0.2", server.port) as inner:
        # Nobody listens on 127.0.0.3.
        async with client("127.0.0.1/32", "127.0.0.3/32", resolve=names) as http:
            assert (await http.post(f"http://two.test:{server.port}/")).is_success
        assert inner.heads == []


async def test_redirects_are_not_followed() -> None:
    async def moved(exchange: Exchange) -> None:
        await exchange.reply(status="307 Temporary Redirect", Location="/elsewhere")

    async with RawServer(moved) as server, client("127.0.0.1/32") as http:
        assert (await http.post(server.url)).status_code == 307
        assert len(server.heads) == 1


async def test_the_environment_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with RawServer(accept) as proxy, RawServer(accept) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with client("127.0.0.1/32") as http:
            await http.post(server.url)
        assert proxy.heads == []
        assert b"authorization" not in server.heads[0].lower()


async def test_no_cookie_goes_back() -> None:
    async def cookie(exchange: Exchange) -> None:
        await exchange.reply(Set_Cookie="a=b; Path=/")

    async with RawServer(cookie) as server, client("127.0.0.1/32") as http:
        await http.post(server.url)
        await http.post(server.url)
        assert b"cookie" not in b"".join(server.heads).lower()


async def test_slow_receivers_do_not_hold_up_others() -> None:
    waiting = 0
    all_here = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 150:
            all_here.set()
        await all_here.wait()
        await exchange.reply()

    async with RawServer(slow) as server, client("127.0.0.1/32") as http:
        answers = await asyncio.gather(*(http.post(server.url) for _ in range(150)))
    assert all(answer.is_success for answer in answers)


async def test_the_headers_say_who_asks() -> None:
    async with RawServer(accept) as server, client("127.0.0.1/32") as http:
        await http.post(server.url)
        assert b"User-Agent: imageprocessing-operator/" in server.heads[0]
        assert b"Accept-Encoding: identity\r\n" in server.heads[0]


async def test_names_and_ports_that_lead_nowhere_are_connection_errors() -> None:
    async def unknown(_: str) -> list[str]:
        raise OSError(None, "no such name")

    async with RawServer(accept) as server:
        url = server.url
    async with client("127.0.0.1/32") as http:
        with pytest.raises(httpx.ConnectError):
            await http.post(url)
    for names in (unknown, answering([])):
        async with client("127.0.0.1/32", resolve=names) as http:
            with pytest.raises(httpx.ConnectError, match="the name of the host"):
                await http.post("http://nowhere.test/")


async def test_a_name_that_never_resolves_ends_with_the_time() -> None:
    async def never(_: str) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    async with client("127.0.0.1/32", timeout=0.1, resolve=never) as http:
        with pytest.raises(httpx.ConnectTimeout):
            await http.post("http://slow.test/")


async def test_tls_asks_for_the_certificate_of_the_host_not_of_the_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pem = self_signed(tmp_path, "receiver.test")
    asked: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.sni_callback = lambda _, name, __: asked.append(name)
    names = answering(["127.0.0.1"], ["127.0.0.1"])
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    http = client("127.0.0.1/32", resolve=names)
    async with RawServer(accept, tls=context) as server, http:
        response = await http.post(f"https://receiver.test:{server.port}/")
        assert response.is_success
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await http.post(f"https://another.test:{server.port}/")
    assert asked == ["receiver.test", "another.test"]
