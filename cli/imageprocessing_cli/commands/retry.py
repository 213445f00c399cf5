"""ipr retry: the failures of a finished request again."""

from __future__ import annotations

import click
from imageprocessing_contract import names
from imageprocessing_contract.reasons import Condition

from imageprocessing_cli.created import created
from imageprocessing_cli.errors import EXIT_CODES, CommandError
from imageprocessing_cli.options import Connection, cluster_options, output_option, request_argument
from imageprocessing_cli.printing import print_objects
from imageprocessing_cli.retrying import next_name, retry_of


@click.command(epilog=EXIT_CODES)
@request_argument()
@click.argument("new", required=False)
@click.option("--request-id", metavar="ID", help="requestID of the new request.")
@click.option("--wait", is_flag=True, help="Follow it until it has finished.")
@click.option("--dry-run", is_flag=True, help="Send nothing; print it with -o yaml or -o json.")
@output_option("json", "yaml", "name")
@cluster_options
def retry(
    *,
    connection: Connection,
    name: str,
    new: str | None,
    request_id: str | None,
    wait: bool,
    dry_run: bool,
    output: str | None,
) -> None:
    """Do again what failed in NAME, as the request NEW (default NAME-retry).

    It has the same output and settings; the other request stays as it is.

    \b
    ipr retry spring
    ipr retry spring spring-again --dry-run -o yaml > again.yaml
    """
    from imageprocessing_cli.cluster import REQUESTS  # noqa: PLC0415 - starts only when called
    from imageprocessing_cli.progress import status_of  # noqa: PLC0415

    cluster = connection.open()
    found = cluster.request(name)
    status = status_of(found)
    if not status.is_true(Condition.FINISHED):
        message = f'"{name}" has not finished; wait for it: ipr watch {name}{connection.flags}'
        raise CommandError(message)
    if status.images is None or not status.images.failed:
        message = f'no image failed in "{name}": there is nothing to do again'
        raise CommandError(message)
    made = retry_of(found, new or next_name(name), request_id)
    if dry_run:
        print_objects(output or "yaml", made)
        return
    stored = cluster.create(REQUESTS, names.PLURAL, made)
    again = f": {status.images.failed} images again"
    created(connection, cluster, stored, output=output, wait=wait, more=again)
