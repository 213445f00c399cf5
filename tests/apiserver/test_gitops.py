"""Manifests from Git: applied again, changed, pruned, and restored."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from imageprocessing_contract import report

from tests import helm
from tests.apiserver import kubelet
from tests.apiserver.kube import Object, eventually
from tests.apiserver.shop import Shop, hook
from tests.cluster import build
from tests.cluster.cluster import KubectlError, kubectl_environment
from tests.conftest import needs
from tests.e2e.receiver import Receiver

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SERVER_SIDE = ["--server-side", "--field-manager=gitops"]


@pytest.fixture(scope="module", autouse=True)
def secret(shop: Shop) -> None:
    shop.make_secret()


def manifest(shop: Shop, name: str, **spec: object) -> str:
    """examples/request.yaml under this name."""
    body = yaml.safe_load((EXAMPLES / "request.yaml").read_text())
    body["metadata"] = {"name": name, "namespace": shop.kube.namespace}
    body["spec"] |= {"requestID": name, **spec}
    return yaml.safe_dump(body)


def finish(shop: Shop, name: str) -> None:
    """Lets the only Pod of a request end."""
    shop.finish_step(name, "plan", kubelet.whole(3))
    shop.wait_finished(name, "Succeeded")


def settle(shop: Shop, name: str) -> Object:
    """The same with its webhook; the status then."""
    finish(shop, name)
    return shop.wait_status(name, settled=True)


def apply(shop: Shop, text: str, *how: str) -> str:
    return shop.cluster.kubectl("apply", *how, "-f", "-", stdin=text)


def version(shop: Shop, name: str) -> str:
    found: str = shop.kube.get("ipr", name)["metadata"]["resourceVersion"]
    return found


@pytest.mark.parametrize("how", [[], SERVER_SIDE], ids=["client-side", "server-side"])
def test_applied_again_nothing_changes(shop: Shop, receiver: Receiver, how: list[str]) -> None:
    """While it runs, once it has settled, and after its Jobs' TTL."""
    name = f"again-{'server' if how else 'client'}"
    text = manifest(shop, name, webhook=hook(receiver.url))
    apply(shop, text, *how)
    shop.wait_said(name, "Ready", "Unknown", "Planning")
    running = version(shop, name)
    apply(shop, text, *how)
    assert version(shop, name) == running

    settle(shop, name)
    settled = shop.kube.get("ipr", name)
    shop.kube.delete("jobs", shop.job(name, "plan"))
    eventually(lambda: shop.jobs(name) == [], "the Job is gone")
    shop.operator.kill()
    shop.operator.start()
    said = apply(shop, text, *how)
    # Another one goes all the way meanwhile: the operator has seen whatever there was to see.
    shop.apply(f"{name}-other")
    finish(shop, f"{name}-other")
    assert said.strip().endswith("serverside-applied" if how else "unchanged")
    assert shop.kube.get("ipr", name) == settled
    assert shop.jobs(name) == []
    receiver.received.get_nowait()
    assert receiver.received.empty()


def test_restored_without_its_status(shop: Shop, receiver: Receiver) -> None:
    """A backup has no status: the same requestID sends the webhook under the same id again."""
    text = manifest(shop, "restored", webhook=hook(receiver.url))
    apply(shop, text)
    first = settle(shop, "restored")
    shop.cluster.kubectl("delete", "-f", "-", stdin=text)
    apply(shop, text)
    again = settle(shop, "restored")
    assert again["webhook"]["eventID"] == first["webhook"]["eventID"]
    ids = [receiver.received.get_nowait()[0]["webhook-id"] for _ in range(2)]
    assert ids == [first["webhook"]["eventID"]] * 2


def test_pruned_it_takes_its_jobs_along(shop: Shop) -> None:
    text = manifest(shop, "pruned")
    apply(shop, text)
    shop.job("pruned", "plan")
    uid = shop.kube.get("ipr", "pruned")["metadata"]["uid"]
    shop.cluster.kubectl("delete", "-f", "-", stdin=text)
    shop.wait_no_jobs(uid)


def kustomized(shop: Shop, directory: Path, csv: str) -> str:
    """examples/gitops/kustomize with this CSV, in the test's namespace."""
    for file in (EXAMPLES / "gitops" / "kustomize").iterdir():
        text = file.read_text().replace("namespace: shop", f"namespace: {shop.kube.namespace}")
        (directory / file.name).write_text(text)
    (directory / "products.csv").write_text(csv)
    return shop.cluster.kubectl("kustomize", str(directory))


