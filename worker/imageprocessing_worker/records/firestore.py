"""Records in Firestore; FIRESTORE_EMULATOR_HOST is honoured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
from google.api_core import exceptions as api
from google.api_core import retry
from google.auth import exceptions as auth
from google.cloud import firestore
from imageprocessing_contract import names
from imageprocessing_contract.request import Firestore

from imageprocessing_worker.records import ImageRecord, RequestRecord
from imageprocessing_worker.stores import StoreError

_BATCH = 500
"""Writes of one commit, Firestore's own limit."""
_BATCH_BYTES = 5 << 20
"""Of one commit, whose limit is 10 MiB with all that Firestore adds."""
_TIMEOUT = 60.0  # seconds, of one commit
# The library's own tries only two of these, and gives up after 60 s. All writes can be repeated.
_RETRY = retry.Retry(
    predicate=retry.if_exception_type(
        api.Aborted,
        api.DeadlineExceeded,
        api.InternalServerError,
        api.ResourceExhausted,
        api.ServiceUnavailable,
        api.Unknown,
    ),
    initial=0.1,  # seconds, and how it grows: the library's own
    multiplier=1.3,
    timeout=120.0,  # seconds, as for Cloud Storage
)


class FirestoreRecords:
    """See Records. A document is set whole, so a repeated write changes nothing."""

    def __init__(self, where: Firestore) -> None:
        with _errors():
            self._client = firestore.Client(project=where.project, database=where.database)
        self._images = self._client.collection(where.collection)
        self._requests = self._client.collection(names.COLLECTION_REQUESTS)

    def put_images(self, records: Sequence[ImageRecord]) -> None:
        """See Records."""
        for records_of_one in _batches(records):
            batch = self._client.batch()
            for record in records_of_one:
                fields: dict[str, Any] = msgspec.structs.asdict(record)
                if not record.variants:
                    del fields["variants"]
                batch.set(self._images.document(fields.pop("key")), fields)
            with _errors():
                batch.commit(retry=_RETRY, timeout=_TIMEOUT)

    def begin_request(self, record: RequestRecord) -> None:
        """See Records."""
        with _errors(), suppress(api.AlreadyExists):
            self._requests.document(record.request_id).create(
                msgspec.structs.asdict(record), retry=_RETRY, timeout=_TIMEOUT
            )

    def put_request(self, record: RequestRecord) -> None:
        """See Records."""
        with _errors():
            self._requests.document(record.request_id).set(
                msgspec.structs.asdict(record), retry=_RETRY, timeout=_TIMEOUT
            )


def _batches(records: Sequence[ImageRecord]) -> Iterator[list[ImageRecord]]:
    """What one commit takes each; URLs may have 2,048 characters, and each variant has one."""
    batch: list[ImageRecord] = []
    size = 0
    for record in records:
        texts = (*msgspec.structs.astuple(record)[:-1], *record.variants.values())
        length = sum(len(text.encode()) for text in texts)
        if batch and (len(batch) == _BATCH or size + length > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += length
    if batch:
        yield batch


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except api.InvalidArgument as error:
        message = f"Firestore cannot take what is to be recorded: {str(error)[:200]}"
        raise StoreError(message, transient=False) from error
    except (api.PermissionDenied, api.Unauthenticated, api.NotFound) as error:
        message = (
            "Firestore refused: check the project, the database and the role of the "
            f"worker's service account ({str(error)[:200]})"
        )
        raise StoreError(message, transient=False) from error
    except (api.GoogleAPICallError, api.RetryError, auth.GoogleAuthError) as error:
        raise StoreError(f"Firestore: {str(error)[:300]}", transient=True) from error
