"""How far a request on this machine is, by what is in its folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from imageprocessing_contract import names

_EVERY = 0.5
"""Seconds; checkpoints come every two."""

Count = Callable[[int, int], None]
"""Called with how many images have been attempted, of how many."""


class _Catalogue(msgspec.Struct):
    images: int


class _Plan(msgspec.Struct):
    catalogue: _Catalogue


class Attempts:
    """Images in the checkpoints of a folder. Each is read once: none is ever changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: dict[Path, int] = {}

    def count(self) -> tuple[int, int] | None:
        """Images attempted, and all; None while the catalogue is being read."""
        try:
            plan = msgspec.json.decode((self._folder / names.PLAN).read_bytes(), type=_Plan)
        except FileNotFoundError:
            return None
        for part in self._folder.glob(names.ALL_PARTS):
            if part not in self._lines:
                self._lines[part] = part.read_bytes().count(b"\n")
        # An image that was tried again by another attempt at its shard is there twice.
        return min(sum(self._lines.values()), plan.catalogue.images), plan.catalogue.images


@contextmanager
def counted(folder: Path, count: Count) -> Iterator[None]:
    """Calls `count` now and then until the block ends, in a thread of its own."""
    attempts, over = Attempts(folder), threading.Event()

    def look() -> None:
        while not over.wait(_EVERY):
            if found := attempts.count():
                count(*found)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
