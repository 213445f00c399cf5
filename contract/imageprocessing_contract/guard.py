"""Which addresses may be connected to: public ones, and those an admin allowed.

Names prove nothing: a name can lead to another address a moment later. So refuse()
is asked for the very address that a socket is about to connect to, on every
connection and every redirect. check_url() says early what a URL alone shows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from ssrfguard import DEFAULT_DENIED, AddressTable, Block, BlockedAddressError, Policy, Reach

MAX_URL = 2048
"""Characters of a URL: what servers, proxies and CDNs agree to take."""
MAX_HOST = 253
"""Characters of a name in the DNS (RFC 1035, section 2.3.4)."""
NOT_PUBLIC = "not a public address"
"""What each refusal begins with that an allowed network would lift."""
MAX_PORT = 65535


def _table() -> AddressTable:
    """The library's table of the IANA registries, made stricter.

    - Its exceptions inside refused blocks (anycast of PCP and TURN, ORCHID) hold no images.
    - What carries an IPv4 address by a method that is long out of use is refused whole.
      IPv4-mapped and 64:ff9b::/96 are judged by the address inside: clusters with IPv6
      only reach the IPv4 internet by NAT64.
    - Beyond 2000::/3, the only global unicast space IANA has assigned, nothing is public.
    """
    obsolete = {ip_network(n) for n in ("::/96", "2002::/16", "2001::/32")}
    rows = [
        replace(row, reach=Reach.DENIED) if row.network in obsolete else row
        for row in DEFAULT_DENIED.blocks
        if row.reach is not Reach.PERMITTED
    ]
    denied, permitted = Reach.DENIED, Reach.PERMITTED
    rows += [
        Block(ip_network("::ffff:0:0:0/96"), "IPv4-translated", "RFC2765", denied),
        Block(ip_network("::/0"), "not global unicast", "RFC4291", denied),
        Block(ip_network("2000::/3"), "global unicast", "RFC4291", permitted),
        # Public by number, yet each Azure machine reaches its own host's secrets there:
        # https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
        Block(ip_network("168.63.129.16/32"), "Azure WireServer", "Azure", denied),
    ]
    return AddressTable(tuple(rows))


_TABLE = _table()
# Interface identifiers of ISATAP, with and without the universal bit (RFC 5214, 6.1).
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)

# Lone surrogates too: they cannot be sent.
_GAPS = r"\s\x00-\x1f\x7f-\x9f\ud800-\udfff"
_URL = re.compile(
    rf"https?://(\[[0-9a-f.]*:[0-9a-f:.]*\]|[^/?#@:\\%\[\]{_GAPS}]+)(?::([0-9]{{1,5}}))?"
    rf"(?:[/?#][^{_GAPS}]*)?",
    re.IGNORECASE,
)
# Of what _URL matches, the form that nearly all URLs have: a third of the time.
_ORDINARY_URL = re.compile(r"https?://([A-Za-z0-9.-]+)/[!-~]*")
_GAP = re.compile(f"[{_GAPS}]")
_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?", re.IGNORECASE)
# A host whose last label is a number is an IPv4 address or nothing
# (https://url.spec.whatwg.org/#ends-in-a-number-checker): 2130706433, 0x7f.1, 127.1, 0177.0.0.1.
_ENDS_IN_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)\.?$", re.IGNORECASE)


class Guard:
    """Decides about addresses and URLs; never resolves a name, never connects."""

    def __init__(self, allowed_networks: Sequence[str] = ()) -> None:
        """Networks in CIDR form are allowed even where they are not public.

        Raises ValueError for what is no network, has host bits set, or lies within a
        prefix that carries IPv4 addresses (allow the IPv4 network instead).
        """
        networks = tuple(ip_network(network) for network in allowed_networks)
        self._policy = Policy(denied_networks=_TABLE, allowed_networks=networks)
        # The URLs of a catalogue share a few hosts, and what a host alone shows never changes.
        self._refuse_host = lru_cache(maxsize=1024)(self._judge_host)

    def refuse(self, address: str) -> str | None:
        """Why this IPv4 or IPv6 address must not be connected to; None where it may be."""
        try:
            parsed = ip_address(address)
        except ValueError:
            return "not an IP address"
        return self._refuse(parsed)

    def check_url(self, url: str, max_length: int = MAX_URL) -> str | None:
        """Why this URL is refused before anything is resolved; None where it may be tried.

        The reason never repeats any part of the URL: it may hold a secret.
        """
        if len(url) > max_length:
            return f"the URL is longer than {max_length} characters"
        if ordinary := _ORDINARY_URL.fullmatch(url):
            return self._refuse_host(ordinary[1])
        match = _URL.fullmatch(url)
        if match is None:
            return _what_is_wrong(url)
        host, port = match.groups()
        if port is not None and not 1 <= int(port) <= MAX_PORT:
            return f"the port is not between 1 and {MAX_PORT}"
        return self._refuse_host(host)

    def _judge_host(self, host: str) -> str | None:
        if host[0] == "[":
            return self.refuse(host[1:-1])
        if not host.isascii():
            # Resolvers fold such letters too: a circled 1 is a 1, an ideographic dot a dot.
            host = unicodedata.normalize("NFKC", host).replace("\u3002", ".")
            if not host.isascii():
                return "the host name is too long" if len(host) > MAX_HOST else None
        if len(host) > MAX_HOST:
            return "the host name is too long"
        if _ENDS_IN_NUMBER.search(host):
            try:
                return self._refuse(IPv4Address(host))
            except ValueError:
                return "the host is a number, but not an IPv4 address in its usual form"
        return None if _NAME.fullmatch(host) else "the host name is not valid"

    def _refuse(self, address: IPv4Address | IPv6Address) -> str | None:
        try:
            self._policy.check_address(address)
        except BlockedAddressError as refused:
            return f"{NOT_PUBLIC}: {refused.reason}"
        if not _isatap(address) or any(address in n for n in self._policy.allowed_networks):
            return None
        return f"{NOT_PUBLIC}: its interface identifier is ISATAP (RFC5214)"


def _isatap(address: IPv4Address | IPv6Address) -> bool:
    return address.version == 6 and int(address) >> 32 & 0xFFFF_FFFF in _ISATAP


def _what_is_wrong(url: str) -> str:
    """Words for a URL that does not have the form of an http URL."""
    if not url:
        return "the URL is empty"
    if _GAP.search(url):
        return "the URL contains a space or a control character; a space is written %20"
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in {"http", "https"}:
        return "the URL does not begin with http:// or https://"
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if not authority or authority.startswith(":"):
        return "the URL has no host"
    if "@" in authority:
        return "the URL contains a user name or a password"
    _, colon, port = authority.rpartition("]")[2].partition(":")
    if colon and not re.fullmatch("[0-9]{1,5}", port):
        return f"the port is not between 1 and {MAX_PORT}"
    return "the host name is not valid"
