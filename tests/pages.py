"""What pages show as commands, files and outputs, so that tests can do what a reader does."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]


def blocks(page: str, heading: str, language: str = "") -> list[str]:
    """The fenced blocks of a language below a heading, up to the next one of any level.

    `page` is a path in the repository. Raises ValueError where there is none.
    """
    section, found = "", []
    for before, token in pairwise(MarkdownIt().parse((ROOT / page).read_text())):
        if before.type == "heading_open":
            section = token.content
        elif token.type == "fence" and (section, token.info) == (heading, language):
            found.append(token.content)
    if not found:
        message = f"{page} has no such block below {heading!r}: {language!r}"
        raise ValueError(message)
    return found
