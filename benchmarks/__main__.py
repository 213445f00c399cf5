"""python -m benchmarks [NAME]...: runs benchmarks and prints their tables."""

from __future__ import annotations

import importlib

import click

from benchmarks.table import README, markdown, replaced

NAMES = (
    "img2dataset",
    "isolation",
    "latency",
    "formats",
    "memory",
    "catalogue",
    "start",
    "stores",
    "control_plane",
)
"""Modules of this package, each with `measure(full: bool) -> Iterable[Row]`."""


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--full", is_flag=True, help="Measure at the sizes of the README, which takes hours.")
@click.option("--write", is_flag=True, help="Put the tables into benchmarks/README.md.")
def main(names: tuple[str, ...], *, full: bool, write: bool) -> None:
    """Run the benchmarks of these NAMES, or all of them."""
    for name in names or NAMES:
        table = markdown(importlib.import_module(f"benchmarks.{name}").measure(full))
        click.echo(f"## {name}\n{table}\n")
        if write:
            README.write_text(replaced(README.read_text(), name, table))


if __name__ == "__main__":
    main()
