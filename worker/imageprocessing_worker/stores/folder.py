"""A folder of a file system as the store: a PersistentVolumeClaim, or `ipr run`.

A name that is there has all its bytes, also after a node lost its power: names come last.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imageprocessing_worker.stores import CheckedFile, StoreError, public_url, taken

_CHUNK = 1 << 18
_INCOMING = ".incoming"
"""Files being written; the others are whole at any time."""
_libc = ctypes.CDLL(None, use_errno=True)


class FolderStore:
    """See Store. A file is written aside and then linked or renamed into its place."""

    def __init__(self, root: str, folder: str, base_url: str) -> None:
        self._top = Path(root) / folder
        self._folder, self._base_url = folder, base_url
        self._made: set[Path] = set()
        self._added: deque[tuple[str, Path]] = deque()

    def create(self, path: str, data: bytes, content_type: str) -> bool:
        """See Store."""
        with _writing(path):
            target = self._top / path
            if target.exists():
                return False
            with self._aside(path) as aside:
                with aside.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                self._make(target.parent)
                linked = _link(aside, target)
            # Others build on this file, and on what was written before it.
            self._sync()
            return linked

    def add(self, path: str, data: bytes, content_type: str) -> None:
        """See Store; the file waits aside for settle().

        An fsync of each would take as much CPU again as writing it (measured: 0.6 ms
        for one of 60 kB instead of 0.3, with 64 threads on ext4).
        """
        with _writing(path):
            target = self._top / path
            if not target.exists():
                aside = self._place_aside()
                aside.write_bytes(data)
                self._added.append((path, aside))

    def settle(self) -> None:
        """See Store: one sync for all of them, then their names."""
        waiting = len(self._added)
        if not waiting:
            return
        with _writing(_INCOMING):
            self._sync()
        for _ in range(waiting):
            path, aside = self._added[0]
            with _writing(path):
                target = self._top / path
                self._make(target.parent)
                if not target.exists():  # by another Pod, which may also have tidied up
                    _link(aside, target)
                aside.unlink(missing_ok=True)  # renamed, where there are no hard links
            self._added.popleft()

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
        with _writing(path):
            aside = self._place_aside()
        try:
            yield aside
        finally:
            with suppress(OSError):  # tidy() takes what is left
                aside.unlink(missing_ok=True)

    def _place_aside(self) -> Path:
        folder = self._top / _INCOMING
        folder.mkdir(parents=True, exist_ok=True)  # another Pod may have tidied up
        return folder / uuid.uuid4().hex

    def _sync(self) -> None:
        """Everything that was written to this file system is on its disk."""
        top = os.open(self._top, os.O_RDONLY)
        try:
            # os.sync() would write out the disks of all Pods of the node.
            if _libc.syncfs(top):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            os.close(top)

    def _make(self, folder: Path) -> None:
        if folder not in self._made:
            folder.mkdir(parents=True, exist_ok=True)
            self._made.add(folder)


def _version(stat: os.stat_result) -> str:
    return f"{stat.st_size}-{stat.st_mtime_ns}"


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
