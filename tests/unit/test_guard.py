import socket
import struct
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from imageprocessing_contract.guard import Guard
from yarl import URL

GUARD = Guard()

REFUSED_NETWORKS = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "::/96",
    "::1/128",
    "::ffff:0:0:0/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "4000::/2",
    "5f00::/16",
    "8000::/1",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.17",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:4860:4860::8888",
    "2606:4700::6810:84e5",
    "2a00:1450:4001:80b::200e",
]
METADATA = ["169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"]
CARRIERS = ["::ffff:0:0/96", "64:ff9b::/96"]


def within(network: str) -> st.SearchStrategy[str]:
    net = ip_network(network)
    first, last = int(net[0]), int(net[-1])
    kind = IPv6Address if isinstance(net, IPv6Network) else IPv4Address
    return st.integers(first, last).map(kind).map(str)


@pytest.mark.parametrize("network", REFUSED_NETWORKS)
def test_the_edges_of_each_block_are_refused(network: str) -> None:
    net = ip_network(network)
    for address in (net[0], net[-1]):
        assert GUARD.refuse(str(address)), address


@given(st.sampled_from(REFUSED_NETWORKS).flatmap(within))
def test_each_address_of_each_block_is_refused(address: str) -> None:
    assert GUARD.refuse(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed_up_to_the_edge(address: str) -> None:
    assert GUARD.refuse(address) is None


@pytest.mark.parametrize("address", METADATA)
def test_metadata_services_are_refused(address: str) -> None:
    assert GUARD.refuse(address)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("10.0.0.1", "10.0.0.0/8 is Private-Use (RFC1918)"),
        ("169.254.169.254", "Cloud metadata (AWS, GCP, Azure IMDS)"),
        ("::ffff:0:10.0.0.1", "IPv4-translated"),
        ("64:ff9b::a00:1", "carries 10.0.0.1, and 10.0.0.0/8 is Private-Use"),
        ("2606:4700::5efe:a00:1", "ISATAP"),
        ("4000::", "not global unicast"),
    ],
)
def test_reasons_name_the_block(address: str, name: str) -> None:
    why = GUARD.refuse(address)
    assert why is not None
    assert why.startswith("not a public address: ")
    assert name in why


@given(st.ip_addresses(v=4))
@example(IPv4Address("127.0.0.1"))
@example(IPv4Address("8.8.8.8"))
def test_ipv6_that_carries_ipv4_is_judged_by_what_it_carries(inner: IPv4Address) -> None:
    for carrier in CARRIERS:
        outer = IPv6Address(int(ip_network(carrier)[0]) | int(inner))
        assert (GUARD.refuse(str(outer)) is None) == (GUARD.refuse(str(inner)) is None), outer


@given(within("2606:4700::/32"), st.sampled_from([0x5EFE, 0x0200_5EFE]), st.ip_addresses(v=4))
def test_isatap_is_refused_in_any_network(prefix: str, mark: int, inner: IPv4Address) -> None:
    network = int(IPv6Address(prefix)) >> 64 << 64
    assert GUARD.refuse(str(IPv6Address(network | mark << 32 | int(inner))))


@given(st.ip_addresses())
def test_nothing_is_allowed_that_python_calls_private(address: IPv4Address | IPv6Address) -> None:
    if address.is_private or address.is_multicast or address.is_reserved:
        carried = address.version == 6 and any(address in ip_network(n) for n in CARRIERS)
        assert carried or GUARD.refuse(str(address))


@pytest.mark.parametrize("text", ["", "example.com", "1.2.3", "8.8.8.8 ", "fe80::1%eth0", "[::1]"])
def test_what_is_no_address_is_refused(text: str) -> None:
    assert GUARD.refuse(text)


@given(st.text())
def test_any_text_gets_an_answer(text: str) -> None:
    GUARD.refuse(text)
    GUARD.check_url(text)
    GUARD.check_url(f"http://{text}/")


def test_an_admin_allows_networks_and_no_more() -> None:
    guard = Guard(["127.0.0.0/8", "fd12::/16", "2606:4700::/32"])
    assert guard.refuse("127.9.9.9") is None
    assert guard.refuse("fd12::1") is None
    assert guard.refuse("2606:4700::5efe:808:808") is None
    assert guard.refuse("128.0.0.1") is None
    assert guard.refuse("10.0.0.1")
    assert guard.refuse("fd13::1")
    assert guard.refuse("::1")


