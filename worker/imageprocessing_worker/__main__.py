"""The entry of a worker Pod: the task comes in the environment, the report goes out.

Exit codes: 0 the whole step is done, 1 try again, 42 it cannot succeed,
143 interrupted after a checkpoint.
"""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import NoReturn

import msgspec
from imageprocessing_contract import names, report, task

from imageprocessing_worker.step import Ended, Step

logger = logging.getLogger("imageprocessing_worker")


def main() -> int:
    """Runs the step; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        wanted = task.decode(os.environ[names.ENV_TASK])
    except (KeyError, msgspec.DecodeError) as error:
        logger.error("no task that this worker understands: %s", error)
        return report.EXIT_FINAL
    # As a container's first process, a Python without a handler does not hear SIGTERM. Plan
    # and finalize may end anywhere; a shard sets a handler of its own, and checkpoints.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupted)
    mount = os.environ.get(names.ENV_SOURCE_MOUNT, names.SOURCE_MOUNT)
    ended = Step(wanted, os.environ, mount).run()
    _say(ended)
    log = Path(os.environ.get(names.ENV_TERMINATION_LOG, "/dev/termination-log"))
    log.write_bytes(report.encode(ended.report))
    return ended.code


def _interrupted(_: int, __: object) -> None:
    logger.info("interrupted: the next Pod begins this step anew")
    _exit(report.EXIT_INTERRUPTED)


def _exit(code: int) -> NoReturn:
    """Ends at once: threads whose calls a store does not answer would hold up sys.exit()."""
    logging.shutdown()
    os._exit(code)


def _say(ended: Ended) -> None:
    error = ended.report.error
    if ended.code == report.EXIT_INTERRUPTED:
        logger.info("interrupted: what is done is in a checkpoint")
    elif error:
        logger.error("%s: %s", error.reason, error.message)
    elif done := ended.report.done:
        logger.info("done: %d of %d images", done.images.succeeded, done.images.total)


if __name__ == "__main__":
    _exit(main())
