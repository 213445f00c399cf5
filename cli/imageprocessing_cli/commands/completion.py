"""ipr completion: the shell's completion of commands, options and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion for SHELL, to be read at its start.

    \b
    bash: echo 'source <(ipr completion bash)' >> ~/.bashrc
    zsh:  echo 'source <(ipr completion zsh)' >> ~/.zshrc
    fish: ipr completion fish > ~/.config/fish/completions/ipr.fish

    `kubectl ipr` is completed by kubectl's own completion.

    Exit code: 0 printed, 2 usage.
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(found(context.find_root().command, {}, "ipr", "_IPR_COMPLETE").source())
