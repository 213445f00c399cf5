"""What became of one image; apart from the codec, so that the worker needs no Pillow for it."""

from __future__ import annotations

import msgspec
from imageprocessing_contract.reasons import ImageReason


class Crops(msgspec.Struct, frozen=True):
    """The same part of an image as JPEG files that are close to its pixels, for the report."""

    before: bytes
    """Of the original, decoded and at the size of the result."""
    after: bytes


class Variant(msgspec.Struct, frozen=True, array_like=True):
    """The same image so many pixels wide, in the same format."""

    width: int
    data: bytes


class Encoded(msgspec.Struct, frozen=True, tag=True):
    """An image as it is stored; width and height in pixels."""

    data: bytes
    extension: str
    content_type: str
    width: int
    height: int
    unchanged: bool
    """The original was kept: its coded pixels are these, at most its metadata is gone."""
    warning: str | None
    variants: list[Variant] = []
    """For each of the widths asked for that is below its own, where that takes fewer bytes."""
    crops: Crops | str | None = None
    """Where they were asked for; words where they could not be made."""


class Refused(msgspec.Struct, frozen=True, tag=True):
    """Why there is no image."""

    reason: ImageReason
    message: str
