"""report.html: one file that says what was done, and loads nothing from elsewhere."""

from __future__ import annotations

import msgspec
from imageprocessing_contract import report


def _size(count: int) -> str:
    """Bytes for people, as `ipr run` says them: 1,500 is 1.5 kB."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


class Page(msgspec.Struct, frozen=True):
    """What the page shows; `failures` may be fewer than there were, `reasons` counts all."""

    request_id: str
    catalogue: report.Catalogue
    done: report.Done
    reasons: dict[str, int]
    failures: list[report.Failure]

    def render(self) -> str:
        """The HTML."""
        import jinja2  # noqa: PLC0415 - shards, which have no page, start sooner

        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("imageprocessing_worker"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["size"] = _size
        return environment.get_template("report.html").render(page=self)
