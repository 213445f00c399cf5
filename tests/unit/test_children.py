"""The pool of child processes: what hangs, dies or swells costs one image and nothing else."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from imageprocessing_contract.reasons import ImageReason
from imageprocessing_contract.request import Compression
from imageprocessing_worker.children import Codec
from imageprocessing_worker.codec import Encoded, Refused, compress
from imageprocessing_worker.encoded import Crops
from PIL import Image

from tests import photos
from tests.codec import MAX_PIXELS, compression
from tests.unit.memory import children_used

# Far more than anything here takes; tests that are about time set a limit of their own.
PATIENCE = 60.0


@asynccontextmanager
async def codec(
    settings: Compression | None = None,
    *,
    children: int = 1,
    memory_limit: int | None = None,
    time_limit: float = PATIENCE,
    max_pixels: int = MAX_PIXELS,
) -> AsyncIterator[Codec]:
    async with Codec(
        settings or compression(),
        max_pixels,
        children=children,
        memory_limit=memory_limit,
        time_limit=time_limit,
    ) as pool:
        yield pool


def processes(pool: Codec) -> list[int]:
    """The nursery and its children, without those that have ended."""
    assert pool._nursery is not None
    nursery = pool._nursery._process.pid
    children = Path(f"/proc/{nursery}/task/{nursery}/children").read_text().split()
    return [nursery, *(int(pid) for pid in children if state(int(pid)) != "Z")]


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def wait_for_end(pids: list[int]) -> None:
    """Returns when all of these have ended; they need not be our own children."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        assert select.select([handle], [], [], PATIENCE)[0], f"{pid} lives on"
        os.close(handle)


def photo() -> bytes:
    return photos.photographs()["coffee.png"]


async def test_the_same_as_without_children() -> None:
    pictures = [data for _, data in photos.crops(12, 300, 200)] + [b"no image", b""]
    async with codec(children=2) as pool:
        results = await asyncio.gather(*(pool.compress(data) for data in pictures))
    assert results == [compress(data, compression(), MAX_PIXELS) for data in pictures]
    assert [isinstance(result, Encoded) for result in results] == [True] * 12 + [False] * 2


async def test_large_in_and_large_out() -> None:
    """Far more than the buffers of a socket hold, both ways."""
    large = photos.encoded(photos.photograph().resize((3000, 2000)), "BMP")
    async with codec(compression("Original")) as pool:
        result = await pool.compress(large)
    assert isinstance(result, Encoded)
    assert result.data == large


async def test_limits_reach_the_children() -> None:
    async with codec(compression("WebP"), max_pixels=1000) as pool:
        result = await pool.compress(photo())
    assert isinstance(result, Refused)
    assert result.reason == ImageReason.TOO_MANY_PIXELS


async def test_as_many_children_as_told_and_no_more() -> None:
    async with codec(children=3) as pool:
        assert len(processes(pool)) == 1  # the nursery; children come with the first images
        await asyncio.gather(*(pool.compress(photo()) for _ in range(20)))
        assert len(processes(pool)) == 1 + 3


async def test_one_image_after_another_needs_one_child() -> None:
    async with codec(children=3) as pool:
        for _ in range(5):
            await pool.compress(photo())
        assert len(processes(pool)) == 1 + 1


async def stopped(pool: Codec) -> list[int]:
    """The children, each stopped: whatever they get next, they do nothing with it."""
    nursery, *children = processes(pool)
    assert nursery
    for child in children:
        os.kill(child, signal.SIGSTOP)
    return children


async def test_a_decoder_that_hangs_is_killed_and_the_next_image_works() -> None:
    async with codec(time_limit=PATIENCE) as pool:
        await pool.compress(photo())
        hanging = await stopped(pool)
        pool._time_limit = 0.2
        result = await pool.compress(photo())
        assert isinstance(result, Refused)
        assert result.reason == ImageReason.DECODE_TIMEOUT
        assert "0.2 s" in result.message
        pool._time_limit = PATIENCE
        assert isinstance(await pool.compress(photo()), Encoded)
        wait_for_end(hanging)


