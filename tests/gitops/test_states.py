"""GitOps tools read every state right, by their own code."""

from __future__ import annotations

from pathlib import Path

import pytest
from imageprocessing_contract.reasons import Reason

from tests.cluster.cluster import Cluster
from tests.gitops import states
from tests.gitops.states import Answer, State

PAGE = states.DOCS / "gitops.md"


@pytest.fixture(scope="module")
def asked(
    api_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[State, Answer]]:
    with api_cluster.namespace("states") as namespace:
        return states.ask(api_cluster, namespace, tmp_path_factory.mktemp("states"))


def test_every_reason_is_asked_about() -> None:
    said = {state.reason for state in states.states()} | {
        condition["reason"]
        for state in states.states()
        for condition in state.status.get("conditions", [])
    }
    assert set(Reason) - said == set()


def test_answers(asked: list[tuple[State, Answer]]) -> None:
    """As the table in DESIGN section 3 has them."""
    wrong = [
        (state.row, state.reason, answer)
        for state, answer in asked
        if answer != states.EXPECTED[state.row]
    ]
    assert wrong == []
    assert {state.row for state, _ in asked} == set(states.EXPECTED)


def test_the_page_shows_them(asked: list[tuple[State, Answer]], tmp_path: Path) -> None:
    """Where they differ, the message says where the page is as it should be."""
    text = PAGE.read_text()
    before, begin, rest = text.partition(states.BEGIN)
    _, end, after = rest.partition(states.END)
    wanted = f"{before}{begin}\n{states.table(asked)}\n{end}{after}"
    (tmp_path / "gitops.md").write_text(wanted)
    assert text == wanted, f"the table has changed: {tmp_path}/gitops.md has it"
