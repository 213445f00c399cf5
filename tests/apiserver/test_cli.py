"""ipr from a CSV to its results, as somebody without kubectl sees it."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import signal
from pathlib import Path

import pytest
import yaml
from imageprocessing_cli.advice import advice
from imageprocessing_contract import names
from imageprocessing_worker.stores.gcs import GCSStore

from tests.apiserver import kubelet
from tests.apiserver.ipr import Ipr
from tests.apiserver.kube import eventually
from tests.apiserver.shop import Shop, hook
from tests.cluster.emulators import Storage
from tests.e2e.receiver import receiving

REQUEST = "imageprocessingrequest.imageprocessing.dev"
HEADER = "Serial Number,Product Name,Input Image Urls"
CSV = f"{HEADER}\n1,Suit,https://a.example/1.jpg\n2,Boots,https://a.example/2.jpg\n"


def said_of(reason: str) -> str:
    """A line of advice, whose words are the page's."""
    found = advice()[reason]
    return f"{reason}: {found.what_to_do or found.meaning}"


@pytest.fixture(scope="module")
def ipr(shop: Shop) -> Ipr:
    return Ipr(shop)


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    file = tmp_path / "products.csv"
    file.write_text(CSV)
    return file


def test_submitted_and_watched_to_the_end(ipr: Ipr, shop: Shop, catalogue: Path) -> None:
    sharding = {"sharding": {"imagesPerShard": 10}, "jobTTLSecondsAfterFinished": 60}
    template = catalogue.with_name("template.yaml")
    template.write_text(yaml.safe_dump({"kind": names.KIND, "spec": sharding}))
    made = ipr.says(
        "submit", catalogue, "--from", template, "--bucket", "shop-images", "--parallelism", 2
    )
    assert made == f"{REQUEST}/products created\nFollow it: ipr watch products {ipr.here}\n"

    request = shop.kube.get("ipr", "products")
    assert request["spec"]["output"] == {"gcs": {"bucket": "shop-images"}, "formulas": "Keep"}
    assert request["spec"]["sharding"]["maxParallelism"] == 2
    assert request["spec"]["sharding"]["imagesPerShard"] == 10
    ref = request["spec"]["source"]["configMapKeyRef"]
    config_map = shop.kube.get("configmaps", ref["name"])
    assert config_map["data"][ref["key"]] == CSV
    (owner,) = config_map["metadata"]["ownerReferences"]
    assert owner["uid"] == request["metadata"]["uid"]

    shop.wait_said("products", "Ready", "Unknown", "Planning")
    with ipr.running("watch", "products") as watching:
        assert watching.stdout
        assert watching.stdout.readline() == "products: Planning\n"
        shop.finish_step("products", "plan", kubelet.planned(30, 3))
        shop.finish_shards("products", 2)
        (last,) = shop.kubelet.wait_pods(shop.job("products", "shards"), 1)
        shop.wait_status("products", shards={"total": 3, "active": 1, "succeeded": 2, "failed": 0})
        shop.kubelet.end(last)
        shop.finish_step("products", "finalize", kubelet.finalized(30, 3, failed=1))
        said, errors = watching.communicate(timeout=60)
    assert errors == ""
    assert watching.returncode == 3
    lines = [re.sub(r", \d+ images/min.*$", "", line) for line in said.splitlines()]
    progress = "products: Processing: 20 of 30 images, shards: 2 of 3 done, 1 running"
    assert progress in lines, said
    assert lines[-3:] == [
        "products: PartiallySucceeded: 29 of 30 images done, 1 failed",
        "  line 2: http://x/0: HTTPError: 404",
        f"What to do about it: ipr status products {ipr.here}",
    ]
    # Also afterwards, with the same exit code.
    assert ipr("watch", "products", code=3).stdout.splitlines() == lines[-3:]


