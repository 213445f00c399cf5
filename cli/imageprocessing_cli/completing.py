"""What the shell proposes from the cluster, by click's own completion."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, ShellComplete

from imageprocessing_cli.errors import CommandError

if TYPE_CHECKING:
    from imageprocessing_cli.cluster import Cluster

_PATIENCE = 5
"""Seconds for credentials and the answer; then nothing is proposed."""
# https://pkg.go.dev/github.com/spf13/cobra#ShellCompDirective
_FILES, _NO_FILES, _FOLDERS = 0, 4, 16


def requests(context: click.Context, _option: click.Parameter, word: str) -> list[CompletionItem]:
    """Requests of the namespace that the command line means."""
    cluster = _cluster(context)
    return _names(cluster, cluster.requests_path(), word) if cluster else []


def namespaces(context: click.Context, _option: click.Parameter, word: str) -> list[CompletionItem]:
    """Namespaces, for those who may list them."""
    cluster = _cluster(context)
    return _names(cluster, "/api/v1/namespaces", word) if cluster else []


def contexts(context: click.Context, _option: click.Parameter, word: str) -> list[CompletionItem]:
    """Contexts of the kubeconfig."""
    from kubernetes import config  # noqa: PLC0415 - 0.4 s

    file = context.params.get("kubeconfig")
    try:
        found, _active = config.list_kube_config_contexts(str(file) if file else None)
    except config.ConfigException:
        return []
    return [CompletionItem(one["name"]) for one in found if one["name"].startswith(word)]


def files(_context: click.Context, _option: click.Parameter, word: str) -> list[CompletionItem]:
    """Of what may be a file and may be a URL: files, which the shell itself knows."""
    return [CompletionItem(word, type="file")]


def _cluster(context: click.Context) -> Cluster | None:
    """The cluster that the command line means; None, and no word about it, without one."""
    # The words would be written into the line that somebody is typing, a plugin's and a
    # library's, too. The signal ends the process, also in a library that waits for the DNS.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    from imageprocessing_cli.cluster import connect  # noqa: PLC0415 - 0.4 s

    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    given = context.params
    try:
        return connect(given.get("kubeconfig"), given.get("context"), given.get("namespace"))
    except CommandError:
        return None


def _names(cluster: Cluster, path: str, word: str) -> list[CompletionItem]:
    try:
        rows = cluster.call("GET", path, query={"includeObject": "None"}, as_table=True)["rows"]
    except CommandError:
        return []
    names = (str(row["cells"][0]) for row in rows)
    return [CompletionItem(name) for name in names if name.startswith(word)]


class _Kubectl(ShellComplete):
    """Answers kubectl, which asks in the arguments and wants a directive last.

    https://github.com/kubernetes/enhancements, KEP 2379, Shell Completion Support
    """

    name = "kubectl"
    source_template = ""  # kubectl has its own

    def get_completion_args(self) -> tuple[list[str], str]:
        *words, word = sys.argv[1:] or [""]
        return words, word

    def complete(self) -> str:
        items = self.get_completions(*self.get_completion_args())
        kinds = {item.type for item in items}
        directive = _FILES if "file" in kinds else _FOLDERS if "dir" in kinds else _NO_FILES
        proposed = [_line(item) for item in items if item.type == "plain"]
        return "\n".join([*proposed, f":{directive}"])


def _line(item: CompletionItem) -> str:
    return f"{item.value}\t{item.help}" if item.help else str(item.value)


def kubectl_complete() -> None:
    """The command kubectl_complete-ipr: kubectl calls it for `kubectl ipr ...<TAB>`."""
    from imageprocessing_cli.main import main  # noqa: PLC0415 - which imports this by its options

    click.echo(_Kubectl(main, {}, "ipr", "_IPR_COMPLETE").complete())
