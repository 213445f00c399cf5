"""One shard on this machine, as its Pod runs it: a folder as the store, and no records."""

from __future__ import annotations

import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from imageprocessing_contract import names, task
from imageprocessing_contract.request import Compression, Download
from imageprocessing_contract.task import Output
from imageprocessing_worker.plan import make_plan
from imageprocessing_worker.stores import open_store

from benchmarks.measured import Program, Run, environment, timed
from benchmarks.photo_server import Server
from tests.unit.tasks import COMPRESSION, make_task

COMMAND = (sys.executable, "-m", "imageprocessing_worker")


@contextmanager
def shard(
    urls: Iterable[str],
    settings: Compression = COMPRESSION,
    per_host: int = 16,
    output: Output | None = None,
) -> Iterator[tuple[Path, Mapping[str, str]]]:
    """A planned request of one shard: its folder, and the environment of its Pod.

    Another `output` is to be found with variables that are set already.
    """
    with tempfile.TemporaryDirectory() as root:
        wanted = make_task(
            Path(root),
            output=output or Output(path="bench", base_url="", root=root),
            compression=settings,
            download=Download(
                timeout_seconds=30,
                max_size="50Mi",
                max_pixels=50_000_000,
                retries=3,
                max_connections_per_host=per_host,
            ),
            images_per_shard=1_000_000,
        )
        rows = (f"{n},Product {n},{url}\n".encode() for n, url in enumerate(urls))
        header = f"{names.COLUMN_SERIAL},{names.COLUMN_PRODUCT},{names.COLUMN_URLS}\n"
        store = open_store(wanted.output)
        make_plan(wanted, store, (part for parts in ([header.encode()], rows) for part in parts))
        yield (
            Path(root) / "bench",
            environment(
                {
                    names.ENV_TASK: task.encode(msgspec.structs.replace(wanted, step="shards")),
                    names.ENV_POD_UID: str(uuid.uuid4()),
                    names.ENV_SHARD_INDEX: "0",
                    names.ENV_TERMINATION_LOG: f"{root}/termination-log",
                }
            ),
        )


def run_shard(
    server: Server,
    count: int,
    settings: Compression = COMPRESSION,
    *,
    delay: int = 0,
    per_host: int = 16,
    environ: Mapping[str, str] | None = None,
) -> Run:
    """Runs a shard of `count` images, answered after `delay` milliseconds."""
    urls = (server.url(number, delay) for number in range(count))
    with shard(urls, settings, per_host) as (folder, pod):
        everything = {**pod, **(environ or {})}
        program = Program(COMMAND, everything, folder, "compressed_images/**/*.*")
        return timed(program, server, count)
