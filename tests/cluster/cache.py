"""Where things that are slow to make are kept between runs, and how they get there whole."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


def cache_root() -> Path:
    """The user's cache directory (XDG)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def project_cache() -> Path:
    """This project's part of the cache, made on first use."""
    directory = cache_root() / "imageprocessing-operator"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds a lock that ends with this process: two runs never make the same thing at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def digest(*parts: bytes | str | Path) -> str:
    """A short key of what something is made from; a Path counts with its content."""
    total = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part
        content = content.encode() if isinstance(content, str) else content
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()[:12]