def test_a_finished_request_in_detail_and_its_failures_again(ipr: Ipr, shop: Shop) -> None:
    shop.apply("spring", requestID="spring-2026", failurePolicy={"maxFailedImages": 0})
    assert ipr.refuses("retry", "spring") == (
        f'error: "spring" has not finished; wait for it: ipr watch spring {ipr.here}\n'
    )
    assert ipr.refuses("results", "spring") == (
        f'error: "spring" has no results yet; see how far it is: ipr status spring {ipr.here}\n'
    )
    shop.finish_step("spring", "plan", kubelet.whole(12, failed=11))
    shop.wait_finished("spring", "TooManyFailedImages")
    page = re.sub(r"(?m)^Started .*$", "Started    ...", ipr.says("status", "spring"))
    failures = "\n".join(f"  line {n + 2}: http://x/{n}: HTTPError: 404" for n in range(10))
    assert (
        page
        == f"""\
Name       spring
Namespace  {shop.kube.namespace}
Status     TooManyFailedImages: 1 of 12 images done, 11 failed; maxFailedImages is 0
Source     key products.csv of the ConfigMap products
Output     gs://catalogue/spring-2026
Started    ...
Catalogue  12 rows, 12 images
Images     1 of 12 done, 11 failed
Bytes      120 bytes before, 60 bytes after (50 % less)
Shards     1 of 1 done, 0 running, 0 failed
CSV        gs://b/r.csv
Report     gs://b/r
Failed     gs://b/f.csv

Failed images (the first 10 of 11)
{failures}

What to do
  {said_of("TooManyFailedImages")}
  {said_of("HTTPError")}
  the failures again: ipr retry spring {ipr.here}
"""
    )

    dry = yaml.safe_load(ipr.says("retry", "spring", "again", "--dry-run", "--request-id", "two"))
    assert shop.find("ipr", "again") is None
    old = shop.kube.get("ipr", "spring")["spec"]
    del old["suspend"]
    assert dry["spec"] == old | {"requestID": "two", "source": {"failuresOf": {"name": "spring"}}}
    assert ipr.says("retry", "spring") == (
        f"{REQUEST}/spring-retry created: 11 images again\n"
        f"Follow it: ipr watch spring-retry {ipr.here}\n"
    )
    assert "requestID" not in shop.kube.get("ipr", "spring-retry")["spec"]
    shop.finish_step("spring-retry", "plan", kubelet.whole(11))
    shop.wait_finished("spring-retry", "Succeeded")
    assert ipr.refuses("retry", "spring-retry") == (
        'error: no image failed in "spring-retry": there is nothing to do again\n'
    )
    assert ipr.says("watch", "spring-retry") == (
        "spring-retry: Succeeded: 11 of 11 images done\n"
        f"The results: ipr results spring-retry {ipr.here} --csv\n"
    )


def test_a_request_is_stopped_and_goes_on(ipr: Ipr, shop: Shop) -> None:
    shop.apply("slow")
    assert ipr.says("suspend", "slow") == f"{REQUEST}/slow suspended\n"
    shop.wait_said("slow", "Ready", "False", "Suspended")
    assert ipr.says("status", "slow").endswith(
        f"\n\nWhat to do\n  {said_of('Suspended')}\n  to go on: ipr resume slow {ipr.here}\n"
    )
    with ipr.running("watch", "slow") as watching:
        assert watching.stdout
        assert watching.stdout.readline() == "slow: Suspended: suspended by spec.suspend\n"
        watching.send_signal(signal.SIGINT)
        assert watching.communicate(timeout=60) == (
            "", f"The request runs on: ipr watch slow {ipr.here}\n"
        )  # fmt: skip
        assert watching.returncode == 130
    assert ipr.says("resume", "slow", "-o", "name") == f"{REQUEST}/slow\n"
    shop.wait_said("slow", "Ready", "Unknown", "Planning")
    with ipr.running("watch", "slow") as watching:
        assert watching.stdout
        assert watching.stdout.readline() == "slow: Planning\n"
        shop.kube.delete("ipr", "slow")
        assert watching.communicate(timeout=60) == (
            "", 'error: the request "slow" was deleted\n'
        )  # fmt: skip
        assert watching.returncode == 1


def test_a_webhook_that_was_given_up_is_delivered_again(ipr: Ipr, shop: Shop) -> None:
    shop.make_secret("hook")
    with receiving("127.0.0.2") as receiver:
        receiver.answers.append(410)
        shop.apply("told", webhook=hook(receiver.url))
        shop.finish_step("told", "plan", kubelet.whole(2))
        shop.wait_said("told", "Notified", "False", "GaveUp")
        page = ipr.says("status", "told").splitlines()
        assert page[-3:-1] == ["What to do", f"  {said_of('GaveUp')}"]
        said, _, command = page[-1].partition(": ")
        assert said == "  the webhook again"
        program, *arguments = shlex.split(command)
        assert program == "kubectl"
        shop.cluster.kubectl(*arguments)
        shop.wait_said("told", "Notified", "True", "Delivered")
        assert receiver.received.qsize() == 2


