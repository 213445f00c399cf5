"""A catalogue of real photographs, compressed on this machine without a cluster.

Serves photographs on loopback, runs examples/demo.yaml on them with `ipr run`, and
leaves the results in demo/. The photographs are those of scikit-image's data folder,
freely licensed (its README.txt says by whom).
"""

from __future__ import annotations

import csv
import http.server
import importlib.util
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

from imageprocessing_contract import names

HERE = Path(__file__).resolve().parent
OUTPUT = Path("demo")
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
PRODUCTS = ("Space suit", "Cat bed", "Coffee cup", "Motorcycle", "Rocket")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of one folder, quietly."""

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def photographs() -> Path:
    """scikit-image's data folder, found without importing the package."""
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        sys.exit("the demo's photographs come with scikit-image: run it by `make demo`")
    return Path(package.origin).parent / "data"


def write_catalogue(file: Path, base: str) -> None:
    """One product a photograph, and a last one whose second picture is missing."""
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow([names.COLUMN_SERIAL, names.COLUMN_PRODUCT, names.COLUMN_URLS])
        for number, (photo, product) in enumerate(zip(PHOTOS, PRODUCTS, strict=True), start=1):
            writer.writerow([number, product, f"{base}/{photo}"])
        writer.writerow([len(PHOTOS) + 1, "Bundle", f"{base}/{PHOTOS[0]},{base}/sold-out.jpg"])


def main() -> int:
    """Returns the exit code of `ipr run`; 3, finished with failures, is what is expected."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    handler = partial(Handler, directory=str(photographs()))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        catalogue = OUTPUT / "products.csv"
        write_catalogue(catalogue, f"http://127.0.0.1:{server.server_address[1]}")
        command = [
            *(sys.executable, "-m", "imageprocessing_cli.main", "run", str(HERE / "demo.yaml")),
            *("--csv", str(catalogue), "--output", str(OUTPUT / "results")),
            *("--allow-network", "127.0.0.0/8"),
        ]
        ended = subprocess.run(command, check=False)
        server.shutdown()
    partly = 3
    return 0 if ended.returncode == partly else ended.returncode or 1


if __name__ == "__main__":
    sys.exit(main())
