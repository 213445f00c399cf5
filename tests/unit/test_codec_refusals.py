"""What gives no image, and the reason that is given for it."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import pytest
from imageprocessing_contract.reasons import ImageReason
from imageprocessing_worker.codec import Encoded, compress
from PIL import Image

from tests import photos
from tests.codec import MAX_PIXELS, compression, encoded, refused

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

SOURCES = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"<!DOCTYPE html><html><body>404", "HTML"),
        (b"\xef\xbb\xbf\r\n  <HTML lang=en>", "HTML"),
        (b"<!-- cache --><!doctype html><html>", "HTML"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
        (b'{"error": "not found"}', "JSON"),
        (b"Not found", "text"),
        ("BMW für alle".encode(), "text"),
        (bytes(range(200)), "no known format"),
        (b"\xff\xd8", "no known format"),
    ],
)
def test_not_an_image(data: bytes, what: str) -> None:
    refusal = refused(data)
    assert refusal.reason == ImageReason.NOT_AN_IMAGE
    assert what in refusal.message


def test_no_bytes() -> None:
    assert refused(b"").reason == ImageReason.EMPTY_RESPONSE


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b'<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (b'<?xml version="1.0"?>\n<!-- by hand -->\n<svg width="1">', "SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "video"),
        (b"%PDF-1.7", "PDF"),
        (b"8BPS\0\1", "Photoshop"),
        (b"P6\n10 10\n255\n", "PNM"),
    ],
)
def test_format_not_supported(data: bytes, what: str) -> None:
    refusal = refused(data)
    assert refusal.reason == ImageReason.FORMAT_NOT_SUPPORTED
    assert what in refusal.message


@pytest.mark.parametrize("format_", ["ICO", "JPEG2000", "PPM", "QOI", "DDS", "EPS", "PDF", "ICNS"])
def test_what_pillow_could_read_is_not_read(format_: str) -> None:
    data = photos.encoded(photos.photograph().resize((64, 64)), format_)
    assert refused(data).reason == ImageReason.FORMAT_NOT_SUPPORTED


@pytest.mark.parametrize("out", ["JPEG", "Original"])
@pytest.mark.parametrize("source", SOURCES)
def test_truncated(source: str, out: str) -> None:
    whole = photos.encoded(photos.photograph(), source)
    settings = compression("JPEG") if out == "JPEG" else compression("Original")
    for part in (0.01, 0.3, 0.5, 0.7, 0.99):
        refusal = refused(whole[: int(len(whole) * part)], settings)
        assert refusal.reason == ImageReason.CORRUPT_IMAGE
        assert "WebP" not in refusal.message
        assert len(refusal.message) < 200


@pytest.mark.parametrize("source", SOURCES)
def test_header_only(source: str) -> None:
    whole = photos.encoded(photos.photograph(), source)
    for length in range(12, 40):
        refusal = refused(whole[:length])
        assert refusal.reason in (ImageReason.CORRUPT_IMAGE, ImageReason.NOT_AN_IMAGE), length


@pytest.mark.parametrize("source", SOURCES)
def test_damage_never_raises(source: str) -> None:
    """Every byte of the head, and a thousand beyond, overwritten one at a time."""
    whole = photos.encoded(photos.photograph().resize((60, 40)), source)
    step = max(1, (len(whole) - 200) // 500)
    for at in (*range(8, min(200, len(whole))), *range(200, len(whole), step)):
        for value in (0x00, 0xFF, whole[at] ^ 0x41):
            data = whole[:at] + bytes([value]) + whole[at + 1 :]
            for settings in (compression(metadata="Keep"), compression("Original")):
                compress(data, settings, 1_000_000)


def png_header(width: int, height: int) -> bytes:
    """A few kB that say they are that large, black."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    rows = zlib.compress(bytes((width + 7) // 8 + 1) * min(height, 2000), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("out", ["JPEG", "Original"])
def test_too_many_pixels_is_seen_before_decoding(out: str) -> None:
    bomb = png_header(20_000, 20_000)
    assert len(bomb) < 20_000
    settings = compression("JPEG") if out == "JPEG" else compression("Original")
    tracemalloc.start()
    refusal = refused(bomb, settings)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refusal.reason == ImageReason.TOO_MANY_PIXELS
    assert refusal.message == "400000000 pixels, more than maxPixels"
    assert peak < 1_000_000


@pytest.mark.parametrize("source", SOURCES)
def test_the_limit_of_pixels_is_exact(source: str) -> None:
    data = photos.encoded(photos.photograph().resize((60, 40)), source)
    assert refused(data, limit=60 * 40 - 1).reason == ImageReason.TOO_MANY_PIXELS
    assert isinstance(compress(data, compression(), 60 * 40), Encoded)


def test_a_gif_whose_frame_is_larger_than_its_screen() -> None:
    data = bytearray(photos.encoded(photos.photograph().resize((60, 40)), "GIF"))
    at = bytes(data).index(b",\0\0\0\0" + struct.pack("<HH", 60, 40))
    data[at + 5 : at + 9] = struct.pack("<HH", 60_000, 60_000)
    assert refused(bytes(data)).reason == ImageReason.TOO_MANY_PIXELS


def test_all_frames_count_where_all_are_decoded() -> None:
    frames = [Image.open(io.BytesIO(data)) for _, data in photos.crops(4, 100, 80, "PNG")]
    gif = photos.encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    limit = 100 * 80 * 3
    assert isinstance(compress(gif, compression(), limit), Encoded)
    assert isinstance(compress(gif, compression("Original"), limit), Encoded)
    refusal = refused(gif, compression("Original", max_width=50), limit)
    assert refusal.reason == ImageReason.TOO_MANY_PIXELS
    assert "4 frames" in refusal.message


def progressive(scans: int) -> bytes:
    """A progressive JPEG with its last scan, a few bytes long, over and over."""
    picture = photos.photograph().resize((64, 64))
    data = photos.encoded(picture, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xc4")  # the last scan brings its own table
    present = data.count(b"\xff\xda")
    return data[:-2] + data[last:-2] * (scans - present) + data[-2:]


def test_too_many_scans() -> None:
    refusal = refused(progressive(1000))
    assert refusal.reason == ImageReason.TOO_MANY_SCANS
    assert refused(progressive(101)).reason == ImageReason.TOO_MANY_SCANS
    encoded(progressive(100))


def test_what_only_looks_like_scans_does_not_count() -> None:
    """Embedded previews and profiles hold the same two bytes."""
    picture = photos.photograph()
    data = photos.encoded(picture, "JPEG", comment=b"\xff\xda" * 500)
    assert encoded(data).width == picture.width
    after = photos.encoded(picture, "JPEG") + b"\xff\xda\0\0" * 500
    assert encoded(after).width == picture.width


def test_pillows_own_limit_follows_ours() -> None:
    """It would refuse 90 megapixels, and warn from 45 on."""
    assert compression()
    large = photos.encoded(Image.new("1", (12_000, 12_000)), "PNG")
    assert isinstance(compress(large, compression(max_width=100), 150_000_000), Encoded)
    assert refused(large, limit=MAX_PIXELS).reason == ImageReason.TOO_MANY_PIXELS