def test_what_is_refused_says_what_to_do_and_leaves_nothing(
    ipr: Ipr, shop: Shop, catalogue: Path
) -> None:
    assert ipr.refuses("status", "none") == (
        'Error from server (NotFound): imageprocessingrequests.imageprocessing.dev "none" not found\n'
    )
    assert ipr.refuses("submit", catalogue, code=2) == (
        "error: where do the results go? add --bucket NAME, --claim NAME or --from request.yaml\n"
    )
    assert ipr.refuses("submit", catalogue, "bad", "--bucket", "shop", "--quality", 500) == (
        'Error from server (Invalid): ImageProcessingRequest.imageprocessing.dev "bad" is invalid: '
        "spec.compression.quality: Invalid value: 500: spec.compression.quality in body should be "
        "less than or equal to 100\n"
    )
    shop.apply("there")
    assert ipr.refuses("submit", catalogue, "there", "--bucket", "shop") == (
        "Error from server (AlreadyExists): "
        'imageprocessingrequests.imageprocessing.dev "there" already exists\n'
    )
    made = [found["metadata"]["name"] for found in shop.kube.list("configmaps")]
    assert not [name for name in made if name.startswith(("bad-", "there-"))]
    catalogue.write_text(f"{HEADER}\n1,,https://a.example/1.jpg\n1,Boots,ftp://a.example/2\n")
    assert ipr.refuses("submit", catalogue, "--bucket", "shop", code=2) == (
        f"error: {catalogue} has errors; mend them, or leave these rows out with "
        "--invalid-rows Skip\n"
        f"  {catalogue}:2: EmptyProductName: line 2 has no product name\n"
        f"  {catalogue}:3: DuplicateSerialNumber: line 3 repeats the serial number '1' of line 2\n"
    )


def test_the_list_is_that_of_kubectl(ipr: Ipr, shop: Shop) -> None:
    shop.apply("listed")
    shop.wait_said("listed", "Ready", "Unknown", "Planning")

    def row(text: str) -> list[list[str]]:
        """The header, and the request without its age; others may change meanwhile."""
        lines = [line.split() for line in text.splitlines()]
        return [lines[0], *(line[:-1] for line in lines if line[0] == "listed")]

    here = ["-n", shop.kube.namespace]
    for flags in ([], ["-o", "wide"]):
        seen = shop.cluster.kubectl("get", "ipr", *here, *flags)
        assert row(ipr.says("status", *flags)) == row(seen)
    everywhere = ipr.says("status", "-A").splitlines()
    assert everywhere[0].split()[:3] == ["NAMESPACE", "NAME", "STATUS"]
    assert [shop.kube.namespace, "listed", "Planning"] in [line.split()[:3] for line in everywhere]
    assert f"{REQUEST}/listed\n" in ipr.says("status", "-o", "name")
    stored = json.loads(shop.cluster.kubectl("get", "ipr", "listed", *here, "-o", "json"))
    for seen in (
        json.loads(ipr.says("status", "listed", "-o", "json")),
        yaml.safe_load(ipr.says("status", "listed", "-o", "yaml")),
    ):
        assert seen["spec"] == stored["spec"]
        assert seen["metadata"].keys() == stored["metadata"].keys()


def test_a_dry_run_is_what_kubectl_applies(ipr: Ipr, shop: Shop, catalogue: Path) -> None:
    flags = ("--claim", "images", "--prefix", "shop", "--request-id", "dry", "--max-width", 800)
    hooked = ("--webhook-url", "https://shop.example/hook", "--webhook-secret", "hook/key")
    text = ipr.says("submit", catalogue, "dry", *flags, *hooked, "--dry-run", "-o", "yaml")
    assert shop.find("ipr", "dry") is None
    shop.cluster.apply(text)
    spec = shop.kube.get("ipr", "dry")["spec"]
    assert spec["output"]["persistentVolumeClaim"] == {"claimName": "images", "path": "shop"}
    assert spec["requestID"] == "dry"
    assert spec["compression"]["maxWidth"] == 800
    assert spec["webhook"]["secretKeyRef"] == {"name": "hook", "key": "key"}
    ref = spec["source"]["configMapKeyRef"]
    assert shop.kube.get("configmaps", ref["name"])["data"][ref["key"]] == CSV


