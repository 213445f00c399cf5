"""README's first five minutes, without a cluster: what is typed, and what comes."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

from imageprocessing_contract import names

from tests import photos
from tests.pages import ROOT, blocks
from tests.unit.http_servers import QuietHandler, serving

PHOTOS = re.compile(r"https://raw\.githubusercontent\.com/[^,\"]*/data")
LOOPBACK = " --allow-network 127.0.0.0/8"


def like(text: str) -> str:
    """Without what differs from run to run: ports, and sizes, which hang on the codecs."""
    text = re.sub(r"127\.0\.0\.1:\d+", "HOST", text)
    return re.sub(r"[\d.]+ (?:kB|MB|%)", "N", text)


def test_the_demo(tmp_path: Path) -> None:
    """What `make demo` runs once there is .venv, and what README says it writes."""
    # `make test` itself tells the makes below it to say where they are.
    make = ["make", "-n", "--no-print-directory", "-o", ".venv/.ready", "demo"]
    recipe = subprocess.run(make, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert recipe == ".venv/bin/python examples/demo.py\n"
    ended = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    (shown,) = blocks("README.md", "Try it")
    assert like(ended.stdout) == like(shown)


def test_an_own_catalogue(tmp_path: Path) -> None:
    """README's CSV by README's commands, the photographs from here."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 - as http.server names it
            data = photos.photographs()[self.path.removeprefix("/")]
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    (shown,) = blocks("README.md", "imageprocessing-operator", "csv")
    *_, commands = blocks("README.md", "Try it", "sh")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    with serving(Handler) as here:
        catalogue, replaced = PHOTOS.subn(here, shown)
        assert replaced == 3
        (tmp_path / "products.csv").write_text(catalogue)
        ended = subprocess.run(
            ["bash", "-euc", re.sub(r"(?m)^ipr .*", rf"\g<0>{LOOPBACK}", commands)],
            cwd=tmp_path,
            check=False,
            capture_output=True,
            text=True,
        )
    assert ended.returncode == 0, ended.stderr
    checked, outcome, *_ = ended.stdout.splitlines()
    assert checked == "products.csv: 2 rows, 3 images, all valid"
    assert outcome == "Succeeded: 3 of 3 images done"
    with (tmp_path / "results" / names.processed_csv("demo")).open(newline="") as file:
        rows = list(csv.DictReader(file))
    stored = [url for row in rows for url in row[names.COLUMN_OUTPUT_URLS].split(",")]
    assert [(tmp_path / "results" / url).is_file() for url in stored] == [True] * 3


def test_other_pages_have_the_same_commands() -> None:
    """Those that are tried: here, and in tests/e2e/test_readme.py."""
    quickstart = "docs/quickstart.md"
    (catalogue,) = blocks("README.md", "imageprocessing-operator", "csv")
    demo, own = blocks("README.md", "Try it", "sh")
    install, first, submit = blocks("README.md", "Install it", "sh")
    assert blocks(quickstart, "Without a cluster", "sh") == [demo]
    assert blocks(quickstart, "Your own catalogue", "csv") == [catalogue]
    assert blocks(quickstart, "Your own catalogue", "sh") == [own]
    (kind,) = blocks(quickstart, "With kind", "sh")
    assert kind.endswith(install)
    assert blocks(quickstart, "A first request", "sh")[0] == first
    assert blocks(quickstart, "A first request") == blocks("README.md", "Install it")
    assert blocks(quickstart, "Your own catalogue in the cluster", "sh")[0] == submit
    whole = "With Cloud Storage, Firestore and a webhook"
    assert blocks("docs/install.md", "A first request", "sh") == blocks("README.md", whole, "sh")
