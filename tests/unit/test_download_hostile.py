import asyncio
import gzip
import resource
import ssl
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imageprocessing_contract.reasons import ImageReason
from imageprocessing_worker.download import SMALL_BODY, DownloadFailure, Heard

from tests.unit.certificates import self_signed
from tests.unit.raw_server import Answer, Exchange, Names, RawServer
from tests.unit.test_download import SECRET, downloader, failure, fetched, limits

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


def sending(*parts: bytes, close: bool = True) -> Answer:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(*parts)
        if close:
            exchange.writer.close()
            raise EOFError

    return answer


def compressed(encoding: str, size: int) -> bytes:
    """`size` zeros in a thousandth of it, never held at once: memory is measured here."""
    piece = bytes(1 << 20)
    if encoding == "gzip":
        return gzip.compress(piece) * (size >> 20)
    deflate = zlib.compressobj(1)
    return b"".join(deflate.compress(piece) for _ in range(size >> 20)) + deflate.flush()


async def expect(answer: Answer, reason: ImageReason, *, transient: bool) -> DownloadFailure:
    result = failure(await fetched(answer))
    assert (result.reason, result.transient) == (reason, transient), result
    return result


async def test_a_length_over_the_limit_ends_it_at_once() -> None:
    # Only the head comes, then silence: it must not wait for the body.
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n"
    await expect(sending(head, close=False), ImageReason.RESPONSE_TOO_LARGE, transient=False)


async def test_a_body_of_exactly_the_limit_is_taken() -> None:
    async def exact(exchange: Exchange) -> None:
        await exchange.reply(b"x" * (1 << 20))

    assert await fetched(exact) == b"x" * (1 << 20)


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_without_end_is_cut_at_the_limit(chunked: bool) -> None:
    async def endless(exchange: Exchange) -> None:
        head = b"HTTP/1.1 200 OK\r\n" + b"Transfer-Encoding: chunked\r\n" * chunked + b"\r\n"
        await exchange.send(head)
        piece = b"x" * 4096
        while True:
            await exchange.send(b"1000\r\n" + piece + b"\r\n" if chunked else piece)

    await expect(endless, ImageReason.RESPONSE_TOO_LARGE, transient=False)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_bomb_is_counted_as_it_unfolds(encoding: str) -> None:
    bomb = compressed(encoding, 160 << 20)
    assert len(bomb) < 1 << 20

    async def answer(exchange: Exchange) -> None:
        await exchange.reply(bomb, Content_Encoding=encoding)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await expect(answer, ImageReason.RESPONSE_TOO_LARGE, transient=False)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 << 10, f"{grown} KiB"


async def test_an_encoding_nobody_asked_for_is_understood() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.reply(gzip.compress(b"picture"), Content_Encoding="gzip")

    assert await fetched(answer) == b"picture"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
async def test_an_encoding_that_lies(encoding: str) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.reply(b"\xff\xd8 no such encoding", Content_Encoding=encoding)

    result = await expect(answer, ImageReason.RESPONSE_BROKEN, transient=True)
    unknown = result.message == "its Content-Encoding is neither gzip nor deflate"
    assert unknown == (encoding in {"br", "zstd"})


async def test_a_header_that_is_too_long_is_named() -> None:
    answer = sending(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 8191 + b"\r\n\r\n")
    result = await expect(answer, ImageReason.RESPONSE_BROKEN, transient=True)
    assert result.message == "one of its headers is longer than 8190 bytes"