def test_a_large_file_and_the_results_lie_in_the_bucket(
    shop: Shop, catalogue: Path, gcs: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a ConfigMap holds; the same file twice is one object."""
    ipr = Ipr(shop, gcs.environment)
    rows = (f"{n},Product {n},https://a.example/{n:080}.jpg" for n in range(12_000))
    catalogue.write_text("\n".join([HEADER, *rows, ""]))
    data = catalogue.read_bytes()
    assert len(data) > 1 << 20
    path = f"shop/catalogues/{hashlib.sha256(data).hexdigest()}.csv"
    there = f"gs://{gcs.bucket}/{path}: the catalogue is there\n"
    output = ("--bucket", gcs.bucket, "--prefix", "shop", "--request-id", "big")
    assert ipr.refuses("submit", catalogue, "big", *output, "--dry-run") == (
        f"error: the file is too large for a ConfigMap; put it to {path} in the output first, by "
        "an `ipr submit` without --dry-run or by yourself, and use its URL\n"
    )
    assert ipr("submit", catalogue, "big", *output).stderr == there
    source = {"gcs": {"bucket": gcs.bucket, "object": path}}
    assert shop.kube.get("ipr", "big")["spec"]["source"] == source
    for name, value in gcs.environment.items():
        monkeypatch.setenv(name, value)
    store = GCSStore(gcs.bucket, "", "")
    assert store.read(path) == data
    assert ipr("submit", catalogue, "again", *output).stderr == there
    shop.finish_step("big", "plan", kubelet.whole(2, failed=1))
    shop.wait_finished("big", "PartiallySucceeded")
    assert ipr.refuses("results", "big") == (
        f"error: gs://{gcs.bucket}, with your own Google credentials: "
        f"shop/big/{names.processed_csv('big')}: not found; check the bucket's name and that the "
        "object exists\n"
    )
    written = {
        names.processed_csv("big"): "a,b\n\u00e9,\u20ac\n",
        names.FAILED_CSV: "failed",
        names.REPORT_HTML: "<html>",
    }
    for name, text in written.items():
        store.create(f"shop/big/{name}", text.encode(), "text/plain")
    csv, failed, page = written.values()
    assert ipr.says("results", "big") == csv
    assert ipr.says("results", "big", "--failed") == failed
    file = catalogue.with_name("report.html")
    assert ipr("results", "big", "--report", "-o", file).stderr == f"{file}: 6 bytes\n"
    assert file.read_text() == page


def test_a_claim_is_read_by_a_pod_that_goes_again(ipr: Ipr, shop: Shop) -> None:
    shop.apply("claimed", output={"persistentVolumeClaim": {"claimName": "images"}})
    shop.finish_step("claimed", "plan", kubelet.whole(2))
    shop.wait_finished("claimed", "Succeeded")
    ours = "app.kubernetes.io/managed-by=ipr"
    with ipr.running("results", "claimed") as fetching:
        (pod,) = eventually(lambda: shop.kube.list("pods", labels=ours), "the Pod for the claim")
        template = shop.kube.get("jobs", shop.job("claimed", "plan"))["spec"]["template"]["spec"]
        assert pod["spec"]["containers"][0]["image"] == template["containers"][0]["image"]
        shop.kubelet.hold(pod, "ImagePullBackOff", "no such image")
        assert fetching.communicate(timeout=60) == (
            "",
            f"error: the Pod {pod['metadata']['name']} for the claim does not run: "
            "ImagePullBackOff: no such image\n",
        )
        assert fetching.returncode == 1
    assert shop.kube.list("pods", labels=ours) == []


def test_a_claim_where_no_job_names_an_image(ipr: Ipr, shop: Shop, catalogue: Path) -> None:
    row = f"1,{'x' * 600_000},https://a.example/1.jpg\n"
    catalogue.write_text(f"{HEADER}\n{row}{row.replace('1', '2', 1)}")
    with shop.cluster.namespace("fresh") as fresh:
        assert ipr.refuses("submit", catalogue, "-n", fresh, "--claim", "images") == (
            f"error: a claim is read and written by a Pod, and no Job in {fresh} says which image "
            "the workers have; name one that holds Python, such as the worker's: --image IMAGE\n"
        )
        here = ("-n", fresh, "-o", "name")
        assert shop.cluster.kubectl("get", "ipr,pods", *here) == ""
