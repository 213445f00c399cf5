"""spec.suspend, set and cleared."""

from __future__ import annotations

import click

from imageprocessing_cli.options import Connection
from imageprocessing_cli.printing import full_name, print_objects


def set_suspend(connection: Connection, name: str, output: str | None, *, suspended: bool) -> None:
    """Patches the request and says what became of it; raises ServerError."""
    found = connection.open().patch_request(name, {"spec": {"suspend": suspended}})
    if output:
        print_objects(output, found)
    else:
        click.echo(f"{full_name(found)} {'suspended' if suspended else 'resumed'}")
