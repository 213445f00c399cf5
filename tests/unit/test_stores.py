"""One contract for both stores: a folder, and a bucket of the emulator."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from imageprocessing_contract.task import Output
from imageprocessing_worker.stores import Store, StoreError, beside, open_store

from tests.cluster.emulators import Storage
from tests.unit.raw_server import Exchange, served

TEXT = "text/plain"
Make = Callable[..., Store]


@pytest.fixture(params=["folder", "gcs"])
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Opens stores of one kind, all in one place."""
    if request.param == "gcs":
        storage: Storage = request.getfixturevalue("gcs")
        for name, value in storage.environment.items():
            monkeypatch.setenv(name, value)
        where = {"bucket": storage.bucket}
    else:
        where = {"root": os.fspath(tmp_path)}

    def store(path: str = "prefix/request", base_url: str = "") -> Store:
        return open_store(Output(path=path, base_url=base_url, **where))

    return store


@pytest.fixture
def store(make: Make) -> Store:
    return make()


def write(store: Store, path: str, *parts: bytes, replace: bool = True) -> None:
    with store.writer(path, TEXT, replace=replace) as file:
        for part in parts:
            file.write(part)


def bytes_of(store: Store, path: str, **options: object) -> bytes:
    return b"".join(store.chunks(path, **options))  # type: ignore[arg-type]


def test_a_file_is_created_once(store: Store) -> None:
    assert store.read("a/b.txt") is None
    assert store.create("a/b.txt", b"first", TEXT)
    version = store.version("a/b.txt")
    assert not store.create("a/b.txt", b"second", TEXT)
    assert store.read("a/b.txt") == b"first"
    assert store.version("a/b.txt") == version


def test_of_many_who_create_at_once_one_wins(make: Make) -> None:
    stores = [make() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: stores[i].create("x", b"%d" % i, TEXT), range(8)))
    assert sum(won) == 1
    assert make().read("x") == b"%d" % won.index(True)


def test_an_empty_file(store: Store) -> None:
    assert store.create("empty", b"", TEXT)
    write(store, "written")
    for path in ("empty", "written"):
        assert store.read(path) == b""
        assert bytes_of(store, path) == b""
        assert store.version(path) is not None


def test_a_writer_replaces_a_file_whole(store: Store) -> None:
    store.create("x", b"old", TEXT)
    before = store.version("x")
    large = os.urandom(3 << 20)
    with store.writer("x", TEXT) as file:
        for at in range(0, len(large), 100_000):
            file.write(large[at : at + 100_000])
        assert store.read("x") == b"old"
    assert store.read("x") == large
    assert store.version("x") != before


@pytest.mark.parametrize("error", [ValueError("x"), OSError(5, "x"), KeyboardInterrupt()])
@pytest.mark.parametrize("size", [10, 3 << 20])
def test_a_block_that_raises_leaves_what_was_there(
    store: Store, error: BaseException, size: int
) -> None:
    def broken(path: str) -> None:
        with store.writer(path, TEXT) as file:
            file.write(bytes(size))
            raise error

    store.create("old", b"old", TEXT)
    for path in ("old", "new"):
        with pytest.raises(type(error)) as caught:
            broken(path)
        assert caught.value is error
    assert store.read("old") == b"old"
    assert store.read("new") is None
    assert store.list("") == ["old"]


def test_a_writer_that_must_not_replace(tmp_path: Path) -> None:
    store = folder(tmp_path)
    write(store, "x", b"first", replace=False)
    with pytest.raises(StoreError, match="x was written by another Pod meanwhile") as caught:
        write(store, "x", b"second", replace=False)
    assert caught.value.transient
    assert store.read("x") == b"first"

    def slower() -> None:
        with store.writer("y", TEXT, replace=False) as file:
            file.write(b"slower")
            write(store, "y", b"faster", replace=False)

    with pytest.raises(StoreError, match="another Pod"):
        slower()
    assert store.read("y") == b"faster"


RANGES = [(0, None), (0, 0), (0, 1), (5, 5), (100, 2_500_000), (1 << 20, None), (2_999_999, 9**9)]


@pytest.mark.parametrize(("start", "end"), RANGES)
def test_chunks_of_a_range(store: Store, start: int, end: int | None) -> None:
    data = bytes(range(250)) * 12_000
    store.create("x", data, TEXT)
    version = store.version("x")
    assert bytes_of(store, "x", start=start, end=end, version=version) == data[start:end]
    assert max((len(c) for c in store.chunks("x", start=start, end=end)), default=0) <= 1 << 20


