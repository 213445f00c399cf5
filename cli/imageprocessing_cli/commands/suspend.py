"""ipr suspend: stops a request; what is done is kept."""

from __future__ import annotations

import click

from imageprocessing_cli.options import Connection, cluster_options, output_option, request_argument
from imageprocessing_cli.switch import set_suspend


@click.command()
@request_argument()
@output_option("json", "yaml", "name")
@cluster_options
def suspend(connection: Connection, name: str, output: str | None) -> None:
    """Stop NAME: its Pods keep what they have done and end; the deadline's clock stands still.

    \b
    ipr suspend spring

    Exit code: 0 done, 1 refused or no cluster, 2 usage.
    """
    set_suspend(connection, name, output, suspended=True)
