"""The chart's copy of the CRD is the CRD."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_crd_copy() -> None:
    """`make chart` writes it anew."""
    crd = ROOT / "crds" / "imageprocessing.dev_imageprocessingrequests.yaml"
    copy = ROOT / "charts" / "imageprocessing-operator" / "files" / "crd.yaml"
    assert copy.read_text() == crd.read_text()
