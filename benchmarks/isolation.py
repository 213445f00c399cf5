"""What all that surrounds the codec costs: the whole worker's CPU beside that of Pillow alone."""

from __future__ import annotations

import io
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from imageprocessing_worker import encode
from imageprocessing_worker.children import ENVIRONMENT
from imageprocessing_worker.limits import processors
from PIL import Image

from benchmarks.measured import environment
from benchmarks.photo_server import photo_server
from benchmarks.shard_run import run_shard
from benchmarks.table import Row

_DISTINCT = 60
_FEW = 100
"""Images of a smaller shard: what the larger one takes more is without the start."""


def measure(full: bool) -> Iterable[Row]:
    """Alternating runs of both, of one shard of the default size."""
    images, repetitions = 1000, 9 if full else 3
    alone, whole, few = [], [], []
    with photo_server(_DISTINCT) as server:
        for _ in range(repetitions):
            alone.append(_alone(server.folder, images) * 1000)
            few.append(run_shard(server, _FEW).cpu * 1000)
            whole.append(run_shard(server, images).cpu * 1000)
    codec, worker = statistics.median(alone), statistics.median(whole) / images
    going = (statistics.median(whole) - statistics.median(few)) / (images - _FEW)
    yield Row("decode and encode alone", f"{codec:.2f} ms CPU an image", "")
    yield Row("the whole worker", f"{worker:.2f} ms CPU an image", "")
    yield Row("worker / alone", f"{worker / codec:.2f}", "<= 1.5, aim 1.35")
    yield Row("the same without the worker's start", f"{going / codec:.2f}", "<= 1.5, aim 1.35")


def _alone(folder: Path, images: int) -> float:
    """CPU seconds an image of Pillow, in as many processes at once as the worker has children.

    Two threads of one core slow each other down: one process alone would look too good.
    """
    count = processors()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.isolation", str(folder), str(images // count)],
            env=environment(ENVIRONMENT),
            stdout=subprocess.PIPE,
        )
        for _ in range(count)
    ]
    return statistics.mean(float(process.communicate()[0]) for process in processes)


def _recode(data: bytes) -> bytes:
    """The calls that the codec makes for a JPEG that stays one, and nothing else."""
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    image.load()
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=encode.QUALITY["JPEG"], subsampling="4:2:0")
    return buffer.getvalue()


def _main(folder: Path, images: int) -> None:
    pictures = [file.read_bytes() for file in sorted(folder.iterdir())]
    begun = time.process_time()
    for number in range(images):
        _recode(pictures[number % len(pictures)])
    os.write(1, f"{(time.process_time() - begun) / images}".encode())


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
