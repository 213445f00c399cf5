"""What `ipr submit` and `ipr retry` end with."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from imageprocessing_cli.options import Connection
from imageprocessing_cli.printing import Object, full_name, print_objects

if TYPE_CHECKING:
    from imageprocessing_cli.cluster import Cluster


def created(
    connection: Connection,
    cluster: Cluster,
    stored: Object,
    *,
    output: str | None,
    wait: bool,
    more: str = "",
) -> None:
    """Says that a request was created, and follows it or says how; `more` ends its line."""
    name = stored["metadata"]["name"]
    if output:
        print_objects(output, stored)
    else:
        click.echo(f"{full_name(stored)} created{more}")
    if wait:
        from imageprocessing_cli.wait import wait as follow  # noqa: PLC0415 - rich takes 0.1 s

        sys.exit(follow(cluster, name, connection.flags, aside=output is not None))
    if not output:
        click.echo(f"Follow it: ipr watch {name}{connection.flags}")
