"""Long-running helper processes that end with the test run, however that ends."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path


class NotReadyError(RuntimeError):
    """Something did not become ready in time, or died before it did."""


class Processes:
    """Processes started by this run, each with a log file of its own."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self,
        name: str,
        *command: object,
        env: Mapping[str, str] | None = None,
        ends_with_stdin: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Starts one; the kernel kills it when this process dies, even by SIGKILL.

        One that ends when its stdin closes is given the time to take its children along.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)],
                stdin=subprocess.PIPE if ends_with_stdin else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.logs,
                env=env,
                start_new_session=True,  # Ctrl-C is for the test run, which then stops these
            )
        self.running[name] = process
        return process

    def stop(self, *names: str) -> None:
        """Kills those named, or all, the last one started first. They hold nothing to save."""
        for name in names or tuple(reversed(self.running)):
            process = self.running.pop(name)
            if process.stdin:
                process.stdin.close()
            else:
                process.kill()
            process.wait(timeout=30)

    def wait(self, what: str, ready: Callable[[], object], seconds: float = 60) -> None:
        """Returns when ready() is true; fails at the deadline, or at once when a process died."""
        deadline = time.monotonic() + seconds
        while not ready():
            for name, process in self.running.items():
                if process.poll() is not None:
                    raise NotReadyError(f"{name} ended ({process.returncode}):\n{self.tail(name)}")
            if time.monotonic() > deadline:
                tails = "\n".join(f"-- {name}\n{self.tail(name)}" for name in self.running)
                raise NotReadyError(f"{what} was not ready in {seconds:.0f} s\n{tails}")
            time.sleep(0.05)

    def tail(self, name: str, lines: int = 15) -> str:
        """The end of a process' log."""
        log = self.logs / f"{name}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