async def test_only_the_image_in_the_child_that_hangs_is_lost() -> None:
    async with codec(children=2) as pool:
        await asyncio.gather(pool.compress(photo()), pool.compress(photo()))
        await stopped(pool)
        pool._time_limit = 0.2
        lost = await asyncio.gather(pool.compress(photo()), pool.compress(photo()))
        pool._time_limit = PATIENCE
        good = await asyncio.gather(*(pool.compress(photo()) for _ in range(6)))
    assert all(isinstance(result, Refused) for result in lost)
    assert all(isinstance(result, Encoded) for result in good)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGKILL, ImageReason.DECODE_OUT_OF_MEMORY),
        (signal.SIGSEGV, ImageReason.DECODER_CRASHED),
        (signal.SIGABRT, ImageReason.DECODER_CRASHED),
    ],
)
async def test_a_child_that_dies_with_an_image(number: signal.Signals, reason: ImageReason) -> None:
    async with codec() as pool:
        await pool.compress(photo())
        (child,) = await stopped(pool)
        under_way = asyncio.create_task(pool.compress(photo()))
        await asyncio.sleep(0)  # lets it send the image
        os.kill(child, number)
        os.kill(child, signal.SIGCONT)
        result = await under_way
        assert isinstance(result, Refused)
        assert result.reason == reason
        if reason == ImageReason.DECODER_CRASHED:
            assert number.name in result.message
        assert isinstance(await pool.compress(photo()), Encoded)


async def test_crops_cost_no_image() -> None:
    """A child that dies while it was to make them is not the image's fault."""
    async with codec() as pool:
        await pool.compress(photo())
        (child,) = await stopped(pool)
        under_way = asyncio.create_task(pool.compress(photo(), sample=True))
        await asyncio.sleep(0)
        os.kill(child, signal.SIGSEGV)
        os.kill(child, signal.SIGCONT)
        result = await under_way
        again = await pool.compress(photo(), sample=True)
    assert isinstance(result, Encoded)
    assert result.crops is None
    assert isinstance(again, Encoded)
    assert isinstance(again.crops, Crops)
    assert again.data == result.data


async def test_crops_take_no_memory_from_an_image() -> None:
    """Whatever is too little for both is still enough for the image alone."""
    large = photos.encoded(photos.photograph().resize((2000, 1500)), "JPEG")
    seen = set()
    for megabytes in range(20, 100, 5):
        async with codec(compression("WebP"), memory_limit=megabytes << 20) as pool:
            alone = await pool.compress(large)
            sampled = await pool.compress(large, sample=True)
        assert type(sampled) is type(alone), megabytes
        seen.add(type(alone))
    assert seen == {Encoded, Refused}


async def test_a_child_that_dies_without_an_image_costs_none() -> None:
    async with codec() as pool:
        await pool.compress(photo())
        _, child = processes(pool)
        os.kill(child, signal.SIGKILL)
        wait_for_end([child])
        assert isinstance(await pool.compress(photo()), Encoded)


async def test_a_nursery_that_dies_costs_no_image() -> None:
    async with codec(children=2) as pool:
        await asyncio.gather(pool.compress(photo()), pool.compress(photo()))
        family = processes(pool)
        os.kill(family[0], signal.SIGKILL)
        wait_for_end(family[1:])
        results = await asyncio.gather(*(pool.compress(photo()) for _ in range(4)))
    assert all(isinstance(result, Encoded) for result in results)


async def test_a_nursery_that_dies_with_an_image_under_way_costs_that_one() -> None:
    async with codec() as pool:
        await pool.compress(photo())
        await stopped(pool)
        under_way = asyncio.create_task(pool.compress(photo()))
        await asyncio.sleep(0)
        os.kill(processes(pool)[0], signal.SIGKILL)
        assert isinstance(await under_way, Refused)
        assert isinstance(await pool.compress(photo()), Encoded)


@pytest.mark.parametrize("source", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "AVIF"])
async def test_memory_limit(source: str) -> None:
    """36 million pixels take 144 MB in Pillow, and a BMP of them 108 MB on the way."""
    small = photos.encoded(photos.photograph(), source)
    options = {"speed": 10} if source == "AVIF" else {}
    large = photos.encoded(Image.new("RGB", (6000, 6000), "#345"), source, **options)
    async with codec(memory_limit=100 << 20, max_pixels=10**9) as pool:
        assert isinstance(await pool.compress(small), Encoded)
        result = await pool.compress(large)
        assert isinstance(result, Refused)
        assert result.reason == ImageReason.DECODE_OUT_OF_MEMORY, result
        assert isinstance(await pool.compress(small), Encoded)


