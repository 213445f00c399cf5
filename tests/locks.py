"""What a lock file pins."""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def pins(name: str) -> dict[str, str]:
    """Version of each distribution that locks/NAME.txt installs on Linux with CPython."""
    found: dict[str, str] = {}
    for line in (ROOT / "locks" / f"{name}.txt").read_text().splitlines():
        if "==" not in line:
            continue  # a hash
        requirement = Requirement(line.removesuffix("\\"))
        if requirement.marker is None or requirement.marker.evaluate():
            (pin,) = requirement.specifier
            found[canonicalize_name(requirement.name)] = pin.version
    return found
