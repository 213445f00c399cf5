"""What is left of a folder when its node loses power: a real file system, cut off from its disk.

The worker writes to an ext4 in a file. A copy of that file, while it is still mounted,
is what a disk holds at that moment: all that was synced, and little else.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from imageprocessing_contract import report
from imageprocessing_contract.task import Task
from imageprocessing_worker import results
from imageprocessing_worker.stores import open_store
from msgspec.structs import replace

from tests.conftest import needs
from tests.unit.forked_workers import forked_workers
from tests.unit.processes import GRACE, Worker, run
from tests.unit.raw_server import RawServer, served
from tests.unit.tasks import csv_of, make_task
from tests.unit.test_shard import Gate, end_state, paths

IMAGES = 8
# Mounts end with the process and its children. Nothing is written for having become old.
MOUNTED = 'mount -o loop,commit=600 "$1" "$2" && shift 2 && '
UNSHARED = ["unshare", "--mount", "sh", "-c"]


class Disk:
    def __init__(self, folder: Path) -> None:
        self._file, self.root = folder / "disk", folder / "mounted"
        self._left, self._folder = folder / "left", folder
        self.root.mkdir()
        with self._file.open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", os.fspath(self._file)], check=True)

    def mounted(self, then: str) -> list[str]:
        """A command that runs what it is given with the disk mounted, and `then` after it."""
        script = f'{MOUNTED}"$@"; code=$?; {then}; exit $code'
        return [*UNSHARED, script, "sh", os.fspath(self._file), os.fspath(self.root)]

    @property
    def cut_off(self) -> list[str]:
        """The same, and the power is lost when that ends."""
        return self.mounted(f"cp --sparse=always {self._file} {self._left}")

    def after_power_loss(self) -> Path:
        """A folder with what is on the disk now."""
        self._file = self._left
        found = self._folder / "found"
        command = self.mounted("true")
        copy = ["cp", "--archive", f"{self.root}/.", os.fspath(found)]
        subprocess.run([*command, *copy], check=True)
        return found


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    needs(missing(tmp_path))
    return Disk(tmp_path)


def missing(folder: Path) -> str | None:
    for program in ("mkfs.ext4", "unshare"):
        if not shutil.which(program):
            return f"not installed: {program}"
    folder = folder / "tried"
    folder.mkdir()
    tried = subprocess.run(
        [*Disk(folder).mounted("true"), "true"], capture_output=True, text=True, check=False
    )
    return f"cannot mount a file: {tried.stderr}" if tried.returncode else None


def catalogue(server: RawServer) -> bytes:
    return csv_of([str(n), f"Product {n}", f"{server.url}/{n}"] for n in range(IMAGES))


def undisturbed(folder: Path, server: RawServer) -> tuple[object, ...]:
    task = make_task(folder)
    assert run(task, inline=catalogue(server)).code == report.EXIT_DONE
    return end_state(task)


def one_by_one(root: Path) -> Task:
    task = make_task(root)
    return replace(task, download=replace(task.download, max_connections_per_host=1))


def test_what_an_exit_code_stands_for_is_on_the_disk(tmp_path: Path, disk: Disk) -> None:
    gate = Gate("/none")
    with served(gate) as server:
        worker = Worker(make_task(disk.root), inline=catalogue(server), within=disk.cut_off)
        ended = worker.ended()
        assert ended.code == report.EXIT_DONE, ended.log
        expected = undisturbed(tmp_path / "undisturbed", server)
    assert end_state(make_task(disk.after_power_loss())) == expected


def test_what_a_checkpoint_stands_for_is_on_the_disk(tmp_path: Path, disk: Disk) -> None:
    gate = Gate("/5")
    with served(gate) as server:
        task = one_by_one(disk.root)
        worker = Worker(task, inline=catalogue(server), within=disk.cut_off)
        assert gate.reached.wait(60)
        (pid,) = worker.children()
        os.kill(pid, signal.SIGTERM)
        ended = worker.ended(GRACE)
        assert ended.code == report.EXIT_INTERRUPTED, ended.log
        task = make_task(disk.after_power_loss())
        assert len(results.read_parts(open_store(task.output), 0)) == 5
        server.heads.clear()
        assert run(task).code == report.EXIT_DONE
        assert paths(server) == {f"/{n}": 1 for n in range(5, IMAGES)}
        expected = undisturbed(tmp_path / "undisturbed", server)
    assert end_state(task) == expected


def test_an_object_that_has_a_name_is_on_the_disk(tmp_path: Path, disk: Disk) -> None:
    """The records' commit writes out names, and with them those of images without their bytes."""
    gate = Gate("/none")
    with served(gate) as server:
        task = make_task(disk.root)
        with forked_workers(disk.cut_off) as workers:
            killed = workers.run(
                task,
                inline=catalogue(server),
                checkpoint_images=IMAGES,
                kill_at=1,
                kill_below=disk.root / task.output.path / "results",
            )
        assert killed.code == -signal.SIGKILL, killed.log
        task = make_task(disk.after_power_loss())
        ended = run(task)
        assert ended.code == report.EXIT_DONE, ended.log
        expected = undisturbed(tmp_path / "undisturbed", server)
    assert end_state(task) == expected
