"""Format Original: the same format, and every pixel where nothing asks for another size."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from imageprocessing_worker.encode import Extras, encode_frames
from PIL import Image

from tests import icc, photos
from tests.codec import colour_distance, compression, encoded, likeness, opened
from tests.unit.test_codec import turned
from tests.unit.test_metadata import animated, same_pixels

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

ORIGINAL = compression("Original")
EXTENSIONS = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "TIFF": "tif",
    "BMP": "bmp",
}
EXTENSIONS |= {"AVIF": "avif"}


@pytest.mark.parametrize("source", EXTENSIONS)
def test_without_another_size_every_pixel_stays(source: str) -> None:
    data = photos.encoded(photos.photograph(), source)
    result = encoded(data, ORIGINAL)
    assert result.extension == EXTENSIONS[source]
    assert (result.width, result.height) == (600, 400)
    assert len(result.data) <= len(data)
    assert same_pixels(data, result.data)
    # PNG and TIFF are packed better; the others keep what was coded.
    assert result.unchanged == (source not in ("PNG", "TIFF"))
    assert result.unchanged == (result.data == data)


@pytest.mark.parametrize("source", EXTENSIONS)
def test_with_another_size_the_format_stays(source: str) -> None:
    data = photos.encoded(photos.photograph(), source)
    result = encoded(data, compression("Original", max_width=300))
    image = opened(result.data)
    assert (image.format, image.size, result.unchanged) == (source, (300, 200), False)
    expected = opened(data).convert("RGB").resize((300, 200), Image.Resampling.BICUBIC)
    if source in ("PNG", "TIFF", "BMP"):
        assert (np.asarray(image) == np.asarray(expected)).all()
    else:
        assert likeness(image, expected) > (0.85 if source == "GIF" else 0.93)


@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_what_lies_on_its_side_is_turned(source: str) -> None:
    result = encoded(turned(photos.photograph(), 8, source), ORIGINAL)
    image = opened(result.data)
    assert (image.format, image.size, result.unchanged) == (source, (600, 400), False)
    assert not image.getexif().get(0x112)
    assert colour_distance(image, photos.photograph()) < 2


@pytest.mark.parametrize("source", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_an_animation_of_another_size_keeps_its_frames(source: str) -> None:
    data = animated(source)
    result = encoded(data, compression("Original", max_width=60))
    before, after = opened(data), opened(result.data)
    assert after.format == source
    assert (result.width, result.height, result.warning) == (60, 45, None)
    assert after.n_frames == before.n_frames == 3  # type: ignore[attr-defined]
    assert after.info.get("loop") == before.info.get("loop")
    for number in range(3):
        before.seek(number)
        after.seek(number)
        expected = before.convert("RGB").resize((60, 45), Image.Resampling.LANCZOS)
        assert colour_distance(after, expected) < 6
        assert after.info.get("duration") == before.info.get("duration")


def test_pages_of_a_tiff_keep_their_own_shapes() -> None:
    pages = [photos.photograph().resize(size) for size in ((300, 200), (100, 400), (50, 50))]
    data = photos.encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    image = opened(encoded(data, compression("Original", max_width=150, max_height=150)).data)
    sizes = []
    for number in range(3):
        image.seek(number)
        sizes.append(image.size)
    assert sizes == [(150, 100), (38, 150), (50, 50)]


def bar_that_moves(source: str) -> bytes:
    """A red bar that goes from left to right over nothing, 80 x 80 pixels."""
    frames = []
    for number in range(4):
        frame = Image.new("RGBA", (80, 80), (0, 0, 0, 1 if source == "WEBP" else 0))
        frame.paste((200, 30, 30, 255), (20 * number, 0, 20 * number + 20, 80))
        frames.append(frame)
    options = {"disposal": 2} if source == "GIF" else {}
    options |= {"lossless": True} if source == "WEBP" else {}
    return photos.encoded(
        frames[0], source, save_all=True, append_images=frames[1:], duration=50, **options
    )


@pytest.mark.parametrize("source", ["GIF", "WEBP", "PNG", "AVIF"])
def test_a_transparent_animation_leaves_no_trails(source: str) -> None:
    image = opened(encoded(bar_that_moves(source), compression("Original", max_width=40)).data)
    for number in range(4):
        image.seek(number)
        visible = np.asarray(image.convert("RGBA"))[..., 3] > 127
        assert visible[:, 10 * number + 2 : 10 * number + 8].all()
        assert visible.sum() <= 40 * 12


def test_an_animation_of_opaque_parts_stays_transparent() -> None:
    """libwebp cuts the frames to the bar, which is opaque."""
    frames = [Image.new("RGBA", (20, 20)) for _ in range(2)]
    for number, frame in enumerate(frames):
        frame.paste((200, 30, 30, 255), (10 * number, 0, 10 * number + 10, 20))
    data = encode_frames(frames, "WEBP", 80, Extras(), durations=[50, 50], loop=0, lossless=True)
    image = opened(data)
    assert image.mode == "RGBA"
    assert (np.asarray(image)[:, 10:, 3] == 0).all()


def test_lossless_webp_stays_lossless() -> None:
    data = photos.encoded(photos.photograph(), "WEBP", lossless=True)
    assert encoded(data, ORIGINAL).data == data
    small = opened(encoded(data, compression("Original", max_width=300)).data)
    expected = photos.photograph().resize((300, 200), Image.Resampling.BICUBIC)
    assert (np.asarray(small) == np.asarray(expected)).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_is_packed_better_and_stays_what_it_is(mode: str) -> None:
    picture = photos.photograph()
    if mode == "I;16":
        image = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 251 + 3)
    else:
        image = picture.quantize(200) if mode == "P" else picture.convert(mode)
    data = photos.encoded(image, "PNG", compress_level=0)
    result = encoded(data, ORIGINAL)
    after = opened(result.data)
    assert after.mode == mode
    assert len(result.data) < len(data)
    assert (np.asarray(after) == np.asarray(opened(data))).all()
    if mode == "P":
        assert after.getpalette() == opened(data).getpalette()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_16_bit_colour_png_is_not_reduced() -> None:
    """Pillow reads it as 8 bit, so it must not pass through Pillow."""
    eight = np.asarray(photos.photograph().resize((60, 40)))
    wide = (eight.astype(">u2") * 257 - 3).tobytes()
    rows = b"".join(b"\0" + wide[at : at + 360] for at in range(0, len(wide), 360))
    header = struct.pack(">IIBBBBB", 60, 40, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
    data += chunk(b"tEXt", b"Comment\0secret") + chunk(b"IEND", b"")
    result = encoded(data, ORIGINAL)
    assert result.unchanged
    assert result.data == data.replace(chunk(b"tEXt", b"Comment\0secret"), b"")


def test_a_png_without_an_end_is_kept_as_it_is() -> None:
    data = photos.encoded(photos.photograph(), "PNG", compress_level=0)[:-12]
    result = encoded(data, compression("Original", metadata="Keep"))
    assert (result.unchanged, result.data) == (True, data)


def test_a_png_without_its_palette_is_kept_as_it_is() -> None:
    data = photos.encoded(photos.photograph().quantize(16), "PNG", compress_level=0)
    at = data.index(b"PLTE") - 4
    bare = data[:at] + data[at + 12 + int.from_bytes(data[at : at + 4], "big") :]
    assert encoded(bare, ORIGINAL).unchanged


def test_a_large_png_is_packed_in_reasonable_time() -> None:
    """With zlib's best, 50 megapixels would be more than the time for one image."""
    picture = photos.photograph().resize((2000, 1333))
    quick = photos.encoded(picture, "PNG")
    result = encoded(photos.encoded(picture, "PNG", compress_level=1), ORIGINAL)
    assert len(result.data) == len(quick)


