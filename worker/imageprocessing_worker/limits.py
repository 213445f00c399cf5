"""What this container may use, as its cgroup says."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_PARENT_BYTES = 256 << 20
"""Kept for the parent: downloads under way, results, the clients of the stores."""
_CHILD_MOST, _CHILD_LEAST = 2 << 30, 256 << 20
"""A 50 MP image takes up to 1.3 GB (measured); below 256 MiB a child cannot start."""


def processors() -> int:
    """Whole processors of this container, at least one: also the number of children."""
    allowed = len(os.sched_getaffinity(0))
    quota, period = _quota()
    if quota > 0 and period > 0:
        allowed = min(allowed, -(-quota // period))
    return max(1, allowed)


def child_memory(children: int) -> int:
    """Bytes of data (RLIMIT_DATA) that each child may have."""
    limit = memory_limit()
    if limit is None:
        return _CHILD_MOST
    return max(_CHILD_LEAST, min(_CHILD_MOST, (limit - _PARENT_BYTES) // children))


def memory_limit() -> int | None:
    """Bytes that the container may use, None where there is no limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(name)
        # Version 1 says "no limit" with a number near 2**63.
        if text and text != "max" and int(text) < 1 << 60:
            return int(text)
    return None


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
