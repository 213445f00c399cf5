"""Colour profiles for tests, built by hand: there are none to install that are as free and small."""

from __future__ import annotations

import itertools
import struct

# Of the primaries, adapted to D50, as Apple's Display P3 profile has them.
_DISPLAY_P3 = {
    b"rXYZ": (0.51512, 0.24120, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.15710, 0.06657, 0.78407),
}
# Adobe RGB (1998), adapted to D50, as Adobe's profile has them; its curve is a gamma of 563/256.
_ADOBE_RGB = {
    b"rXYZ": (0.60974, 0.31111, 0.01947),
    b"gXYZ": (0.20528, 0.62567, 0.06087),
    b"bXYZ": (0.14919, 0.06322, 0.74457),
}
_SRGB = {
    b"rXYZ": (0.43607, 0.22249, 0.01392),
    b"gXYZ": (0.38515, 0.71687, 0.09708),
    b"bXYZ": (0.14307, 0.06061, 0.71410),
}
# Lab of the 16 combinations of no ink and full ink, cyan last to vary least; about FOGRA39.
_INKS = {
    (0, 0, 0): (95, 0, -2),
    (1, 0, 0): (55, -37, -50),
    (0, 1, 0): (48, 74, -3),
    (0, 0, 1): (89, -5, 93),
    (1, 1, 0): (24, 22, -46),
    (1, 0, 1): (50, -68, 33),
    (0, 1, 1): (47, 68, 48),
    (1, 1, 1): (23, 0, 0),
}


def display_p3(size: int = 0) -> bytes:
    """Display P3, padded to `size` bytes if that is more."""
    return _rgb(_DISPLAY_P3, size)


def srgb() -> bytes:
    """sRGB under no name that could be recognised."""
    return _rgb(_SRGB, 0)


def adobe_rgb() -> bytes:
    """Adobe RGB (1998), as cameras embed it."""
    curve = struct.pack(">4sIIHH", b"curv", 0, 1, 563, 0)
    return _rgb(_ADOBE_RGB, 0, curve)


# The curve of sRGB as type 3 of ICC.1, 10.18.
def _srgb_curve() -> bytes:
    numbers = _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return struct.pack(">4sIHH", b"para", 0, 3, 0) + numbers


def _rgb(
    primaries: dict[bytes, tuple[float, float, float]], size: int, curve: bytes = b""
) -> bytes:
    tags = {tag: b"XYZ \0\0\0\0" + _fixed(*xyz) for tag, xyz in primaries.items()}
    curve = curve or _srgb_curve()
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    if size:
        tags[b"pad "] = b"data\0\0\0\0" + bytes(size)
    return _profile(b"RGB ", b"XYZ ", b"mntr", tags)


def grey(gamma: float) -> bytes:
    """A grey profile with a plain gamma."""
    curve = struct.pack(">4sIIHH", b"curv", 0, 1, round(gamma * 256), 0)
    return _profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": curve})


def cmyk() -> bytes:
    """A printer's: linear between the Lab colours of the 16 combinations of inks."""
    table = bytearray()
    for inks in itertools.product((0, 1), repeat=4):
        lightness, a, b = cmyk_lab(*inks)
        table += bytes((round(lightness * 2.55), round(a) + 128, round(b) + 128))
    identity = bytes(range(256))
    lut = struct.pack(">4sIBBBB", b"mft1", 0, 4, 3, 2, 0) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut += identity * 4 + bytes(table) + identity * 3
    return _profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": lut})


def cmyk_lab(cyan: float, magenta: float, yellow: float, black: float) -> tuple[float, ...]:
    """Lab of a colour of that printer; inks from 0 to 1."""
    lab = [0.0, 0.0, 0.0]
    for corner in itertools.product((0, 1), repeat=4):
        weight = 1.0
        for ink, full in zip((cyan, magenta, yellow, black), corner, strict=True):
            weight *= ink if full else 1 - ink
        dark = 0.15 if corner[3] else 1
        for axis, value in enumerate(_INKS[corner[0], corner[1], corner[2]]):
            lab[axis] += weight * value * dark
    return tuple(lab)


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _profile(space: bytes, pcs: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + _fixed(0.9642, 1, 0.8249)
    body, entries = b"", b""
    at = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        padded = data + bytes(-len(data) % 4)
        entries += struct.pack(">4sII", tag, at + len(body), len(data))
        body += padded
    header = struct.pack(">I4sI4s4s4s", at + len(body), b"", 0x02400000, kind, space, pcs)
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp")
    header = header.ljust(68, b"\0") + _fixed(0.9642, 1, 0.8249)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + body
