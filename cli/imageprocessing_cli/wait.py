"""What `ipr watch` and `ipr submit --wait` end with."""

from __future__ import annotations

import click
from rich.console import Console

from imageprocessing_cli.cluster import Cluster
from imageprocessing_cli.errors import EXIT_DONE, EXIT_INTERRUPTED
from imageprocessing_cli.following import Failures, follow
from imageprocessing_cli.live_failures import live_failures
from imageprocessing_cli.progress import exit_code


def wait(cluster: Cluster, name: str, flags: str, *, aside: bool = False) -> int:
    """Shows a request until it has finished; returns the exit code of its outcome.

    `aside` keeps stdout free for what programs read.
    """
    console = Console(stderr=aside)
    failures = Failures(console)
    try:
        with live_failures(cluster, name, failures.say):
            status = follow(cluster.follow(name), console, failures)
    except KeyboardInterrupt:
        click.echo(f"The request runs on: ipr watch {name}{flags}", err=True)
        return EXIT_INTERRUPTED
    code = exit_code(status)
    if code != EXIT_DONE:
        click.echo(f"What to do about it: ipr status {name}{flags}", err=aside)
    elif status.results:
        click.echo(f"The results: ipr results {name}{flags} --csv", err=aside)
    return code
