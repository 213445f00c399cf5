"""Damaged image files, each made from a real one by its seed and number alone."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests import icc, photos

WIDTH, HEIGHT = 72, 48
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")
"""All that formats.py reads, by Pillow's names."""


class Case(NamedTuple):
    """One damaged file, and how it came to be."""

    data: bytes
    story: str


@cache
def sources() -> dict[str, bytes]:
    """Whole files of a few kilobytes: each format in the kinds that take other ways to decode."""
    rgb = photos.photograph().resize((WIDTH, HEIGHT))
    rgba = rgb.convert("RGBA")
    rgba.putalpha(rgb.getchannel("R"))
    grey = rgb.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    frames = [rgb, rgb.rotate(90), rgb.rotate(180)]
    exif = Image.Exif()
    exif[0x112] = 6
    exif[0x10F] = "Camera"
    known: dict[str, Any] = {"exif": exif, "icc_profile": icc.display_p3()}
    moving: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": 50}
    kinds: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("JPEG", rgb, {}),
        ("JPEG", rgb, {"progressive": True, **known}),
        ("JPEG", rgb, {"restart_marker_rows": 1, "subsampling": "4:4:4"}),
        ("JPEG", rgb.convert("CMYK"), {"icc_profile": icc.cmyk()}),
        ("JPEG", grey, {}),
        ("PNG", rgb, known),
        ("PNG", rgba, {}),
        ("PNG", rgb.quantize(200), {"transparency": 3}),
        ("PNG", deep, {}),
        ("PNG", rgb, moving),
        ("WEBP", rgb, known),
        ("WEBP", rgba, {"lossless": True}),
        ("WEBP", rgba, {}),
        ("WEBP", rgb, moving),
        ("GIF", rgb, {}),
        ("GIF", rgba, {}),
        ("GIF", rgb, moving | {"disposal": 2}),
        ("TIFF", rgb, known),
        ("TIFF", rgb, {"compression": "tiff_lzw"}),
        ("TIFF", rgb, {"compression": "jpeg"}),
        ("TIFF", rgba, {"compression": "tiff_adobe_deflate"}),
        ("TIFF", deep, {"compression": "packbits"}),
        ("TIFF", grey.convert("F"), {}),
        ("TIFF", grey.convert("1"), {"compression": "group4"}),
        ("TIFF", rgb, {"save_all": True, "append_images": frames[1:]}),
        ("BMP", rgb, {}),
        ("BMP", rgb.quantize(16), {}),
        ("AVIF", rgb, {"speed": 10, **known}),
        ("AVIF", rgba, {"speed": 10}),
        ("AVIF", rgb, {"speed": 10} | moving),
    ]
    return {
        f"{name}-{number}": photos.encoded(image, name, **options)
        for number, (name, image, options) in enumerate(kinds)
    }


Mutation = Callable[[random.Random, bytes], bytes]


def flip_bits(chance: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        out[_place(chance, data)] ^= 1 << chance.randrange(8)
    return bytes(out)


def overwrite_bytes(chance: random.Random, data: bytes) -> bytes:
    at, length = _place(chance, data), chance.choice((1, 2, 4, 16, 200))
    new = chance.choice((chance.randbytes(length), bytes(length), b"\xff" * length))
    return data[:at] + new + data[at + length :]


def truncate(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data))]


def remove_a_part(chance: random.Random, data: bytes) -> bytes:
    start, end = _part(chance, data)
    return data[:start] + data[end:]


def double_a_part(chance: random.Random, data: bytes) -> bytes:
    start, end = _part(chance, data)
    return data[:end] + data[start:end] * chance.choice((1, 1, 3, 50)) + data[end:]


def move_a_part(chance: random.Random, data: bytes) -> bytes:
    start, end = _part(chance, data)
    rest = data[:start] + data[end:]
    at = chance.randrange(len(rest) + 1)
    return rest[:at] + data[start:end] + rest[at:]


def set_a_number(chance: random.Random, data: bytes) -> bytes:
    """A length, an offset, a width, a count: extremes, or close to what it is."""
    code = chance.choice(("B", "<H", ">H", "<I", ">I", ">Q"))
    size = struct.calcsize(code)
    at = min(_place(chance, data), max(0, len(data) - size))
    if at + size > len(data):
        return data
    top = 1 << 8 * size
    (now,) = struct.unpack_from(code, data, at)
    steps = (1, -1, 256, -now, -now - 1, top // 2 - now, top // 2 - 1 - now, now, -(now // 2))
    new = (now + chance.choice(steps)) % top
    return data[:at] + struct.pack(code, new) + data[at + size :]


def append_data(chance: random.Random, data: bytes) -> bytes:
    more = chance.choice((data, bytes(5000), chance.randbytes(5000), _other(chance)))
    return data + more


def join_formats(chance: random.Random, data: bytes) -> bytes:
    """The beginning of this one and the end of another."""
    other = _other(chance)
    return data[: _place(chance, data)] + other[_place(chance, other) :]


def insert_another(chance: random.Random, data: bytes) -> bytes:
    at, other = _place(chance, data), _other(chance)
    return data[:at] + other + data[at:]


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    overwrite_bytes,
    truncate,
    remove_a_part,
    double_a_part,
    move_a_part,
    set_a_number,
    set_a_number,
    append_data,
    join_formats,
    insert_another,
)


def case(seed: int, number: int) -> Case:
    """The same one in every run, whichever others are made."""
    chance = random.Random(f"{seed}-{number}")
    names = list(sources())
    name = names[number % len(names)]
    data, story = sources()[name], [name]
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        mutation = chance.choice(MUTATIONS)
        data = mutation(chance, data) or data
        story.append(mutation.__name__)
    # Else its checksums are where nearly each PNG would end.
    if name.startswith("PNG") and chance.random() < 0.7:
        data = with_checksums(data)
    return Case(data, f"seed {seed}, number {number}: {', '.join(story)}")


def with_checksums(png: bytes) -> bytes:
    """The chunks of a PNG with the checksums that their content has, as far as it goes."""
    out, at = bytearray(png), 8
    while at + 12 <= len(png):
        end = at + 8 + int.from_bytes(png[at : at + 4], "big")
        if end + 4 > len(png):
            break
        out[end : end + 4] = struct.pack(">I", zlib.crc32(png[at + 4 : end]))
        at = end + 4
    return bytes(out)


def _place(chance: random.Random, data: bytes) -> int:
    """Anywhere, and half the time in the head, where the structure is."""
    return chance.randrange(min(len(data), chance.choice((len(data), 200))))


def _part(chance: random.Random, data: bytes) -> tuple[int, int]:
    start = _place(chance, data)
    return start, min(len(data), start + chance.choice((1, 4, 12, 100, 1000)))


def _other(chance: random.Random) -> bytes:
    return chance.choice(list(sources().values()))
