"""Takes metadata out of an image file and leaves every coded pixel as it is.

For originals that are kept: where somebody stood when they took a picture must not
be published because the picture was small already. Each format keeps an allowlist,
so what nobody has thought of goes too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from imageprocessing_worker import metadata_avif, metadata_tiff
from imageprocessing_worker.formats import MARKER

_EOI, _SOS, _APP0, _APP2, _APP14 = 0xD9, 0xDA, 0xE0, 0xE2, 0xEE
_JFIF_WITHOUT_THUMBNAIL = 14
_COM_AND_APPLICATION = frozenset({*range(0xE0, 0xF0), 0xFE})


def strip(name: str, data: bytes, *, keep_profile: bool) -> bytes | None:
    """The file without its metadata and without what follows its end.

    None where it cannot be done in safety: the file is broken, or built in a way that
    is not known here. `name` is Pillow's name of the format; `keep_profile` says
    whether an ICC profile stays.
    """
    strippers: dict[str, Callable[[bytes, bool], bytes | None]] = {
        "JPEG": _jpeg,
        "PNG": _png,
        "WEBP": _webp,
        "GIF": lambda data, _: _gif(data),
        "BMP": lambda data, _: _bmp(data),
        "AVIF": lambda data, _: metadata_avif.strip(data),
        "TIFF": metadata_tiff.strip,
    }
    try:
        return strippers[name](data, keep_profile)
    except (struct.error, IndexError):
        return None  # it ends in the middle of something


def _jpeg(data: bytes, keep_profile: bool) -> bytes | None:
    view = memoryview(data)  # a scan may be all of the file: it is copied once
    parts = [view[:2]]
    at = 2
    while True:
        while data[at] == 0xFF and data[at + 1] == 0xFF:
            at += 1
        if data[at] != 0xFF:
            return None
        kind = data[at + 1]
        if kind == _EOI:
            return b"".join((*parts, b"\xff\xd9"))
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        inside = data[at + 4 : min(end, at + 16)]
        if kind not in _COM_AND_APPLICATION:
            if kind == _SOS:
                following = MARKER.search(data, end)
                if following is None:
                    return None
                end = following.start()
            parts.append(view[at:end])
        elif kind == _APP0 and inside.startswith(b"JFIF\0"):
            parts.append(_jfif(view[at:end]))
        elif (kind == _APP14 and inside.startswith(b"Adobe")) or (
            keep_profile and kind == _APP2 and inside == b"ICC_PROFILE\0"
        ):
            parts.append(view[at:end])
        at = end


def _jfif(segment: memoryview) -> memoryview:
    body = bytes(segment[4 : 4 + _JFIF_WITHOUT_THUMBNAIL - 2]) + b"\0\0"
    return memoryview(b"\xff\xe0" + struct.pack(">H", 2 + len(body)) + body)


# Pixels, colours, and an animation's frames; not tEXt, zTXt, iTXt, eXIf, tIME and whatever
# programs add of their own.
_PNG_KEPT = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB cICP mDCV cLLI sBIT bKGD pHYs acTL fcTL fdAT".split()
)


def _png(data: bytes, keep_profile: bool) -> bytes | None:
    parts = [data[:8]]
    for kind, chunk in _png_chunks(data):
        if kind in _PNG_KEPT or (keep_profile and kind == b"iCCP"):
            parts.append(chunk)
    return b"".join(parts)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and whole bytes of each chunk, the last one IEND."""
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise IndexError("a chunk ends beyond the file")
        yield kind, data[at:end]
        at = end


def png_with_pixels(png: bytes, pixels: bytes) -> bytes | None:
    """The PNG with the pixels of another one; None where that is not of the same kind.

    None, too, where its chunks do not end: decoders are content with all of the pixels.
    """
    (_, header), *chunks = _png_chunks(pixels)
    parts = [png[:8], header]
    try:
        own = list(_png_chunks(png))
    except (struct.error, IndexError):
        return None
    for kind, chunk in own:
        # All but interlacing: size, depth and colours.
        if kind == b"IHDR" and chunk[8:20] != header[8:20]:
            return None
        if kind == b"IDAT":
            parts.extend(new for other, new in chunks if other == b"IDAT")
            chunks = []
        elif kind != b"IHDR":
            parts.append(chunk)
    return b"".join(parts)


_VP8X_ICC, _VP8X_EXIF, _VP8X_XMP = 0x20, 0x08, 0x04


def _webp(data: bytes, keep_profile: bool) -> bytes | None:
    (size,) = struct.unpack_from("<I", data, 4)
    if 8 + size > len(data):
        return None
    kept = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}
    kept |= {b"ICCP"} if keep_profile else set()
    body = bytearray()
    for kind, payload in _riff(data[12 : 8 + size]):
        if kind not in kept:
            continue
        if kind == b"VP8X":
            gone = _VP8X_EXIF | _VP8X_XMP | (0 if keep_profile else _VP8X_ICC)
            payload = bytes((payload[0] & ~gone,)) + payload[1:]  # noqa: PLW2901
        elif kind == b"ANMF":
            frame = (_chunk(*sub) for sub in _riff(payload[16:]) if sub[0] in kept)
            payload = payload[:16] + b"".join(frame)  # noqa: PLW2901
        body += _chunk(kind, payload)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _riff(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(body):
        kind, length = struct.unpack_from("<4sI", body, at)
        payload = body[at + 8 : at + 8 + length]
        if len(payload) < length:
            raise IndexError("a chunk ends beyond the file")
        yield kind, payload
        at += 8 + length + length % 2


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)


_GIF_IMAGE, _GIF_EXTENSION, _GIF_TRAILER = 0x2C, 0x21, 0x3B
_GIF_CONTROL, _GIF_APPLICATION = 0xF9, 0xFF
_GIF_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")


def _gif(data: bytes) -> bytes:
    at = 13 + _gif_palette(data[10])
    parts = [data[:at]]
    while data[at] != _GIF_TRAILER:
        start = at
        if data[at] == _GIF_IMAGE:
            at = _gif_blocks(data, at + 11 + _gif_palette(data[at + 9]))
            parts.append(data[start:at])
        elif data[at] == _GIF_EXTENSION:
            kind, name = data[at + 1], data[at + 3 : at + 14]
            at = _gif_blocks(data, at + 2)
            if kind == _GIF_CONTROL or (kind == _GIF_APPLICATION and name in _GIF_LOOPS):
                parts.append(data[start:at])
        else:
            raise IndexError("no block begins here")
    return b"".join((*parts, b";"))


def _gif_palette(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _gif_blocks(data: bytes, at: int) -> int:
    while length := data[at]:
        at += 1 + length
    return at + 1


def _bmp(data: bytes) -> bytes | None:
    offset, header = struct.unpack_from("<II", data, 10)
    if header < 40:
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
        compression = declared = 0
    else:
        width, height, _, depth, compression, declared = struct.unpack_from("<iiHHII", data, 18)
    # Run lengths and bit fields aside, rows are whole multiples of four bytes.
    rows = (width * depth + 31) // 32 * 4 * abs(height)
    end = offset + (declared if compression in (1, 2) else rows)
    if end > len(data) or (compression in (1, 2) and not declared):
        return None
    return data[:2] + struct.pack("<IHH", end, 0, 0) + data[10:end]
