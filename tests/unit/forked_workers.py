"""Workers that begin in 10 ms, for tests that need hundreds: forks of a process that has imported.

Each is a process of its own that runs the worker's main() with a new Pod's environment,
and may be told to kill itself at its n-th write to a folder. Run as a program, this is
the process that they are forked from.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

from imageprocessing_contract.task import Step, Task

from tests.unit.processes import Ended, variables

ROOT = Path(__file__).parents[2]


class ForkedWorkers:
    """Starts one at a time."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder = process, folder

    def run(
        self,
        task: Task,
        step: Step = "plan",
        index: int = 0,
        *,
        inline: bytes = b"",
        environment: dict[str, str] | None = None,
        checkpoint_images: int,
        last_checkpoint_seconds: float = 20,
        kill_at: int = 0,
        kill_by: signal.Signals = signal.SIGKILL,
        kill_below: Path | None = None,
        started: Callable[[int], None] = lambda pid: None,
    ) -> Ended:
        """One Pod from start to end; `started` gets its process id before it does anything.

        `kill_at` n sends it `kill_by` at its n-th write below that folder, or the task's root,
        before that happens.
        """
        message, log = self._folder / "termination-log", self._folder / "log"
        message.write_bytes(b"")
        self._say(
            {
                "environ": (environment or {}) | variables(task, step, index, inline, message),
                "log": os.fspath(log),
                "constants": {
                    "CHECKPOINT_IMAGES": checkpoint_images,
                    "LAST_CHECKPOINT_SECONDS": last_checkpoint_seconds,
                },
                "root": os.fspath(kill_below) if kill_below else task.output.root,
                "kill_at": kill_at,
                "kill_by": kill_by,
            }
        )
        started(self._heard())
        self._say("go")
        return Ended(self._heard(), message.read_bytes(), log.read_text())

    def _say(self, what: object) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def _heard(self) -> int:
        assert self._process.stdout
        return int(self._process.stdout.readline())


@contextmanager
def forked_workers(within: Sequence[str] = ()) -> Iterator[ForkedWorkers]:
    """They and the process that they are forked from end with the block.

    `within` is a command that runs the one it is given.
    """
    command = [*within, sys.executable, "-m", "tests.unit.forked_workers"]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process,
    ):
        yield ForkedWorkers(process, Path(folder))
        # It ends with its input, and its forks with it.


def serve() -> None:
    import imageprocessing_worker.__main__
    import imageprocessing_worker.records.firestore
    import imageprocessing_worker.records.sqlite
    import imageprocessing_worker.stores.folder
    import imageprocessing_worker.stores.gcs  # noqa: F401

    for line in sys.stdin:
        asked = json.loads(line)
        ready, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go)
            _become_a_worker(asked, ready)
        os.close(ready)
        print(pid, flush=True)  # noqa: T201
        sys.stdin.readline()
        os.close(go)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


def _become_a_worker(asked: dict[str, Any], ready: int) -> NoReturn:
    from imageprocessing_worker import __main__, shard, window

    end_with_parent()
    os.read(ready, 1)
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 2)
    os.environ.update(asked["environ"])
    for name, value in asked["constants"].items():
        assert hasattr(shard, name)
        setattr(shard, name, value)
    # Else a whole catalogue of a test would be under way at once.
    window.LEAST = window.MOST = 1
    if asked["kill_at"]:
        kill_at_write(asked["root"], asked["kill_at"], asked["kill_by"])
    code = None
    try:
        code = __main__.main()
    finally:
        if code is None:
            sys.excepthook(*sys.exc_info())
        os._exit(1 if code is None else code)


def end_with_parent() -> None:
    import ctypes

    pr_set_pdeathsig = 1  # linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


_CHANGES = {"os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
_FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def kill_at_write(root: str, number: int, kill_by: int) -> None:
    """Signals this process before its n-th change below `root`; a SQL statement is one."""
    numbers = count(1)
    connect = sqlite3.connect

    def write(_: object = None) -> None:
        if next(numbers) == number:
            os.kill(os.getpid(), kill_by)

    def hook(event: str, args: tuple[object, ...]) -> None:
        path = str(args[0]) if args else ""
        if event == "open" and int(str(args[2])) & _FOR_WRITING:
            ours = path.startswith(root)
        else:
            # Without a root: removed with its folder, by a descriptor of that.
            ours = event in _CHANGES and (path.startswith(root) or not path.startswith("/"))
        if ours:
            write()

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*args, **options)
        if str(args[0]).startswith(root):
            connection.set_trace_callback(write)
        return connection

    sys.addaudithook(hook)
    sqlite3.connect = traced  # type: ignore[assignment]


if __name__ == "__main__":
    serve()
