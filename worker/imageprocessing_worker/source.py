"""The catalogue's bytes, wherever they come from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from imageprocessing_contract import names
from imageprocessing_contract.guard import Guard
from imageprocessing_contract.reasons import Reason
from imageprocessing_contract.task import Task

from imageprocessing_worker.errors import SourceError
from imageprocessing_worker.http_source import stream
from imageprocessing_worker.stores import Store, StoreError, beside, open_store

_CHUNK = 1 << 18
_HTTP_TIMEOUT = 60.0
"""Seconds an http source may be silent."""


def open_source(task: Task, environ: Mapping[str, str], mount: str) -> Iterator[bytes]:
    """Chunks of the catalogue; `mount` is where a ConfigMap or claim is. Raises SourceError."""
    source = task.source
    if source.inline is not None:
        return iter([os.fsencode(environ[names.ENV_INLINE_SOURCE])])
    if source.config_map_key_ref is not None:
        return _file(Path(mount), source.config_map_key_ref.key)
    if source.persistent_volume_claim is not None:
        return _file(Path(mount), source.persistent_volume_claim.path)
    if source.http is not None:
        guard = Guard(task.allowed_networks)
        return stream(source.http.url, guard, timeout=_HTTP_TIMEOUT)
    if task.failures_of is not None:
        earlier = beside(task.output, task.request_id, task.failures_of)
        return _stored(lambda: open_store(earlier), names.FAILED_CSV)
    if source.gcs is not None:
        bucket, name = source.gcs.bucket, source.gcs.object
        return _stored(lambda: _bucket(bucket), name)
    message = "the task names no source"
    raise SourceError(Reason.SOURCE_NOT_READABLE, message, transient=False)


def _file(root: Path, relative: str) -> Iterator[bytes]:
    path = root / relative
    try:
        # A link in a claim must not lead out of it: other mounts hold other people's data.
        if not path.resolve().is_relative_to(root.resolve()):
            message = f"{relative} leads out of the source"
            raise SourceError(Reason.SOURCE_NOT_READABLE, message, transient=False)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        message = f"cannot read {relative} in the source: {os.strerror(error.errno or 0)}"
        raise SourceError(Reason.SOURCE_NOT_READABLE, message, transient=False) from error


def _bucket(name: str) -> Store:
    from imageprocessing_worker.stores.gcs import GCSStore  # noqa: PLC0415

    return GCSStore(name, "", "")


def _stored(open_it: Callable[[], Store], path: str) -> Iterator[bytes]:
    try:
        yield from open_it().chunks(path)
    except StoreError as error:
        reason = Reason.SOURCE_NOT_READABLE
        raise SourceError(reason, error.message, transient=error.transient) from error
