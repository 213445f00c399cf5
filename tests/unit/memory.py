"""How much memory the worker's processes had, in bytes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from imageprocessing_worker import children


def peak() -> int:
    """The most memory that this process had since forget_peak()."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10


def forget_peak() -> None:
    """Begins anew, from what is in use: memory that was free would hide what is taken."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def children_used() -> Iterator[list[int]]:
    """The most memory that each child had that ends meanwhile; all do when a Codec is closed."""
    seen: list[int] = []
    end_of = children._Nursery.end_of

    async def noting(nursery: children._Nursery, child: children._Child) -> children._Death:
        death = await end_of(nursery, child)
        seen.append(death.used)
        return death

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(children._Nursery, "end_of", noting)
        yield seen
