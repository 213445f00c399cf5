"""README's first five minutes with a cluster: what is typed, and what comes."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from imageprocessing_contract import names

from tests import helm
from tests.cluster import build
from tests.cluster.claims import make_volume
from tests.cluster.cluster import Cluster, kubectl_environment
from tests.cluster.images import IMAGES
from tests.conftest import needs
from tests.pages import ROOT, blocks

ELSEWHERE = re.compile(r"https://[^,\"\s]*/([\w-]+\.\w+)")
"""A URL of a page, and the name of its file."""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """What a reader's folder has: the environment and the examples."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


def test_the_chart_takes_the_images_that_are_built() -> None:
    """What README's `helm install` would install."""
    needs(helm.missing())
    install, *_ = blocks("README.md", "Install it", "sh")
    program, command, *given = shlex.split(install.replace("\\\n", ""))
    assert (program, command, given[0]) == ("helm", "install", helm.RELEASE)
    kubernetes = ("--kube-version", build.KUBERNETES)
    rendered = helm.run("template", *given, *kubernetes, folder=ROOT)
    for image in IMAGES:
        assert image in rendered


def test_from_a_namespace_to_the_results(
    operator: Cluster, photo_urls: list[str], here: Path
) -> None:
    """The request of quickstart.yaml, and then an own catalogue in the same volume."""
    namespace = f"readme-{uuid.uuid4().hex[:8]}"
    _, first, own = blocks("README.md", "Install it", "sh")
    pictures = iter(photo_urls)

    def local(text: str) -> str:
        return ELSEWHERE.sub(
            lambda url: f"{photo_urls[0]}/none" if "no-such" in url[0] else next(pictures), text
        )

    quickstart = here / "examples" / "quickstart.yaml"
    quickstart.write_text(local(quickstart.read_text()))
    (catalogue,) = blocks("README.md", "imageprocessing-operator", "csv")
    (here / "products.csv").write_text(local(catalogue))

    def typed(commands: str) -> str:
        ended = subprocess.run(
            ["bash", "-euc", re.sub(r"\bshop\b", namespace, commands)],
            cwd=here,
            check=False,
            capture_output=True,
            text=True,
            env=kubectl_environment(operator.kubeconfig),
        )
        assert ended.returncode == 0, (ended.stdout, ended.stderr)
        return ended.stdout

    make_volume(operator, namespace, "images")
    try:
        said = typed(first).splitlines()
        (shown,) = blocks("README.md", "Install it")
        assert [line.split()[:-1] for line in said[-2:]] == [
            line.split()[:-1] for line in shown.splitlines()
        ]
        said = typed(own).splitlines()
        assert "products: Succeeded: 3 of 3 images done" in said
        assert "Status     Succeeded: 3 of 3 images done" in said
    finally:
        operator.kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found")
    with (here / "new.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [len(row[names.COLUMN_OUTPUT_URLS].split(",")) for row in rows] == [1, 2]
