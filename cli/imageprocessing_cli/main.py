"""The command ipr; also the kubectl plugin, kubectl ipr."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click
import msgspec
from imageprocessing_contract import __version__, names

from imageprocessing_cli.errors import EXIT_INTERRUPTED, CommandError

_COMMANDS = (
    "submit", "watch", "status", "results", "retry", "suspend", "resume", "logs",
    "validate", "run", "completion",
)  # fmt: skip


class _Commands(click.Group):
    """Imports a command when it is called: each needs another half of the libraries."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which people need them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The module's function of the same name."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"imageprocessing_cli.commands.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """No traceback for what people do: with click alone, Ctrl-C would end with 1."""
        try:
            return super().invoke(ctx)
        except msgspec.ValidationError as error:
            message = f"the cluster's {names.KIND} is of another version than ipr: {error}"
            raise CommandError(message) from error
        except KeyboardInterrupt:
            click.echo("Interrupted", err=True)
            sys.exit(EXIT_INTERRUPTED)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Compress the images of product catalogues.

    \b
    ipr submit products.csv --bucket shop-images   make a request
    ipr watch products                             until it has finished
    ipr results products --csv -o new.csv          fetch what it made
    """


if __name__ == "__main__":
    main()