def test_16_bit_colour_tiff_is_not_reduced() -> None:
    wide = np.asarray(photos.photograph()).astype(np.uint16) * 257 - 3
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, wide, photometric="rgb", description="secret")
    data = buffer.getvalue()
    result = encoded(data, ORIGINAL)
    assert result.unchanged
    assert b"secret" not in result.data
    assert (tifffile.imread(io.BytesIO(result.data)) == wide).all()


def test_png_keeps_what_its_colours_need() -> None:
    picture = photos.photograph()
    data = photos.encoded(picture, "PNG", compress_level=1)
    gamma, primaries = chunk(b"gAMA", struct.pack(">I", 100000)), chunk(b"cHRM", bytes(range(32)))
    data = data[:33] + gamma + primaries + data[33:]
    result = encoded(data, ORIGINAL)
    assert gamma + primaries in result.data
    assert len(result.data) < len(data)
    wide = photos.encoded(picture, "PNG", icc_profile=icc.display_p3())
    assert opened(encoded(wide, ORIGINAL).data).info["icc_profile"] == icc.display_p3()


def test_metadata_is_kept_on_request() -> None:
    for source in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        exif = Image.Exif()
        exif[0x10F] = "Camera"
        data = photos.encoded(photos.photograph(), source, exif=exif)
        settings = compression("Original", metadata="Keep")
        assert opened(encoded(data, settings).data).getexif()[0x10F] == "Camera"
        smaller = compression("Original", metadata="Keep", max_width=300)
        assert opened(encoded(data, smaller).data).getexif()[0x10F] == "Camera"
