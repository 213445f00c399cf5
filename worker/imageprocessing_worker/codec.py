"""One image: bytes in, smaller bytes out, or the reason why not."""

from __future__ import annotations

import msgspec
from imageprocessing_contract.request import Compression
from PIL import Image

from imageprocessing_worker import (
    colour,
    crops,
    encode,
    formats,
    original,
    picture,
    similarity,
)
from imageprocessing_worker.encoded import Encoded, Refused, Variant
from imageprocessing_worker.formats import UnusableImage
from imageprocessing_worker.picture import Picture

__all__ = ["Encoded", "Refused", "compress"]

_OUTPUTS = {"JPEG": "JPEG", "WebP": "WEBP", "AVIF": "AVIF"}


def compress(
    data: bytes, compression: Compression, max_pixels: int, *, sample: bool = False
) -> Encoded | Refused:
    """Decodes, transforms and encodes one image.

    `max_pixels` bounds width x height, summed over all frames that would be decoded. With
    `sample` there are crops as well, where they can be made: never of an animation.
    Raises MemoryError, and nothing else for bad data.
    """
    try:
        opened = picture.open_picture(data, max_pixels)
        opened.sampled = sample and not opened.animated
        if compression.format == "Original":
            name = opened.name
            data, size, unchanged, variants = original.keep(opened, compression, max_pixels)
            encoded = _encoded(data, name, size, variants, unchanged=unchanged)
        else:
            name = _OUTPUTS[compression.format]
            encoded = _convert(opened, compression)
    except UnusableImage as refusal:
        return Refused(refusal.reason, str(refusal))
    if not sample:
        return encoded
    if opened.animated:
        return msgspec.structs.replace(encoded, crops="it has more than one frame")
    before = None if encoded.unchanged else opened.before
    del opened  # the result takes as much to decode
    return msgspec.structs.replace(encoded, crops=crops.pair(before, encoded.data, name))


def _convert(opened: Picture, compression: Compression) -> Encoded:
    name = _OUTPUTS[compression.format]
    picture.decode(opened, compression)
    profile = colour.usable_profile(opened.image)
    size = picture.fit(opened.size, compression)
    background = compression.background if name == "JPEG" else None
    extras = picture.extras(opened, compression)
    image, embedded = picture.render(opened, opened.image, size, profile, background)
    crops.note(opened, image, embedded)
    extras = msgspec.structs.replace(extras, profile=embedded)
    data = _encode(image, name, compression, extras)
    sizes = [
        picture.fit(opened.size, settings)
        for settings in picture.narrower(opened, compression).values()
    ]
    variants = [
        Variant(narrow.width, _encode(narrow, name, compression, extras))
        for narrow in picture.scaled_down(image, sizes)
    ]
    if (
        compression.keep_original_if_smaller
        and opened.name == name
        and opened.size == size
        and opened.orientation == 1
        and not opened.animated
        and embedded == profile
        and opened.image.mode != "CMYK"
    ):
        kept = original.without_metadata(opened, compression, profile)
        if kept is not None and len(kept) <= len(data):
            return _encoded(kept, name, size, variants, unchanged=True)
    warning = original.first_only(opened) if opened.animated else None
    return _encoded(data, name, size, variants, warning=warning)


def _encode(
    image: Image.Image, name: str, compression: Compression, extras: encode.Extras
) -> bytes:
    quality = compression.quality or encode.QUALITY[name]
    if compression.target_ssim_permille is not None:
        quality = similarity.smallest_quality(image, name, compression.target_ssim_permille)
    return encode.encode(image, name, quality, extras, progressive=compression.progressive)


def _encoded(
    data: bytes,
    name: str,
    size: tuple[int, int],
    variants: list[Variant],
    *,
    unchanged: bool = False,
    warning: str | None = None,
) -> Encoded:
    extension, content_type = formats.FILES[name]
    # A palette lost, or an original that was kept: then the image itself is the better variant.
    variants = [one for one in variants if len(one.data) < len(data)]
    return Encoded(data, extension, content_type, *size, unchanged, warning, variants)
