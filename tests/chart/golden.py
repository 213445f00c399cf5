"""Renderings of the chart that are kept and compared.

`python -m tests.chart.golden` writes them anew; the difference is what a release changes.
"""

from __future__ import annotations

from pathlib import Path

from tests import helm

HERE = Path(__file__).parent
CASES = sorted(file.stem for file in (HERE / "values").glob("*.yaml"))


def render(case: str) -> str:
    """The chart with the values of this case."""
    return helm.render("--values", str(HERE / "values" / f"{case}.yaml"))


def file_of(case: str) -> Path:
    """Where the rendering is kept."""
    return HERE / "golden" / f"{case}.yaml"


if __name__ == "__main__":
    for name in CASES:
        file_of(name).write_text(render(name))