def test_chunks_of_a_version_that_is_gone(store: Store) -> None:
    store.create("x", b"first", TEXT)
    version = store.version("x")
    write(store, "x", b"again")
    with pytest.raises(StoreError, match="x") as caught:
        bytes_of(store, "x", version=version)
    assert not caught.value.transient


def test_chunks_of_a_file_that_is_not_there(store: Store) -> None:
    assert store.version("x") is None
    with pytest.raises(StoreError, match="x") as caught:
        bytes_of(store, "x")
    assert not caught.value.transient


def test_list_has_a_folders_files_sorted(store: Store) -> None:
    for path in ("r/10.j", "r/9.j", "r/9/a-1.j", "r/9/a-0.j", "r/99/b.j", "s.j"):
        store.create(path, b"x", TEXT)
    assert store.list("r/9/") == ["r/9/a-0.j", "r/9/a-1.j"]
    assert store.list("r/") == ["r/10.j", "r/9.j"]
    assert store.list("none/") == []


def test_list_has_all_of_more_than_a_page(store: Store) -> None:
    paths = [f"r/{n:05}" for n in range(1_200)]
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda path: store.create(path, b"", TEXT), paths))
    assert store.list("r/") == paths


def test_stores_do_not_see_each_other(make: Make) -> None:
    make("a/r1").create("x", b"1", TEXT)
    assert make("a/r2").read("x") is None
    assert make("a/r2").list("") == []
    assert make("a").read("r1/x") == b"1"
    assert make("").read("a/r1/x") == b"1"
    where = beside(Output(path="a/r1", base_url=""), "r1", "r2")
    assert where.path == "a/r2"


URLS = [
    ("", "a/r", "a/r/x/1.jpg"),
    ("", "", "x/1.jpg"),
    ("https://cdn.example/", "a/r", "https://cdn.example/a/r/x/1.jpg"),
    ("https://cdn.example/pre", "", "https://cdn.example/pre/x/1.jpg"),
    ("https://cdn.example", "a b,ä/r", "https://cdn.example/a%20b%2C%C3%A4/r/x/1.jpg"),
    ("", "a b,ä/r", "a b,ä/r/x/1.jpg"),
]


@pytest.mark.parametrize(("base", "path", "expected"), URLS)
def test_urls(make: Make, base: str, path: str, expected: str) -> None:
    assert make(path, base).url("x/1.jpg") == expected


def test_tidying_up_keeps_what_is_whole(make: Make) -> None:
    store = make()
    store.create("x", b"1", TEXT)
    store.tidy()
    assert store.read("x") == b"1"
    store.create("y", b"2", TEXT)
    assert store.list("") == ["x", "y"]


def folder(path: Path) -> Store:
    return open_store(Output(path="r", base_url="", root=os.fspath(path)))


def test_what_a_killed_writer_left_is_tidied_up(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from imageprocessing_worker.stores.folder import FolderStore
with FolderStore(sys.argv[1], "r", "").writer("x", "") as file:
    file.write(bytes(1 << 20))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program, os.fspath(tmp_path)], check=False)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.stat().st_size for path in left] == [1 << 20]
    store = folder(tmp_path)
    assert store.read("x") is None
    store.tidy()
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_files_that_are_added_are_there_once_settled(store: Store) -> None:
    store.create("kept", b"first", TEXT)
    store.settle()
    with ThreadPoolExecutor(8) as pool:
        for path in ("kept", *(f"a/{n}" for n in range(20))):
            pool.submit(store.add, path, path.encode(), TEXT).result()
    store.settle()
    assert [store.read(f"a/{n}") for n in range(20)] == [b"a/%d" % n for n in range(20)]
    assert store.read("kept") == b"first"
    store.add("a/0", b"again", TEXT)
    store.settle()
    assert store.read("a/0") == b"a/0"


def test_a_name_comes_after_its_bytes(tmp_path: Path) -> None:
    """Until settle() has them on the disk, added files have no names."""
    store = folder(tmp_path)
    store.add("x.jpg", b"image", "image/jpeg")
    assert store.read("x.jpg") is None
    assert store.list("") == []
    store.settle()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "r/x.jpg"]


