"""URLs and messages as they may appear in status, events and logs."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

LIMIT = 160
"""Characters of a URL or message that status keeps."""
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")


def url(text: str) -> str:
    """The URL without user, password, query and fragment, at most 160 characters.

    Signed URLs carry their secret in the query.
    """
    try:
        parts = urlsplit(text)
        bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        bare = text.partition("?")[0].partition("#")[0].rpartition("@")[2]
    return shorten(bare)


def shorten(text: str) -> str:
    """At most 160 characters, an ellipsis where some were cut."""
    return text if len(text) <= LIMIT else text[: LIMIT - 1] + "…"


def printable(text: str) -> str:
    """The text in one line without what moves a terminal's cursor, and without userinfo in URLs.

    What Unicode does not call printable, line ends and marks of direction among it, is a space.
    """
    line = "".join(character if character.isprintable() else " " for character in text)
    return _USERINFO.sub("", line)
