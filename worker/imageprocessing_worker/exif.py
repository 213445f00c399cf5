"""The orientation in EXIF data, read and reset in place.

Pillow's own writer builds the whole block anew and loses what cameras keep in it
at fixed offsets (maker notes), so the one field is changed where it stands.
"""

from __future__ import annotations

import struct

from PIL.Image import Transpose

_ORIENTATION = 0x0112
_SHORT = 3

TRANSPOSE = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def orientation(exif: bytes) -> int:
    """1 to 8; 1 where there is none or where the data is broken."""
    if (place := _place(exif)) is None:
        return 1
    at, order = place
    value = int(struct.unpack_from(f"{order}H", exif, at)[0])
    return value if value in TRANSPOSE else 1


def upright(exif: bytes) -> bytes:
    """The same EXIF data with the orientation 1."""
    if (place := _place(exif)) is None:
        return exif
    at, order = place
    return exif[:at] + struct.pack(f"{order}H", 1) + exif[at + 2 :]


def _place(exif: bytes) -> tuple[int, str] | None:
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[start : start + 4])
    if order is None or len(exif) < start + 8:
        return None
    at = start + int(struct.unpack_from(f"{order}I", exif, start + 4)[0])
    if at + 2 > len(exif):
        return None
    (count,) = struct.unpack_from(f"{order}H", exif, at)
    for entry in range(at + 2, min(at + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, values = struct.unpack_from(f"{order}HHI", exif, entry)
        if tag == _ORIENTATION:
            return (entry + 8, order) if (kind, values) == (_SHORT, 1) else None
    return None