@pytest.mark.parametrize("out", ["WebP", "AVIF"])
async def test_memory_limit_while_encoding(out: str) -> None:
    settings = compression("WebP") if out == "WebP" else compression("AVIF")
    large = photos.encoded(photos.photograph().resize((4000, 3000)), "JPEG")
    seen = set()
    for megabytes in (100, 120, 140, 160):
        async with codec(settings, memory_limit=megabytes << 20) as pool:
            result = await pool.compress(large)
            seen.add(result.reason if isinstance(result, Refused) else None)
    assert ImageReason.DECODE_OUT_OF_MEMORY in seen
    assert seen <= {ImageReason.DECODE_OUT_OF_MEMORY, None}


@pytest.mark.parametrize("source", ["JPEG", "WEBP"])
async def test_want_of_memory_is_not_taken_for_damage(source: str) -> None:
    """libjpeg and libwebp only say that they could not go on."""
    options = {"progressive": True} if source == "JPEG" else {"lossless": True, "method": 0}
    large = photos.encoded(photos.photograph().resize((3000, 2000)), source, **options)
    seen = set()
    for megabytes in range(25, 145, 15):
        async with codec(compression(max_width=500), memory_limit=megabytes << 20) as pool:
            result = await pool.compress(large)
            seen.add(result.reason if isinstance(result, Refused) else None)
    assert seen == {ImageReason.DECODE_OUT_OF_MEMORY, None}


def resident(pool: Codec) -> dict[int, int]:
    """The most memory that each child had so far, in bytes."""
    found = {}
    for pid in processes(pool)[1:]:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("VmHWM"))
        found[pid] = int(line.split()[1]) << 10
    return found


async def test_an_image_that_needs_more_than_a_share_gets_it_alone() -> None:
    """A share of 64 MiB is too little for 36 million pixels, and 256 are enough."""
    large = photos.encoded(Image.new("RGB", (6000, 6000), "#345"), "PNG")
    async with codec(children=4, memory_limit=256 << 20) as pool:
        warm = await asyncio.gather(*(pool.compress(photo()) for _ in range(8)))
        before = resident(pool)
        assert len(before) == 4
        largest, *small = await asyncio.gather(
            *(pool.compress(data) for data in (large, *[photo()] * 8))
        )
        # Those that were warm made room, and the one that grew is not kept.
        with children_used() as dead:
            after = await asyncio.gather(*(pool.compress(photo()) for _ in range(8)))
        assert len(dead) <= 1
        now = resident(pool)
        assert not set(before) & set(now)
        assert max(now.values()) < 64 << 20
    assert all(isinstance(result, Encoded) for result in (*warm, largest, *small, *after))


async def test_what_needs_more_than_all_there_is_says_how_much_that_is() -> None:
    large = photos.encoded(Image.new("RGB", (6000, 6000), "#345"), "PNG")
    async with codec(children=2, memory_limit=100 << 20) as pool:
        result = await pool.compress(large)
        assert isinstance(await pool.compress(photo()), Encoded)
    assert isinstance(result, Refused)
    assert result.message.endswith("more memory than there is for one image, 100 MiB")


