"""How a command ends early: one line that says what to do, and an exit code."""

from __future__ import annotations

import json
from typing import IO, Any

import click

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_PARTLY, EXIT_INTERRUPTED = 0, 1, 2, 3, 130

EXIT_CODES = """Exit code: 0 all images done, 3 finished with failures, 1 failed, 2 usage or
invalid input, 130 interrupted."""

HOW_TO_ALLOW = "Private addresses are allowed with --allow-network CIDR."


class CommandError(click.ClickException):
    """Ends the command with exit code 1; the message says what to do."""

    transient = False
    """Whether the same call may succeed later."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Says it as kubectl does."""
        click.echo(f"error: {self.message}", file=file, err=file is None)


class UsageError(CommandError):
    """A file or an option is wrong: exit code 2."""

    exit_code = EXIT_USAGE


class UnreachableError(CommandError):
    """The API server gave no answer, or broke off in it."""

    transient = True


class ServerError(CommandError):
    """The API server refused; `status` is HTTP's, `reason` Kubernetes' word for it."""

    def __init__(self, status: int, body: str) -> None:
        try:
            said = json.loads(body)
            self.reason, message = str(said["reason"]), str(said["message"])
        except (ValueError, KeyError, TypeError):
            self.reason, message = f"HTTP {status}", " ".join(body.split())[:300]
        super().__init__(message)
        self.status = status
        # 410: the version to watch from is too old.
        self.transient = status in {410, 429} or status >= 500

    def show(self, file: IO[Any] | None = None) -> None:
        """Says it as kubectl does."""
        text = f"Error from server ({self.reason}): {self.message}"
        click.echo(text, file=file, err=file is None)
