"""Overwrites the metadata of an AVIF file where it stands.

Boxes point at one another by offsets in the file, so nothing is moved: the size stays.
ISO/IEC 14496-12 describes the boxes, ISO/IEC 23008-12 the items for EXIF and XMP.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

# An EXIF block with no entries: the offset of its TIFF header, then that, then none and none.
_NO_EXIF = struct.pack(">I", 0) + b"MM\0*" + struct.pack(">IHI", 8, 0, 0)
_XMP = b"application/rdf+xml"
_NO_XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
_CONTAINERS = frozenset((b"moov", b"trak"))
# User data, and what a program adds of its own (Content Credentials come as uuid).
_DROPPED = frozenset((b"udta", b"uuid", b"free", b"skip"))


class _Box(NamedTuple):
    kind: bytes
    body: int  # where the payload begins
    end: int


def strip(data: bytes) -> bytes | None:
    """The file with its EXIF, XMP and private boxes blanked; None where that is not safe."""
    blank = bytearray(data)
    last = _blank(data, blank, 0, len(data))
    return bytes(blank[:last]) if last is not None else None


def _blank(data: bytes, blank: bytearray, start: int, end: int) -> int | None:
    """Where the last known box ends; None for a structure that is not known here."""
    at = start
    for box in _boxes(data, start, end):
        if box.end > end:
            return None
        if box.kind in _DROPPED:
            blank[at + 4 : at + 8] = b"free"
            blank[box.body : box.end] = bytes(box.end - box.body)
        elif box.kind in _CONTAINERS:
            if _blank(data, blank, box.body, box.end) is None:
                return None
        elif box.kind == b"meta" and not _blank_items(data, blank, box):
            return None
        at = box.end
    return at


def _boxes(data: bytes, start: int, end: int) -> Iterator[_Box]:
    at = start
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        body = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
            body = at + 16
        elif size == 0:
            size = end - at
        if size < body - at:
            raise IndexError("a box smaller than its own header")
        yield _Box(kind, body, at + size)
        at += size


def _blank_items(data: bytes, blank: bytearray, meta: _Box) -> bool:
    inside = {box.kind: box for box in _boxes(data, meta.body + 4, meta.end)}
    if b"iinf" not in inside:
        return True
    filler = _metadata_items(data, inside[b"iinf"])
    if not filler:
        return True
    if b"iloc" not in inside:
        return False
    for item, method, start, length in _extents(data, inside[b"iloc"]):
        if item not in filler:
            continue
        at = start
        if method == 1 and b"idat" in inside:
            at += inside[b"idat"].body
        elif method != 0:
            return False
        if not 0 < length <= len(data) - at:
            return False
        new = filler[item]
        # Too short for a valid block: then it was none before either.
        new = new if len(new) <= length else b""
        blank[at : at + length] = new + (b" " if new == _NO_XMP else b"\0") * (length - len(new))
    return True


def _metadata_items(data: bytes, iinf: _Box) -> dict[int, bytes]:
    """The numbers of the items that hold metadata, with what to put in their place."""
    version = data[iinf.body]
    first = iinf.body + (6 if version == 0 else 8)
    items: dict[int, bytes] = {}
    for box in _boxes(data, first, iinf.end):
        entry_version = data[box.body]
        if entry_version < 2:
            continue
        width = 2 if entry_version == 2 else 4
        number = int.from_bytes(data[box.body + 4 : box.body + 4 + width], "big")
        kind = data[box.body + 6 + width : box.body + 10 + width]
        if kind == b"Exif":
            items[number] = _NO_EXIF
        elif kind == b"mime":
            items[number] = _NO_XMP if _XMP in data[box.body : box.end] else b""
    return items


def _extents(data: bytes, iloc: _Box) -> Iterator[tuple[int, int, int, int]]:
    """Number of the item, how to count its offset, offset and length in bytes."""
    version, at = data[iloc.body], iloc.body + 4
    sizes = data[at : at + 2]
    offset_size, length_size = sizes[0] >> 4, sizes[0] & 15
    base_size, index_size = sizes[1] >> 4, sizes[1] & 15 if version else 0
    at += 2

    def number(width: int) -> int:
        nonlocal at
        if at + width > iloc.end:
            raise IndexError("iloc ends in the middle of an entry")
        at += width
        return int.from_bytes(data[at - width : at], "big")

    for _ in range(number(2 if version < 2 else 4)):
        item = number(2 if version < 2 else 4)
        method = number(2) & 15 if version else 0
        number(2)  # which file the data is in: 0, this one
        base = number(base_size)
        for _ in range(number(2)):
            number(index_size)
            offset, length = number(offset_size), number(length_size)
            yield item, method, base + offset, length
