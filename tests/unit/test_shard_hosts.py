"""Whole shards against hosts that are slow, dead, busy, or gone for a while.

Several loopback addresses are several hosts. The time between attempts is played: it
passes when no download is under way.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

import msgspec
import pytest
from imageprocessing_contract import names, report
from imageprocessing_contract.guard import Guard
from imageprocessing_contract.reasons import Reason
from imageprocessing_contract.task import Task
from imageprocessing_worker import results
from imageprocessing_worker.children import Codec
from imageprocessing_worker.download import Downloader, DownloadFailure
from imageprocessing_worker.encoded import Encoded
from imageprocessing_worker.errors import StepError
from imageprocessing_worker.finalize import finalize
from imageprocessing_worker.pipeline import UPLOADS, Clock
from imageprocessing_worker.plan import Plan
from imageprocessing_worker.records import NoRecords
from imageprocessing_worker.results import Result
from imageprocessing_worker.stores import Store
from imageprocessing_worker.stores.folder import FolderStore
from imageprocessing_worker.window import LEAST

from tests.unit.raw_server import Answer, Exchange, RawServer
from tests.unit.tasks import csv_of, make_task, planned, run_shard


class PlayedClock(Clock):
    """Time passes only where nothing else can happen; `at` some times something does."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.downloads = 0
        self.idle = asyncio.Event()
        self.at: list[tuple[float, Callable[[], Awaitable[object]]]] = []

    def now(self) -> float:
        return self.seconds

    async def wait(self, wake: asyncio.Event, seconds: float | None) -> None:
        await asyncio.sleep(0)  # what was just started starts
        if not self.downloads and not wake.is_set():
            self.idle.set()
        if self.downloads or seconds is None:
            await wake.wait()
        elif not wake.is_set():
            self.seconds += seconds
            while self.at and self.at[0][0] <= self.seconds:
                await self.at.pop(0)[1]()


class Counted(Downloader):
    """Tells the clock what is under way."""

    clock: PlayedClock

    async def fetch(self, url: str, held: AsyncExitStack | None = None) -> bytes | DownloadFailure:
        self.clock.downloads += 1
        try:
            return await super().fetch(url, held)
        finally:
            self.clock.downloads -= 1


class Passing:
    """Takes the place of the codec: these tests are not about images."""

    children = 2

    async def compress(self, data: bytes, **_: object) -> Encoded:
        return Encoded(data, "jpg", "image/jpeg", 1, 1, unchanged=False, warning=None)


class Shard:
    """One shard of these URLs, which may run several times."""

    def __init__(
        self, root: Path, urls: list[str], *, retries: int = 3, timeout: int = 20, per_host: int = 4
    ) -> None:
        task = make_task(root, allowed_networks=["127.0.0.0/8"])
        download = msgspec.structs.replace(
            task.download,
            retries=retries,
            timeout_seconds=timeout,
            max_connections_per_host=per_host,
        )
        self.task: Task = msgspec.structs.replace(task, download=download)
        self.urls = urls
        self.store: Store
        self.plan: Plan
        rows = ([str(n), f"Product {n}", url] for n, url in enumerate(urls))
        self.store, self.plan = planned(self.task, csv_of(rows))
        self.clock = PlayedClock()

    async def run(
        self, codec: object = None, store: Store | None = None, clock: Clock | None = None
    ) -> None:
        self.clock.seconds = 0.0
        async with Counted(self.task.download, Guard(self.task.allowed_networks)) as downloader:
            downloader.clock = self.clock
            await run_shard(
                self.task,
                store or self.store,
                self.plan,
                downloader=downloader,
                codec=cast("Codec", codec or Passing()),
                clock=clock or self.clock,
            )

    def outcomes(self) -> dict[str, Result]:
        found = list(results.committed(self.store, 0) or ())
        by_place = {result.place: result for result in found}
        assert len(by_place) == len(found)  # each once
        return self._by_url(by_place)

    def parts(self) -> dict[str, Result]:
        return self._by_url(results.read_parts(self.store, 0))

    def _by_url(self, found: dict[results.Place, Result]) -> dict[str, Result]:
        return {self.urls[line - 2]: result for (line, _), result in found.items()}


