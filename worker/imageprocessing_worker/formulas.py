"""Cells that a spreadsheet would take for a formula, and the apostrophe that prevents it.

After OWASP, "CSV Injection" (https://owasp.org/www-community/attacks/CSV_Injection).
"""

from __future__ import annotations

import re

# Full-width forms too, and spaces in front, which spreadsheets may drop. Apostrophes in front
# count so that restore() can tell ours from one that came with the cell.
_FORMULA = re.compile(r"'*(?:[\t\r\n\0]|\s*[=+\-@＝＋－＠])")
_NUMBER = re.compile(r"\s*[+-]?[0-9]+(?:[.,][0-9]+)*\s*")


def neutralize(cell: str) -> str:
    """The cell as text for a spreadsheet: an apostrophe before what would be a formula.

    A plain number such as -5 or +1,5 is data and stays.
    """
    return f"'{cell}" if _is_formula(cell) else cell


def restore(cell: str) -> str:
    """What neutralize() made the cell from."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell[1:]) else cell


def _is_formula(cell: str) -> bool:
    return _FORMULA.match(cell) is not None and _NUMBER.fullmatch(cell) is None
