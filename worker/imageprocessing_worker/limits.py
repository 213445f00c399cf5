"""What this container may use, as its cgroup says, and how its memory is shared out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_CGROUP = Path("/sys/fs/cgroup")
_WORKER = 256 << 20
"""The worker itself (45 MiB; 120 with the clients of Cloud Storage and Firestore, measured),
the nursery (25), results, and encoded images on their way to the store."""
_BODIES = 256 << 20
_CHILD_LEAST, _CHILD_MOST = 256 << 20, 2 << 30
"""1,000 px take 23 to 47 MiB, 12 MP 71 (JPEG) to 500 (AVIF from WebP), 50 MP up to 2 GiB."""
_ALL_CHILDREN_LEAST = 128 << 20


class Shares(NamedTuple):
    """The memory of a container, in bytes."""

    bodies: int
    """For what is being downloaded, or waits to be decoded."""
    codec: int
    """For all children together."""
    children: int
    """How many there are: a whole share of `codec` for each."""


def share(memory: int, processors: int) -> Shares:
    """Children and bodies never take more than `memory` together, of at least 512 MiB.

    The kernel ends the whole container otherwise, with all images under way.
    """
    bodies = min(_BODIES, memory // 8)
    codec = max(_ALL_CHILDREN_LEAST, memory - _WORKER - bodies)
    children = min(processors, max(1, codec // _CHILD_LEAST))
    return Shares(bodies, min(codec, children * _CHILD_MOST), children)


def processors() -> int:
    """Whole processors of this container, at least one."""
    allowed = len(os.sched_getaffinity(0))
    quota, period = _quota()
    if quota > 0 and period > 0:
        allowed = min(allowed, -(-quota // period))
    return max(1, allowed)


def memory() -> int:
    """Bytes that the container may use, those of the machine where there is no limit."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(name)
        # Version 1 says "no limit" with a number near 2**63.
        if text and text != "max":
            return min(machine, int(text))
    return machine


def _quota() -> tuple[int, int]:
    """Microseconds of processor time in each period; (-1, 0) where there is no limit."""
    if text := _read("cpu.max"):
        quota, _, period = text.partition(" ")
        return (-1, 0) if quota == "max" else (int(quota), int(period))
    used, every = _read("cpu/cpu.cfs_quota_us"), _read("cpu/cpu.cfs_period_us")
    return (int(used), int(every)) if used and every else (-1, 0)


def _read(name: str) -> str | None:
    try:
        return (_CGROUP / name).read_text().strip()
    except OSError:
        return None
