"""Pages say what the code says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from imageprocessing_cli.manifest import validate
from imageprocessing_cli.yaml_documents import load_documents
from imageprocessing_contract.names import KIND
from imageprocessing_contract.reasons import (
    Condition,
    EventReason,
    ImageReason,
    Reason,
    RowReason,
)

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
SECURITY = (ROOT / "docs" / "security.md").read_text()
PAGES = [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), ROOT / "benchmarks" / "README.md"]
ROWS = {
    name
    for line in OPERATIONS.splitlines()
    if line.startswith("| ")
    for name in re.findall(r"\w+", line.split("|")[1])
}


@pytest.mark.parametrize("reason", [*Reason, *ImageReason, *RowReason, *EventReason])
def test_every_reason_has_a_row(reason: str) -> None:
    """An on-call engineer searches the page for what `kubectl get` shows."""
    assert reason in ROWS


@pytest.mark.parametrize("condition", Condition)
def test_every_condition_is_explained(condition: str) -> None:
    assert condition in ROWS


def test_no_page_names_a_reason_that_is_none() -> None:
    """Of tables whose first column is Reason."""
    known = {*Reason, *ImageReason, *RowReason, *EventReason}
    tables = re.findall(r"\| Reason \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", OPERATIONS)
    named = {
        name
        for table in tables
        for row in table.splitlines()
        for name in re.findall(r"\w+", row.split("|")[1])
    }
    assert len(tables) == 6
    assert named <= known


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda f: f.name)
def test_examples_are_valid(file: Path) -> None:
    """What the API server would refuse is no example."""
    ours = [one for one in load_documents(file.read_text()) if one["kind"] == KIND]
    assert ours
    for manifest in ours:
        assert validate(manifest) == []


def test_tests_that_show_what_is_secure_are_there() -> None:
    """Each is a link to its file, as [`test_name`](../tests/...)."""
    named = re.findall(r"\[`(test_\w+)`\]\(\.\./(tests/[\w/]+\.py)\)", SECURITY)
    assert len(named) == SECURITY.count("`test_") > 30
    for name, path in named:
        tree = ast.parse((ROOT / path).read_text())
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        assert name in {node.name for node in tree.body if isinstance(node, functions)}, path


def test_every_make_target_that_a_page_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE))
        assert named <= targets, page