def flux(shop: Shop, text: str) -> str:
    """What Flux's library says of applying this."""
    done = subprocess.run(
        [str(build.gitops_tools()), "apply"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env=kubectl_environment(shop.cluster.kubeconfig),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_changed_csv_is_a_new_request(shop: Shop, tmp_path: Path) -> None:
    """By kustomize's hashes, and by what Flux and Argo CD do with their annotations."""
    csv = (EXAMPLES / "gitops" / "kustomize" / "products.csv").read_text()
    texts = [
        kustomized(shop, tmp_path, csv + row) for row in ("", "3,Cap,https://a.example/c.png\n")
    ]
    for text in texts:
        found = {thing["kind"]: thing for thing in helm.objects(text)}
        source = found["ImageProcessingRequest"]["spec"]["source"]["configMapKeyRef"]["name"]
        assert source == found["ConfigMap"]["metadata"]["name"]
        assert source.startswith("products-")

    assert "ImageProcessingRequest" in flux(shop, texts[0])
    first = shop.kube.get("ipr", "products")["metadata"]["uid"]
    finish(shop, "products")
    assert f"ImageProcessingRequest/{shop.kube.namespace}/products unchanged" in flux(
        shop, texts[0]
    )
    with pytest.raises(KubectlError, match="is immutable"):
        apply(shop, texts[1], "--server-side", "--force-conflicts")
    flux(shop, texts[1])
    second = shop.kube.get("ipr", "products")["metadata"]["uid"]
    assert second != first
    finish(shop, "products")

    # Argo CD's Force=true,Replace=true is kubectl's own replace --force.
    shop.cluster.kubectl("replace", "--force", "-f", "-", stdin=texts[0])
    assert shop.kube.get("ipr", "products")["metadata"]["uid"] not in (first, second)
    finish(shop, "products")


def test_the_helm_example(shop: Shop, tmp_path: Path) -> None:
    """Another CSV is another request, and the one before it goes."""
    needs(helm.missing())
    chart = tmp_path / "chart"
    shutil.copytree(EXAMPLES / "gitops" / "helm", chart)
    environment = kubectl_environment(shop.cluster.kubeconfig)
    place = ["catalogue", str(chart), "-n", shop.kube.namespace]
    names = []
    for row in ("", "3,Cap,https://a.example/cap.png\n"):
        with (chart / "files" / "products.csv").open("a") as file:
            file.write(row)
        helm.run("upgrade", "--install", *place, environment=environment)
        label = "app.kubernetes.io/managed-by=Helm"
        (name,) = (r["metadata"]["name"] for r in shop.kube.list("ipr", labels=label))
        names.append(name)
        finish(shop, name)
    assert names[0] != names[1]
    helm.run("uninstall", "catalogue", "-n", shop.kube.namespace, environment=environment)


def test_the_tenant_example(shop: Shop) -> None:
    """The API server takes it, and it gives no more than it says."""
    text = (EXAMPLES / "gitops" / "tenant" / "tenant.yaml").read_text()
    namespace = f"{shop.kube.namespace}-tenant"
    text = text.replace("name: shop\n", f"name: {namespace}\n")
    text = text.replace("namespace: shop\n", f"namespace: {namespace}\n")
    try:
        shop.cluster.kubectl("apply", "--validate=strict", "-f", "-", stdin=text)
        team = ["--as=somebody", "--as-group=shop-catalogue", "-n", namespace]
        for right, answer in {
            "create imageprocessingrequests": "yes",
            "create configmaps": "yes",
            "get pods/log": "yes",
            "create pods": "no",
            "create jobs": "no",
            "get secrets": "no",
            "patch imageprocessingrequests --subresource=status": "no",
        }.items():
            command = ["auth", "can-i", *right.split(), *team]
            try:
                said = shop.cluster.kubectl(*command)
            except KubectlError as error:
                said = error.output
            assert said.strip() == answer, right
    finally:
        shop.cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def process(shop: Shop, directory: Path) -> subprocess.Popen[str]:
    """examples/pipelines/process.sh at work."""
    folder = EXAMPLES / "pipelines"
    command = [str(folder / "process.sh"), str(directory / "products.csv")]
    return subprocess.Popen(
        [*command, str(folder / "request.yaml"), "-n", shop.kube.namespace],
        stdout=subprocess.PIPE,
        text=True,
        env={**kubectl_environment(shop.cluster.kubeconfig), "TIMEOUT": "60s"},
    )


def test_the_pipeline_example(shop: Shop, tmp_path: Path) -> None:
    """It waits for the end, tells it by its exit code, and does not do the same CSV again."""
    for csv, answer, code in (
        ("one", kubelet.whole(3), 0),
        ("other", kubelet.refused("plan", "CatalogueInvalid", "no rows"), 1),
    ):
        (tmp_path / "products.csv").write_text(csv)
        name = f"products-{hashlib.sha256(csv.encode()).hexdigest()[:8]}"
        with process(shop, tmp_path) as run:
            eventually(lambda name=name: shop.find("ipr", name), f"the request {name}")
            shop.finish_step(name, "plan", answer, report.EXIT_FINAL if code else 0)
            said = run.communicate(timeout=60)[0]
            assert run.returncode == code, said
        with process(shop, tmp_path) as again:
            assert (
                f"imageprocessingrequest.imageprocessing.dev/{name} unchanged"
                in (again.communicate(timeout=60)[0])
            )
            assert again.returncode == code
        assert shop.steps(name) == ["plan-1"]
    assert "CatalogueInvalid: no rows" in said
