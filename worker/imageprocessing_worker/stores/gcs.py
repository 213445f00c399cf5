"""Cloud Storage as the store.

Every write carries a precondition or replaces a file by one of the same content,
so that the retries of the client library are safe. It tries for two minutes what the
service says may be tried again; what was damaged on its way is up to us.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import requests.exceptions
from google.api_core import exceptions as api
from google.api_core import retry
from google.auth import exceptions as auth
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.fileio import BlobWriter
from google.cloud.storage.retry import DEFAULT_RETRY as RETRY

from imageprocessing_worker.stores import CheckedFile, StoreError, public_url, taken

_CHUNK = 1 << 20  # a multiple of 256 KiB, as resumable uploads want it
_POOL = 128
"""Connections kept; the library's default of 10 makes 64 uploads wait for each other."""
_TIMEOUT = 60.0  # seconds, of one call
_MISMATCH = "match"
"""In the words of a 400 for a wrong checksum: Provided CRC32C "…" doesn't match calculated."""
PUBLIC_HOST = "https://storage.googleapis.com"


def client() -> storage.Client:
    """A client with the Pod's own credentials; STORAGE_EMULATOR_HOST is honoured."""
    made = storage.Client()
    adapter = requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=_POOL)
    made._http.mount("https://", adapter)
    made._http.mount("http://", adapter)
    return made


class GCSStore:
    """See Store."""

    def __init__(self, bucket: str, folder: str, base_url: str) -> None:
        with errors(f"bucket {bucket}"):
            self._bucket = client().bucket(bucket)
        self._folder, self._base_url = folder, base_url

    def create(self, path: str, data: bytes, content_type: str) -> bool:
        """See Store; one simple upload with if-generation-match 0."""

        @_UNDAMAGED
        def upload() -> None:
            self._blob(path).upload_from_string(
                data,
                content_type=content_type,
                if_generation_match=0,
                retry=RETRY,
                timeout=_TIMEOUT,
                checksum="crc32c",
            )

        try:
            with errors(path):
                upload()
        except _ExistsError:
            return False
        return True

    def add(self, path: str, data: bytes, content_type: str) -> None:
        """See Store."""
        self.create(path, data, content_type)

    def settle(self) -> None:
        """Cloud Storage answers an upload when the object lasts."""

    @contextmanager
    def writer(
        self, path: str, content_type: str, *, replace: bool = True
    ) -> Iterator[CheckedFile]:
        """See Store; a resumable upload becomes an object when it is closed."""
        condition = {} if replace else {"if_generation_match": 0}
        upload = self._blob(path).open(
            "wb",
            chunk_size=_CHUNK,
            content_type=content_type,
            ignore_flush=True,
            retry=RETRY,
            timeout=_TIMEOUT,
            **condition,
        )
        try:
            file = CheckedFile(upload.write, lambda: errors(path))
            yield file
            file.flush()
            with errors(path):
                upload.close()
        except _ExistsError as error:
            raise taken(path) from error
        except _MissingError as error:
            if upload._upload_and_transport is None:
                raise
            # The bucket was there when the upload began: it is the upload that is gone.
            raise StoreError(f"{path}: the upload was lost", transient=True) from error
        finally:
            if not upload.closed:
                _give_up(upload)

    def read(self, path: str) -> bytes | None:
        """See Store."""

        @_UNDAMAGED
        def download() -> bytes:
            return bytes(self._blob(path).download_as_bytes(retry=RETRY, timeout=_TIMEOUT))

        try:
            with errors(path):
                return download()
        except _MissingError:
            return None

    def version(self, path: str) -> str | None:
        """The object's generation."""
        with errors(path):
            blob = self._bucket.get_blob(self._name(path), retry=RETRY, timeout=_TIMEOUT)
        return None if blob is None else str(blob.generation)

    def chunks(
        self, path: str, *, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Iterator[bytes]:
        """See Store."""
        generation = None if version is None else int(version)
        with errors(path):
            blob = self._bucket.blob(self._name(path), generation=generation)
            blob.reload(retry=RETRY, timeout=_TIMEOUT)
            stop = blob.size if end is None else min(end, blob.size)
            with blob.open("rb", chunk_size=_CHUNK, retry=RETRY, timeout=_TIMEOUT) as file:
                file.seek(start)
                while start < stop and (chunk := file.read(min(_CHUNK, stop - start))):
                    yield chunk
                    start += len(chunk)

    def list(self, prefix: str) -> list[str]:
        """See Store."""
        cut = len(self._name(""))
        with errors(prefix):
            blobs = self._bucket.list_blobs(
                prefix=self._name(prefix),
                delimiter="/",
                fields="items(name),nextPageToken",
                retry=RETRY,
                timeout=_TIMEOUT,
            )
            return sorted(blob.name[cut:] for blob in blobs)

    def url(self, path: str) -> str:
        """See Store."""
        return public_url(self._base_url, self._folder, path)

    def tidy(self) -> None:
        """An unfinished upload is never an object: Cloud Storage drops it after a week."""

    def _name(self, path: str) -> str:
        return f"{self._folder}/{path}" if self._folder else path

    def _blob(self, path: str) -> storage.Blob:
        blob: storage.Blob = self._bucket.blob(self._name(path))
        return blob


def _give_up(upload: BlobWriter) -> None:
    """Ends an upload, which would else be completed as it is when it is collected."""
    with suppress(Exception):
        upload.terminate()
    upload._buffer.close()


def _is_damaged(error: Exception) -> bool:
    """Whether the bytes that arrived have another checksum than those that were sent."""
    if isinstance(error, api.BadRequest):
        return _MISMATCH in error.message
    return isinstance(error, DataCorruption)


_UNDAMAGED = retry.Retry(predicate=_is_damaged, initial=0.1)


class _ExistsError(StoreError):
    pass


class _MissingError(StoreError):
    pass


@contextmanager
def errors(what: str) -> Iterator[None]:
    """Turns what the client library raises into StoreError."""
    try:
        with _answers():
            yield
    except api.PreconditionFailed as error:
        raise _ExistsError(f"{what} exists", transient=False) from error
    except api.NotFound as error:
        message = f"{what}: not found; check the bucket's name and that the object exists"
        raise _MissingError(message, transient=False) from error
    except (api.Forbidden, api.Unauthorized, auth.InvalidOperation) as error:
        message = (
            f"{what}: access denied; check the worker's service account and its role "
            f"on the bucket ({str(error)[:200]})"
        )
        raise StoreError(message, transient=False) from error
    except (
        api.GoogleAPICallError,
        api.RetryError,
        DataCorruption,
        # Also where there are no credentials: a new Pod may be faster than the server of those.
        auth.GoogleAuthError,
        requests.exceptions.RequestException,  # before ValueError: an answer that is not JSON
        ConnectionError,
    ) as error:
        transient = not isinstance(error, api.BadRequest) or _is_damaged(error)
        raise StoreError(f"{what}: {str(error)[:300]}", transient=transient) from error
    except ValueError as error:
        raise StoreError(f"{what}: {str(error)[:300]}", transient=False) from error


@contextmanager
def _answers() -> Iterator[None]:
    """Resumable uploads raise another error for a bad answer than all other calls."""
    try:
        yield
    except InvalidResponse as error:
        raise api.from_http_response(error.response) from error
