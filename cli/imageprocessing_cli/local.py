"""Runs a request on this machine: the worker's own steps, as local processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import msgspec
from imageprocessing_contract import names, report, task
from imageprocessing_contract.report import Report
from imageprocessing_contract.request import spec_hash
from imageprocessing_contract.task import Output, Step, Task

from imageprocessing_cli.manifest_file import TEXT_FILE, LocalRequest

_SHARDS_AT_ONCE = 2
"""Each shard uses all cores; a second one fills the gaps at its start and end."""

Begun = Callable[[Step], None]
"""Called with each step that begins."""
Again = Callable[[str, int, int], None]
"""Called with why a step failed, which attempt comes next, and how many there are."""


class StepFailedError(Exception):
    """A step ended without its result; the message says why, and the last report is kept."""

    def __init__(self, message: str, last: Report | None) -> None:
        super().__init__(message)
        self.last = last


class Interrupted(Exception):  # noqa: N818 - not an error
    """Ctrl-C: what is done is in checkpoints."""


class LocalRun:
    """One request in one folder; running it again goes on where it was."""

    def __init__(
        self, request: LocalRequest, folder: Path, allowed_networks: Sequence[str], again: Again
    ) -> None:
        spec = request.spec
        self._again = again
        self._request, self._mount = request, request.mount
        self._task = Task(
            step="plan",
            namespace="",
            name=request.name,
            request_id=spec.request_id or request.name,
            spec_hash=spec_hash(msgspec.structs.replace(spec, source=request.identity)),
            source=request.source,
            output=Output(
                path="",
                base_url=spec.output.public_base_url or "",
                root=os.fspath(folder),
                sqlite=os.fspath(folder / names.RECORDS_FILE),
            ),
            compression=spec.compression,
            download=spec.download,
            images_per_shard=spec.sharding.images_per_shard,
            invalid_rows=spec.failure_policy.invalid_rows,
            formulas=spec.output.formulas,
            allowed_networks=list(allowed_networks),
        )

    def run(self, begun: Begun) -> Report:
        """The report with the outcome; raises StepFailedError, Interrupted."""
        if self._request.text is None:
            return self._run(self._request.mount, begun)
        # Not by the environment: a ConfigMap may hold 1 MiB, one variable 128 KiB.
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / TEXT_FILE).write_bytes(self._request.text)
            return self._run(folder, begun)

    def _run(self, mount: str, begun: Begun) -> Report:
        self._mount = mount
        begun("plan")
        try:
            planned = self._step("plan")
        except StepFailedError as error:
            # As in a cluster: the plan was made, and its one shard failed.
            if error.last is None or not error.last.shards:
                raise
        else:
            if planned.done:
                return planned
            begun("shards")
            self._shards(planned.shards or 1)
        begun("finalize")
        return self._step("finalize")

    def _shards(self, count: int) -> None:
        with ThreadPoolExecutor(min(_SHARDS_AT_ONCE, count)) as pool:
            running = [pool.submit(self._step, "shards", index) for index in range(count)]
            try:
                for future in as_completed(running):
                    # A shard that failed is finalize's to report, as in a cluster.
                    error = future.exception()
                    if error is not None and not isinstance(error, StepFailedError):
                        raise error
            finally:
                pool.shutdown(cancel_futures=True)

    def _step(self, step: Step, index: int = 0) -> Report:
        tries = self._request.spec.sharding.retries_per_shard + 1
        message, found = "", None
        for attempt in range(1, tries + 1):
            if message:
                self._again(message, attempt, tries)
            code, found, log = self._process(step, index)
            if code == report.EXIT_INTERRUPTED:
                raise Interrupted
            if code == report.EXIT_DONE and found:
                return found
            error = found.error if found else None
            message = f"{error.reason}: {error.message}" if error else log[-2000:]
            if code == report.EXIT_FINAL:
                break
        raise StepFailedError(message, found)

    def _process(self, step: Step, index: int) -> tuple[int, Report | None, str]:
        wanted = msgspec.structs.replace(self._task, step=step)
        with tempfile.NamedTemporaryFile() as said:
            environ = {
                **os.environ,
                names.ENV_TASK: task.encode(wanted),
                names.ENV_POD_UID: f"local-{os.getpid()}-{os.urandom(4).hex()}",
                names.ENV_SHARD_INDEX: str(index),
                names.ENV_TERMINATION_LOG: said.name,
                names.ENV_SOURCE_MOUNT: self._mount,
            }
            command = [sys.executable, "-m", "imageprocessing_worker"]
            with subprocess.Popen(
                command, env=environ, stderr=subprocess.PIPE, text=True
            ) as worker:
                log = _to_its_end(worker)
            text = Path(said.name).read_text()
        try:
            return worker.returncode, report.decode(text), log
        except msgspec.DecodeError:
            return worker.returncode, None, log


def _to_its_end(worker: subprocess.Popen[str]) -> str:
    """What it logs; Ctrl-C reaches the worker as well, which then writes a checkpoint."""
    try:
        return worker.communicate()[1]
    except KeyboardInterrupt:
        return worker.communicate()[1]