def requests(server: RawServer) -> Counter[str]:
    """How often each URL was asked for."""
    return Counter(server.url + line.split(b" ")[1].decode() for line in server.lines)


def urls_of(server: RawServer, count: int) -> list[str]:
    return [f"{server.url}/{n}" for n in range(count)]


async def answer(exchange: Exchange) -> None:
    await exchange.reply(b"body")


async def hang(exchange: Exchange) -> None:
    await exchange.reader.read()
    raise EOFError


@asynccontextmanager
async def two(
    first: Answer = answer, second: Answer = answer
) -> AsyncIterator[tuple[RawServer, RawServer]]:
    async with RawServer(first) as one, RawServer(second, "127.0.0.2") as other:
        yield one, other


async def test_a_host_that_refuses_is_only_its_own_images(tmp_path: Path) -> None:
    async with two() as (server, closed):
        dead = urls_of(closed, 300)
        await closed.__aexit__()
        shard = Shard(tmp_path, [*dead, *urls_of(server, 30)])
        await shard.run()
    found = shard.outcomes()
    assert {url for url in found if found[url].object is None} == set(dead)
    assert {found[url].reason for url in dead} == {"ConnectionFailed"}
    assert all(found[url].transient for url in dead)
    assert shard.clock.seconds < 20


async def test_a_host_that_hangs_is_asked_a_few_times_only(tmp_path: Path) -> None:
    async with two(answer, hang) as (server, hanging):
        dead = urls_of(hanging, 300)
        shard = Shard(tmp_path, [*dead, *urls_of(server, 30)], timeout=1, per_host=16)
        await shard.run()
        assert len(hanging.heads) <= 16 + 3
    found = shard.outcomes()
    assert {url for url in found if found[url].object is None} == set(dead)
    assert {found[url].reason for url in dead} == {"Timeout"}


async def test_retry_after_is_honoured_for_the_whole_host(tmp_path: Path) -> None:
    async def busy(exchange: Exchange) -> None:
        if shard.clock.seconds < 90:
            early.append(exchange.target)
            await exchange.reply(status="429 Too Many Requests", Retry_After="90")
        else:
            await exchange.reply(b"body")

    early: list[bytes] = []
    async with two(answer, busy) as (server, throttling):
        shard = Shard(tmp_path, [*urls_of(throttling, 40), *urls_of(server, 40)], retries=1)
        await shard.run()
        assert len(early) == 4
        assert set(requests(throttling).values()) == {1, 2}
    assert all(result.object for result in shard.outcomes().values())


async def test_a_pause_that_is_too_long_is_a_reason(tmp_path: Path) -> None:
    async def closed(exchange: Exchange) -> None:
        await exchange.reply(status="503 Service Unavailable", Retry_After="86400")

    async with two(answer, closed) as (server, throttling):
        gone = urls_of(throttling, 40)
        shard = Shard(tmp_path, [*gone, *urls_of(server, 40)])
        await shard.run()
        assert len(throttling.heads) == 4
    found = shard.outcomes()
    assert {url for url in found if found[url].object is None} == set(gone)
    assert {found[url].message for url in gone} == {
        "503 Service Unavailable; the server asks for a pause of 86400 s, "
        "and at most 300 s are waited for"
    }


