"""What a page or a style sheet makes a browser load from another host.

python -m docs.site.offline FOLDER fails if any file there does.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

_ELSEWHERE = re.compile(r"\s*(?:https?:)?//", re.IGNORECASE)
_CSS = re.compile(r"(?:url\(|@import)\s*[\"']?\s*((?:https?:)?//[^\"')\s]+)", re.IGNORECASE)
# <link> loads its target or connects to it, but for these.
_ONLY_NAMED = {"canonical", "next", "prev", "alternate"}


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        attributes = ["src", "srcset", "data", "poster"]
        if tag == "link" and given.get("rel") not in _ONLY_NAMED:
            attributes.append("href")
        for attribute in attributes:
            value = given.get(attribute) or ""
            if _ELSEWHERE.match(value):
                self.found.append(value)


def loads_from_elsewhere(text: str) -> list[str]:
    """URLs of other hosts that `text`, HTML or CSS, loads by itself; links to follow are none."""
    page = _Loads()
    page.feed(text)
    return page.found + _CSS.findall(text)


def main() -> None:
    """Looks through a built site."""
    site = Path(sys.argv[1])
    found = [
        f"{file} loads {url}"
        for file in sorted(site.rglob("*"))
        if file.suffix in {".html", ".css"}
        for url in loads_from_elsewhere(file.read_text())
    ]
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
