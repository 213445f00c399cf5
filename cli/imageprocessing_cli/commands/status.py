"""ipr status: requests at a glance, or one in detail."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from imageprocessing_cli.errors import UsageError
from imageprocessing_cli.options import Connection, cluster_options, output_option, request_argument
from imageprocessing_cli.printing import as_list, print_objects, table


@click.command()
@request_argument(required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="Requests of all namespaces.")
@output_option("json", "yaml", "name", "wide")
@cluster_options
def status(
    connection: Connection, name: str | None, all_namespaces: bool, output: str | None
) -> None:
    """Show all requests, or NAME in detail: what, where, how long, what failed, what to do.

    \b
    ipr status
    ipr status spring

    Exit code: 0 shown, 1 not found or no cluster, 2 usage.
    """
    if name and all_namespaces:
        message = "a request is named together with its namespace: -n in place of -A"
        raise UsageError(message)
    cluster = connection.open()
    if name:
        found = cluster.request(name)
        if output and output != "wide":
            print_objects(output, found)
            return
        from imageprocessing_cli.describe import describe  # noqa: PLC0415 - half of the start

        click.echo(describe(found, datetime.now(UTC), connection.flags))
        return
    path = cluster.requests_path(all_namespaces=all_namespaces)
    if output and output != "wide":
        items = cluster.call("GET", path)["items"]
        if output == "name":
            print_objects(output, *items)
        else:
            print_objects(output, as_list(items))
        return
    shown = cluster.call("GET", path, as_table=True)
    if not shown["rows"]:
        where = "" if all_namespaces else f" in {cluster.namespace} namespace"
        click.echo(f"No resources found{where}.", err=True)
        return
    click.echo("\n".join(table(shown, wide=output == "wide", namespaces=all_namespaces)))
