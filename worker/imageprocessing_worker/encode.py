"""Encodes pixels that are L, LA, RGB or RGBA in 8 bit, the same bytes for the same pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from imageprocessing_contract.reasons import ImageReason
from PIL import Image

from imageprocessing_worker.formats import UnusableImage

# Of equal looks: SSIM 0.936, 0.941 and 0.947 in the mean of photographs of 1,000 px.
QUALITY = {"JPEG": 50, "WEBP": 75, "AVIF": 50}
# For an Original that has to be encoded again: of equal looks once more (SSIM 0.967), and
# hard to tell from it.
ORIGINAL_QUALITY = {"JPEG": 85, "WEBP": 88, "AVIF": 70}
# aom's fastest: at 1,000 px 38 ms instead of 433 at its default 6, for 17 % more bytes.
_AVIF_SPEED = 10
# libwebp's default 4 takes 59 ms instead of 24, for 5 % fewer bytes.
_WEBP_METHOD = 2
# Pixels up to which a PNG is packed as well as can be, in 5 s: 50 million would take 85 s
# instead of 9, for 1 to 6 % fewer bytes.
_BEST_PNG = 2_000_000
_WEBP_ALPHA = 0x10  # among the flags of VP8X
# Pixels a side that the format, or its encoder, goes up to.
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "AVIF": 65536, "GIF": 65535}

_EXIF = b"Exif\0\0"
_JPEG_SEGMENT = 65533
_XMP_HEADER = 29  # "http://ns.adobe.com/xap/1.0/" and a zero byte


class Extras(msgspec.Struct, frozen=True):
    """What goes into the file beside pixels."""

    profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None


def encode(
    image: Image.Image,
    name: str,
    quality: int,
    extras: Extras,
    *,
    progressive: bool = False,
    lossless: bool = False,
) -> bytes:
    """A file in the format with Pillow's `name`; what that cannot hold is left out.

    `quality`, `progressive` and `lossless` count only where the format knows them.
    """
    # Savers also take what the decoder left here: comments, resolutions, colour keys.
    image.info = {}
    buffer = io.BytesIO()
    options = _options(name, image.size, quality, extras, lossless)
    if name == "JPEG":
        options["progressive"] = progressive
    with _encoding(name, image.size):
        (_hard_edges(image) if name == "GIF" else image).save(buffer, name, **options)
    return buffer.getvalue()


@contextmanager
def _encoding(name: str, size: tuple[int, int]) -> Iterator[None]:
    limit = _LONGEST_SIDE.get(name, max(size))
    if max(size) > limit:
        message = f"{size[0]} x {size[1]} pixels: {name} holds {limit} a side, set maxWidth"
        raise UnusableImage(ImageReason.TOO_MANY_PIXELS, message)
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        # Pixels and settings are sound: encoders only fail for want of memory, and few say so.
        raise MemoryError(f"{name}: {error}") from error


def encode_frames(
    frames: list[Image.Image],
    name: str,
    quality: int,
    extras: Extras,
    *,
    durations: list[float],
    loop: int | None,
    lossless: bool,
) -> bytes:
    """An animation (durations in milliseconds), or the pages of a TIFF."""
    if name != "TIFF" and len({frame.mode for frame in frames}) > 1:
        frames = [frame.convert("RGBA") for frame in frames]
    for frame in frames:
        frame.info = {}
    options = _options(name, frames[0].size, quality, extras, lossless)
    if name != "TIFF":
        options["duration"] = durations
    if loop is not None and name != "AVIF":
        options["loop"] = loop
    if name == "GIF":
        # Each frame is the whole picture: clear what was there where it can show through.
        frames = [_hard_edges(frame) for frame in frames]
        options["disposal"] = 2 if frames[0].mode == "RGBA" else 0
    buffer = io.BytesIO()
    with _encoding(name, frames[0].size):
        frames[0].save(buffer, name, save_all=True, append_images=frames[1:], **options)
    data = buffer.getvalue()
    if name == "WEBP" and frames[0].mode == "RGBA" and data[12:16] == b"VP8X":
        # libwebp cuts frames to what can be seen of them, and where those parts are opaque it
        # takes the whole animation for opaque.
        return data[:20] + bytes((data[20] | _WEBP_ALPHA,)) + data[21:]
    return data


def _hard_edges(frame: Image.Image) -> Image.Image:
    """GIF knows transparent and opaque, and nothing between."""
    if frame.mode in ("LA", "RGBA"):
        alpha = frame.getchannel("A").point([0] * 128 + [255] * 128)
        frame.putalpha(alpha)
    return frame


def optimise_png(size: tuple[int, int]) -> bool:
    """Whether a PNG of this width and height is worth zlib's best."""
    return size[0] * size[1] <= _BEST_PNG


def _options(
    name: str, size: tuple[int, int], quality: int, extras: Extras, lossless: bool
) -> dict[str, Any]:
    options: dict[str, Any] = {"icc_profile": extras.profile} if extras.profile else {}
    tiff_exif = extras.exif.removeprefix(_EXIF) if extras.exif else b""
    match name:
        case "JPEG":
            # Optimised Huffman tables, 6 % smaller, would take 3.8 ms instead of 2.1.
            options |= {"quality": quality, "subsampling": "4:2:0"}
            if tiff_exif and len(_EXIF + tiff_exif) <= _JPEG_SEGMENT:
                options["exif"] = _EXIF + tiff_exif
            if extras.xmp and len(extras.xmp) <= _JPEG_SEGMENT - _XMP_HEADER:
                options["xmp"] = extras.xmp
            return options
        case "WEBP":
            options |= {"quality": quality, "lossless": lossless, "method": _WEBP_METHOD}
        case "AVIF":
            options |= {"quality": quality, "speed": _AVIF_SPEED, "max_threads": 1}
        case "PNG":
            options["optimize"] = optimise_png(size)
        case "TIFF":
            options["compression"] = "tiff_adobe_deflate"
        case _:
            return {}
    if tiff_exif:
        options["exif"] = tiff_exif
    if extras.xmp and name in ("WEBP", "AVIF"):
        options["xmp"] = extras.xmp
    return options
