"""Which image format some bytes are, by their first bytes and never by a name or a header."""

from __future__ import annotations

import codecs
import re
from itertools import islice

from imageprocessing_contract.reasons import ImageReason

# The names that Pillow gives the formats we read, with extension and content type.
FILES = {
    "JPEG": ("jpg", "image/jpeg"),
    "PNG": ("png", "image/png"),
    "WEBP": ("webp", "image/webp"),
    "GIF": ("gif", "image/gif"),
    "TIFF": ("tif", "image/tiff"),
    "BMP": ("bmp", "image/bmp"),
    "AVIF": ("avif", "image/avif"),
}

_READ = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)

_NOT_READ = (
    (b"8BPS", "a Photoshop file"),
    (b"\0\0\1\0", "a Windows icon"),
    (b"\0\0\2\0", "a Windows cursor"),
    (b"%PDF-", "a PDF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"II\xbc\1", "JPEG XR"),
    (b"\x8aMNG\r\n\x1a\n", "MNG"),
    (b"DDS ", "a DirectDraw surface"),
    (b"qoif", "QOI"),
    (b"icns", "an Apple icon"),
    (b"gimp xcf", "a GIMP file"),
    (b"v/1\1", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"IIRO", "a camera's raw file"),
    (b"IIU\0", "a camera's raw file"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file"),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
    (b"\x59\xa6\x6a\x95", "a Sun raster"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"FLV\1", "a video"),
)
_PNM = re.compile(rb"P[1-7]\s")
_SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)
# What a browser takes for HTML (whatwg mimesniff, section 7.1), as far as pages begin so.
_HTML = re.compile(
    rb"<(!doctype html|html|head|body|script|title|meta|iframe|h1|div|style|table|a|br|p)[\s>]",
    re.IGNORECASE,
)
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)


class UnusableImage(Exception):  # noqa: N818 - it is a verdict about the data, not a fault of ours
    """These bytes give no image; `reason` and the message are for the report."""

    def __init__(self, reason: ImageReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def recognise(data: bytes) -> str:
    """Pillow's name of the format; raises UnusableImage for all but the seven that we read."""
    for magic, name in _READ:
        if data.startswith(magic):
            return name
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if data[4:8] == b"ftyp":
        return _iso_media(data)
    for magic, name in _NOT_READ:
        if data.startswith(magic):
            raise _not_supported(name)
    if _PNM.match(data):
        raise _not_supported("PNM")
    raise _no_image(data)


def _iso_media(data: bytes) -> str:
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12]} | {data[at : at + 4] for at in range(16, end, 4)}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}:
        raise _not_supported("HEIC")
    if b"crx " in brands:
        raise _not_supported("a camera's raw file")
    raise _not_supported("a video")


def _no_image(data: bytes) -> UnusableImage:
    if not data:
        return UnusableImage(ImageReason.EMPTY_RESPONSE, "there are no bytes")
    head = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip()
    if _SVG.match(head) or (head.startswith((b"<?xml", b"<!")) and _SVG.search(head)):
        return _not_supported("SVG")
    if _HTML.match(head) or (head.startswith((b"<!--", b"<?xml")) and b"<html" in head.lower()):
        what = "it looks like HTML, a web page"
    elif head.startswith(b"<?xml"):
        what = "it looks like XML"
    elif head.startswith((b"{", b"[")):
        what = "it looks like JSON"
    elif _is_text(data[:1024]):
        what = "it looks like plain text"
    else:
        what = "no known format begins with these bytes"
    return UnusableImage(ImageReason.NOT_AN_IMAGE, f"not an image: {what}")


def _is_text(head: bytes) -> bool:
    try:
        # Incremental, because a character may be cut at the end of what is looked at.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\r\n\t" for c in text)


def _not_supported(name: str) -> UnusableImage:
    read = "JPEG, PNG, WebP, GIF, TIFF, BMP and AVIF"
    return UnusableImage(ImageReason.FORMAT_NOT_SUPPORTED, f"this is {name}; {read} are read")


# An SOS marker; 0xff in a scan's data is followed by 0x00 or by a restart marker.
_SOS = re.compile(rb"\xff\xda")  # re counts in 0.05 ms what bytes.count() does in 0.13
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_WITHOUT_LENGTH = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})


def jpeg_scans(data: bytes, enough: int) -> int:
    """Scans that a decoder would go through, up to its end marker; counts no further than enough."""
    # Thumbnails and profiles hold these two bytes too, so a low count of them settles it.
    if (at_most := sum(1 for _ in islice(_SOS.finditer(data), enough + 1))) <= enough:
        return at_most
    scans, at = 0, 2
    while scans <= enough and (marker := MARKER.search(data, at)):
        kind, at = data[marker.start() + 1], marker.end()
        if kind == 0xD9:
            break
        scans += kind == 0xDA
        if kind not in _WITHOUT_LENGTH:
            at += int.from_bytes(data[at : at + 2], "big")
    return scans
