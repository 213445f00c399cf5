"""What to do about each reason: docs/operations.md itself, which travels with this package."""

from __future__ import annotations

import functools
import re
from importlib import resources

import msgspec

_LINK = re.compile(r"\[([^]]*)\]\([^)]*\)")


class Advice(msgspec.Struct, frozen=True):
    """A row of the page's tables; `what_to_do` may be empty."""

    meaning: str
    what_to_do: str


@functools.cache
def advice() -> dict[str, Advice]:
    """By reason; the first row that names one counts."""
    found: dict[str, Advice] = {}
    text = resources.files(__package__).joinpath("operations.md").read_text(encoding="utf-8")
    for line in text.splitlines():
        if not line.startswith("| "):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        said = [_LINK.sub(r"\1", cell).replace("`", "") for cell in cells[1:]]
        for reason in cells[0].split(", "):
            found.setdefault(reason, Advice(said[0], said[1] if len(said) > 1 else ""))
    return found