@pytest.mark.parametrize("kind", ["length", "close", "gzip"])
async def test_large_bodies_wait_for_memory_and_their_time_does_not_run(kind: str) -> None:
    body = bytes(SMALL_BODY * 2)
    sent = gzip.compress(body) if kind == "gzip" else body
    head = f"Content-Length: {len(sent)}\r\n" if kind != "close" else ""
    head += "Content-Encoding: gzip\r\n" if kind == "gzip" else "Connection: close\r\n"
    stalling = asyncio.Semaphore(0)

    async def large(exchange: Exchange) -> None:
        await exchange.send(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode())
        if exchange.target == b"/stalls":
            await exchange.send(sent[:-1])
            stalling.release()
            await asyncio.Event().wait()
        await exchange.send(sent)
        exchange.writer.close()
        raise EOFError

    ended: list[str] = []

    async def fetch(path: str) -> bytearray | DownloadFailure:
        result = await client.fetch(server.url + path)
        ended.append(path)
        return result

    # The third waits for two times of 1 s, and still has time for itself.
    # Half of the memory is for the three connections.
    client = downloader(download=limits(timeout=1, max_size="3Mi"), connections=3, memory=6 << 20)
    async with RawServer(large) as server, client:
        stalled = [asyncio.create_task(fetch("/stalls")) for _ in range(2)]
        for _ in stalled:
            await stalling.acquire()
        assert await fetch("/waits") == body
        for task in stalled:
            assert failure(await task).reason is ImageReason.TIMEOUT
    assert ended == ["/stalls", "/stalls", "/waits"]


async def test_no_body_is_larger_than_the_memory_for_bodies() -> None:
    async def large(exchange: Exchange) -> None:
        await exchange.reply(bytes(3 << 20))

    client = downloader(download=limits(max_size="1Gi"), connections=2, memory=4 << 20)
    async with RawServer(large) as server, client:
        result = failure(await client.fetch(server.url))
    assert result.reason is ImageReason.RESPONSE_TOO_LARGE
    assert result.message == "larger than 2 MiB, the memory that there is for it"


@pytest.mark.parametrize("connections", [1, 64, 256, 1000])
async def test_all_bodies_together_stay_within_their_memory(connections: int) -> None:
    """Also while each of many servers has sent what no one had to ask for."""
    client = downloader(connections=connections, memory=256 << 20)
    assert client._small * connections + client._budget._size == 256 << 20
    assert client._budget._size >= 128 << 20


async def test_members_without_content_are_not_unfolded_for_ever() -> None:
    # Quadratic before aiohttp 3.14.4 (CVE-2026-128131): it would take minutes.
    members = gzip.compress(b"") * 100_000

    async def answer(exchange: Exchange) -> None:
        await exchange.reply(members, Content_Encoding="gzip")

    client = downloader(download=limits(max_size="50Mi"))
    async with asyncio.timeout(10), RawServer(answer) as server, client:
        result = failure(await client.fetch(server.url))
    assert result.reason is ImageReason.RESPONSE_BROKEN


async def test_less_than_the_length_says() -> None:
    await expect(sending(HEAD, b"short"), ImageReason.RESPONSE_BROKEN, transient=True)


async def test_chunks_that_break_off() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n"
    await expect(sending(head), ImageReason.RESPONSE_BROKEN, transient=True)


async def test_more_than_the_length_says_does_not_reach_the_next_answer() -> None:
    async def more(exchange: Exchange) -> None:
        await exchange.reply(b"12HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!", Content_Length="2")

    async with RawServer(more) as server, downloader() as client:
        for _ in range(3):
            assert await client.fetch(server.url) == b"12"


@pytest.mark.parametrize("status", ["200 OK", "204 No Content"])
async def test_nothing_in_it(status: str) -> None:
    async def empty(exchange: Exchange) -> None:
        await exchange.reply(status=status)

    await expect(empty, ImageReason.EMPTY_RESPONSE, transient=False)


@pytest.mark.parametrize("start", [HEAD, b"HTTP/1.1 200 OK\r\nX: "])
async def test_one_byte_a_moment_ends_with_the_time(start: bytes) -> None:
    async def drip(exchange: Exchange) -> None:
        await exchange.send(start)
        while True:
            await asyncio.sleep(0.1)
            await exchange.send(b"H")

    await timing_out(drip)


async def test_interim_answers_without_end_end_with_the_time() -> None:
    async def hints(exchange: Exchange) -> None:
        while True:
            await asyncio.sleep(0.01)
            await exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")

    await timing_out(hints)


