"""One shard with every bad server and every bad file at once: the good images are stored."""

from __future__ import annotations

import asyncio
import gzip
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from imageprocessing_contract.guard import Guard
from imageprocessing_contract.reasons import ImageReason
from imageprocessing_worker.children import Codec
from imageprocessing_worker.download import Downloader
from PIL import Image

from tests import photos
from tests.codec import MAX_PIXELS
from tests.unit.memory import children_used, forget_peak, peak
from tests.unit.raw_server import Answer, Exchange, RawServer
from tests.unit.tasks import committed, csv_of, make_task, planned, run_shard
from tests.unit.test_codec_refusals import png_header, progressive
from tests.unit.test_download_hostile import compressed

CODEC, BODIES = 1 << 30, 64 << 20
"""Bytes for children and bodies: a container of 1.3 GiB."""
PHOTO = next(photos.crops(1, 640, 480))[1]
# 50 million pixels, with all bits that a camera's have; 1-bit BMP is what fits 50 MiB.
LARGE: dict[str, tuple[str, dict[str, Any]]] = {
    "JPEG": ("RGB", {"progressive": True}),
    "PNG": ("RGBA", {"compress_level": 1}),
    "WEBP": ("RGB", {"method": 0}),
    "GIF": ("P", {}),
    "TIFF": ("RGB", {"compression": "tiff_lzw"}),
    "BMP": ("1", {}),
    "AVIF": ("RGB", {"speed": 10}),
}


def body(data: bytes, kind: str = "image/jpeg", **headers: str) -> Answer:
    async def answer(exchange: Exchange) -> None:
        await exchange.reply(data, Content_Type=kind, **headers)

    return answer


def moved(location: str) -> Answer:
    async def answer(exchange: Exchange) -> None:
        await exchange.reply(status="302 Found", Location=location)

    return answer


async def shorter_than_said(exchange: Exchange) -> None:
    await exchange.reply(PHOTO, Content_Length=str(len(PHOTO) + 1000))
    exchange.writer.close()
    raise EOFError


