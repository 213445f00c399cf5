import asyncio
import gc
import gzip
import tracemalloc
import warnings
from itertools import islice

import pytest
from imageprocessing_contract.guard import Guard
from imageprocessing_contract.reasons import Reason
from imageprocessing_worker.errors import SourceError
from imageprocessing_worker.http_source import BLOCK, stream

from tests.unit.raw_server import Answer, Exchange, Names, served

GUARD = Guard(["127.0.0.1/32"])
CSV = b"Serial Number,Product Name,Input Image Urls\n1,x,http://a.example/\n"


async def csv(exchange: Exchange) -> None:
    await exchange.reply(CSV)


def read(answer: Answer, *, path: str = "/c.csv?sig=s3cret") -> bytes:
    with served(answer) as server:
        return b"".join(stream(server.url + path, GUARD, timeout=20))


def error(answer: Answer) -> SourceError:
    with pytest.raises(SourceError) as caught:
        read(answer)
    found = caught.value
    assert found.reason is Reason.SOURCE_NOT_READABLE
    assert "s3cret" not in found.message
    assert found.message.isascii()
    return found


def test_the_body_comes_byte_for_byte() -> None:
    assert read(csv) == CSV


def test_the_url_goes_out_as_it_came() -> None:
    with served(csv) as server:
        list(stream(f"{server.url}/a%2Fb?s=%2b+", GUARD, timeout=20))
        assert server.lines == [b"GET /a%2Fb?s=%2b+ HTTP/1.1"]
        assert b"Accept: text/csv" in server.heads[0]


def test_a_compressed_source_is_decoded() -> None:
    async def compressed(exchange: Exchange) -> None:
        await exchange.reply(gzip.compress(CSV), Content_Encoding="gzip")

    assert read(compressed) == CSV


def test_an_empty_source_is_empty() -> None:
    async def empty(exchange: Exchange) -> None:
        await exchange.reply()

    assert read(empty) == b""


def test_redirects_are_followed() -> None:
    async def moved(exchange: Exchange) -> None:
        if exchange.target == b"/there":
            await exchange.reply(CSV)
        else:
            await exchange.reply(status="302 Found", Location="/there")

    assert read(moved) == CSV


async def endless(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        await exchange.send(b"x" * 65536)


def test_memory_stays_constant_and_a_reader_may_leave() -> None:
    with served(endless) as server:
        pieces = stream(server.url, GUARD, timeout=20)
        next(pieces)
        tracemalloc.start()
        sizes = {len(piece) for piece in islice(pieces, 200)}
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        pieces.close()
    assert min(sizes) >= BLOCK
    assert peak < 16 * BLOCK  # of 200; the server's share is in it


def test_nothing_stays_open_when_a_reader_leaves() -> None:
    with served(endless) as server, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        pieces = stream(server.url, GUARD, timeout=20)
        next(pieces)
        pieces.close()
        gc.collect()
    assert [str(w.message) for w in seen if w.category is ResourceWarning] == []


@pytest.mark.parametrize(
    ("status", "transient"),
    [("404 Not Found", False), ("403 Forbidden", False), ("503 x", True), ("429 x", True)],
)
def test_a_bad_status(status: str, transient: bool) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.reply(status=status)

    found = error(refuse)
    assert found.message.startswith(f"the source: {status[:3]} ")
    assert found.transient is transient


def test_a_transfer_that_breaks_off_yields_what_came_and_then_raises() -> None:
    async def broken(exchange: Exchange) -> None:
        await exchange.reply(b"x" * BLOCK * 2, Content_Length=str(BLOCK * 3))
        exchange.writer.close()
        raise EOFError

    assert error(broken).transient


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_server_that_drips_is_given_up(start: bytes) -> None:
    async def drip(exchange: Exchange) -> None:
        await exchange.send(start)
        while True:
            await asyncio.sleep(0.02)
            await exchange.send(b"H" if start else b"\r\n")

    with served(drip) as server, pytest.raises(SourceError) as caught:
        list(stream(server.url, GUARD, timeout=0.5))
    assert caught.value.message == "the source sent too little within 0.5 s"
    assert caught.value.transient


def test_refused_addresses_are_final() -> None:
    names = Names(inner_test=[["127.0.0.2"]])
    with served(csv) as server:
        for host in ("127.0.0.2", "inner.test", "user:s3cret@127.0.0.1"):
            url = f"http://{host}:{server.port}/"
            with pytest.raises(SourceError) as caught:
                list(stream(url, GUARD, timeout=20, resolver=names))
            assert not caught.value.transient
            assert "s3cret" not in caught.value.message
        assert server.heads == []


def test_an_unreachable_source_is_tried_again() -> None:
    with served(csv) as server:
        url = server.url
    with pytest.raises(SourceError) as caught:
        list(stream(url, GUARD, timeout=20))
    assert caught.value.transient
    assert caught.value.message == "the source: no connection: Connection refused"


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with served(csv) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert read(csv) == CSV
        assert proxy.heads == []
