"""What all images of a request add up to, in memory that does not grow with them."""

from __future__ import annotations

import msgspec
from imageprocessing_contract import report

from imageprocessing_worker.results import Result

LISTED = 1000
"""Failures that the report lists; failed.csv has all of them."""
_HOSTS = 1000
"""Of which the times are known for certain; of more, those with little time are forgotten."""
_LONGEST_HOST = 253
"""Characters of a name in DNS (RFC 1035)."""


class FailedImage(msgspec.Struct, frozen=True):
    """One row of the report's table."""

    line: int
    product: str
    url: str
    reason: str
    message: str


class HostTimes(msgspec.Struct):
    """How the images of one host fared: counts, and the time of its downloads together."""

    name: str
    images: int = 0
    failed: int = 0
    untimed: int = 0
    """Not downloaded for themselves, see Result.milliseconds."""
    milliseconds: int = 0

    @property
    def downloads(self) -> int:
        """How many took that time."""
        return self.images - self.untimed


class Tally:
    """Adds up results, one after the other.

    `before` and `after` are histograms: number n counts the sizes of n bits, which are at least
    2**(n-1) bytes and less than 2**n.
    """

    def __init__(self) -> None:
        self.succeeded = self.unchanged = 0
        self.original = self.compressed = 0
        self.variants = self.variant_bytes = 0
        self.failed_shards = 0
        self.before, self.after = [0] * 64, [0] * 64
        self.reasons: dict[str, int] = {}
        self.listed: list[FailedImage] = []
        self._hosts: dict[str, HostTimes] = {}
        self._spelled: dict[str, HostTimes] = {}  # the same, by what stands in URLs

    @property
    def total(self) -> int:
        """All images so far."""
        return self.succeeded + sum(self.reasons.values())

    def add(self, line: int, product: str, url: str, result: Result) -> None:
        """Counts what became of one image."""
        # Each call here is a tenth of what finalize takes for an image.
        authority = url.partition("//")[2].partition("/")[0]
        host = self._spelled.get(authority) or self._host(authority)
        host.images += 1
        host.milliseconds += result.milliseconds
        if not result.milliseconds:
            host.untimed += 1
        if result.object is not None:
            original, compressed = result.original, result.compressed
            self.succeeded += 1
            self.unchanged += result.unchanged
            self.original += original
            self.compressed += compressed
            self.before[original.bit_length()] += 1
            self.after[compressed.bit_length()] += 1
            for made in result.variants:
                self.variants += 1
                self.variant_bytes += made.compressed
            return
        host.failed += 1
        reason, message = result.reason or "", result.message or ""
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if len(self.listed) < LISTED:
            self.listed.append(FailedImage(line, product, url, reason, message))

    def _host(self, authority: str) -> HostTimes:
        if len(self._spelled) >= 2 * _HOSTS:
            self._spelled.clear()
        if len(self._hosts) >= 2 * _HOSTS:
            self._hosts = {host.name: host for host in self.slowest(_HOSTS)}
            self._spelled.clear()
        name = _host_of(authority)
        host = self._hosts.get(name) or HostTimes(name)
        self._hosts[name] = self._spelled[authority] = host
        return host

    def slowest(self, count: int) -> list[HostTimes]:
        """The hosts whose downloads took the most time together, the slowest first."""
        return sorted(self._hosts.values(), key=lambda host: -host.milliseconds)[:count]

    def done(self, urls: report.Results, cause: str | None) -> report.Done:
        """The outcome as done.json has it."""
        return report.Done(
            images=report.Images(
                total=self.total,
                succeeded=self.succeeded,
                failed=self.total - self.succeeded,
                unchanged=self.unchanged,
            ),
            bytes=report.Bytes(original=self.original, compressed=self.compressed),
            results=urls,
            failures=[
                report.Failure(failed.line, failed.url, failed.reason, failed.message)
                for failed in self.listed[: report.MAX_SAMPLES]
            ],
            failed_shards=self.failed_shards,
            cause=cause,
        )


def _host_of(authority: str) -> str:
    """Host and port, without a user, and without the query that may follow a bare host."""
    bare = authority.partition("?")[0].partition("#")[0]
    return bare.rpartition("@")[2][:_LONGEST_HOST].lower()
