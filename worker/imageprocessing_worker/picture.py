"""Opens and decodes an image within its limits, upright and at the size it will have."""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec
from imageprocessing_contract.reasons import ImageReason
from imageprocessing_contract.request import Compression

# Image.open would import every plugin there is when it first meets one of these three.
from PIL import (
    AvifImagePlugin,
    ExifTags,
    Image,
    ImageColor,
    TiffImagePlugin,
    UnidentifiedImageError,
)
from PIL import WebPImagePlugin as _  # noqa: F401

from imageprocessing_worker import colour, exif, formats
from imageprocessing_worker.encode import Extras
from imageprocessing_worker.formats import UnusableImage

# One child per core keeps every core busy; threads inside one only cost switches.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

# Cameras and encoders write at most a dozen; each costs a pass over all pixels.
MAX_SCANS = 100

# How much larger than wanted an image must at least be after a cheap first reduction, by the
# decoder of JPEG and by averaging blocks. 1.0 for the decoder would save 0.3 ms of 4.3 at 256 px,
# and look worse: SSIM 0.962 against full decoding and Lanczos, instead of 0.996.
_DRAFT_GAP = 1.5
_REDUCING_GAP = 2.0
# The same of variants, which are made of one another: 320 px out of 640 instead of 2,000 is as
# good (SSIM 0.996 both) and takes a third.
_VARIANT_GAP = 1.5
# 500 to 256 px in 1.7 ms; Lanczos takes 2.5 for SSIM 0.998, Hamming 1.1 for 0.992. In a JPEG of
# quality 50 that is 0.884, 0.886 and 0.881; only Hamming can be seen in lossless formats.
_RESAMPLING = Image.Resampling.BICUBIC

# What Pillow's plugins have been seen to raise for bad data, programming errors among them.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
)
# What of a TIFF's directory is EXIF and not the layout of its own strips.
_TIFF_EXIF = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)


# Bytes a pixel that decoders have beside the image, and some more: all coefficients of a JPEG
# in several scans (two each), the canvases of WebP, the planes of AVIF.
_DECODER_BYTES = {"JPEG": 8, "WEBP": 12, "AVIF": 12}


class Picture(msgspec.Struct):
    """An opened image; width and height in pixels as it is to be seen, upright."""

    data: bytes
    name: str
    image: Image.Image
    width: int
    height: int
    animated: bool
    """It has more than one frame, or page."""
    orientation: int = 1
    """As the file says it, 1 to 8; final once decoded."""
    sampled: bool = False
    """Crops of it are wanted."""
    before: Image.Image | str | None = None
    """Of those the one before encoding, where that changes pixels; or why there is none."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Turns what Pillow raises for bad data into UnusableImage."""
    try:
        yield
    except Image.DecompressionBombError as error:
        told = re.search("[0-9]+ pixels", str(error))
        message = f"{told[0] if told else 'its pixels are'}, more than maxPixels"
        raise UnusableImage(ImageReason.TOO_MANY_PIXELS, message) from error
    except DAMAGE as error:
        what = " ".join(str(error).split())[:120]
        if "out of memory" in what.lower():
            raise MemoryError(what) from error
        if isinstance(error, UnidentifiedImageError) or not what:
            what = "its header is broken"
        message = f"the {name} file is damaged or cut off: {what}"
        raise UnusableImage(ImageReason.CORRUPT_IMAGE, message) from error


def open_picture(data: bytes, max_pixels: int) -> Picture:
    """Reads the header; raises UnusableImage for what is no image, or too large to decode."""
    name = formats.recognise(data)
    # Pillow refuses what is beyond twice its limit, and some plugins allocate as they open.
    Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
    if name == "JPEG" and formats.jpeg_scans(data, MAX_SCANS) > MAX_SCANS:
        message = f"more than {MAX_SCANS} scans: each costs as much as a whole image"
        raise UnusableImage(ImageReason.TOO_MANY_SCANS, message)
    with decoding(name):
        try:
            image = Image.open(io.BytesIO(data), formats=(name,))
        except OSError:
            if name == "WEBP":
                _room_for_webp(data)
            raise
        width, height = image.size
        check_pixels(width * height, max_pixels, f"{width} x {height} pixels")
        # Phones put a depth map or a second view behind a JPEG: that is no animation.
        animated = name != "JPEG" and bool(getattr(image, "is_animated", False))
        picture = Picture(data, name, image, width, height, animated)
        _orient(picture)
    return picture


def _room_for_webp(data: bytes) -> None:
    """Raises MemoryError where that is why there is no decoder; libwebp does not say."""
    if data[12:16] == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    # It keeps this canvas of RGBA, the one before and the file; Pillow has checked that it is
    # no bomb. Rather too much: who runs out of memory is tried again with more.
    bytearray(10 * width * height + 2 * len(data))


def _room_to_decode(picture: Picture) -> None:
    """Raises MemoryError where that may be why it broke off; not all decoders say so."""
    bytearray(_DECODER_BYTES.get(picture.name, 0) * picture.width * picture.height)


def _orient(picture: Picture) -> None:
    image = picture.image
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow turns TIFFs itself, their size included.
        turned = image.tag_v2.get(ExifTags.Base.Orientation, 1)
        picture.orientation = turned if turned in exif.TRANSPOSE else 1
        return
    before, picture.orientation = picture.orientation, exif.orientation(image.info.get("exif", b""))
    if (before > 4) != (picture.orientation > 4):
        picture.width, picture.height = picture.height, picture.width


