"""What ipr may do: no more than docs/ipr.md says, and as a Pod's own account."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Set as Rights
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import pytest
import yaml

from tests.apiserver import kubelet
from tests.apiserver.ipr import Ipr
from tests.apiserver.kube import eventually
from tests.apiserver.proxy import Proxy
from tests.apiserver.shop import Shop
from tests.apiserver.test_rbac import Right, used
from tests.cluster.cluster import KubectlError, kubectl_environment
from tests.conftest import needs
from tests.pages import ROOT

EXAMPLES = ROOT / "examples"
CSV = "Serial Number,Product Name,Input Image Urls\n1,Suit,https://a.example/1.jpg\n"
GROUPS = {"imageprocessingrequests": "imageprocessing.dev", "jobs": "batch"}
MOUNTED = "/run/secrets/kubernetes.io/serviceaccount"
"""Where the kubelet puts a token, by way of the link /var/run."""


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    file = tmp_path / "products.csv"
    file.write_text(CSV)
    return file


def documented() -> dict[str, set[Right]]:
    """Each row of the page's table: what one does, and the rights for it."""
    rows = re.findall(r"^\| (.+?) \| (`[a-z,]+ .+?) \|$", (ROOT / "docs/ipr.md").read_text(), re.M)
    return {
        what: {
            (GROUPS.get(resource, ""), resource, verb)
            for verbs, resource in re.findall(r"`([a-z,]+) ([a-z/]+)`", rights)
            for verb in verbs.split(",")
        }
        for what, rights in rows
    }


def test_it_asks_for_what_the_page_says(
    shop: Shop, proxy: Proxy, catalogue: Path, tmp_path: Path
) -> None:
    """Each command's calls are the rights of its row, no more and no less."""
    # There are no Google credentials here, and no machine of Google's to be asked for some.
    alone = {"NO_GCE_CHECK": "true"}
    ipr = Ipr(shop, alone, proxy.write_kubeconfig(tmp_path / "kubeconfig"))
    for name, output in {
        "bucket": {"gcs": {"bucket": "shop-images"}},
        "claim": {"persistentVolumeClaim": {"claimName": "images"}},
    }.items():
        shop.apply(name, output=output)
        shop.finish_step(name, "plan", kubelet.whole(2, failed=1))
        shop.wait_finished(name, "PartiallySucceeded")
    shop.apply("idle", suspend=True)
    rows = documented()

    def compare(
        what: str, *commands: Callable[[], object], beside: Rights[Right] = frozenset()
    ) -> None:
        proxy.calls.clear()
        for command in commands:
            command()
        asked = {right for call in proxy.calls if (right := used(call))}
        assert asked | beside == rows.pop(what), what

    def fetched_by_a_pod() -> None:
        """Up to the exec, which only a kubelet could answer."""
        with ipr.running("results", "claim") as fetching:
            ours = "app.kubernetes.io/managed-by=ipr"
            (pod,) = eventually(lambda: shop.kube.list("pods", labels=ours), "the Pod")
            shop.kubelet.start(pod)
            assert fetching.communicate(timeout=60)[0] == ""
            assert fetching.returncode == 1

    def watched() -> None:
        with ipr.running("watch", "idle"):
            eventually(lambda: any(call.is_watch for call in proxy.calls), "the watch")

    complete = Path(sys.executable).parent / "kubectl_complete-ipr"
    environment = {**os.environ, "KUBECONFIG": str(ipr.kubeconfig)}

    def tab(*words: str) -> None:
        subprocess.run([complete, *words], check=True, env=environment)

    here = ("-n", shop.kube.namespace)
    compare("`status`", lambda: ipr("status"), lambda: ipr("status", "bucket"))
    compare("`watch`, and `--wait` of others", watched)
    # The last one is for a request that is refused after its dry run.
    refused = {("", "configmaps", "delete")}
    compare("`submit`", lambda: ipr("submit", catalogue, "--bucket", "shop-images"), beside=refused)
    compare("`retry`", lambda: ipr("retry", "bucket"))
    compare("`suspend`, `resume`", lambda: ipr("resume", "idle"), lambda: ipr("suspend", "idle"))
    compare("`results` of a bucket", lambda: ipr("results", "bucket", code=1))
    newer = {("", "pods/exec", "create")}
    compare("`results` of a claim", fetched_by_a_pod, beside=newer)
    compare("`logs`", lambda: ipr("logs", "bucket"))
    tabs = (lambda: tab("status", *here, ""), lambda: tab("status", "-n", ""))
    compare("complete names by Tab", *tabs)
    assert rows == {}


