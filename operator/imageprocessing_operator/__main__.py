"""The operator's process: python -m imageprocessing_operator."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from typing import NoReturn

import msgspec
from imageprocessing_contract.guard import Guard

from imageprocessing_operator.api import API, APIError
from imageprocessing_operator.controller import Controller
from imageprocessing_operator.credentials import connect
from imageprocessing_operator.freshness import Freshness
from imageprocessing_operator.http_server import serve
from imageprocessing_operator.logs import log_json
from imageprocessing_operator.metrics import Metrics
from imageprocessing_operator.settings import Settings, read_settings
from imageprocessing_operator.watch import watch
from imageprocessing_operator.webhook import Courier

logger = logging.getLogger("imageprocessing_operator")
_CHECK = 5.0  # seconds between looks at the watches' freshness


class DeafError(Exception):
    """A watch is dead: a new process is the remedy."""


async def run(settings: Settings) -> None:
    """Runs until a signal; any error ends the process, and its Deployment starts it again."""
    metrics = Metrics()
    connection = await connect()
    api = API(connection, metrics)
    courier = Courier(api, Guard(settings.webhook_allowed_networks))
    controller = Controller(api, courier, settings, metrics)
    freshness = Freshness(metrics, controller.see_gap)
    controller.show(freshness)
    watches = 2 * max(1, len(settings.namespaces))
    async with (
        contextlib.aclosing(api),
        serve(
            settings.http_port,
            metrics,
            live=lambda: freshness.stale(watches) or controller.stuck(),
            ready=lambda: freshness.missing(watches) or controller.not_ready(),
        ),
    ):
        others = [
            asyncio.create_task(controller.run()),
            asyncio.create_task(_stay_fresh(api, freshness, watches)),
        ]
        # All tasks that begin after Kopf are its own to Kopf: at the end it waits 5 s for them.
        await asyncio.sleep(0)
        watching = asyncio.create_task(watch(controller, connection, freshness, settings))
        ended, _ = await asyncio.wait([watching, *others], return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            if error := task.exception():
                _give_up(error)
        for task in [watching, *others]:
            task.cancel()
        await asyncio.gather(watching, *others, return_exceptions=True)


def _give_up(error: BaseException) -> NoReturn:
    """Ends the process without ado: Kopf's tasks may refuse to end (tried), and all is saved."""
    logger.critical("ended: %s", error, exc_info=None if isinstance(error, DeafError) else error)
    logging.shutdown()
    os._exit(1)


async def _stay_fresh(api: API, freshness: Freshness, watches: int) -> None:
    resumed: dict[str, int] = {}
    while True:
        await asyncio.sleep(_CHECK)
        if stale := freshness.stale(watches):
            raise DeafError(stale)
        resumed |= freshness.resumed()
        for path, since in list(resumed.items()):
            try:
                version = await api.version(path)
            except APIError as error:
                logger.warning("cannot ask for the version of %s: %s", path, error)
                continue
            if version < since:
                told = f"{path} is at version {version}, its watch waits for {since}"
                raise DeafError(f"{told}: etcd was restored")
            del resumed[path]


def main() -> int:
    """Returns the exit code: 0 after a signal, 1 after an error, 2 for bad settings."""
    log_json()
    logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        settings = read_settings(os.environ)
    except (msgspec.DecodeError, ValueError) as error:
        logger.error("the settings in the environment are wrong: %s", error)
        return 2
    asyncio.run(run(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