def decode(picture: Picture, compression: Compression) -> None:
    """Decodes the first frame, of a JPEG at the smallest scale that is enough."""
    with decoding(picture.name):
        if picture.name == "JPEG":
            width, height = _as_stored(picture, fit(picture.size, compression))
            enough = math.ceil(width * _DRAFT_GAP), math.ceil(height * _DRAFT_GAP)
            picture.image.draft(None, enough)
        try:
            picture.image.load()
        except DAMAGE:
            _room_to_decode(picture)
            raise
        if picture.name == "PNG":
            _orient(picture)  # its EXIF may come behind its pixels


def _as_stored(picture: Picture, size: tuple[int, int]) -> tuple[int, int]:
    return size[::-1] if picture.orientation > 4 and picture.name != "TIFF" else size


def render(
    picture: Picture,
    frame: Image.Image,
    size: tuple[int, int],
    profile: bytes | None,
    background: str | None,
) -> tuple[Image.Image, bytes | None]:
    """A decoded frame as L, LA, RGB or RGBA in 8 bit, upright, at `size`.

    `profile` is the frame's own; the one that the result needs is returned with it.
    With a `background` (#rrggbb in sRGB) nothing is transparent any more.
    """
    image = colour.to_eight_bits(frame)
    if image.mode == "LAB":  # its signed bands cannot be resized
        image, profile = colour.to_srgb(image, profile), None
    stored = _as_stored(picture, size)
    if image.size != stored:
        image = resize(image, stored)
    if picture.name != "TIFF" and picture.orientation in exif.TRANSPOSE:
        image = image.transpose(exif.TRANSPOSE[picture.orientation])
    if image.mode in ("LA", "RGBA") and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert(image.mode[:-1])
    flatten = background is not None and image.mode in ("LA", "RGBA")
    if image.mode == "CMYK" or (
        profile is not None and (flatten or len(profile) > colour.MAX_PROFILE_BYTES)
    ):
        image, profile = colour.to_srgb(image, profile), None
    if background is not None and flatten:
        image = lay_on(image, background)
    if image is frame:
        # Encoders ask it for its other frames, and would write those as well.
        image = image.copy() if picture.animated else image
    return image, profile


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Pixels of 8 bit at another width and height."""
    return image.resize(size, _RESAMPLING, reducing_gap=_REDUCING_GAP)


def scaled_down(image: Image.Image, sizes: Iterable[tuple[int, int]]) -> list[Image.Image]:
    """The picture at each of these smaller sizes, the largest first."""
    made = [image]
    for size in sorted(sizes, reverse=True):
        enough = [one for one in made if one.width >= size[0] * _VARIANT_GAP]
        made.append(resize(enough[-1] if enough else image, size))
    return made[1:]


def lay_on(image: Image.Image, background: str) -> Image.Image:
    """An LA or RGBA image on a colour such as #ffffff, as L or RGB."""
    red, green, blue = ImageColor.getrgb(background)[:3]
    if image.mode == "LA" and red == green == blue:
        solid = Image.new("L", image.size, red)
    else:
        solid = Image.new("RGB", image.size, (red, green, blue))
    solid.paste(image.convert(solid.mode), mask=image.getchannel("A"))
    return solid


def extras(picture: Picture, compression: Compression) -> Extras:
    """EXIF data that says upright, and XMP, of a decoded picture; nothing with Strip."""
    if compression.metadata == "Strip":
        return Extras()
    image = picture.image
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        data = _tiff_exif(image)
    else:
        data = image.info.get("exif")
    xmp = image.info.get("xmp")
    return Extras(
        exif=exif.upright(data) if data else None, xmp=xmp if isinstance(xmp, bytes) else None
    )


def _tiff_exif(image: TiffImagePlugin.TiffImageFile) -> bytes | None:
    with decoding("TIFF"):
        found, kept = image.getexif(), Image.Exif()
        for tag in _TIFF_EXIF:
            if tag in found:
                kept[tag] = found[tag]
        for ifd in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if entries := found.get_ifd(ifd):
                kept[ifd] = dict(entries)
        return kept.tobytes() if len(kept) else None


def check_pixels(pixels: int, max_pixels: int, what: str) -> None:
    """Raises UnusableImage above the limit."""
    if pixels > max_pixels:
        message = f"{what}, more than maxPixels {max_pixels}"
        raise UnusableImage(ImageReason.TOO_MANY_PIXELS, message)


def fit(size: tuple[int, int], compression: Compression) -> tuple[int, int]:
    """The size within maxWidth and maxHeight, of the same aspect ratio, never larger."""
    width, height = size
    scale = min(
        1.0,
        (compression.max_width or width) / width,
        (compression.max_height or height) / height,
    )
    return max(1, round(width * scale)), max(1, round(height * scale))


def narrower(picture: Picture, compression: Compression) -> dict[int, Compression]:
    """How to make the variants, by their widths: those below the width of the image itself."""
    width = fit(picture.size, compression)[0]
    return {
        wanted: msgspec.structs.replace(compression, max_width=wanted)
        for wanted in compression.widths
        if wanted < width
    }


def middle(image: Image.Image, side: int) -> Image.Image:
    """A copy of its middle, of at most so many pixels a side."""
    width, height = min(image.width, side), min(image.height, side)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
