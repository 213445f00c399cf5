"""ipr with a claim, whose files come and go through Pods."""

from __future__ import annotations

import csv
import io
import os
import socket
import subprocess
import sys
from pathlib import Path

import yaml
from imageprocessing_contract import names

from tests.cluster.claims import make_claim
from tests.cluster.jobs import WORKER
from tests.e2e.conftest import SMALL, Tenant, rows_of


def ipr(tenant: Tenant, command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a command that succeeds."""
    ended = subprocess.run(
        [sys.executable, "-m", "imageprocessing_cli.main", command, "-n", tenant.namespace,
         *map(str, arguments)],
        env={**os.environ, "KUBECONFIG": str(tenant.cluster.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, (ended.stdout, ended.stderr, tenant.story())
    return ended


def test_failures_are_shown_as_they_come(
    tenant: Tenant, photo_urls: list[str], server_host: str
) -> None:
    """While the shard waits for a server that never answers."""
    make_claim(tenant.cluster, tenant.namespace, "live")
    missing = photo_urls[0].replace(".jpeg", "-sold-out.jpeg")
    with socket.create_server((server_host, 0)) as silent:
        slow = f"http://{server_host}:{silent.getsockname()[1]}/1.jpeg"
        tenant.request(
            "live",
            source={"inline": rows_of([slow, missing], 2)},
            output={"persistentVolumeClaim": {"claimName": "live"}},
        )
        command = [sys.executable, "-m", "imageprocessing_cli.main", "watch", "live"]
        with subprocess.Popen(
            [*command, "-n", tenant.namespace],
            env={**os.environ, "KUBECONFIG": str(tenant.cluster.kubeconfig)},
            stdout=subprocess.PIPE,
            text=True,
        ) as watch:
            assert watch.stdout is not None
            shown = next(line for line in watch.stdout if missing in line)
            watch.kill()
    assert shown == f"  line 3: {missing}: HTTPError: 404 Not Found\n"


def test_a_large_catalogue_goes_through_a_claim(
    tenant: Tenant, photo_urls: list[str], tmp_path: Path
) -> None:
    """Under restricted Pod security, and with nothing left over."""
    make_claim(tenant.cluster, tenant.namespace, "images")
    rows = list(csv.reader(io.StringIO(rows_of(photo_urls[:11], 11))))
    text = io.StringIO()
    # Large by a column that the worker only copies.
    notes = ["Notes", *("x" * 100_000 for _ in rows[1:])]
    csv.writer(text).writerows([*row, note] for row, note in zip(rows, notes, strict=True))
    catalogue = tmp_path / "products.csv"
    catalogue.write_text(text.getvalue(), newline="")
    template = tmp_path / "template.yaml"
    spec = {"requestID": "spring", "worker": {"resources": SMALL}}
    template.write_text(yaml.safe_dump({"kind": names.KIND, "spec": spec}))

    output = ("--claim", "images", "--prefix", "shop", "--image", WORKER)
    made = ipr(tenant, "submit", catalogue, "--from", template, *output, "--wait")
    assert "products: Succeeded: 11 of 11 images done\n" in made.stdout
    assert made.stderr.startswith("shop/catalogues/")
    assert made.stderr.endswith(" in the claim images: the catalogue is there\n")

    # By the image of the request's own Job.
    fetched = ipr(tenant, "results", "products").stdout
    processed = list(csv.DictReader(io.StringIO(fetched)))
    assert [row["Output Image Urls"] for row in processed] == [
        f"shop/spring/{names.image_object(url, 'jpg')}" for url in photo_urls[:11]
    ]
    assert [row["Notes"] for row in processed] == notes[1:]
    file = tmp_path / "report.html"
    ipr(tenant, "results", "products", "--report", "-o", file)
    assert file.read_text().rstrip().endswith("</html>")

    shown = ipr(tenant, "logs", "products")
    pod = shown.stderr.removeprefix("Pod ").strip()
    assert shown.stdout == tenant.cluster.kubectl("logs", pod, "-n", tenant.namespace)
    left = [pod["metadata"]["name"] for pod in tenant.pods()]
    assert left == [pod]