def test_somebody_else_tidies_up_before_we_settle(tmp_path: Path) -> None:
    store = folder(tmp_path)
    store.add("x", b"1", TEXT)
    faster = folder(tmp_path)
    faster.tidy()
    with pytest.raises(StoreError) as caught:
        store.settle()
    assert caught.value.transient
    assert faster.create("x", b"1", TEXT)
    store.settle()


def test_somebody_else_tidies_up_while_we_write(tmp_path: Path) -> None:
    store = folder(tmp_path)

    def interrupted() -> None:
        with store.writer("x", TEXT) as file:
            file.write(b"1")
            folder(tmp_path).tidy()

    with pytest.raises(StoreError) as caught:
        interrupted()
    assert caught.value.transient
    assert store.create("y", b"2", TEXT)


def test_a_folder_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    store = folder(tmp_path)
    assert store.create("x", b"1", TEXT)
    assert not store.create("x", b"2", TEXT)
    assert store.read("x") == b"1"
    store.add("y", b"3", TEXT)
    store.add("x", b"3", TEXT)
    store.settle()
    assert (store.read("x"), store.read("y")) == (b"1", b"3")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == [tmp_path / "r/x", tmp_path / "r/y"]


# What stands in the way below the root, what is written, and whether to try again.
IN_THE_WAY = [("r", "x", False), ("r/a", "a/x", False)]


@pytest.mark.parametrize(("file", "path", "transient"), IN_THE_WAY)
def test_a_folder_that_cannot_be_written(
    tmp_path: Path, file: str, path: str, transient: bool
) -> None:
    target = tmp_path / file
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"")
    store = folder(tmp_path)

    def settled() -> None:
        store.add(path, b"1", TEXT)
        store.settle()

    for attempt in (
        lambda: store.create(path, b"1", TEXT),
        settled,
        lambda: write(store, path, b"1"),
    ):
        with pytest.raises(StoreError, match=path) as caught:
            attempt()
        assert caught.value.transient is transient


@pytest.mark.parametrize("path", ["missing", ""])
def test_a_bucket_that_is_not_there(
    gcs: Storage, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.environment["STORAGE_EMULATOR_HOST"])
    store = open_store(Output(path="r", base_url="", bucket="no-such-bucket"))
    for attempt in (
        lambda: store.create("x", b"1", TEXT),
        lambda: write(store, "x", b"1"),
        lambda: write(store, "x", bytes(3 << 20)),
        lambda: bytes_of(store, "x"),
    ):
        with pytest.raises(StoreError, match="x: not found; check the bucket's name") as caught:
            attempt()
        assert not caught.value.transient


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Store]]:
    """A store whose server answers all requests with one status."""

    def with_status(status: str) -> Store:
        async def answer(exchange: Exchange) -> None:
            # Whoever sets no condition cannot fail it.
            free = status[:3] == "412" and b"ifGenerationMatch=0" not in exchange.head
            answered = "200 OK" if free else status
            await exchange.reply(b"{}", answered, Content_Type="application/json")

        monkeypatch.setenv("STORAGE_EMULATOR_HOST", servers.enter_context(served(answer)).url)
        return open_store(Output(path="r", base_url="", bucket="b"))

    with ExitStack() as servers:
        yield with_status


def test_a_writer_that_must_not_replace_in_cloud_storage(
    answering: Callable[[str], Store],
) -> None:
    # The emulator knows no conditions of resumable uploads.
    store = answering("412 Precondition Failed")
    for size in (1, 3 << 20):
        with pytest.raises(StoreError, match="x was written by another Pod") as caught:
            write(store, "x", bytes(size), replace=False)
        assert caught.value.transient


@pytest.mark.parametrize(
    ("status", "transient", "words"),
    [
        ("403 Forbidden", False, "access denied; check the worker's service account"),
        ("401 Unauthorized", False, "access denied"),
        ("400 Bad Request", False, "x: 400"),
        ("409 Conflict", True, "x: 409"),
    ],
)
def test_what_cloud_storage_refuses(
    answering: Callable[[str], Store], status: str, transient: bool, words: str
) -> None:
    store = answering(status)
    for attempt in (
        lambda: store.create("x", b"1", TEXT),
        lambda: write(store, "x", b"1"),
        lambda: write(store, "x", bytes(3 << 20)),
        lambda: store.read("x"),
        lambda: store.version("x"),
        lambda: bytes_of(store, "x"),
        lambda: store.list("x"),
    ):
        with pytest.raises(StoreError, match=words) as caught:
            attempt()
        assert caught.value.transient is transient
