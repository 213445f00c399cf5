"""What `ipr submit` sends, and in which order: a real server that answers as it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from imageprocessing_cli.main import main

from tests.unit.http_servers import QuietHandler, serving
from tests.unit.kubeconfigs import write_kubeconfig

REQUESTS = "/apis/imageprocessing.dev/v1alpha1/namespaces/shop/imageprocessingrequests"
MAPS = "/api/v1/namespaces/shop/configmaps"
DRY, MAKE_MAP, MAKE = f"POST {REQUESTS}?dryRun=All", f"POST {MAPS}", f"POST {REQUESTS}"
MAP = "products-545c93664c-x7k2p"


class Server:
    """Keeps the calls with what came, and refuses those in `refused`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.calls: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.refused: set[str] = set()


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(QuietHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length) or b"{}")
            call = f"{self.command} {self.path}"
            served.calls.append(call)
            served.bodies.append(body)
            meta = {"name": MAP, "uid": "5", **body.get("metadata", {})}
            found = {**body, "metadata": meta}
            if call in served.refused:
                found = {"reason": "Forbidden", "message": "not now"}
            data = json.dumps(found).encode()
            self.send_response(403 if call in served.refused else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - as http.server names them

    with serving(Handler) as address:
        served = Server(address)
        yield served


def submit(server: Server, folder: Path) -> Result:
    """Submits one image to a bucket."""
    file = write_kubeconfig(folder, server.address)
    catalogue = folder / "products.csv"
    catalogue.write_text("Serial Number,Product Name,Input Image Urls\n1,Suit,http://10.0.0.7/1\n")
    arguments = ["submit", str(catalogue), "--bucket", "shop", "--kubeconfig", str(file)]
    return CliRunner().invoke(main, arguments)


def test_the_request_comes_when_all_it_needs_is_there(server: Server, tmp_path: Path) -> None:
    shown = submit(server, tmp_path)
    assert shown.exit_code == 0, shown.output
    assert server.calls == [DRY, MAKE_MAP, MAKE, f"PATCH {MAPS}/{MAP}"]
    _, made, request, patch = server.bodies
    assert made["metadata"].keys() == {"generateName"}
    assert made["immutable"] is True
    assert request["spec"]["source"] == {"configMapKeyRef": {"name": MAP, "key": "products.csv"}}
    owner = {
        "apiVersion": "imageprocessing.dev/v1alpha1",
        "kind": "ImageProcessingRequest",
        "name": "products",
        "uid": "5",
    }
    assert patch == {"metadata": {"ownerReferences": [owner]}}


@pytest.mark.parametrize(
    ("refused", "calls"),
    [(DRY, [DRY]), (MAKE_MAP, [DRY, MAKE_MAP]), (MAKE, [DRY, MAKE_MAP, MAKE, f"DELETE {MAPS}/{MAP}"])],
    ids=["at once", "the ConfigMap", "after all"],
)  # fmt: skip
def test_what_is_refused_leaves_nothing(
    server: Server, tmp_path: Path, refused: str, calls: list[str]
) -> None:
    server.refused = {refused}
    shown = submit(server, tmp_path)
    assert (shown.exit_code, shown.output) == (1, "Error from server (Forbidden): not now\n")
    assert server.calls == calls


def test_a_config_map_that_stays_is_no_failure(server: Server, tmp_path: Path) -> None:
    server.refused = {f"PATCH {MAPS}/{MAP}"}
    shown = submit(server, tmp_path)
    assert shown.exit_code == 0
    assert shown.stderr == f"warning: the ConfigMap {MAP} will outlive the request: not now\n"
    assert shown.stdout.startswith("imageprocessingrequest.imageprocessing.dev/products created\n")


def test_only_rows_may_be_left_out(server: Server, tmp_path: Path) -> None:
    """A file that breaks off in the middle is no catalogue, whatever is to be skipped."""
    catalogue = tmp_path / "products.csv"
    rows = "Serial Number,Product Name,Input Image Urls\n1,Suit,http://a.example/1\n2,,\n"
    catalogue.write_text(rows + '3,"Boots')
    file = write_kubeconfig(tmp_path, server.address)
    options = ["--bucket", "shop", "--invalid-rows", "Skip", "--kubeconfig", str(file)]
    shown = CliRunner().invoke(main, ["submit", str(catalogue), *options])
    assert (shown.exit_code, server.calls) == (2, [])
    first, *lines = shown.stderr.splitlines()
    assert first == f"error: {catalogue} cannot be used"
    assert lines[-1].startswith(f"  {catalogue}:4: MalformedRecord: ")
    catalogue.write_text(rows)
    assert CliRunner().invoke(main, ["submit", str(catalogue), *options]).exit_code == 0
