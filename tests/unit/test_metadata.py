"""What leaves an original that is kept, and that all its pixels stay."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from imageprocessing_worker import metadata
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from tests import icc, photos
from tests.codec import compression, encoded, opened

# In no picture by chance.
SECRET = b"52.520008N 13.404954E"
SOURCES = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")


def exif() -> Image.Exif:
    """EXIF data with a place (in figures too), a camera and an artist."""
    data = Image.Exif()
    data[ExifTags.Base.Artist] = SECRET.decode()
    data[ExifTags.Base.Make] = "Camera"
    data[ExifTags.IFD.GPSInfo] = {
        ExifTags.GPS.GPSLatitudeRef: "N",
        ExifTags.GPS.GPSLatitude: (52.0, 31.0, 12.25),
        ExifTags.GPS.GPSProcessingMethod: b"ASCII\0\0\0" + SECRET,
    }
    data[ExifTags.IFD.Exif] = {ExifTags.Base.UserComment: b"ASCII\0\0\0" + SECRET}
    return data


XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + SECRET + b"</x:xmpmeta>"


def with_metadata(source: str, image: Image.Image | None = None, **options: Any) -> bytes:
    """A photograph with metadata in every place that the format has."""
    picture = image or photos.photograph().resize((300, 200))
    match source:
        case "JPEG":
            data = photos.encoded(
                picture,
                "JPEG",
                **{"exif": exif(), "xmp": XMP, "comment": SECRET, "quality": 20} | options,
            )
            iptc = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0" + struct.pack(">I", len(SECRET)) + SECRET
            segments = b"".join(
                b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(body)) + body
                for marker, body in ((0xED, iptc), (0xEB, SECRET), (0xE2, b"MPF\0" + SECRET))
            )
            # Behind the first one, JFIF's or Adobe's; one more picture follows the end.
            at = 4 + int.from_bytes(data[4:6], "big")
            return data[:at] + segments + data[at:] + data[:2] + SECRET
        case "PNG":
            text = PngImagePlugin.PngInfo()
            text.add_text("Comment", SECRET.decode())
            text.add_itxt("XML:com.adobe.xmp", XMP.decode())
            text.add_text("Zipped", SECRET.decode() * 9, zip=True)
            data = photos.encoded(picture, "PNG", pnginfo=text, exif=exif(), **options)
            end = len(data) - 12
            time = b"tIME" + bytes(7)
            private = b"prVt" + SECRET
            chunks = b"".join(
                struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
                for chunk in (time, private)
            )
            return data[:end] + chunks + data[end:] + SECRET
        case "WEBP":
            return photos.encoded(picture, "WEBP", exif=exif(), xmp=XMP, **options) + SECRET
        case "AVIF":
            return photos.encoded(picture, "AVIF", exif=exif(), xmp=XMP, **options)
        case "GIF":
            data = photos.encoded(picture, "GIF", comment=SECRET, **options)
            application = b"!\xff\x0bXMP DataXMP" + bytes([len(SECRET)]) + SECRET + b"\0"
            return data[:-1] + application + b";" + SECRET
        case "TIFF":
            gps = exif()
            gps[ExifTags.Base.ImageDescription] = SECRET.decode()
            gps[700] = XMP
            gps[34377] = SECRET
            return photos.encoded(picture, "TIFF", exif=gps.tobytes(), **options) + SECRET
        case _:
            return photos.encoded(picture, "BMP") + SECRET


def frames(data: bytes) -> Iterator[np.ndarray[Any, Any]]:
    """The pixels of all frames."""
    with Image.open(io.BytesIO(data)) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            yield np.asarray(image.convert("RGBA"))


def same_pixels(one: bytes, other: bytes) -> bool:
    return all((a == b).all() for a, b in zip(frames(one), frames(other), strict=True))


@pytest.mark.parametrize("source", SOURCES)
def test_nothing_remains_and_no_pixel_changes(source: str) -> None:
    data = with_metadata(source)
    assert SECRET in data
    bare = metadata.strip(source, data, keep_profile=True)
    assert bare is not None
    assert SECRET not in bare
    assert b"Camera" not in bare
    assert struct.pack(">I", 1225) not in bare  # the seconds of the latitude
    assert struct.pack("<I", 1225) not in bare
    image = opened(bare)
    assert ExifTags.IFD.GPSInfo not in image.getexif()
    assert not image.getexif().get_ifd(ExifTags.IFD.Exif)
    assert not {"comment", "photoshop"} & set(image.info)
    assert same_pixels(data, bare)


@pytest.mark.parametrize("source", SOURCES)
def test_doing_it_twice_changes_nothing(source: str) -> None:
    once = metadata.strip(source, with_metadata(source), keep_profile=True)
    assert once is not None
    assert metadata.strip(source, once, keep_profile=True) == once


@pytest.mark.parametrize("source", SOURCES)
def test_a_kept_original_has_none_of_it(source: str) -> None:
    """The whole way: through compress(), as Original."""
    data = with_metadata(source)
    assert SECRET in encoded(data, compression("Original", metadata="Keep")).data
    bare = encoded(data, compression("Original")).data
    assert SECRET not in bare
    assert same_pixels(data, bare)


def test_a_kept_smaller_jpeg_has_none_of_it() -> None:
    data = with_metadata("JPEG")
    result = encoded(data)
    assert result.unchanged
    assert SECRET not in result.data
    assert same_pixels(data, result.data)
    assert encoded(data, compression(metadata="Keep")).data == data


@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_profiles_stay_or_go_as_told(source: str) -> None:
    data = with_metadata(source, icc_profile=icc.display_p3())
    for keep in (True, False):
        bare = metadata.strip(source, data, keep_profile=keep)
        assert bare is not None
        assert opened(bare).info.get("icc_profile") == (icc.display_p3() if keep else None)
        assert same_pixels(data, bare)
        if source == "WEBP":  # its flags say what chunks there are: ICC, EXIF, XMP
            assert bare[20] & 0x2C == (0x20 if keep else 0)


def test_user_data_and_private_boxes_of_an_avif() -> None:
    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(body), kind) + body

    private = box(b"udta", SECRET)
    data = box(b"ftyp", b"avis\0\0\0\0avif") + box(b"uuid", SECRET)
    data += box(b"moov", box(b"mvhd", bytes(8)) + box(b"trak", private) + private)
    bare = metadata.strip("AVIF", data + SECRET[:7], keep_profile=False)
    assert bare is not None
    assert SECRET not in bare
    assert len(bare) == len(data)
    assert bare.count(b"free") == 3


@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_kept_originals_keep_their_colours(source: str) -> None:
    wide = with_metadata(source, icc_profile=icc.display_p3())
    result = opened(encoded(wide, compression("Original")).data)
    assert result.info["icc_profile"] == icc.display_p3()
    if source != "AVIF":  # its boxes are not moved, so a profile stays
        plain = with_metadata(source, icc_profile=icc.srgb())
        assert "icc_profile" not in opened(encoded(plain, compression("Original")).data).info


def test_a_large_profile_speaks_against_a_small_jpeg_but_not_against_original() -> None:
    data = with_metadata("JPEG", icc_profile=icc.display_p3(20_000))
    assert not encoded(data, compression(quality=100)).unchanged
    assert encoded(with_metadata("JPEG"), compression(quality=100)).unchanged
    kept = encoded(data, compression("Original"))
    assert kept.unchanged
    assert opened(kept.data).info["icc_profile"] == icc.display_p3(20_000)


def test_thumbnail_in_jfif_goes() -> None:
    data = with_metadata("JPEG")
    thumbnail = (SECRET * 2)[:27]
    at = data.index(b"\xff", 4)
    body = data[6:18] + b"\3\3" + thumbnail
    with_thumbnail = data[:2] + b"\xff\xe0" + struct.pack(">H", 2 + len(body)) + body + data[at:]
    bare = metadata.strip("JPEG", with_thumbnail, keep_profile=False)
    assert bare == metadata.strip("JPEG", data, keep_profile=False)


@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_kinds_of_jpeg(options: dict[str, Any], mode: str) -> None:
    data = with_metadata("JPEG", photos.photograph().convert(mode), **options)
    if mode == "CMYK":  # as YCCK, which only Adobe's marker says
        at = data.index(b"Adobe") + 11
        data = data[:at] + b"\2" + data[at + 1 :]
    bare = metadata.strip("JPEG", data, keep_profile=False)
    assert bare is not None
    assert SECRET not in bare
    assert same_pixels(data, bare)


def test_fill_bytes_between_segments() -> None:
    data = with_metadata("JPEG")
    filled = data.replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1)
    assert metadata.strip("JPEG", filled, keep_profile=False) == metadata.strip(
        "JPEG", data, keep_profile=False
    )


def animated(source: str, **options: Any) -> bytes:
    pictures = [opened(data) for _, data in photos.crops(3, 120, 90, "PNG")]
    if source == "GIF":
        options["comment"] = SECRET
    if source in ("WEBP", "AVIF", "PNG"):
        options["exif"] = exif()
    if source in ("WEBP", "AVIF"):
        options["xmp"] = XMP
    if source == "TIFF":
        options["description"] = SECRET.decode()
    return photos.encoded(
        pictures[0],
        source,
        save_all=True,
        append_images=pictures[1:],
        **{"duration": 70, "loop": 3} | options,
    )


@pytest.mark.parametrize("source", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_every_frame_of_an_original_stays(source: str) -> None:
    data = animated(source)
    assert SECRET in data
    result = encoded(data, compression("Original"))
    assert SECRET not in result.data
    assert (result.unchanged, result.warning) == (True, None)
    assert same_pixels(data, result.data)
    before, after = opened(data), opened(result.data)
    assert after.info.get("duration") == before.info.get("duration")
    assert after.info.get("loop") == before.info.get("loop")


# JPEG holds 8 bit grey and colour only.
KINDS_OF_TIFF = [
    (compression_, mode)
    for compression_ in (None, "tiff_lzw", "jpeg", "packbits", "tiff_adobe_deflate")
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16")
    if compression_ != "jpeg" or mode in ("L", "RGB", "CMYK")
]


@pytest.mark.parametrize(("compression_", "mode"), KINDS_OF_TIFF)
def test_kinds_of_tiff(compression_: str | None, mode: str) -> None:
    if mode == "I;16":
        grey = np.asarray(photos.photograph().convert("L")).astype(np.uint16)
        image = Image.fromarray(grey * 251 + 3)
    else:
        image = photos.photograph().convert(mode)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[ExifTags.Base.ImageDescription] = SECRET.decode()
    data = photos.encoded(image, "TIFF", compression=compression_, tiffinfo=tags)
    bare = metadata.strip("TIFF", data, keep_profile=False)
    assert bare is not None
    assert SECRET not in bare
    assert (np.asarray(opened(bare)) == np.asarray(opened(data))).all()
    best = encoded(data, compression("Original")).data
    assert SECRET not in best
    assert len(best) <= len(bare)
    assert opened(best).mode == opened(data).mode
    assert (np.asarray(opened(best)) == np.asarray(opened(data))).all()


@pytest.mark.parametrize("source", SOURCES)
def test_broken_files_are_left_to_others(source: str) -> None:
    """None or bytes, never an exception, wherever the file ends or is damaged."""
    data = with_metadata(source, photos.photograph().resize((40, 30)))
    for at in range(12, len(data)):
        metadata.strip(source, data[:at], keep_profile=False)
        metadata.strip(source, data[:at] + b"\xff" + data[at + 1 :], keep_profile=False)
        metadata.strip(source, data[:at] + b"\0" + data[at + 1 :], keep_profile=False)
