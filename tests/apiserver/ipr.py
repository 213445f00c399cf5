"""ipr as people call it: a process of its own, in the namespace of a shop."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.apiserver.shop import Shop


@dataclass
class Ipr:
    """Its commands; `environment` adds variables, of emulators for example.

    The kubeconfig is by default that of the shop's administrator.
    """

    shop: Shop
    environment: Mapping[str, str] = field(default_factory=dict)
    kubeconfig: Path | None = None

    @property
    def here(self) -> str:
        """The option that commands repeat in what they propose."""
        return f"-n {self.shop.kube.namespace}"

    def __call__(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Runs a command that ends with `code`."""
        ended = subprocess.run(
            self._command(arguments), capture_output=True, text=True, env=self._env(), check=False
        )
        assert ended.returncode == code, (ended.stdout, ended.stderr)
        return ended

    def says(self, *arguments: object) -> str:
        """What a command that succeeds writes, and nothing about errors."""
        ended = self(*arguments)
        assert ended.stderr == ""
        return ended.stdout

    def refuses(self, *arguments: object, code: int = 1) -> str:
        """The errors of a command that fails, which writes nothing else."""
        ended = self(*arguments, code=code)
        assert ended.stdout == ""
        return ended.stderr

    @contextmanager
    def running(self, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        """A command under way, which ends with the block at the latest."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            self._command(arguments), stdout=pipe, stderr=pipe, text=True, env=self._env()
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def _command(self, arguments: tuple[object, ...]) -> list[str]:
        command, *rest = map(str, arguments)
        own = ["-n", self.shop.kube.namespace]
        return [sys.executable, "-m", "imageprocessing_cli.main", command, *own, *rest]

    def _env(self) -> dict[str, str]:
        kubeconfig = self.kubeconfig or self.shop.cluster.kubeconfig
        return {**os.environ, **self.environment, "KUBECONFIG": str(kubeconfig)}
