"""Options that commands share, under kubectl's names."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imageprocessing_cli import completing
from imageprocessing_cli.errors import UsageError

if TYPE_CHECKING:
    from imageprocessing_cli.cluster import Cluster

Function = Callable[..., Any]
"""A command's function: click calls it with what its options say."""


@dataclass(frozen=True)
class Connection:
    """Which cluster and namespace a command means."""

    kubeconfig: Path | None
    context: str | None
    namespace: str | None

    def open(self) -> Cluster:
        """Raises CommandError where no cluster can be found."""
        # Commands that need no cluster start in half the time.
        from imageprocessing_cli.cluster import connect  # noqa: PLC0415

        return connect(self.kubeconfig, self.context, self.namespace)

    @property
    def flags(self) -> str:
        """The options again, for commands that are shown to be typed next."""
        given = {
            "-n": self.namespace,
            "--context": self.context,
            "--kubeconfig": self.kubeconfig and str(self.kubeconfig),
        }
        return "".join(f" {name} {value}" for name, value in given.items() if value)


def cluster_options(function: Function) -> Function:
    """Adds -n, --context and --kubeconfig; the function gets them as `connection`."""

    @click.option(
        "-n",
        "--namespace",
        metavar="NAME",
        help="Namespace; default the context's.",
        shell_complete=completing.namespaces,
    )
    @click.option(
        "--context",
        metavar="NAME",
        help="Context of the kubeconfig.",
        shell_complete=completing.contexts,
    )
    @click.option(
        "--kubeconfig",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Kubeconfig; default KUBECONFIG, then ~/.kube/config.",
    )
    @functools.wraps(function)
    def command(
        *, namespace: str | None, context: str | None, kubeconfig: Path | None, **given: Any
    ) -> Any:
        return function(connection=Connection(kubeconfig, context, namespace), **given)

    return command


def request_argument(*, required: bool = True) -> Callable[[Function], Function]:
    """Adds NAME, of a request."""

    def check(_context: click.Context, _argument: click.Parameter, name: str | None) -> str | None:
        if name == "":  # a script's variable that is not set
            message = "NAME is empty"
            raise UsageError(message)
        return name

    return click.argument(
        "name", required=required, callback=check, shell_complete=completing.requests
    )


def output_option(*formats: str) -> Callable[[Function], Function]:
    """Adds -o with these formats."""
    return click.option(
        "-o", "--output", "output", type=click.Choice(formats), help="Print the object itself."
    )


def allow_network(help_text: str) -> Callable[[Function], Function]:
    """Adds --allow-network; the function gets its values, checked, as `allowed`."""

    def check(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> Any:
        from imageprocessing_contract.guard import Guard  # noqa: PLC0415 - 50 ms

        try:
            Guard(given)
        except ValueError as error:
            message = f"--allow-network: {error}"
            raise UsageError(message) from error
        return given

    return click.option(
        "--allow-network", "allowed", multiple=True, metavar="CIDR", callback=check, help=help_text
    )
