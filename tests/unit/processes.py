"""The worker as its own process, as in a Pod."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from imageprocessing_contract import names, report
from imageprocessing_contract import task as tasks
from imageprocessing_contract.report import Report
from imageprocessing_contract.task import Step, Task

GRACE = 30.0
"""Seconds that a Pod has after SIGTERM (terminationGracePeriodSeconds)."""


@dataclass(frozen=True)
class Ended:
    """How a Pod ended; `said` is its termination message."""

    code: int
    said: bytes
    log: str

    @property
    def report(self) -> Report:
        return report.decode(self.said.decode())


def variables(task: Task, step: Step, index: int, inline: bytes, message: Path) -> dict[str, str]:
    """What the operator puts into a new Pod's environment."""
    return {
        names.ENV_TASK: tasks.encode(msgspec.structs.replace(task, step=step)),
        names.ENV_INLINE_SOURCE: os.fsdecode(inline),
        names.ENV_POD_UID: str(uuid.uuid4()),
        names.ENV_SHARD_INDEX: str(index),
        names.ENV_TERMINATION_LOG: os.fspath(message),
    }


class Worker:
    """A running `python -m imageprocessing_worker`."""

    def __init__(
        self,
        task: Task,
        step: Step = "plan",
        index: int = 0,
        *,
        inline: bytes = b"",
        mount: str = "",
        environment: dict[str, str] | None = None,
        within: Sequence[str] = (),
    ) -> None:
        """`within` is a command that runs the one it is given."""
        folder = Path(tempfile.mkdtemp())
        self._message, self._log = folder / "termination-log", folder / "log"
        self._message.touch()
        environ = {
            **os.environ,
            **(environment or {}),
            **variables(task, step, index, inline, self._message),
            names.ENV_SOURCE_MOUNT: mount,
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*within, sys.executable, "-m", "imageprocessing_worker"], env=environ, stderr=log
            )

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def children(self) -> list[int]:
        """Ids of the processes that it started."""
        return children_of(self.process.pid)

    def ended(self, within: float = 120) -> Ended:
        """Waits for its end; fails where that takes longer (seconds)."""
        try:
            code = self.process.wait(within)
        finally:
            self.process.kill()
        return Ended(code, self._message.read_bytes(), self._log.read_text())


def children_of(pid: int) -> list[int]:
    """Ids of the processes that one started and that live."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in threads for child in (task / "children").read_text().split()]


def run(task: Task, step: Step = "plan", index: int = 0, **options: object) -> Ended:
    """One Pod from start to end."""
    return Worker(task, step, index, **options).ended()  # type: ignore[arg-type]