class Egress:
    """Two hosts that are both gone after so many requests."""

    def __init__(self, requests: int) -> None:
        self._left = requests
        self.hosts = [RawServer(self._answer), RawServer(self._answer, "127.0.0.2")]
        self._cutting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Egress":
        await self.restore()
        return self

    async def __aexit__(self, *_: object) -> None:
        for host in self.hosts:
            await host.__aexit__()

    async def restore(self) -> None:
        for host in self.hosts:
            await host.__aenter__()

    async def _answer(self, exchange: Exchange) -> None:
        self._left -= 1
        if self._left == 0:
            self._cutting = asyncio.create_task(self.__aexit__())
        if self._left <= 0 and self._cutting and not self._cutting.done():
            await asyncio.Event().wait()
        await exchange.reply(b"body")


@pytest.mark.parametrize("at", [1, 30, 98])
@pytest.mark.parametrize("retries", [0, 3])
async def test_an_egress_that_is_gone_for_a_minute_costs_nothing(
    tmp_path: Path, at: int, retries: int
) -> None:
    async with Egress(at) as egress:
        urls = [url for host in egress.hosts for url in urls_of(host, 50)]
        shard = Shard(tmp_path, urls, retries=retries)
        shard.clock.at.append((60.0, egress.restore))
        await shard.run()
        assert shard.clock.seconds > 60
        asked = sum((requests(host) for host in egress.hosts), Counter[str]())
        # Again: what was under way then. Besides, a canary may be asked for once more.
        assert sum(asked.values()) <= len(urls) + 2 * shard.task.download.max_connections_per_host
    assert set(shard.outcomes()) == set(urls)
    assert all(result.object for result in shard.outcomes().values())


async def test_an_egress_that_is_gone_for_good_fails_the_shard_and_keeps_what_is_done(
    tmp_path: Path,
) -> None:
    async with Egress(30) as egress:
        urls = [url for host in egress.hosts for url in urls_of(host, 50)]
        shard = Shard(tmp_path, urls)
        with pytest.raises(StepError) as raised:
            await shard.run()
        assert raised.value.reason == Reason.SHARD_FAILED
        assert raised.value.transient
        message = raised.value.message
        assert message.startswith("no host has answered for 120 s, so shard 0 is not done; for ")
        assert not results.is_committed(shard.store, 0)
        parts = shard.parts()
        done = {url for url in parts if parts[url].object}
        assert 20 <= len(done) < 30
        # Finalize would know why the others failed, if no Pod came after this one.
        assert set(parts) == set(urls)
        assert {parts[url].reason for url in set(urls) - done} == {"ConnectionFailed"}
        await egress.restore()
        for host in egress.hosts:
            host.heads.clear()
        await shard.run()
        asked = sum((requests(host) for host in egress.hosts), Counter[str]())
        assert asked == Counter(set(urls) - done)
    assert all(result.object for result in shard.outcomes().values())


async def test_the_images_of_a_catalogue_whose_only_host_is_dead_have_their_reason(
    tmp_path: Path,
) -> None:
    async with RawServer(answer) as closed:
        urls = urls_of(closed, 20)
    shard = Shard(tmp_path, urls)
    for _ in range(2):
        with pytest.raises(StepError):
            await shard.run()
    done = finalize(shard.task, shard.store, NoRecords()).done
    assert (done.images.failed, done.failed_shards) == (20, 1)
    assert done.failures[0] == report.Failure(
        2, urls[0], "ConnectionFailed", "no connection: Connection refused"
    )


async def test_images_that_fail_by_themselves_are_no_outage(tmp_path: Path) -> None:
    """One host, and its last images are those for which it closes the connection."""

    async def some(exchange: Exchange) -> None:
        if int(exchange.target[1:]) >= 37:
            raise EOFError
        await exchange.reply(b"body")

    async with RawServer(some) as server:
        shard = Shard(tmp_path, urls_of(server, 40))
        await shard.run()
        # Four attempts; aiohttp asks twice where a connection that it had kept is closed.
        asked = requests(server)
        assert all(4 <= asked[f"{server.url}/{n}"] <= 8 for n in range(37, 40))
    failed = [url for url, result in shard.outcomes().items() if result.object is None]
    assert failed == urls_of(server, 40)[37:]
    assert shard.clock.seconds < 40


