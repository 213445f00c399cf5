"""A Kubernetes for trying things by hand, the same that the tests use.

    python -m tests.cluster build                  compile the components into the cache
    python -m tests.cluster up [--no-node]         run it until Ctrl-C; prints how to use it
    python -m tests.cluster run -- COMMAND...      run a command in its environment
    python -m tests.cluster helm                   the path of a Helm client, built if there is none
    python -m tests.cluster tools                  build the other programs that tests ask

--images loads the project's images into the node, --no-node runs the control plane alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys

from tests.cluster import build
from tests.cluster.built import built_cluster, missing
from tests.cluster.images import images_archive


def main() -> int:
    """Runs one of the commands above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build")
    commands.add_parser("helm")
    commands.add_parser("tools")
    for name in ("up", "run"):
        command = commands.add_parser(name)
        command.add_argument("--no-node", action="store_true")
        command.add_argument("--images", action="store_true")
        if name == "run":
            command.add_argument("argv", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if args.command == "build":
        sys.stdout.write(f"{build.components().kube.parent}\n")
        return 0
    if args.command == "helm":
        sys.stdout.write(f"{build.helm()}\n")
        return 0
    if args.command == "tools":
        for tool in (build.kubeconform(), build.gitops_tools(), build.promtool()):
            sys.stdout.write(f"{tool}\n")
        return 0
    if reason := missing(node=not args.no_node):
        parser.error(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with built_cluster(node=not args.no_node) as cluster:
        cluster.install_crds()
        if args.images and cluster.load:
            cluster.load(images_archive())
        variables = {
            "KUBECONFIG": str(cluster.kubeconfig),
            "TEST_NODE_IP": cluster.node_ip,
            "TEST_ALLOWED_NETWORKS": ",".join(cluster.allowed_networks),
        }
        if args.command == "run":
            argv = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
            environment = {**os.environ, **variables}
            return subprocess.run(argv, check=False, env=environment).returncode
        assignments = " ".join(f"{name}={value}" for name, value in variables.items())
        sys.stdout.write(f"export {assignments}\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
