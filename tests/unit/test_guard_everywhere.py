"""One table of addresses and hosts through everything that goes to servers of strangers.

Downloads, http sources and the webhook must refuse the same ones, without a packet sent.
Here 127.0.0.1 is allowed, and stands for the public server that leads inside.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
from imageprocessing_contract import report
from imageprocessing_contract.guard import Guard
from imageprocessing_contract.reasons import ImageReason, Reason
from imageprocessing_contract.request import HTTPSource, Source
from imageprocessing_operator.guarded_http import AddressNotAllowedError, guarded_client
from imageprocessing_worker.download import Downloader, DownloadFailure
from imageprocessing_worker.errors import SourceError
from imageprocessing_worker.http_source import stream

from tests.unit.processes import run
from tests.unit.raw_server import Exchange, Names, RawServer, served
from tests.unit.tasks import committed, csv_of, make_task, planned
from tests.unit.test_download import limits
from tests.unit.test_guard import METADATA, REFUSED_NETWORKS

GUARD = Guard(["127.0.0.1/32"])
TLS = ssl.create_default_context()
INSIDE = [IPv4Address("127.0.0.2"), IPv4Address("10.0.0.1"), IPv4Address("169.254.169.254")]


def carrying(inner: IPv4Address) -> Iterator[str]:
    """Each way to write an IPv4 address into an IPv6 one."""
    number = int(inner)
    prefixes = ("::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1::")
    yield from (str(IPv6Address(int(IPv6Address(prefix)) | number)) for prefix in prefixes)
    yield str(IPv6Address(0x2002 << 112 | number << 80 | 1))  # 6to4
    yield str(IPv6Address(0x2001_0000 << 96 | number << 64))  # Teredo: the server
    yield str(IPv6Address(0x2001_0000 << 96 | number ^ 0xFFFF_FFFF))  # Teredo: the client
    for mark in (0x5EFE, 0x0200_5EFE):  # ISATAP, here in Cloudflare's network
        yield str(IPv6Address(int(IPv6Address("2606:4700::")) | mark << 32 | number))


ADDRESSES = [
    *(str(ip_network(network)[-1]) for network in REFUSED_NETWORKS),
    *METADATA,
    *(address for inner in INSIDE for address in carrying(inner)),
]
# What inet_aton() reads as 127.0.0.2, and what hides the host that is meant.
HOSTS = [
    "2130706434",
    "0x7f000002",
    "0x7f.0.0.2",
    "0177.0.0.2",
    "017700000002",
    "127.2",
    "127.0.2",
    "127.0.0.2.",
    "127.0.0.02",
    "127。0。0。2",
    "①②⑦.0.0.②",
    "user@127.0.0.1",
    "user:password@127.0.0.1",
    "127.0.0.1@127.0.0.2",
    "127.0.0.1%40127.0.0.2",
    "127.0.0.1\\@127.0.0.2",
    "127.0.0.1 127.0.0.2",
    "127.0.0.1\t",
    "localhost%00.example.com",
    "[::1%25lo]",
    "[v1.127.0.0.2]",
]
# Says why it was refused, or None where it was not.
Client = Callable[[str, Names], Awaitable[str | None]]


async def download(url: str, names: Names) -> str | None:
    async with Downloader(limits(), GUARD, resolver=names) as downloader:
        result = await downloader.fetch(url)
    if not isinstance(result, DownloadFailure):
        return None
    assert result.reason is ImageReason.ADDRESS_NOT_ALLOWED
    assert not result.transient
    return result.message


async def http_source(url: str, names: Names) -> str | None:
    def read() -> SourceError | None:
        try:
            list(stream(url, GUARD, timeout=20, resolver=names))
        except SourceError as error:
            return error
        return None

    error = await asyncio.to_thread(read)
    if error is None:
        return None
    assert (error.reason, error.transient) == (Reason.SOURCE_NOT_READABLE, False)
    return error.message.removeprefix("the source: ")


async def webhook(url: str, names: Names) -> str | None:
    async def resolve(host: str) -> list[str]:
        if host == "127.0.0.1":
            return [host]
        return [result["host"] for result in await names.resolve(host)]

    try:
        async with guarded_client(GUARD, timeout=20, tls=TLS, resolve=resolve) as client:
            await client.post(url)
    except AddressNotAllowedError as error:
        return str(error)
    except httpx.InvalidURL:
        return "no URL for httpx either"
    return None


CLIENTS: list[Client] = [download, http_source, webhook]
everywhere = pytest.mark.parametrize("client", CLIENTS)

_connections: list[Any] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and _connections is not None:
        _connections.append(arguments[1])


sys.addaudithook(_audit)


@contextmanager
def connections() -> Iterator[list[Any]]:
    """Every address that anything in this process connects to meanwhile."""
    global _connections  # noqa: PLW0603 - a hook of the interpreter stays for good
    seen: list[Any] = []
    _connections = seen
    try:
        yield seen
    finally:
        _connections = None


def test_connections_are_seen() -> None:
    """Or the tests below would prove nothing."""
    with connections() as seen, socket.socket() as one:
        one.connect_ex(("127.0.0.1", 1))
    assert seen == [("127.0.0.1", 1)]


def literal(address: str) -> str:
    return f"[{address}]" if ":" in address else address


async def welcome(exchange: Exchange) -> None:
    await exchange.reply(b"x")


@everywhere
@pytest.mark.parametrize("address", ADDRESSES)
async def test_an_address_is_refused_as_literal_and_behind_a_name(
    client: Client, address: str
) -> None:
    names = Names(inner_test=[[address]])
    with connections() as seen:
        for host in (literal(address), "inner.test"):
            why = await client(f"http://{host}:8080/a", names)
            assert why is not None
            assert why.startswith("not a public address"), host
    assert seen == []


@everywhere
@pytest.mark.parametrize("host", HOSTS)
async def test_a_host_that_hides_an_address_is_refused(client: Client, host: str) -> None:
    # Whoever asks a resolver after all is led to a server that answers.
    async with RawServer(welcome) as server:
        names = Names(**{host.lower().replace(".", "_"): [["127.0.0.1"]]})
        with connections() as seen:
            why = await client(f"http://{host}:{server.port}/a", names)
        assert why is not None
        assert seen == []
        assert server.heads == []


@everywhere
@pytest.mark.parametrize("address", [*METADATA, "127.0.0.2", "::1", *carrying(INSIDE[0])])
async def test_a_name_that_turns_inside_is_refused(client: Client, address: str) -> None:
    """DNS rebinding: public for whoever checks, private for whoever connects."""
    names = Names(rebind_test=[["127.0.0.1"], [address]])
    async with RawServer(welcome) as server:
        url = f"http://rebind.test:{server.port}/"
        assert await client(url, names) is None
        with connections() as seen:
            why = await client(url, names)
        assert why is not None
        assert why.startswith("not a public address")
        assert seen == []
        assert len(server.heads) == 1


@pytest.mark.parametrize("client", [download, http_source])
async def test_a_redirect_inside_is_refused(client: Client) -> None:
    async def inside(exchange: Exchange) -> None:
        host = hosts[int(exchange.target[1:])]
        # As bytes: a header may be in UTF-8.
        await exchange.reply(status="302 Found", Location=f"http://{host}/a".encode())

    names = Names(inner_test=[["10.0.0.1"]])
    names.answers |= {host.lower(): [["127.0.0.1"]] for host in HOSTS}
    hosts = ["inner.test", *map(literal, ADDRESSES), *HOSTS]
    # Trailing gaps are no part of a header.
    hosts = [host for host in hosts if host == host.strip()]
    async with RawServer(inside) as server:
        for number in range(len(hosts)):
            with connections() as seen:
                why = await client(f"{server.url}/{number}", names)
            assert why is not None, hosts[number]
            assert seen == [("127.0.0.1", server.port)]


async def test_the_webhook_follows_no_redirect() -> None:
    async def inside(exchange: Exchange) -> None:
        await exchange.reply(status="307 Temporary Redirect", Location="http://10.0.0.1/a")

    async with RawServer(inside) as server:
        with connections() as seen:
            assert await webhook(server.url, Names()) is None
        assert seen == [("127.0.0.1", server.port)]


@everywhere
async def test_proxies_of_the_environment_see_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with RawServer(welcome) as proxy, RawServer(welcome) as server:
        for scheme in ("http", "https", "all"):
            monkeypatch.setenv(f"{scheme}_proxy", proxy.url)
            monkeypatch.setenv(f"{scheme}_proxy".upper(), proxy.url)
        assert await client(server.url, Names()) is None
        # A proxy would resolve names and connect where the guard sees nothing of it.
        with connections() as seen:
            assert await client("http://10.0.0.1/", Names())
        assert seen == []
        assert proxy.heads == []
        assert len(server.heads) == 1


def test_the_worker_itself_is_guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole process with nothing put in, for the catalogue and for an image."""
    with served(welcome) as server:
        monkeypatch.setenv("http_proxy", server.url)
        url = f"http://localhost:{server.port}/a"
        source = Source(http=HTTPSource(url))
        ended = run(make_task(tmp_path / "plan", source=source, allowed_networks=[]))
        assert ended.code == report.EXIT_FINAL
        assert ended.report.error is not None
        assert "not a public address" in ended.report.error.message

        task = make_task(tmp_path / "shard", allowed_networks=[])
        store, _ = planned(task, csv_of([["1", "One", url]]))
        assert run(task, "shards").code == report.EXIT_DONE
        found = committed(store, 0)
        assert [result.reason for result in found.values()] == ["AddressNotAllowed"]
        assert server.heads == []