@pytest.mark.parametrize("network", ["127.0.0.1/8", "localhost", "", "64:ff9b::/96"])
def test_a_network_that_means_something_else_is_an_error(network: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Guard([network])


GOOD_URLS = [
    "http://example.com",
    "https://example.com/",
    "HTTPS://Example.COM/A.jpg",
    "https://example.com:8443/a%2Fb.jpg?sig=%2B/=&x=http://user@host/#frag",
    "http://my_bucket.s3.example.com/a,b.jpg",
    "http://example.com./a",
    "http://example.com?x=@",
    "http://example.com#@127.0.0.1",
    "http://bücher.example/ä.jpg?q=ü",
    "http://8.8.8.8/a.jpg",
    "http://[2606:4700::1]:80/a.jpg",
    "http://1.2.3.4.example.com/",
    "http://0x7f.example/",
]
BAD_URLS = {
    "empty": ["", "x" * 2049, "http://example.com/" + "x" * 2048],
    "http:// or https://": [
        "example.com/a.jpg",
        "//example.com/a.jpg",
        "ftp://example.com/a.jpg",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "http:/example.com",
        "gopher://example.com/",
    ],
    "no host": ["http://", "http:///a.jpg", "https://:80/", "http://?x", "http://#x"],
    "user name": [
        "http://user@example.com/",
        "http://user:pass@example.com/",
        "http://example.com@127.0.0.1/",
        "http://example.com:80@127.0.0.1/",
        "http://@example.com/",
        "http://example.com\\@127.0.0.1/",
        "http://[::1]@example.com/",
    ],
    "port": [
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:/",
        "http://example.com:8a/",
        "http://example.com:-1/",
        "http://example.com:123456/",
        "http://example.com:٨٠/",
        "http://[2606:4700::1]:x/",
    ],
    "space or a control": [
        " http://example.com/",
        "http://example.com/a b.jpg",
        "http://example.com/\n",
        "http://exa\tmple.com/",
        "http://example.com/\x00",
        "http://example.com/\x7f",
        "http://example.com/\x85",
        "http://example.com/\u2028x",
        "http://example.com/\ud800",
        "http://example.com /",
        "http://example.com/\r\nHost: 127.0.0.1",
    ],
    "host name": [
        "http://exa..mple.com/",
        "http://.example.com/",
        f"http://{'a' * 64}.com/",
        f"http://{'a.' * 127}com/",
        f"http://{'ü.' * 127}com/",
        "http://exa%6dple.com/",
        "http://127%2e0.0.1/",
        "http://example.com\\a/",
        "http://[1.2.3.4]/",
        "http://[]/",
        "http://[fe80::1%25eth0]/",
        "http://a&b/",
    ],
    "usual form": [
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0x7F.1/",
        "http://017700000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.1/",
        "http://127.0.0.1./",
        "http://127.0.0.01/",
        "http://1.2.3.4.5/",
        "http://256.256.256.256/",
        "http://example.com.1/",
        "http://0x/",
        "http://①②⑦.1/",
    ],
    "not a public address": [
        "http://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1:8080/",
        "http://[::1]/",
        "http://[::]/",
        "http://[fd00:ec2::254]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[::127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[::ffff:0:127.0.0.1]/",
        "http://①②⑦.0.0.1/",
        "http://127。0。0。1/",
        "http://127．0．0．1/",
    ],
    "not an IP address": ["http://[:::]/", "http://[2606:4700]/", "http://[:.:]/"],
    "the": ["http://[::1/", "http://::1/", "http://2606:4700::1/", "http://]/"],
}


@pytest.mark.parametrize("url", GOOD_URLS)
def test_honest_urls_pass(url: str) -> None:
    assert GUARD.check_url(url) is None


@pytest.mark.parametrize(("word", "url"), [(w, u) for w, urls in BAD_URLS.items() for u in urls])
def test_bad_urls_are_refused_with_the_reason(word: str, url: str) -> None:
    why = GUARD.check_url(url)
    if word == "empty":
        assert why == ("the URL is longer than 2048 characters" if url else "the URL is empty")
    else:
        assert why is not None
        assert word in why


@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
@example(0x7F000001, 1)
@example(0x7F000001, 4)
def test_no_writing_of_an_ipv4_address_passes_where_the_address_does_not(
    number: int, form: int
) -> None:
    a, b, c, d = struct.pack("!I", number)
    host = [
        f"{a}.{b}.{c}.{d}",
        f"{number}",
        f"{number:#x}",
        f"0{number:o}",
        f"{a}.{number & 0xFFFFFF}",
        f"{a:#x}.0{b:o}.{c * 256 + d}",
    ][form]
    meant = socket.inet_ntoa(socket.inet_aton(host))
    if GUARD.refuse(meant):
        assert GUARD.check_url(f"http://{host}/")


@given(st.from_regex(r"\Ahttps?://[^/]{1,20}(/.{0,10})?\Z"))
def test_what_passes_is_read_alike_by_the_client(url: str) -> None:
    if GUARD.check_url(url) is None:
        parsed = URL(url, encoded=True)
        assert parsed.raw_host
        assert parsed.user is None
        assert parsed.password is None
        try:
            address = ip_address(parsed.raw_host)
        except ValueError:
            return
        assert GUARD.refuse(str(address)) is None


@given(st.text("019afx.-", min_size=1), st.text("/?#@:%\\[]{}~a,\x7f é", max_size=5))
@example("10.0.0.1", "")
@example("a..b", "")
def test_the_short_way_for_ordinary_urls_is_as_strict(host: str, rest: str) -> None:
    # A scheme in capitals takes the long way.
    assert GUARD.check_url(f"http://{host}/{rest}") == GUARD.check_url(f"HTTP://{host}/{rest}")


def test_an_allowed_network_holds_for_literals_too() -> None:
    assert Guard(["127.0.0.0/8"]).check_url("http://127.0.0.1:8000/") is None


def test_reasons_repeat_nothing_of_the_url() -> None:
    for urls in BAD_URLS.values():
        for url in urls:
            why = GUARD.check_url(url.replace("example.com/", "example.com/s3cret?s3cret"))
            assert why
            assert "s3cret" not in why
            assert "user:pass" not in why
            assert why.isascii()
