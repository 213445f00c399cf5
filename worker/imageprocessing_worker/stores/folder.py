"""A folder of a file system as the store: a PersistentVolumeClaim, or `ipr run`."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imageprocessing_worker.stores import CheckedFile, StoreError, public_url, taken

_CHUNK = 1 << 18
_INCOMING = ".incoming"
"""Files being written; the others are whole at any time."""


class FolderStore:
    """See Store. A file is written aside and then linked or renamed into its place."""

    def __init__(self, root: str, folder: str, base_url: str) -> None:
        self._top = Path(root) / folder
        self._folder, self._base_url = folder, base_url
        self._made: set[Path] = set()

    def create(self, path: str, data: bytes, content_type: str) -> bool:
        """See Store."""
        with _writing(path):
            target = self._top / path
            if _is_there(target):
                return False
            with self._aside(path) as aside, aside.open("wb") as file:
                file.write(data)
                file.flush()
                # Not for images, which are many: what a crash of the node leaves of one is
                # an empty file, and that is written again.
                if not content_type.startswith("image/"):
                    os.fsync(file.fileno())
                self._make(target.parent)
                return _link(aside, target)

    @contextmanager
    def writer(
        self, path: str, content_type: str, *, replace: bool = True
    ) -> Iterator[CheckedFile]:
        """See Store."""
        with self._aside(path) as aside:
            with _writing(path):
                file = aside.open("wb")
            try:
                checked = CheckedFile(file.write, lambda: _writing(path))
                yield checked
                checked.flush()
                with _writing(path):
                    file.flush()
                    os.fsync(file.fileno())
            finally:
                with suppress(OSError):  # of a block that failed already
                    file.close()
            with _writing(path):
                target = self._top / path
                self._make(target.parent)
                if replace:
                    aside.replace(target)
                elif not _link(aside, target):
                    raise taken(path)

    def read(self, path: str) -> bytes | None:
        """See Store."""
        with _errors(path), suppress(FileNotFoundError):
            return (self._top / path).read_bytes()
        return None

    def version(self, path: str) -> str | None:
        """Size and time of the last write."""
        with _errors(path), suppress(FileNotFoundError):
            return _version((self._top / path).stat())
        return None

    def chunks(
        self, path: str, *, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Iterator[bytes]:
        """See Store."""
        with _errors(path), (self._top / path).open("rb") as file:
            found = _version(os.fstat(file.fileno()))
            if version is not None and found != version:
                message = f"{path} was written again: version {found}, expected {version}"
                raise StoreError(message, transient=False)
            file.seek(start)
            left = end - start if end is not None else None
            while chunk := file.read(_CHUNK if left is None else min(_CHUNK, left)):
                yield chunk
                left = None if left is None else left - len(chunk)

    def list(self, prefix: str) -> list[str]:
        """See Store; prefix ends with a slash."""
        with _errors(prefix), suppress(FileNotFoundError):
            return sorted(
                f"{prefix}{entry.name}"
                for entry in os.scandir(self._top / prefix)
                if entry.is_file()
            )
        return []

    def url(self, path: str) -> str:
        """See Store."""
        return public_url(self._base_url, self._folder, path)

    def tidy(self) -> None:
        """See Store."""
        shutil.rmtree(self._top / _INCOMING, ignore_errors=True)

    @contextmanager
    def _aside(self, path: str) -> Iterator[Path]:
        """A place for a file that is being written; what is left there is removed."""
        folder = self._top / _INCOMING
        with _writing(path):
            folder.mkdir(parents=True, exist_ok=True)  # another Pod may have tidied up
        aside = folder / uuid.uuid4().hex
        try:
            yield aside
        finally:
            with suppress(OSError):  # tidy() takes what is left
                aside.unlink(missing_ok=True)

    def _make(self, folder: Path) -> None:
        if folder not in self._made:
            folder.mkdir(parents=True, exist_ok=True)
            self._made.add(folder)


def _version(stat: os.stat_result) -> str:
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _is_there(target: Path) -> bool:
    """Whether the file is there and not the empty one that a crash of a node leaves."""
    with suppress(FileNotFoundError):
        if target.stat().st_size:
            return True
        target.unlink()
    return False


def _link(aside: Path, target: Path) -> bool:
    """Gives the file its name if that is free."""
    try:
        os.link(aside, target)
    except FileExistsError:
        return False
    except OSError as error:
        # Some file systems of claims have no hard links (SMB, object stores mounted).
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        if target.exists():
            return False
        aside.rename(target)
    return True


_FINAL = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
)


@contextmanager
def _errors(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        message = f"{path}: {error.strerror}"
        raise StoreError(message, transient=False) from error
    except OSError as error:
        message = f"{path} in the output folder: {error.strerror}"
        raise StoreError(message, transient=error.errno not in _FINAL) from error


@contextmanager
def _writing(path: str) -> Iterator[None]:
    """The same while a file is written: its folder is missing only where another Pod tidied up."""
    try:
        with _errors(path):
            yield
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise StoreError(error.message, transient=True) from error
        raise
