"""Builds a TIFF anew from its structure and its coded strips or tiles, and nothing else."""

from __future__ import annotations

import struct
from typing import NamedTuple

# Bytes of one value by TIFF 6.0's field types 1 to 12.
_WIDTH = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES, _PROFILE = 273, 279, 324, 325, 34675
# What a decoder needs: size, depth, compression and its tables, colours, layout, resolution.
# A description, dates, names, EXIF, GPS, XMP, IPTC and Photoshop's blocks are not among it.
# fmt: off
_KEPT = frozenset((
    254, 255, 256, 257, 258, 259, 262, 266, 274, 277, 278, 282, 283, 284, 292, 293, 296, 297, 301,
    317, 318, 319, 320, 322, 323, 332, 334, 336, 338, 339, 340, 341, 347, 529, 530, 531, 532,
))
# fmt: on
# Compression 6 (JPEG as TIFF 6.0 had it) points at tables outside the strips.
_OLD_JPEG = 6
_MAX_PAGES = 1000


class _Field(NamedTuple):
    kind: int
    length: int
    values: bytes


def strip(data: bytes, keep_profile: bool) -> bytes | None:
    """The same pages with the same coded pixels; None for a layout that is not known here."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return None  # BigTIFF
    out = bytearray(data[:4] + bytes(4))
    pointer = 4
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    seen: set[int] = set()
    while at:
        if at in seen or len(seen) == _MAX_PAGES:
            return None
        seen.add(at)
        fields, at = _read(data, order, at)
        if not (page := _page(data, order, fields, out, keep_profile)):
            return None
        struct.pack_into(f"{order}I", out, pointer, len(out))
        pointer = _write(out, order, page)
    return bytes(out)


def _read(data: bytes, order: str, at: int) -> tuple[dict[int, _Field], int]:
    (count,) = struct.unpack_from(f"{order}H", data, at)
    fields: dict[int, _Field] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, values, place = struct.unpack_from(f"{order}HHII", data, entry)
        length = values * _WIDTH.get(kind, 0)
        start = entry + 8 if length <= 4 else place
        if start + length > len(data):
            raise IndexError("a field lies beyond the file")
        fields[tag] = _Field(kind, values, data[start : start + length])
    (following,) = struct.unpack_from(f"{order}I", data, at + 2 + 12 * count)
    return fields, following


def _page(
    data: bytes, order: str, fields: dict[int, _Field], out: bytearray, keep_profile: bool
) -> dict[int, _Field] | None:
    """The fields of the page as they will be; its strips are appended to `out`."""
    where, lengths = (_TILES, _TILE_BYTES) if _TILES in fields else (_STRIPS, _STRIP_BYTES)
    if where not in fields or lengths not in fields or 259 not in fields:
        return None
    if _numbers(order, fields[259]) == [_OLD_JPEG]:
        return None
    page = {tag: field for tag, field in fields.items() if tag in _KEPT}
    if keep_profile and _PROFILE in fields:
        page[_PROFILE] = fields[_PROFILE]
    places, sizes = _numbers(order, fields[where]), _numbers(order, fields[lengths])
    if len(places) != len(sizes):
        return None
    moved = []
    for place, size in zip(places, sizes, strict=True):
        if place + size > len(data) or len(out) > len(data):
            return None
        moved.append(len(out))
        out += data[place : place + size]
        out += bytes(len(out) % 2)
    page[where] = _Field(4, len(moved), struct.pack(f"{order}{len(moved)}I", *moved))
    page[lengths] = fields[lengths]
    return page


def _numbers(order: str, field: _Field) -> list[int]:
    code = {3: "H", 4: "I"}.get(field.kind)
    if code is None:
        raise IndexError("a field of another type than numbers")
    return list(struct.unpack(f"{order}{field.length}{code}", field.values))


def _write(out: bytearray, order: str, page: dict[int, _Field]) -> int:
    """Appends the page's directory; returns where the pointer to the next page stands."""
    start = len(out)
    out += struct.pack(f"{order}H", len(page)) + bytes(12 * len(page) + 4)
    for index, (tag, field) in enumerate(sorted(page.items())):
        entry = start + 2 + 12 * index
        struct.pack_into(f"{order}HHI", out, entry, tag, field.kind, field.length)
        if len(field.values) <= 4:
            out[entry + 8 : entry + 8 + len(field.values)] = field.values
        else:
            struct.pack_into(f"{order}I", out, entry + 8, len(out))
            out += field.values + bytes(len(field.values) % 2)
    return start + 2 + 12 * len(page)