async def longer_than_said(exchange: Exchange) -> None:
    await exchange.reply(PHOTO, Content_Length=str(len(PHOTO) // 2))


async def dripping(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n\xff\xd8\xff")
    while True:
        await asyncio.sleep(1)
        await exchange.send(b"\xe0")


async def endless(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n\r\n" + PHOTO)
    while True:
        await exchange.send(bytes(1 << 18))


async def reset_in_the_middle(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + PHOTO[:5000])
    exchange.reset()
    raise EOFError


def bad() -> Iterator[tuple[str, Answer, ImageReason]]:
    """By path: the answer, and why it gives no image."""
    no_image, broken = ImageReason.NOT_AN_IMAGE, ImageReason.RESPONSE_BROKEN
    too_large = ImageReason.RESPONSE_TOO_LARGE
    yield "html", body(b"<!doctype html><html>Not found"), no_image
    yield "json", body(b'{"error": 404}'), no_image
    yield "exe", body(b"MZ\x90\0\3\0\0\0" + bytes(range(256)) * 9), no_image
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    yield "svg", body(svg, "image/png"), ImageReason.FORMAT_NOT_SUPPORTED
    yield "pdf", body(b"%PDF-1.7\n", "image/png"), ImageReason.FORMAT_NOT_SUPPORTED
    yield "empty", body(b""), ImageReason.EMPTY_RESPONSE
    yield "shorter", shorter_than_said, broken
    yield "longer", longer_than_said, ImageReason.CORRUPT_IMAGE
    yield "drip", dripping, ImageReason.TIMEOUT
    yield "endless", endless, too_large
    yield "reset", reset_in_the_middle, broken
    yield "circle", moved("/circle"), ImageReason.TOO_MANY_REDIRECTS
    yield "inside", moved("http://169.254.169.254/"), ImageReason.ADDRESS_NOT_ALLOWED
    for encoding in ("gzip", "deflate"):
        bomb = body(compressed(encoding, 160 << 20), Content_Encoding=encoding)
        yield encoding, bomb, too_large
    for encoding in ("br", "zstd"):
        yield encoding, body(b"\x1b" * 1000, Content_Encoding=encoding), broken
    yield "scans", body(progressive(1000)), ImageReason.TOO_MANY_SCANS
    yield "pixels", body(png_header(40_000, 40_000)), ImageReason.TOO_MANY_PIXELS
    for name in LARGE:
        data = photos.encoded(photos.photograph(), name)
        yield f"half-{name}", body(data[: len(data) // 2]), ImageReason.CORRUPT_IMAGE
    # Says that it is large, so that memory is asked for, and is not.
    wide = bytearray(photos.encoded(photos.photograph(), "BMP"))
    wide[18:26] = struct.pack("<ii", 7000, 7000)
    yield "hollow", body(bytes(wide)), ImageReason.CORRUPT_IMAGE


def good() -> Iterator[tuple[str, Answer]]:
    for number, (_, data) in enumerate(photos.crops(20, 640, 480)):
        yield f"photo-{number}", body(data)
    yield "png-as-jpeg", body(photos.encoded(photos.photograph(), "PNG"))
    yield "jpeg-as-html", body(PHOTO, "text/html")
    yield "gzipped", body(gzip.compress(PHOTO), Content_Encoding="gzip")
    for name, (mode, options) in LARGE.items():
        large = Image.new(mode, (8660, 5773), 77 if mode in ("1", "P") else "#345")
        yield f"large-{name}", body(photos.encoded(large, name, **options))


async def test_the_good_are_stored_and_each_bad_one_has_its_reason(tmp_path: Path) -> None:
    expected: dict[str, str | None] = {}
    answers: dict[bytes, Answer] = {}
    for path, answer, reason in bad():
        answers[f"/{path}".encode()], expected[path] = answer, reason
    for path, answer in good():
        answers[f"/{path}".encode()], expected[path] = answer, None

    async def serve(exchange: Exchange) -> None:
        await answers[exchange.target](exchange)

    task = make_task(tmp_path)
    task = msgspec.structs.replace(
        task,
        download=msgspec.structs.replace(task.download, timeout_seconds=5),
        compression=msgspec.structs.replace(task.compression, max_width=300),
    )
    forget_peak()
    before = peak()
    with children_used() as used:
        async with (
            RawServer(serve) as server,
            Codec(
                task.compression, MAX_PIXELS, children=2, memory_limit=CODEC, time_limit=60
            ) as codec,
            Downloader(task.download, Guard(task.allowed_networks), memory=BODIES) as downloader,
        ):
            rows = [[path, path, f"{server.url}/{path}"] for path in expected]
            store, plan = planned(task, csv_of(rows))
            await run_shard(task, store, plan, codec=codec, downloader=downloader)
    grown = peak() - before
    done = committed(store, 0)
    ended = [done[place] for place in sorted(done)]
    found = dict(zip(expected, (result.reason for result in ended), strict=True))
    # Broken as an answer where the rest comes at once, and else as an image.
    assert found["longer"] in (ImageReason.RESPONSE_BROKEN, ImageReason.CORRUPT_IMAGE)
    assert found | {"longer": expected["longer"]} == expected
    assert all((result.object is None) == (result.reason is not None) for result in ended)
    print(f"children {max(used) >> 20} MiB, parent {grown >> 20} MiB more")  # noqa: T201
    # Resident is less than what the limit counts, and idle ones have made room.
    assert max(used) < CODEC
    assert grown < BODIES + (64 << 20)


@pytest.mark.parametrize("source", LARGE)
async def test_fifty_megapixels_that_do_not_fit_are_out_of_memory(source: str) -> None:
    """And nothing else: not a crash, and not a file that would be broken."""
    mode, options = LARGE[source]
    large = Image.new(mode, (8660, 5773), 77 if mode in ("1", "P") else "#345")
    data = photos.encoded(large, source, **options)
    async with Codec(
        make_task(Path()).compression, MAX_PIXELS, children=2, memory_limit=60 << 20, time_limit=60
    ) as codec:
        result = await codec.compress(data)
        assert getattr(result, "reason", None) == ImageReason.DECODE_OUT_OF_MEMORY, result
