"""The definition as it travels with the contract package."""

from __future__ import annotations

from pathlib import Path

import yaml
from imageprocessing_contract import names
from imageprocessing_contract.crd import FILE, crd_yaml

CRDS = Path(__file__).resolve().parents[2] / "crds"


def test_it_is_the_file_at_the_top() -> None:
    assert [file.name for file in CRDS.iterdir()] == [FILE]
    assert crd_yaml() == (CRDS / FILE).read_text(encoding="utf-8")


def test_its_names_are_those_of_the_contract() -> None:
    definition = yaml.safe_load(crd_yaml())["spec"]

    assert definition["group"] == names.GROUP
    assert [version["name"] for version in definition["versions"]] == [names.VERSION]
    assert definition["names"]["kind"] == names.KIND
    assert definition["names"]["plural"] == names.PLURAL
