import pytest
from imageprocessing_contract.reasons import ImageReason
from imageprocessing_worker.http_get import as_it_came, redirected

from tests.unit.raw_server import Answer, Exchange, Names, RawServer
from tests.unit.test_download import SECRET, body, both, downloader, failure, fetched


@pytest.mark.parametrize(
    "target",
    [
        "/folder%2Fname%2f.jpg",
        "/a.jpg?X-Signature=ab%2Bcd%3D%3D/+~&x=%7E&y=a+b&z",
        "/c_fill,w_200/a//b/./../c;v=1/%c3%a9%",
        "/a?b?c&=&&",
        "/[x]{y}|^`\"<>'",
        "/",
    ],
)
async def test_urls_go_out_byte_for_byte(target: str) -> None:
    async with both(body) as (server, client):
        await client.fetch(server.url + target + "#fragment")
        assert server.lines == [f"GET {target} HTTP/1.1".encode()]


async def test_a_url_without_path_asks_for_the_root() -> None:
    async with both(body) as (server, client):
        await client.fetch(server.url)
        await client.fetch(server.url + "?a=%2F")
        assert server.lines == [b"GET / HTTP/1.1", b"GET /?a=%2F HTTP/1.1"]


async def test_only_what_is_not_ascii_is_escaped() -> None:
    async with both(body) as (server, client):
        await client.fetch(server.url + "/ä%2F/ö?ü=%2f&€")
        assert server.lines == [b"GET /%C3%A4%2F/%C3%B6?%C3%BC=%2f&%E2%82%AC HTTP/1.1"]


def test_a_host_that_is_not_ascii_becomes_its_dns_name() -> None:
    url = as_it_came("http://bücher.example:8080/ä?%2f")
    assert (url.raw_host, url.port) == ("xn--bcher-kva.example", 8080)
    assert url.raw_path_qs == "/%C3%A4?%2f"


def redirecting(*locations: str | bytes) -> Answer:
    """Sends request i to location i, and answers the last one."""
    left = list(locations)

    async def answer(exchange: Exchange) -> None:
        if left:
            await exchange.reply(b"moved", status="302 Found", Location=left.pop(0))
        else:
            await exchange.reply(b"there")

    return answer


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b%2Fc?sig=%2B%2f+", b"/b%2Fc?sig=%2B%2f+"),
        ("b.jpg", b"/a/b.jpg"),
        ("?q", b"/a/a.jpg?q"),
        ("/b c.jpg", b"/b%20c.jpg"),
        ("/ä.jpg".encode(), b"/%C3%A4.jpg"),
        ("/ä.jpg".encode("latin-1"), b"/%E4.jpg"),
        ("/" + "x" * 4000, b"/" + b"x" * 4000),
    ],
)
async def test_redirects_are_followed_as_they_came(location: str | bytes, target: bytes) -> None:
    async with both(redirecting(location)) as (server, client):
        assert await client.fetch(server.url + "/a/a.jpg") == b"there"
        assert server.lines[1] == b"GET " + target + b" HTTP/1.1"


@pytest.mark.parametrize("host", ["a\u00ad", "\u202cb", "ü" * 64])
async def test_hosts_without_a_dns_name_are_refused(host: str) -> None:
    async with downloader(resolver=Names()) as client:
        result = failure(await client.fetch(f"http://{host}/?{SECRET}"))
    assert (result.reason, result.transient) == (ImageReason.ADDRESS_NOT_ALLOWED, False)


def test_an_absolute_location_is_not_tidied() -> None:
    assert redirected("http://a/", "HTTP://b/x/../%2f?") == "HTTP://b/x/../%2f?"


async def test_five_redirects_are_followed_and_circles_end() -> None:
    assert await fetched(redirecting(*"12345")) == b"there"
    async with both(redirecting(*["/"] * 100)) as (server, client):
        result = failure(await client.fetch(server.url))
        assert result.reason is ImageReason.TOO_MANY_REDIRECTS
        assert not result.transient
        assert len(server.heads) == 6


async def test_no_redirect_leads_to_a_refused_address() -> None:
    async with RawServer(body, host="127.0.0.2") as inner:
        names = Names(inner_test=[["127.0.0.2"]])
        for host in ("127.0.0.2", "inner.test", "2130706434", "[::ffff:127.0.0.2]"):
            answer = redirecting(f"http://{host}:{inner.port}/?{SECRET}")
            async with RawServer(answer) as server, downloader(resolver=names) as client:
                result = failure(await client.fetch(server.url))
                assert result.reason is ImageReason.ADDRESS_NOT_ALLOWED
                assert not result.transient
        assert inner.heads == []


@pytest.mark.parametrize(
    "location", ["ftp://a.example/", "file:///etc/passwd", "http://", "//[x", "http://u:s3cret@a/"]
)
async def test_no_redirect_leaves_http(location: str) -> None:
    result = failure(await fetched(redirecting(location)))
    assert result.reason is ImageReason.ADDRESS_NOT_ALLOWED
