"""cgroups of a name of our own, so that clusters run side by side and leave nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """The roots of the cgroup trees: one with v2, one for each controller with v1."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def make_cgroup(name: str) -> None:
    """Makes a cgroup in every tree; with v2 its children may use every controller."""
    for root in hierarchies():
        (root / name).mkdir(exist_ok=True)
        for group in (root, root / name):
            enable = group / "cgroup.subtree_control"
            if enable.exists():
                controllers = (group / "cgroup.controllers").read_text().split()
                enable.write_text(" ".join(f"+{controller}" for controller in controllers))


def remove_cgroup(name: str) -> None:
    """Removes a cgroup with all below it; the kernel needs a moment after the last process."""
    deadline = time.monotonic() + 10
    for root in hierarchies():
        for path, _, _ in os.walk(root / name, topdown=False):
            group = Path(path)
            while group.exists():
                try:
                    group.rmdir()
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
