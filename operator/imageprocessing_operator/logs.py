"""Log lines as JSON, each with the request that it is about."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from types import TracebackType

from pythonjsonlogger.json import JsonFormatter

request_in_log: ContextVar[dict[str, str] | None] = ContextVar("request_in_log", default=None)
"""Namespace, name and UID of the request that is worked on; tasks begun meanwhile keep it."""


def log_json() -> None:
    """Sends log records to stderr, one JSON object a line."""
    formatter = JsonFormatter(
        "{levelname}{name}{message}",
        style="{",
        timestamp="time",
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "traceback"},
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    handler.addFilter(_with_request)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    sys.excepthook = _log_uncaught


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """What ends the process is a line of the log, too."""
    logging.getLogger(__name__).critical("ended by %s", error, exc_info=(kind, error, trace))


def _with_request(record: logging.LogRecord) -> bool:
    if about := request_in_log.get():
        record.request = about
    return True
