"""A Docker daemon for image builds: the one that runs, or one started for the while."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.cluster.cache import exclusive, project_cache
from tests.cluster.cgroups import remove_cgroup
from tests.cluster.processes import Processes

# Its own /run, and its own process and mount namespaces: nothing of it outlives its first
# process, which ends the daemon when stdin closes and lets it write down its state.
FIRST_PROCESS = """\
set -e
mount -t tmpfs tmpfs /run
"$@" < /dev/null &
cat
kill $!
wait
"""


@dataclass(frozen=True)
class Docker:
    """A daemon and how to reach it; without a host it is the client's default."""

    host: str | None = None

    def run(
        self, *args: str, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """One call of the docker client; a failure is returned, not raised."""
        where = {"DOCKER_HOST": self.host} if self.host else {}
        environment = {**os.environ, **where}
        return subprocess.run(
            ["docker", *args], stdin=stdin, stdout=stdout, check=False, env=environment
        )

    def succeeds(self, *args: str) -> bool:
        """Whether a call succeeds, quietly."""
        where = {"DOCKER_HOST": self.host} if self.host else {}
        environment = {**os.environ, **where}
        command = ["docker", *args]
        return (
            subprocess.run(command, capture_output=True, check=False, env=environment).returncode
            == 0
        )

    def check(
        self, *args: str, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None
    ) -> None:
        """One call that must succeed."""
        self.run(*args, stdin=stdin, stdout=stdout).check_returncode()


def missing() -> str | None:
    """Why no image can be built here, or None."""
    if not shutil.which("docker"):
        return "not installed: docker"
    if Docker().succeeds("info"):
        return None
    if not shutil.which("dockerd"):
        return "no Docker daemon runs and dockerd is not installed"
    if os.geteuid() != 0:
        return "no Docker daemon runs, and starting one needs root"
    return None


@contextlib.contextmanager
def docker_daemon() -> Iterator[Docker]:
    """The daemon that runs, or one of our own; its layers stay in the cache."""
    if Docker().succeeds("info"):
        yield Docker()
        return
    with exclusive(project_cache() / "docker.lock"), tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        processes = Processes(directory / "logs")
        docker = Docker(f"unix://{directory}/docker.sock")
        cgroup = f"ipo-docker-{os.getpid()}"
        daemon = [
            "dockerd",
            f"--host={docker.host}",
            f"--data-root={project_cache()}/docker",
            f"--pidfile={directory}/docker.pid",
            f"--cgroup-parent=/{cgroup}",
            # Builds use the machine's network; nothing of it is to be changed.
            "--bridge=none",
            "--iptables=false",
            "--ip-forward=false",
        ]
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        script = ["sh", "-c", FIRST_PROCESS, "-"]
        try:
            processes.start("dockerd", *unshare, *script, *daemon, ends_with_stdin=True)
            processes.wait("the Docker daemon", lambda: docker.succeeds("info"))
            yield docker
        finally:
            processes.stop()
            remove_cgroup(cgroup)
