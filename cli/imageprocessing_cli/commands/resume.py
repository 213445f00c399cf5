"""ipr resume: lets a suspended request go on."""

from __future__ import annotations

import click

from imageprocessing_cli.options import Connection, cluster_options, output_option, request_argument
from imageprocessing_cli.switch import set_suspend


@click.command()
@request_argument()
@output_option("json", "yaml", "name")
@cluster_options
def resume(connection: Connection, name: str, output: str | None) -> None:
    """Let NAME go on where it was suspended.

    \b
    ipr resume spring

    Exit code: 0 done, 1 refused or no cluster, 2 usage.
    """
    set_suspend(connection, name, output, suspended=False)
