"""What the shell proposes where there is no cluster, or none that answers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.kubeconfigs import TOKEN, Object, write_kubeconfig

PROGRAM = Path(sys.executable).parent / "kubectl_complete-ipr"
MISSING: Object = {
    "exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "no-such-plugin",
        "interactiveMode": "Never",
    }
}


def proposed(kubeconfig: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The answer to kubectl, which ends with a directive; nothing else may be written."""
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    ended = subprocess.run(
        [PROGRAM, *words], env=environment, check=False, capture_output=True, text=True
    )
    assert ended.stderr == ""
    return ended


@pytest.mark.parametrize("words", [("status", ""), ("logs", "-n", ""), ("watch", "--context", "")])
def test_nothing_without_a_kubeconfig(tmp_path: Path, words: tuple[str, ...]) -> None:
    ended = proposed(tmp_path / "none", *words)
    assert (ended.stdout, ended.returncode) == (":4\n", 0)


@pytest.mark.parametrize("user", [TOKEN, MISSING], ids=["refused", "no plugin"])
def test_nothing_where_no_server_is(tmp_path: Path, user: Object) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    ended = proposed(write_kubeconfig(tmp_path, f"http://127.0.0.1:{port}", user), "status", "")
    assert (ended.stdout, ended.returncode) == (":4\n", 0)


def test_nothing_from_a_server_that_hangs(tmp_path: Path) -> None:
    """It takes the connection and never says a word: whoever pressed Tab types on."""
    with socket.create_server(("127.0.0.1", 0)) as hung:
        kubeconfig = write_kubeconfig(tmp_path, f"http://127.0.0.1:{hung.getsockname()[1]}")
        ended = proposed(kubeconfig, "status", "")
    assert (ended.stdout, ended.returncode) == ("", -signal.SIGALRM)


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (("sta",), ["status\tShow all requests, or NAME in detail:...", ":4"]),
        (("status", "-o", "w"), ["wide", ":4"]),
        (("watch", "--context", "b"), ["bare", ":4"]),
        (("submit", "prod"), [":0"]),
        (("run", "request.yaml", "--output", "res"), [":16"]),
        (("completion", "z"), ["zsh", ":4"]),
    ],
)
def test_what_needs_no_server(tmp_path: Path, words: tuple[str, ...], lines: list[str]) -> None:
    """With kubectl's directives: 4 no files, 0 files, 16 folders."""
    kubeconfig = write_kubeconfig(tmp_path, "http://127.0.0.1:1")
    assert proposed(kubeconfig, *words).stdout.splitlines() == lines