async def test_one_host_that_is_down_and_back_is_not_lost(tmp_path: Path) -> None:
    async with two() as (server, restarting):
        urls = [*urls_of(restarting, 100), *urls_of(server, 10)]
        await restarting.__aexit__()
        shard = Shard(tmp_path, urls)
        shard.clock.at.append((4.0, restarting.__aenter__))
        await shard.run()
    failed = [url for url, result in shard.outcomes().items() if result.object is None]
    assert failed == []


async def test_what_an_earlier_pod_did_shows_that_it_is_no_outage(tmp_path: Path) -> None:
    async def busy(exchange: Exchange) -> None:
        await exchange.reply(status="503 Service Unavailable")

    async with RawServer(busy) as server:
        shard = Shard(tmp_path, urls_of(server, 3))
        done = results.encode([Result(line=2, position=0, object="compressed_images/0.jpg")])
        shard.store.create(names.shard_part(0, "earlier", 0), done, "application/jsonl")
        await shard.run()
    found = shard.outcomes()
    assert [found[url].object is not None for url in shard.urls] == [True, False, False]


async def test_hosts_that_hang_hold_up_no_other(tmp_path: Path) -> None:
    """They answer once the others have nothing left."""
    others = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await others.wait()
        await exchange.reply(b"body")

    async def quick(exchange: Exchange) -> None:
        if len(server.heads) == 100:
            others.set()
        await exchange.reply(b"body")

    async with two(quick, slow) as (server, hanging):
        urls = [*urls_of(hanging, 2 * LEAST), *urls_of(server, 100)]
        shard = Shard(tmp_path, urls, retries=0, per_host=2 * LEAST)
        await shard.run(clock=Clock())
    assert all(result.object for result in shard.outcomes().values())


async def test_a_host_is_free_again_while_the_codec_works(tmp_path: Path) -> None:
    """With one connection: the codec ends the first image once the last was asked for."""
    asked = asyncio.Event()

    async def notice(exchange: Exchange) -> None:
        if exchange.target == b"/9":
            asked.set()
        await exchange.reply(b"body")

    class Held(Passing):
        async def compress(self, data: bytes, **_: object) -> Encoded:
            await asked.wait()
            return await super().compress(data)

    async with RawServer(notice) as server:
        shard = Shard(tmp_path, urls_of(server, 10), per_host=1)
        await shard.run(Held())
    assert len(shard.outcomes()) == 10


async def test_bodies_wait_for_the_codec_in_small_numbers(tmp_path: Path) -> None:
    encoded, most = 0, 0

    class Slow(Passing):
        """Takes its time: until nothing else can happen."""

        async def compress(self, data: bytes, **_: object) -> Encoded:
            nonlocal encoded, most
            for _ in range(20):
                await asyncio.sleep(0)
                most = max(most, len(server.heads) - encoded)
            encoded += 1
            return await super().compress(data)

    async with RawServer(answer) as server:
        shard = Shard(tmp_path, urls_of(server, 400), per_host=256)
        await shard.run(Slow())
    assert most <= LEAST
    assert encoded == 400


async def test_encoded_images_wait_for_the_store_in_small_numbers(tmp_path: Path) -> None:
    """The store answers nobody until no more is asked for."""
    loop = asyncio.get_running_loop()

    class Stuck(FolderStore):
        def add(self, path: str, data: bytes, content_type: str) -> None:
            asyncio.run_coroutine_threadsafe(shard.clock.idle.wait(), loop).result(60)
            asked.append(len(server.heads))
            super().add(path, data, content_type)

    asked: list[int] = []
    async with RawServer(answer) as server:
        shard = Shard(tmp_path, urls_of(server, 400), per_host=256)
        await shard.run(store=Stuck(str(tmp_path), shard.task.output.path, ""))
    assert UPLOADS <= asked[0] <= UPLOADS + LEAST
    assert len(shard.outcomes()) == 400
