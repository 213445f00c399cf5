"""Formats, sizes, orientation, animations and when an original is kept."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from imageprocessing_contract.request import Format
from PIL import Image, ImageOps

from tests import photos
from tests.codec import colour_distance, compression, encoded, likeness, opened, refused

# Of odd metadata, which is what these files are about.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

FORMATS: tuple[Format, ...] = ("JPEG", "WebP", "AVIF")
NAMES = {"JPEG": "JPEG", "WebP": "WEBP", "AVIF": "AVIF"}
SOURCES = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")


@pytest.mark.parametrize("out", FORMATS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_format_becomes_every_format(source: str, out: Format) -> None:
    data = photos.encoded(photos.photograph(), source)
    result = encoded(data, compression(out, keep_original_if_smaller=False))
    image = opened(result.data)
    assert image.format == NAMES[out]
    assert (result.width, result.height) == image.size == (600, 400)
    assert result.extension == {"JPEG": "jpg", "WebP": "webp", "AVIF": "avif"}[out]
    assert result.content_type == f"image/{out.lower()}"
    assert (result.unchanged, result.warning) == (False, None)
    assert likeness(image, opened(data)) > 0.85


def test_defaults_are_of_equal_looks() -> None:
    looks = []
    for out in FORMATS:
        pairs = [
            (opened(encoded(source, compression(out)).data), opened(source))
            for _, source in photos.crops(4, 1000, 667, "PNG")
        ]
        looks.append(sum(likeness(*pair) for pair in pairs) / len(pairs))
    assert min(looks) > 0.92
    assert max(looks) - min(looks) < 0.02


@pytest.mark.parametrize("out", FORMATS)
def test_quality_counts(out: Format) -> None:
    source = photos.photographs()["coffee.png"]
    sizes = [
        len(encoded(source, compression(out, quality=quality)).data) for quality in (20, 50, 90)
    ]
    assert sizes[0] * 1.5 < sizes[1] < sizes[2] / 1.5


def test_default_quality_of_jpeg_is_50_in_420_and_baseline() -> None:
    source = photos.photographs()["coffee.png"]
    expected = photos.encoded(photos.photograph(), "JPEG", quality=50, subsampling="4:2:0")
    assert encoded(source).data == expected
    assert "progressive" not in opened(encoded(source).data).info
    assert opened(encoded(source, compression(progressive=True)).data).info["progressive"] == 1


@pytest.mark.parametrize("out", [*FORMATS, "Original"])
def test_the_same_input_gives_the_same_bytes(out: Format) -> None:
    for _, source in photos.crops(2, 500, 400, "PNG"):
        assert encoded(source, compression(out)) == encoded(source, compression(out))


@pytest.mark.parametrize(
    ("limits", "size"),
    [
        ({"max_width": 300}, (300, 200)),
        ({"max_height": 100}, (150, 100)),
        ({"max_width": 300, "max_height": 100}, (150, 100)),
        ({"max_width": 100, "max_height": 300}, (100, 67)),
        ({"max_width": 5000, "max_height": 5000}, (600, 400)),
        ({"max_width": 1}, (1, 1)),
    ],
)
@pytest.mark.parametrize("source", ["JPEG", "PNG"])
def test_it_fits_into_the_limits(
    limits: dict[str, int], size: tuple[int, int], source: str
) -> None:
    data = photos.encoded(photos.photograph(), source)
    result = encoded(data, compression(**limits))
    assert (result.width, result.height) == opened(result.data).size == size


@pytest.mark.parametrize("width", [100, 128, 200, 256, 333, 500])
def test_smaller_decoding_looks_like_full_decoding(width: int) -> None:
    """JPEG decoded at a smaller scale, against all of it resized by Lanczos."""
    settings = compression(quality=98, max_width=width)
    for _, source in photos.crops(8, 1000, 667):
        result = opened(encoded(source, settings).data)
        full = opened(source).resize(result.size, Image.Resampling.LANCZOS)
        expected = photos.encoded(full, "JPEG", quality=98, subsampling="4:2:0")
        assert likeness(result, opened(expected)) > 0.955


def turned(image: Image.Image, orientation: int, format_: str, **options: Any) -> bytes:
    """The image stored so that it is upright by its EXIF only."""
    exif = Image.Exif()
    exif[0x112] = orientation
    exif[0x10F] = "Camera"
    # Turning the other way is turning the same way, but for a quarter.
    stored = image.copy()
    stored.getexif()[0x112] = {6: 8, 8: 6}.get(orientation, orientation)
    return photos.encoded(ImageOps.exif_transpose(stored), format_, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("width", [None, 150])
def test_orientation_is_applied(orientation: int, source: str, width: int | None) -> None:
    upright = photos.photograph()
    settings = compression(quality=95, max_width=width)
    result = encoded(turned(upright, orientation, source), settings)
    image = opened(result.data)
    expected = upright.resize((150, 100), Image.Resampling.LANCZOS) if width else upright
    assert (result.width, result.height) == image.size == expected.size
    assert not image.getexif()
    assert colour_distance(image, expected) < 2.5


def test_orientation_by_the_mirror_is_not_ignored() -> None:
    """The distance that the test above allows tells the eight apart."""
    picture = photos.photograph()
    assert colour_distance(picture, ImageOps.mirror(picture)) > 10


def test_orientation_in_a_png_chunk_behind_its_pixels() -> None:
    data = turned(photos.photograph(), 6, "PNG")
    at = data.index(b"eXIf") - 4
    length = int.from_bytes(data[at : at + 4], "big") + 12
    chunk, end = data[at : at + length], data.index(b"IEND") - 4
    late = data[:at] + data[at + length : end] + chunk + data[end:]
    assert colour_distance(opened(encoded(late).data), photos.photograph()) < 3


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_impossible_orientation_is_none(value: int) -> None:
    exif = Image.Exif()
    exif[0x112] = value
    data = photos.encoded(photos.photograph(), "JPEG", exif=exif)
    assert colour_distance(opened(encoded(data).data), photos.photograph()) < 3


def test_broken_exif_does_not_lose_the_picture() -> None:
    good = turned(photos.photograph(), 6, "JPEG")
    at = good.index(b"Exif\0\0")
    for place in range(6, int.from_bytes(good[at - 2 : at], "big") - 2):
        broken = good[: at + place] + b"\xff" + good[at + place + 1 :]
        encoded(broken, compression(metadata="Keep"))


def animation(format_: str, **options: Any) -> bytes:
    frames = [opened(data) for _, data in photos.crops(4, 200, 150, "PNG")]
    return photos.encoded(
        frames[0], format_, save_all=True, append_images=frames[1:], duration=100, loop=0, **options
    )


@pytest.mark.parametrize("source", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
@pytest.mark.parametrize("out", FORMATS)
def test_of_an_animation_the_first_frame_and_a_warning(source: str, out: Format) -> None:
    data = animation(source)
    result = encoded(data, compression(out))
    image = opened(result.data)
    assert getattr(image, "n_frames", 1) == 1
    assert likeness(image, opened(data)) > 0.85
    assert (
        result.warning
        == f"only the first {'page' if source == 'TIFF' else 'frame of an animation'} was taken"
    )
    assert not result.unchanged


def test_a_second_view_in_a_jpeg_is_no_animation() -> None:
    first, second = (opened(data) for _, data in photos.crops(2, 300, 200, "PNG"))
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second], quality=90)
    result = encoded(buffer.getvalue())
    assert result.warning is None
    assert likeness(opened(result.data), first) > 0.85


@pytest.mark.parametrize("out", FORMATS)
def test_an_original_that_is_smaller_is_kept(out: Format) -> None:
    small = photos.encoded(photos.photograph(), NAMES[out], quality=20)
    result = encoded(small, compression(out))
    assert result.unchanged
    assert result.data == small


def test_an_original_is_kept_only_where_nothing_speaks_against_it() -> None:
    picture = photos.photograph()
    small = photos.encoded(picture, "JPEG", quality=20)
    assert not encoded(small, compression(keep_original_if_smaller=False)).unchanged
    assert not encoded(small, compression(max_width=500)).unchanged
    assert not encoded(small, compression("WebP")).unchanged
    assert not encoded(photos.encoded(picture, "JPEG")).unchanged
    assert not encoded(turned(picture, 6, "JPEG", quality=20)).unchanged
    high = compression(quality=100)
    assert encoded(small, high).unchanged
    assert not encoded(photos.encoded(picture.convert("CMYK"), "JPEG", quality=10), high).unchanged
    tiny = animation("WEBP", quality=1)
    result = encoded(tiny, compression("WebP", quality=100))
    assert not result.unchanged
    assert len(result.data) > len(tiny)


@pytest.mark.parametrize("out", FORMATS)
@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_metadata_is_kept_on_request_and_says_upright(source: str, out: Format) -> None:
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf/></x:xmpmeta>"
    options: dict[str, Any] = {"xmp": xmp} if source in ("JPEG", "WEBP", "AVIF") else {}
    data = turned(photos.photograph(), 6, source, **options)
    image = opened(encoded(data, compression(out, metadata="Keep")).data)
    exif = image.getexif()
    assert exif[0x10F] == "Camera"
    assert exif.get(0x112, 1) == 1
    if options:
        assert image.info["xmp"] == xmp
    stripped = encoded(data, compression(out)).data
    assert b"Camera" not in stripped
    assert b"xmpmeta" not in stripped


def test_metadata_that_does_not_fit_into_a_jpeg_is_left_out() -> None:
    data = photos.encoded(
        photos.photograph(), "WEBP", xmp=b"x" * 70000, exif=b"MM\0*" + bytes(70000)
    )
    image = opened(encoded(data, compression(metadata="Keep")).data)
    assert not {"exif", "xmp"} & set(image.info)


def test_comments_and_resolutions_do_not_pass() -> None:
    data = photos.encoded(photos.photograph(), "JPEG", comment=b"by me", dpi=(72, 72))
    assert b"by me" not in encoded(data).data
    gif = photos.encoded(photos.photograph(), "GIF", comment=b"by me")
    assert b"by me" not in encoded(gif).data


def test_webp_cannot_be_longer_than_it_can() -> None:
    wide = photos.encoded(Image.new("L", (17000, 20), 128), "PNG")
    message = refused(wide, compression("WebP")).message
    assert "17000 x 20" in message
    assert "maxWidth" in message
    assert encoded(wide, compression("WebP", max_width=16000)).width == 16000


def test_thumbnails_are_the_same_at_any_depth_of_zoom() -> None:
    """Height and width keep their ratio within half a pixel."""
    for width in range(50, 600, 61):
        result = encoded(photos.photographs()["coffee.png"], compression(max_width=width))
        assert abs(result.height - width * 400 / 600) <= 0.5


def test_pixels_are_as_pillow_decodes_them() -> None:
    """Nothing but the encoder changes a plain picture."""
    source = photos.encoded(photos.photograph(), "PNG")
    result = encoded(source, compression("WebP", quality=100)).data
    expected = photos.encoded(photos.photograph(), "WEBP", quality=100, method=2)
    assert (np.asarray(opened(result)) == np.asarray(opened(expected))).all()
