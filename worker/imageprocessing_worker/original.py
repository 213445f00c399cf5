"""Originals: kept as they are without their metadata, or made anew in their own format."""

from __future__ import annotations

import io

import msgspec
from imageprocessing_contract.request import Compression
from PIL import Image

from imageprocessing_worker import colour, crops, encode, metadata, picture
from imageprocessing_worker.encoded import Variant
from imageprocessing_worker.formats import UnusableImage
from imageprocessing_worker.picture import Picture

# Where Pillow holds a TIFF's samples exactly as they are, bits of one of them.
_TIFF_BITS = {"1": 1, "L": 8, "P": 8, "RGB": 8, "RGBA": 8, "CMYK": 8, "I;16": 16, "I;16B": 16}


def first_only(opened: Picture) -> str:
    """What to tell somebody whose animation became a still image."""
    what = "page" if opened.name == "TIFF" else "frame of an animation"
    return f"only the first {what} was taken"


def without_metadata(
    opened: Picture, compression: Compression, profile: bytes | None
) -> bytes | None:
    """The original's bytes, with Strip without metadata; None where that cannot be done."""
    if compression.metadata == "Keep":
        return opened.data
    return metadata.strip(opened.name, opened.data, keep_profile=profile is not None)


def keep(
    opened: Picture, compression: Compression, max_pixels: int
) -> tuple[bytes, tuple[int, int], bool, list[Variant]]:
    """Format Original: bytes, width and height, whether the coded pixels are the same, variants."""
    picture.decode(opened, compression)
    profile = colour.usable_profile(opened.image)
    size = picture.fit(opened.size, compression)
    narrower = picture.narrower(opened, compression)
    data, unchanged = None, False
    if size == opened.size and opened.orientation == 1:
        data, unchanged = _as_it_is(opened, compression, profile)
    if data is not None and not narrower:
        return data, size, unchanged, []
    kept, variants = data, []
    try:
        extras = msgspec.structs.replace(picture.extras(opened, compression), profile=profile)
        data = kept or _anew(opened, compression, max_pixels, extras)
        opened.sampled = False  # crops show the image, not its variants
        variants = [
            Variant(width, _anew(opened, settings, max_pixels, extras))
            for width, settings in narrower.items()
        ]
    except UnusableImage:
        if kept is None:
            raise
        data = kept  # as without widths nobody asked for its later frames
    return data, size, unchanged, variants


def _as_it_is(
    opened: Picture, compression: Compression, profile: bytes | None
) -> tuple[bytes | None, bool]:
    """The original without its metadata, where that can be had, and whether it is the smallest."""
    kept = without_metadata(opened, compression, profile)
    smaller = None if kept is None else _optimised(opened, kept, profile)
    return smaller or kept, kept is not None and not smaller


def _anew(
    opened: Picture, compression: Compression, max_pixels: int, extras: encode.Extras
) -> bytes:
    """A decoded picture encoded in its own format; `extras` are its own."""
    if opened.animated:
        return _frames(opened, compression, max_pixels, extras)
    size = picture.fit(opened.size, compression)
    image, embedded = picture.render(opened, opened.image, size, extras.profile, None)
    crops.note(opened, image, embedded)
    return encode.encode(
        image,
        opened.name,
        encode.ORIGINAL_QUALITY.get(opened.name, 0),
        msgspec.structs.replace(extras, profile=embedded),
        progressive=compression.progressive,
        lossless=_is_lossless_webp(opened),
    )


def _is_lossless_webp(opened: Picture) -> bool:
    return opened.name == "WEBP" and b"VP8L" in opened.data[12:64]


def _optimised(opened: Picture, kept: bytes, profile: bytes | None) -> bytes | None:
    """The same pixels in fewer bytes than `kept`, for a still PNG or TIFF."""
    if opened.animated:
        return None
    if opened.name == "PNG":
        smaller = _optimised_png(opened, kept)
    elif opened.name == "TIFF" and kept is not opened.data:
        smaller = _optimised_tiff(opened, profile)
    else:
        return None
    return smaller if smaller is not None and len(smaller) < len(kept) else None


def _optimised_png(opened: Picture, kept: bytes) -> bytes | None:
    if opened.image.mode == "P" and opened.image.palette is None:
        return None  # it is broken, yet has pixels; Pillow cannot write such a one
    buffer = io.BytesIO()
    best = encode.optimise_png(opened.size)
    opened.image.save(buffer, "PNG", optimize=best, icc_profile=None)
    return metadata.png_with_pixels(kept, buffer.getvalue())


def _optimised_tiff(opened: Picture, profile: bytes | None) -> bytes | None:
    image = opened.image
    tags = getattr(image, "tag_v2", {})
    bits, sample_format = tags.get(258, (1,)), tags.get(339, (1,))
    exact = _TIFF_BITS.get(image.mode)
    if any(bit != exact for bit in bits) or any(kind != 1 for kind in sample_format):
        return None
    return encode.encode(image.copy(), "TIFF", 0, encode.Extras(profile=profile))


def _frames(
    opened: Picture, compression: Compression, max_pixels: int, extras: encode.Extras
) -> bytes:
    """An animation, or pages, each frame made anew at its new size."""
    sizes = _sizes(opened, max_pixels)
    embedded = None
    frames: list[Image.Image] = []
    durations: list[float] = []
    for number, full in enumerate(sizes):
        with picture.decoding(opened.name):
            opened.image.seek(number)
            opened.image.load()
        size = picture.fit(full, compression)
        image, embedded = picture.render(opened, opened.image, size, extras.profile, None)
        durations.append(opened.image.info.get("duration", 0))
        frames.append(image)
    return encode.encode_frames(
        frames,
        opened.name,
        encode.ORIGINAL_QUALITY.get(opened.name, 0),
        msgspec.structs.replace(extras, profile=embedded),
        durations=durations,
        loop=opened.image.info.get("loop"),
        lossless=_is_lossless_webp(opened),
    )


def _sizes(opened: Picture, max_pixels: int) -> list[tuple[int, int]]:
    """Width and height of every frame, upright."""
    with picture.decoding(opened.name):
        count = int(getattr(opened.image, "n_frames", 1))
        sizes = [opened.size] * count
        if opened.name == "TIFF":
            for number in range(count):
                opened.image.seek(number)
                sizes[number] = opened.image.size
    pixels = sum(width * height for width, height in sizes)
    picture.check_pixels(pixels, max_pixels, f"{pixels} pixels in {count} frames")
    return sizes