async def test_redirects_share_one_time() -> None:
    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(0.4)
        await exchange.reply(status="302 Found", Location="/")

    await timing_out(slow)


async def timing_out(answer: Answer) -> None:
    async with RawServer(answer) as server, downloader(download=limits(timeout=1)) as client:
        async with asyncio.timeout(10):
            result = failure(await client.fetch(f"{server.url}/?{SECRET}"))
        message = "not complete after 1 s (download.timeoutSeconds)"
        assert result == DownloadFailure(
            ImageReason.TIMEOUT, message, transient=True, heard=Heard.SILENCE
        )


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", ImageReason.CONNECTION_FAILED),
        (HEAD, ImageReason.RESPONSE_BROKEN),
        (HEAD + b"x", ImageReason.RESPONSE_BROKEN),
    ],
)
async def test_resets(sent: bytes, reason: ImageReason) -> None:
    async def reset(exchange: Exchange) -> None:
        await exchange.send(sent)
        exchange.reset()
        raise EOFError

    await expect(reset, reason, transient=True)


async def test_a_server_that_hangs_up() -> None:
    await expect(sending(), ImageReason.CONNECTION_FAILED, transient=True)


async def test_nobody_listens() -> None:
    async with RawServer(sending()) as server:
        url = server.url
    async with downloader() as client:
        message = "no connection: Connection refused"
        expected = DownloadFailure(
            ImageReason.CONNECTION_FAILED, message, transient=True, heard=Heard.SILENCE
        )
        assert failure(await client.fetch(url)) == expected


async def test_names_that_do_not_resolve() -> None:
    async with downloader(resolver=Names()) as client:
        result = failure(await client.fetch(f"http://nowhere.test/?{SECRET}"))
    assert (result.reason, result.transient) == (ImageReason.NAME_NOT_RESOLVED, True)


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ],
)
async def test_what_is_not_http(answer: bytes) -> None:
    await expect(sending(answer), ImageReason.RESPONSE_BROKEN, transient=True)


async def test_a_server_without_tls() -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server, downloader() as client:
        port = server.sockets[0].getsockname()[1]
        result = failure(await client.fetch(f"https://127.0.0.1:{port}/?{SECRET}"))
    assert (result.reason, result.transient) == (ImageReason.TLS_FAILED, False)


async def test_a_certificate_of_its_own(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path, "127.0.0.1"))
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    async with server, downloader() as client:
        port = server.sockets[0].getsockname()[1]
        result = failure(await client.fetch(f"https://127.0.0.1:{port}/?{SECRET}"))
    assert result.reason is ImageReason.TLS_FAILED
    assert "self-signed certificate" in result.message


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"Content-Length: 3",
                b"Content-Length: 99999999999999999999999",
                b"Transfer-Encoding: chunked",
                b"Transfer-Encoding: gzip, chunked",
                b"Content-Encoding: gzip",
                b"Content-Encoding: deflate",
                b"Connection: upgrade",
                b"Upgrade: h2c",
                b"Location: /",
                b"Location: http://[",
                b"Location: \xff\xfe",
                b"Retry-After: \xff",
                b"Set-Cookie: \x01=;;",
                b"Content-Type: \x80; charset=\xff",
                b"Trailer: x",
            ]
        ),
        st.binary(max_size=20),
    ),
    max_size=5,
)
STATUS = st.one_of(st.integers(100, 999).map(b"%d".__mod__), st.binary(max_size=4))


@settings(max_examples=400, deadline=None)
@given(STATUS, LINES, st.binary(max_size=60), st.booleans())
def test_whatever_a_server_sends_ends_in_bytes_or_a_reason(
    status: bytes, lines: list[bytes], rest: bytes, line_ends: bool
) -> None:
    end = b"\r\n" if line_ends else b"\n"
    head = end.join([b"HTTP/1.1 " + status + b" OK", *lines, b"", b""])
    result = asyncio.run(fetched(sending(head + rest)))
    if isinstance(result, DownloadFailure):
        failure(result)
    else:
        assert result
