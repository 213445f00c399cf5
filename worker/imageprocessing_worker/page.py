"""report.html: one file that says what was done, and loads nothing from elsewhere.

What it looks like is in templates/: report.html, report.css and report.js.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
from imageprocessing_contract import names, redact, report

from imageprocessing_worker.sample import Sample
from imageprocessing_worker.tally import FailedImage, Tally

if TYPE_CHECKING:
    import jinja2

_SLOWEST = 10
_FAILURE_BYTES = 400_000
"""Of the listed failures: with the most that eight pairs of crops take, 1.4 MB, and all the
rest of the page, 40 kB, it stays below 2 MB."""
_ROW_BYTES = 80
"""Of the table's own markup."""


class Bar(msgspec.Struct, frozen=True):
    """Images of sizes from `low` to `high` bytes; widths in per cent of the longest bar."""

    low: int
    high: int
    before: int
    after: int
    before_width: float
    after_width: float


class Page(msgspec.Struct, frozen=True):
    """What the page shows."""

    request_id: str
    catalogue: report.Catalogue
    done: report.Done
    tally: Tally
    samples: list[Sample]

    def render(self) -> str:
        """The HTML."""
        import jinja2  # noqa: PLC0415 - shards, which have no page, start sooner

        loader = jinja2.PackageLoader("imageprocessing_worker")
        environment = jinja2.Environment(
            loader=loader,
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {
            "base64": lambda data: base64.b64encode(data).decode(),
            "count": "{:,}".format,
            "percent": _percent,
            "seconds": _seconds,
            "range": _range,
            "shorten": redact.shorten,
            "size": _size,
            "url": redact.url,
        }
        listed = list(self._listed())
        csv = names.processed_csv(self.request_id)
        return environment.get_template("report.html").render(
            page=self,
            style=_source(environment, loader, "report.css"),
            script=_source(environment, loader, "report.js"),
            listed=listed,
            left_out=self.done.images.failed - len(listed),
            bars=_bars(self.tally.before, self.tally.after),
            hosts=[host for host in self.tally.slowest(_SLOWEST) if host.milliseconds],
            # Beside this file, wherever both are.
            links={"processed": quote(csv), "failed": names.FAILED_CSV},
        )

    def _listed(self) -> Iterator[FailedImage]:
        """The first failures, as many as the page may hold."""
        import markupsafe  # noqa: PLC0415 - comes with jinja2

        left = _FAILURE_BYTES
        for failed in self.tally.listed:
            shown = FailedImage(
                failed.line,
                redact.shorten(failed.product),
                redact.url(failed.url),  # people pass the report on
                failed.reason,
                redact.shorten(failed.message),
            )
            text = f"{shown.product}{shown.url}{shown.reason}{shown.message}"
            left -= len(markupsafe.escape(text).encode()) + _ROW_BYTES
            if left < 0:
                return
            yield shown


class _Source(msgspec.Struct, frozen=True):
    """A style or a script as it stands in the page, and what the page's policy allows it by."""

    text: str
    hash: str


def _source(environment: jinja2.Environment, loader: jinja2.PackageLoader, name: str) -> _Source:
    text = loader.get_source(environment, name)[0]
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return _Source(text, f"'sha256-{digest}'")


def _bars(before: list[int], after: list[int]) -> list[Bar]:
    """From the smallest to the largest size that there is; bucket n ends below 2**n bytes."""
    used = [n for n, counts in enumerate(zip(before, after, strict=True)) if any(counts)]
    if not used:
        return []
    most = max(*before, *after)
    return [
        Bar(
            low=1 << n - 1 if n else 0,
            high=1 << n,
            before=before[n],
            after=after[n],
            before_width=round(100 * before[n] / most, 2),
            after_width=round(100 * after[n] / most, 2),
        )
        for n in range(used[0], used[-1] + 1)
    ]


def _size(count: int) -> str:
    """Bytes for people, as `ipr run` says them: 1,500 is 1.5 kB."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _range(bar: Bar) -> str:
    """Its sizes: 64–128 KiB."""
    (low, unit), (high, following) = _binary(bar.low), _binary(bar.high)
    return f"{low}–{high} {unit}" if unit == following else f"{low} {unit}–{high} {following}"


def _binary(count: int) -> tuple[int, str]:
    """A power of two with its unit: 65,536 is 64 KiB."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min((count.bit_length() - 1) // 10, len(units) - 1) if count else 0
    return count >> 10 * power, units[power]


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %"


def _seconds(milliseconds: float) -> str:
    """A time for people: 90,000 is 1.5 min."""
    seconds = milliseconds / 1000
    if seconds < 100:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