async def test_many_large_images_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than all there is: each needs more than half of it."""
    large = photos.encoded(Image.new("RGB", (6000, 6000), "#345"), "PNG")
    out, most = 0, 0
    async with codec(children=3, memory_limit=240 << 20) as pool:
        attempt = pool._attempt

        async def noting(data: bytes, memory: int, **options: bool) -> Encoded | Refused:
            nonlocal out, most
            out += memory
            most = max(most, out)
            try:
                return await attempt(data, memory, **options)
            finally:
                out -= memory

        monkeypatch.setattr(pool, "_attempt", noting)
        images = [large, photo()] * 3
        results = await asyncio.gather(*(pool.compress(data) for data in images))
        assert most == 240 << 20
    assert all(isinstance(result, Encoded) for result in results)


async def test_a_cancelled_image_ends_its_child() -> None:
    async with codec() as pool:
        await pool.compress(photo())
        (child,) = await stopped(pool)
        under_way = asyncio.create_task(pool.compress(photo()))
        await asyncio.sleep(0)
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        wait_for_end([child])
        assert isinstance(await pool.compress(photo()), Encoded)


async def test_cancelling_at_any_time_loses_no_place() -> None:
    """Also while a child is being started, and while images wait for one."""
    async with codec(children=2) as pool:
        for turns in range(12):
            tasks = [asyncio.create_task(pool.compress(photo())) for _ in range(5)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        results = await asyncio.gather(*(pool.compress(photo()) for _ in range(6)))
    assert all(isinstance(result, Encoded) for result in results)


async def test_cancelling_at_any_time_mixes_no_children_up() -> None:
    """A cancelled start must not leave its answer to the next one, which would get that pid."""
    for turns in range(8):
        async with codec() as pool:
            task = asyncio.create_task(pool.compress(photo()))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert isinstance(await pool.compress(photo()), Encoded)
            (child,) = pool._children
            assert child.pid == processes(pool)[-1]  # in the order of their start


async def test_nothing_is_left_when_it_is_closed() -> None:
    async with codec(children=2) as pool:
        await asyncio.gather(*(pool.compress(photo()) for _ in range(4)))
        await stopped(pool)
        family = processes(pool)
        assert len(family) == 3
    wait_for_end(family)


async def test_nothing_is_left_when_it_is_closed_by_an_exception() -> None:
    family: list[int] = []

    async def fail() -> None:
        async with codec() as pool:
            await pool.compress(photo())
            family.extend(processes(pool))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    wait_for_end(family)


async def test_nothing_survives_the_parent() -> None:
    """Not even a child that hangs and never looks at its pipe."""
    script = """
import asyncio, os, sys
from imageprocessing_worker.children import Codec
from tests.unit.test_children import codec, photo, processes, stopped
async def main():
    async with codec(children=2) as pool:
        await asyncio.gather(*(pool.compress(photo()) for _ in range(4)))
        print(*processes(pool), flush=True)
        await stopped(pool)
        sys.stdin.read()
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    family = [int(pid) for pid in (await parent.stdout.readline()).split()]
    assert len(family) == 3
    parent.kill()
    await parent.wait()
    wait_for_end(family)


async def test_the_event_loop_goes_on() -> None:
    """While a child works, tasks here take turns."""
    async with codec() as pool:
        await pool.compress(photo())
        await stopped(pool)
        large = photos.encoded(photos.photograph().resize((3000, 2000)), "BMP")
        under_way = asyncio.create_task(pool.compress(large))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert not under_way.done()
        under_way.cancel()
        await asyncio.gather(under_way, return_exceptions=True)


async def test_the_worker_needs_no_pillow_for_it() -> None:
    """What decodes is in the children only."""
    check = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys, imageprocessing_worker.children; sys.exit('PIL' in sys.modules)",
    )
    assert await check.wait() == 0


async def test_a_broken_file_writes_nothing_into_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    fax = photos.encoded(photos.photograph().convert("1"), "TIFF", compression="group4")
    async with codec() as pool:
        await pool.compress(fax[:100] + b"\xff" * 1000 + fax[1100:])
    assert capfd.readouterr() == ("", "")


async def test_an_error_of_ours_is_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    async with codec(msgspec.structs.replace(compression(), background="no colour")) as pool:
        result = await pool.compress(photos.encoded(Image.new("RGBA", (9, 9)), "PNG"))
    assert isinstance(result, Refused)
    assert result.reason == ImageReason.DECODER_CRASHED
    assert "ValueError: unknown color specifier" in capfd.readouterr().err


async def test_children_keep_blocks_of_memory() -> None:
    async with codec() as pool:
        await pool.compress(photo())
        (nursery,) = processes(pool)[:1]
        assert b"PILLOW_BLOCKS_MAX=64" in Path(f"/proc/{nursery}/environ").read_bytes()
