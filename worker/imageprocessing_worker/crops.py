"""The same part of an image before and after, at 1:1, for the report's comparison."""

from __future__ import annotations

import io

from PIL import Image

from imageprocessing_worker import colour
from imageprocessing_worker.encoded import Crops
from imageprocessing_worker.picture import DAMAGE, Picture, lay_on, middle

SIDE = 512
"""Pixels, at most: the middle of the picture."""
MOST_BYTES = 64_000
"""Of one crop: eight pairs are 1.4 MB of the report. Photographs take 25 to 66 kB at the first
of these qualities."""
_QUALITIES = (90, 75, 50)
_ERRORS = (*DAMAGE, MemoryError, Image.DecompressionBombError)


def note(picture: Picture, rendered: Image.Image, profile: bytes | None) -> None:
    """Keeps the part of what is about to be encoded, where crops are wanted."""
    if picture.sampled:
        try:
            picture.before = _middle(rendered, profile)
        except _ERRORS as error:
            picture.before = _why(error)


def pair(before: Image.Image | str | None, data: bytes, name: str) -> Crops | str:
    """Both crops of a result with Pillow's format `name`, or why there are none.

    Without `before` the pixels have stayed as they were.
    """
    if isinstance(before, str):
        return before
    try:
        with Image.open(io.BytesIO(data), formats=(name,)) as image:
            after = _middle(image, colour.usable_profile(image))
        if before is not None and before.size != after.size:
            return f"one is {before.size} pixels, the other {after.size}"
        encoded = _encoded(after)
        return Crops(_encoded(before) if before is not None else encoded, encoded)
    except _ERRORS as error:
        return _why(error)


def _middle(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB in sRGB; what is transparent, on white."""
    part = colour.to_eight_bits(middle(image, SIDE))
    part = colour.to_srgb(part, profile)
    if part.mode in ("LA", "RGBA"):
        part = lay_on(part, "white")
    return part.convert("RGB")


def _encoded(image: Image.Image) -> bytes:
    """JPEG: WebP is a third smaller, but takes 11 ms and not 2."""
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, subsampling="4:4:4")
        if len(buffer.getvalue()) <= MOST_BYTES:
            return buffer.getvalue()
    raise ValueError(f"its crop takes more than {MOST_BYTES} bytes")


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
