"""The operator's settings, from its environment; the chart sets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from imageprocessing_contract.guard import Guard

_PREFIX = "IMAGEPROCESSING_"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One field for each variable IMAGEPROCESSING_<FIELD>; lists and maps are JSON."""

    worker_image: str = "imageprocessing-worker:dev"
    worker_image_pull_policy: str = "IfNotPresent"
    worker_image_pull_secrets: list[str] = []
    worker_service_account: str = "imageprocessing-worker"
    # Copied into Pods unread, so they stay plain JSON.
    worker_env: list[dict[str, Any]] = []
    worker_resources: dict[str, Any] = {}
    worker_max_parallelism: int = 0
    """Pods of one request at a time, whatever it asks for; 0 is no limit."""
    worker_allowed_networks: list[str] = []
    webhook_allowed_networks: list[str] = []
    namespaces: list[str] = []
    """Where requests are seen; empty is everywhere."""
    http_port: int = 8080
    """Of /metrics, /livez and /readyz."""


def _read(field: msgspec.structs.FieldInfo, text: str) -> Any:
    try:
        return text if field.type is str else msgspec.json.decode(text, type=field.type)
    except msgspec.DecodeError as error:
        message = f"{_PREFIX}{field.name.upper()}={text!r}: {error}"
        raise ValueError(message) from error


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Raises ValueError for a variable that cannot be read, with its name."""
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        text = environ.get(_PREFIX + field.name.upper())
        if text is not None:
            fields[field.name] = _read(field, text)
    settings = Settings(**fields)
    for name in ("worker_allowed_networks", "webhook_allowed_networks"):
        try:
            Guard(getattr(settings, name))
        except ValueError as error:
            message = f"{_PREFIX}{name.upper()}: {error}"
            raise ValueError(message) from error
    return settings