InAPod = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def in_a_pod(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> InAPod:
    """Runs a command as a Pod of the account `catalogue` would, which has the tenant's Role.

    A mount namespace of its own has the files where the kubelet puts them; there is no
    kubeconfig, as HOME is empty.
    """
    needs(None if os.geteuid() == 0 else "not root, so nothing can be mounted")
    cluster, namespace = shop.cluster, shop.kube.namespace
    here = ("-n", namespace)
    roles = yaml.safe_load_all((EXAMPLES / "gitops/tenant/tenant.yaml").read_text())
    (role,) = (found for found in roles if found["kind"] == "Role")
    role["metadata"]["namespace"] = namespace
    cluster.apply(role)
    cluster.kubectl("create", "serviceaccount", "catalogue", *here)
    who = f"--serviceaccount={namespace}:catalogue"
    cluster.kubectl("create", "rolebinding", "catalogue", "--role=catalogues", who, *here)
    account = f"--as=system:serviceaccount:{namespace}:catalogue"
    wanted = ["auth", "can-i", "list", "jobs", *here, account]
    eventually(lambda: said(shop, *wanted) == "yes", "the API server goes by the Role")

    server, authority = cluster_of(cluster.kubeconfig)
    files, home = (tmp_path_factory.mktemp(name) for name in ("mounted", "home"))
    (files / "ca.crt").write_text(authority)
    (files / "token").write_text(cluster.kubectl("create", "token", "catalogue", *here))
    (files / "namespace").write_text(namespace)
    environment = {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "KUBERNETES_SERVICE_HOST": server.hostname or "",
        "KUBERNETES_SERVICE_PORT": str(server.port or 443),
    }
    mount = 'mount -t tmpfs none /run && mkdir -p "$1" && cp "$2"/* "$1" && shift 2 && exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-euc", mount, "sh", MOUNTED, str(files)]

    def run(*command: object, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, *map(str, command)],
            env=environment | variables,
            check=False,
            capture_output=True,
            text=True,
        )

    return run


def cluster_of(kubeconfig: Path) -> tuple[SplitResult, str]:
    """The API server's address, and who signed its certificate."""
    view = ["kubectl", "config", "view", "--raw", "--flatten", "--minify", "-o", "json"]
    environment = kubectl_environment(kubeconfig)
    shown = subprocess.run(view, env=environment, check=True, capture_output=True).stdout
    cluster = json.loads(shown)["clusters"][0]["cluster"]
    authority = base64.b64decode(cluster["certificate-authority-data"])
    return urlsplit(cluster["server"]), authority.decode()


def said(shop: Shop, *arguments: str) -> str:
    """What kubectl writes, whatever its exit code: `auth can-i` fails with "no"."""
    try:
        return shop.cluster.kubectl(*arguments).strip()
    except KubectlError as error:
        return error.output.strip()


def test_in_a_pod_it_is_the_pods_account(shop: Shop, catalogue: Path, in_a_pod: InAPod) -> None:
    """In the Pod's namespace, with the tenant's Role, as kubectl; no file names a cluster."""
    made = in_a_pod("ipr", "submit", catalogue, "here", "--bucket", "shop-images")
    assert (made.stderr, made.returncode) == ("", 0)
    assert shop.find("ipr", "here")
    listed = [
        in_a_pod("ipr", "status", "-o", "name"),
        in_a_pod("kubectl", "get", "ipr", "-o", "name"),
    ]
    assert "/here\n" in listed[0].stdout
    assert listed[0].stdout == listed[1].stdout
    elsewhere = [("-n", "kube-system"), ()]
    for flags in elsewhere:
        refused = in_a_pod("ipr", "status", *flags, POD_NAMESPACE="" if flags else "kube-system")
        assert refused.returncode == 1
        assert 'in the namespace "kube-system"' in refused.stderr

    shop.finish_step("here", "plan", kubelet.whole(1))
    shop.wait_finished("here", "Succeeded")
    watched = in_a_pod("ipr", "watch", "here")
    assert (watched.stdout.splitlines()[0], watched.returncode) == (
        "here: Succeeded: 1 of 1 images done", 0
    )  # fmt: skip
    assert in_a_pod("ipr", "logs", "here").returncode == 0
    without_token = in_a_pod("ipr", "status", KUBERNETES_SERVICE_HOST="")
    assert without_token.stderr.startswith("error: no usable kubeconfig (")


def test_the_pipeline_runs_in_a_pod(shop: Shop, catalogue: Path, in_a_pod: InAPod) -> None:
    """As in examples/pipelines/argo-workflow.yaml."""
    name = f"products-{hashlib.sha256(CSV.encode()).hexdigest()[:8]}"
    folder = EXAMPLES / "pipelines"
    with ThreadPoolExecutor(1) as pool:
        command = (folder / "process.sh", catalogue, folder / "request.yaml")
        running = pool.submit(in_a_pod, *command, TIMEOUT="60s")
        eventually(lambda: shop.find("ipr", name), f"the request {name}")
        shop.finish_step(name, "plan", kubelet.whole(1))
        ended = running.result()
    assert ended.returncode == 0, ended.stderr
    assert "Succeeded: 1 of 1 images done" in ended.stdout
