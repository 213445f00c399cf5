"""One image: bytes in, smaller bytes out, or the reason why not."""

from __future__ import annotations

import msgspec
from imageprocessing_contract.request import Compression

from imageprocessing_worker import colour, encode, formats, original, picture, similarity
from imageprocessing_worker.encoded import Encoded, Refused
from imageprocessing_worker.formats import UnusableImage
from imageprocessing_worker.picture import Picture

__all__ = ["Encoded", "Refused", "compress"]

_OUTPUTS = {"JPEG": "JPEG", "WebP": "WEBP", "AVIF": "AVIF"}


def compress(data: bytes, compression: Compression, max_pixels: int) -> Encoded | Refused:
    """Decodes, transforms and encodes one image.

    `max_pixels` bounds width x height, summed over all frames that would be decoded.
    Raises MemoryError, and nothing else for bad data.
    """
    try:
        opened = picture.open_picture(data, max_pixels)
        if compression.format == "Original":
            data, size, unchanged = original.keep(opened, compression, max_pixels)
            return _encoded(data, opened.name, size, unchanged=unchanged)
        return _convert(opened, compression)
    except UnusableImage as refusal:
        return Refused(refusal.reason, str(refusal))


def _convert(opened: Picture, compression: Compression) -> Encoded:
    name = _OUTPUTS[compression.format]
    picture.decode(opened, compression)
    profile = colour.usable_profile(opened.image)
    size = picture.fit(opened.size, compression)
    background = compression.background if name == "JPEG" else None
    extras = picture.extras(opened, compression)
    image, embedded = picture.render(opened, opened.image, size, profile, background)
    quality = compression.quality or encode.QUALITY[name]
    if compression.target_ssim_permille is not None:
        quality = similarity.smallest_quality(image, name, compression.target_ssim_permille)
    data = encode.encode(
        image,
        name,
        quality,
        msgspec.structs.replace(extras, profile=embedded),
        progressive=compression.progressive,
    )
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
            return _encoded(kept, name, size, unchanged=True)
    warning = original.first_only(opened) if opened.animated else None
    return _encoded(data, name, size, warning=warning)


def _encoded(
    data: bytes,
    name: str,
    size: tuple[int, int],
    *,
    unchanged: bool = False,
    warning: str | None = None,
) -> Encoded:
    extension, content_type = formats.FILES[name]
    return Encoded(data, extension, content_type, *size, unchanged, warning)
