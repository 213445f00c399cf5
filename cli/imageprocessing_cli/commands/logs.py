"""ipr logs: the log of the step that runs, or of what failed."""

from __future__ import annotations

import sys
from typing import Any

import click
from imageprocessing_contract import names

from imageprocessing_cli.options import Connection, cluster_options, request_argument
from imageprocessing_cli.picking import pick_pod

_PODS = 50
"""Of those that are asked for: a step may have 10,000, each with its whole task."""
_SILENCE = 4 * 3600
"""Seconds that a followed log may be silent."""


@click.command()
@request_argument()
@click.option("--shard", type=click.IntRange(min=0), help="Index of a shard, from 0.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the container ends.")
@cluster_options
def logs(connection: Connection, name: str, shard: int | None, follow: bool) -> None:
    """Print the log of NAME's Pod: of the step that runs, or of the shard that failed.

    \b
    ipr logs spring
    ipr logs spring --shard 3 -f

    Exit code: 0 printed, 1 no Pod or no cluster, 2 usage, 130 interrupted.
    """
    from imageprocessing_cli.cluster import BATCH, CORE  # noqa: PLC0415 - starts only when called

    cluster = connection.open()
    label = f"{names.LABEL_REQUEST_UID}={cluster.request(name)['metadata']['uid']}"

    def find(whose: str, phase: str) -> list[dict[str, Any]]:
        some: dict[str, str | int] = {"limit": _PODS}
        if phase:
            some["fieldSelector"] = f"status.phase={phase}"
        return cluster.list(CORE, "pods", f"{label},{whose}", **some)

    pod = pick_pod(cluster.list(BATCH, "jobs", label), shard, find)["metadata"]["name"]
    click.echo(f"Pod {pod}", err=True)
    query = {"container": names.CONTAINER, "follow": "true" if follow else "false"}
    for line in cluster.lines(cluster.path(CORE, "pods", pod, "log"), query, _SILENCE):
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
