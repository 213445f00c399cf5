"""The rows that benchmarks give, and the tables of benchmarks/README.md that hold them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

README = Path(__file__).parent / "README.md"


class Row(msgspec.Struct, frozen=True):
    """One line of a table: what was measured, the figure with its unit, and what it must reach."""

    what: str
    measured: str
    target: str


def markdown(rows: Iterable[Row]) -> str:
    """The rows as a table."""
    lines = ["| what | measured | must reach |", "|---|---|---|"]
    lines += [f"| {row.what} | {row.measured} | {row.target} |" for row in rows]
    return "\n".join(lines)


def replaced(page: str, name: str, table: str) -> str:
    """The page with another table between the markers of that name; ValueError without them."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = f"(?s){re.escape(begin)}.*?{re.escape(end)}"
    page, found = re.subn(pattern, lambda _: f"{begin}\n{table}\n{end}", page)
    if found != 1:
        message = f"{README.name} needs the markers {begin} and {end} once"
        raise ValueError(message)
    return page
