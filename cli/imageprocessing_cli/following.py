"""A request followed to its end, as a bar on terminals and as lines elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import rich.progress
from imageprocessing_contract.reasons import Condition
from imageprocessing_contract.report import failure_line
from imageprocessing_operator.status import Status
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from imageprocessing_cli.printing import PLAIN
from imageprocessing_cli.progress import headline, rate_text, status_of


def follow(changes: Iterable[dict[str, Any]], console: Console, failures: Failures) -> Status:
    """Shows each change until the request has finished; returns its last status."""
    shown = _Bar(console) if console.is_terminal else _Lines(console)
    status = Status()
    with shown.display if isinstance(shown, _Bar) else nullcontext():
        for request in changes:
            status = status_of(request)
            shown.show(request["metadata"]["name"], status)
            failures.say(map(failure_line, status.failures))
            if status.is_true(Condition.FINISHED):
                break
    return status


class Failures:
    """Failed images, each shown once, from whatever thread."""

    def __init__(self, console: Console) -> None:
        self._console, self._said, self._one = console, set[str](), threading.Lock()

    def say(self, lines: Iterable[str]) -> None:
        """Shows those that are new."""
        with self._one:
            for line in lines:
                if line not in self._said:
                    self._said.add(line)
                    self._console.print(f"  {line}", style="red", **PLAIN)


class _Lines:
    """One line whenever something has changed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""

    def show(self, name: str, status: Status) -> None:
        line, images = f"{name}: {headline(status)}", status.images
        if images and status.is_true(Condition.RECONCILING):
            line += f": {images.processed} of {images.total} images"
            line += "".join(f", {text}" for text in (_shards(status), rate_text(status)) if text)
        if line != self._last:
            self._last = line
            self._console.print(line, **PLAIN)


class _Bar:
    """The reason, a bar by images, the rate and the time left, and the shards."""

    def __init__(self, console: Console) -> None:
        self.display = rich.progress.Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TextColumn("{task.fields[shards]}", markup=False),
            console=console,
        )
        self._console = console
        self._task = self.display.add_task("", total=None, rate="", shards="")
        self._last = ""

    def show(self, name: str, status: Status) -> None:
        images, line = status.images, headline(status)
        if line != self._last:
            self._last = line
            self._console.print(f"{name}: {line}", **PLAIN)
        self.display.update(
            self._task,
            description=line.partition(":")[0],
            total=images.total if images else None,
            completed=images.processed if images else 0,
            rate=rate_text(status),
            shards=_shards(status),
        )


def _shards(status: Status) -> str:
    shards = status.shards
    if shards is None or shards.total < 2:
        return ""
    failed = f", {shards.failed} failed" if shards.failed else ""
    return f"shards: {shards.succeeded} of {shards.total} done, {shards.active} running{failed}"
