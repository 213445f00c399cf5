import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from imageprocessing_contract import __version__
from imageprocessing_contract.guard import Guard
from imageprocessing_contract.reasons import ImageReason
from imageprocessing_contract.request import Download
from imageprocessing_worker.download import Downloader, DownloadFailure, Heard, retry_after

from tests.unit.raw_server import Answer, Exchange, Names, RawServer

SECRET = "s3cret"


def limits(*, timeout: int = 20, max_size: str = "1Mi", per_host: int = 16) -> Download:
    return Download(
        timeout_seconds=timeout,
        max_size=max_size,
        max_pixels=1,
        retries=0,
        max_connections_per_host=per_host,
    )


def downloader(
    allowed: str = "127.0.0.1/32",
    *,
    download: Download | None = None,
    resolver: AbstractResolver | None = None,
    connections: int = 64,
    memory: int = 256 << 20,
) -> Downloader:
    return Downloader(
        download or limits(),
        Guard([allowed]),
        connections=connections,
        memory=memory,
        resolver=resolver,
    )


@asynccontextmanager
async def both(answer: Answer) -> AsyncIterator[tuple[RawServer, Downloader]]:
    async with RawServer(answer) as server, downloader() as client:
        yield server, client


async def fetched(
    answer: Answer, path: str = f"/a.jpg?sig={SECRET}"
) -> bytearray | DownloadFailure:
    async with both(answer) as (server, client):
        return await client.fetch(server.url + path)


def failure(result: bytearray | DownloadFailure) -> DownloadFailure:
    assert isinstance(result, DownloadFailure)
    assert result.message.isascii()
    assert SECRET not in result.message
    assert len(result.message) <= 160
    return result


async def body(exchange: Exchange) -> None:
    await exchange.reply(b"\xff\xd8 picture", Content_Type="text/html")


async def test_the_body_comes_whatever_its_type_says() -> None:
    assert await fetched(body) == b"\xff\xd8 picture"


async def test_the_headers_say_who_asks_and_for_what() -> None:
    async with both(body) as (server, client):
        await client.fetch(server.url + "/a.jpg")
        head = server.heads[0].decode()
    assert f"User-Agent: imageprocessing-operator/{__version__}\r\n" in head
    assert "Accept: image/" in head
    assert "Accept-Encoding: identity\r\n" in head


async def test_cookies_are_not_kept() -> None:
    async def cookie(exchange: Exchange) -> None:
        await exchange.reply(b"x", Set_Cookie="a=b; Path=/")

    # By name: aiohttp's own jar would take no cookie from an address.
    names = Names(shop_test=[["127.0.0.1"]])
    async with RawServer(cookie) as server, downloader(resolver=names) as client:
        await client.fetch(f"http://shop.test:{server.port}/1")
        await client.fetch(f"http://shop.test:{server.port}/2")
        assert len(server.heads) == 2
        assert b"cookie" not in b"".join(server.heads).lower()


async def test_the_environment_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password s3cret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with RawServer(body) as proxy, RawServer(body) as server:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with downloader() as client:
            await client.fetch(server.url + "/a.jpg")
        assert proxy.heads == []
        assert len(server.heads) == 1
        assert b"Authorization" not in server.heads[0]


@pytest.mark.parametrize(
    ("status", "message", "transient"),
    [
        ("400 Bad Request", "400 Bad Request", False),
        ("403 Forbidden", "403 Forbidden", False),
        ("404 Nope s3cret", "404 Not Found", False),
        ("408 x", "408 Request Timeout", True),
        ("410 Gone", "410 Gone", False),
        ("425 Too Early", "425 Too Early", True),
        ("429 x", "429 Too Many Requests", True),
        ("500 x", "500 Internal Server Error", True),
        ("503 x", "503 Service Unavailable", True),
        ("599 x", "HTTP status 599", True),
        ("304 Not Modified", "304 Not Modified", False),
        ("302 Found", "302 Found", False),
    ],
)
async def test_a_bad_status_is_named(status: str, message: str, transient: bool) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.reply(b"" if status.startswith("304") else b"<html>", status=status)

    expected = DownloadFailure(
        ImageReason.HTTP_ERROR, message, transient, 0 if status.startswith("429") else None
    )
    assert failure(await fetched(refuse)) == expected


