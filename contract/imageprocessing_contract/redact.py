"""URLs as they may appear in status, events and logs."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

LIMIT = 160
"""Characters of a URL or message that status keeps."""


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
