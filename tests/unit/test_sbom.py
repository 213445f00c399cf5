"""The bills of materials name what the locks pin, with versions, licences and package URLs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from packaging.utils import canonicalize_name

from tests.locks import ROOT, pins


@pytest.fixture(scope="module", autouse=True)
def made() -> None:
    # Make's own variables are those of the `make test` that runs this.
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    command = ["make", "sbom", f"PYTHON={sys.executable}"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


@pytest.mark.parametrize("side", ["operator", "worker"])
def test_it_names_what_the_image_holds(side: str) -> None:
    bill = json.loads((ROOT / "dist" / f"{side}.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "imageprocessing-operator"
    named = {canonicalize_name(one["name"]): one["version"] for one in bill["components"]}
    assert named == pins(side)
    for one in bill["components"]:
        assert one["purl"] == f"pkg:pypi/{canonicalize_name(one['name'])}@{one['version']}"
    without_licence = {one["name"] for one in bill["components"] if not one.get("licenses")}
    assert without_licence <= {"protobuf"}  # says "3-Clause BSD License", which is no SPDX name
