"""Pages say what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest
from imageprocessing_cli.manifest import validate
from imageprocessing_cli.yaml_documents import load_documents
from imageprocessing_contract.reasons import ImageReason, Reason, RowReason

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


@pytest.mark.parametrize("reason", [*Reason, *ImageReason, *RowReason])
def test_every_reason_is_explained(reason: str) -> None:
    """An on-call engineer searches the page for what `kubectl get` shows."""
    assert reason in OPERATIONS


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda f: f.name)
def test_examples_are_valid(file: Path) -> None:
    """What the API server would refuse is no example."""
    for manifest in load_documents(file.read_text()):
        assert validate(manifest) == []
