"""Helm, and the chart as it renders it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import build

CHART = Path(__file__).resolve().parents[1] / "charts" / "imageprocessing-operator"
RELEASE, SYSTEM = "imageprocessing", "imageprocessing-system"


class HelmError(RuntimeError):
    """Helm refused; the message is what it wrote."""


def missing() -> str | None:
    """Why there is no Helm."""
    if shutil.which("helm") or shutil.which("go"):
        return None
    return "not installed: helm, nor go to build it"


def run(*args: str, environment: Mapping[str, str] = os.environ, folder: Path | None = None) -> str:
    """What Helm writes; raises HelmError."""
    command = [str(build.helm()), *args]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=folder
    )
    if done.returncode:
        raise HelmError(f"helm {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def render(*args: str, crds: bool = False) -> str:
    """The manifests of a release with these values, by default without the CRD."""
    place = ["--namespace", SYSTEM, "--kube-version", build.KUBERNETES]
    wanted = ["--set", f"crds.enabled={str(crds).lower()}"]
    return run("template", RELEASE, str(CHART), *place, *wanted, *args)


def objects(manifests: str) -> list[dict[str, Any]]:
    """The objects of a rendering."""
    return [found for found in yaml.safe_load_all(manifests) if found]


def text(things: list[dict[str, Any]]) -> str:
    """Manifests of these objects."""
    return yaml.safe_dump_all(things)
