"""Records in a SQLite file, with Firestore's field names."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
from imageprocessing_contract import names

from imageprocessing_worker.records import ImageRecord, RequestRecord
from imageprocessing_worker.stores import StoreError

_WAIT = 60.0  # seconds for the other shards' writes
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS {names.TABLE_IMAGES} (
    id TEXT PRIMARY KEY, request_id TEXT NOT NULL, product_name TEXT NOT NULL,
    input_url TEXT NOT NULL, output_url TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS {names.TABLE_VARIANTS} (
    id TEXT NOT NULL, variant TEXT NOT NULL, output_url TEXT NOT NULL, PRIMARY KEY (id, variant));
CREATE TABLE IF NOT EXISTS {names.COLLECTION_REQUESTS} (
    request_id TEXT PRIMARY KEY, status TEXT NOT NULL, csv_url TEXT NOT NULL,
    images INTEGER NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL);
"""


class SQLiteRecords:
    """See Records. A connection a write: threads and processes share the file."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}", transient=False) from error
        with self._transaction() as connection:
            connection.executescript(_SCHEMA)

    def put_images(self, records: Sequence[ImageRecord]) -> None:
        """See Records."""
        images = f"INSERT OR REPLACE INTO {names.TABLE_IMAGES} VALUES (?, ?, ?, ?, ?)"  # noqa: S608
        variants = f"INSERT OR REPLACE INTO {names.TABLE_VARIANTS} VALUES (?, ?, ?)"  # noqa: S608
        with self._transaction() as connection:
            connection.executemany(images, [msgspec.structs.astuple(r)[:-1] for r in records])
            connection.executemany(
                variants, [(r.key, *variant) for r in records for variant in r.variants.items()]
            )

    def begin_request(self, record: RequestRecord) -> None:
        """See Records."""
        self._put_request("IGNORE", record)

    def put_request(self, record: RequestRecord) -> None:
        """See Records."""
        self._put_request("REPLACE", record)

    def _put_request(self, on_conflict: str, record: RequestRecord) -> None:
        table = names.COLLECTION_REQUESTS
        sql = f"INSERT OR {on_conflict} INTO {table} VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608
        with self._transaction() as connection:
            connection.execute(sql, msgspec.structs.astuple(record))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=_WAIT)) as connection, connection:
                yield connection
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}", transient=True) from error
