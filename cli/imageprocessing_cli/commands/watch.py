"""ipr watch: a request until it has finished."""

from __future__ import annotations

import sys

import click

from imageprocessing_cli.options import Connection, cluster_options, request_argument


@click.command()
@request_argument()
@cluster_options
def watch(connection: Connection, name: str) -> None:
    """Follow NAME until it has finished: how far, how fast, what failed.

    A bar on a terminal, else a line for each change.

    \b
    ipr watch spring
    ipr watch spring && ipr results spring --csv

    Exit code: 0 all images done, 3 finished with failures, 1 failed, 130 interrupted
    (the request runs on), 2 usage.
    """
    from imageprocessing_cli.wait import wait  # noqa: PLC0415

    sys.exit(wait(connection.open(), name, connection.flags))