class Failing(Names):
    """Fails with this error of getaddrinfo."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        raise socket.gaierror(self._number, "as the system says it")


@pytest.mark.parametrize(
    ("number", "message", "heard"),
    [
        (socket.EAI_NONAME, "the name of the host does not exist", Heard.NOTHING),
        (socket.EAI_AGAIN, "the name of the host could not be resolved", Heard.SILENCE),
    ],
)
async def test_a_missing_name_is_an_answer_of_the_network(
    number: int, message: str, heard: Heard
) -> None:
    async with downloader(resolver=Failing(number)) as client:
        result = failure(await client.fetch(f"http://shop.test/?{SECRET}"))
    assert (result.message, result.transient, result.heard) == (message, True, heard)


async def test_what_is_heard_of_a_host() -> None:
    async def leave(exchange: Exchange) -> None:
        if exchange.target == b"/503":
            await exchange.reply(status="503 Service Unavailable")
        raise EOFError

    async with both(leave) as (server, client):
        for path, heard in (("/503", Heard.ANSWER), ("/", Heard.SILENCE)):
            assert failure(await client.fetch(f"{server.url}{path}")).heard is heard
        assert failure(await client.fetch("http://127.0.0.2/")).heard is Heard.NOTHING


async def test_retry_after_is_passed_on() -> None:
    async def later(exchange: Exchange) -> None:
        await exchange.reply(status="429 Too Many Requests", Retry_After="17")

    assert failure(await fetched(later)).retry_after == 17


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0),
        (" 120 ", 120),
        ("Sun, 01 Mar 2026 12:01:30 GMT", 90),
        ("Sun, 01 Mar 2026 13:01:30 +0100", 90),
        ("Sun, 01 Mar 2026 12:01:30 -0000", 90),
        ("Sunday, 01-Mar-26 12:01:30 GMT", 90),
        ("Sun, 01 Mar 2020 12:00:00 GMT", 0),
        ("-1", None),
        ("1.5", None),
        ("9" * 5000, None),
        ("soon", None),
        ("", None),
        ("Sun, 99 Mar 2026 12:01:30 GMT", None),
        ("Sun, 01 Mar 99999999 12:01:30 GMT", None),
        ("Sun, 01 Mar 2026 12:01:30 +99999999999999", None),
    ],
)
def test_retry_after_in_both_its_forms(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, datetime(2026, 3, 1, 12, tzinfo=UTC)) == seconds


async def test_userinfo_is_refused_unasked() -> None:
    async with both(body) as (server, client):
        result = failure(await client.fetch(f"http://user:{SECRET}@127.0.0.1:{server.port}/"))
        assert result.reason is ImageReason.ADDRESS_NOT_ALLOWED
        assert result.message == "the URL contains a user name or a password"
        assert server.heads == []


async def test_a_name_is_judged_by_the_address_that_is_connected_to() -> None:
    # The first look-up is harmless; the second, for the next connection, is not.
    names = Names(rebind_test=[["127.0.0.1"], ["127.0.0.2"]])
    async with RawServer(body) as server, RawServer(body, "127.0.0.2", server.port) as inner:
        url = f"http://rebind.test:{server.port}/"
        async with downloader(resolver=names) as client:
            assert isinstance(await client.fetch(url), bytearray)
        async with downloader(resolver=names) as client:
            result = failure(await client.fetch(url))
        assert result.reason is ImageReason.ADDRESS_NOT_ALLOWED
        assert result.message == "not a public address: 127.0.0.0/8 is Loopback (RFC1122)"
        assert inner.heads == []


async def test_of_several_addresses_only_allowed_ones_are_tried() -> None:
    names = Names(two_test=[["127.0.0.2", "127.0.0.1"]], bad_test=[["127.0.0.2", "::1"]])
    async with RawServer(body) as server, RawServer(body, "127.0.0.2", server.port) as inner:
        async with downloader(resolver=names) as client:
            assert isinstance(await client.fetch(f"http://two.test:{server.port}/"), bytearray)
            result = failure(await client.fetch(f"http://bad.test:{server.port}/"))
        assert result.reason is ImageReason.ADDRESS_NOT_ALLOWED
        assert inner.heads == []


async def test_at_most_so_many_connections_to_one_host_and_waiting_takes_no_time() -> None:
    busy, most = 0, 0

    async def slow(exchange: Exchange) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.6)
        busy -= 1
        await exchange.reply(b"x")

    # The last of the three answers comes long after 1 s.
    async with RawServer(slow) as server:
        async with downloader(download=limits(timeout=1, per_host=1)) as client:
            urls = [f"{server.url}/{i}" for i in range(3)]
            assert await asyncio.gather(*map(client.fetch, urls)) == [b"x"] * 3
        assert most == 1
        async with downloader(connections=2) as client:
            await asyncio.gather(*map(client.fetch, urls))
        assert most == 2


async def test_cancelling_passes_through() -> None:
    asked = asyncio.Event()

    async def never(_: Exchange) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with both(never) as (server, client):
        task = asyncio.create_task(client.fetch(server.url))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_large_body_takes_its_memory_until_the_caller_is_done() -> None:
    asked = asyncio.Queue[bytes]()

    async def large(exchange: Exchange) -> None:
        asked.put_nowait(exchange.target)
        await exchange.reply(bytes(2 << 20))

    async with (
        RawServer(large) as server,
        downloader(download=limits(max_size="2Mi"), connections=2, memory=4 << 20) as client,
    ):
        async with AsyncExitStack() as held:
            assert len(await client.fetch(server.url, held)) == 2 << 20
            waiting = asyncio.create_task(client.fetch(server.url))
            for _ in range(2):
                await asked.get()
            assert client._budget._free == 0
        assert len(await waiting) == 2 << 20
        assert client._budget._free == 2 << 20
