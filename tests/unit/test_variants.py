"""compression.widths: the same image at several widths, from one download and one decoding."""

from __future__ import annotations

import pytest
from imageprocessing_contract.request import Compression, Format
from imageprocessing_worker.codec import compress
from imageprocessing_worker.encoded import Crops, Encoded
from PIL import Image

from tests import icc, photos
from tests.codec import compression, encoded, likeness, opened
from tests.unit.test_codec import SOURCES, turned
from tests.unit.test_codec_original import EXTENSIONS
from tests.unit.test_crops import large, sampled
from tests.unit.test_metadata import animated
from tests.unit.test_similarity import ssim


def sizes(result: Encoded) -> dict[int, tuple[int, int]]:
    """Width and height of each variant, by the width that was asked for."""
    return {variant.width: opened(variant.data).size for variant in result.variants}


def alone(data: bytes, settings: Compression, width: int) -> Image.Image:
    """What a request with that maxWidth and without variants makes."""
    return opened(encoded(data, compression(settings.format, max_width=width)).data)


@pytest.mark.parametrize("format_", ["JPEG", "WebP", "AVIF"])
@pytest.mark.parametrize("source", SOURCES)
def test_each_width_looks_like_the_image(source: str, format_: Format) -> None:
    data = photos.encoded(photos.photograph(), source)
    settings = compression(format_, widths=(300, 120))
    result = encoded(data, settings)
    assert sizes(result) == {300: (300, 200), 120: (120, 80)}
    assert result.data == encoded(data, compression(format_)).data
    for variant in result.variants:
        image = opened(variant.data)
        assert image.format == format_.upper()
        assert likeness(image, alone(data, settings, variant.width)) > 0.9


@pytest.mark.parametrize("source", EXTENSIONS)
def test_an_original_has_variants_of_its_own_format(source: str) -> None:
    """The image itself stays as it came."""
    data = photos.encoded(photos.photograph(), source)
    settings = compression("Original", widths=(300, 120))
    result = encoded(data, settings)
    assert sizes(result) == {300: (300, 200), 120: (120, 80)}
    assert result.data == encoded(data, compression("Original")).data
    for variant in result.variants:
        assert opened(variant.data).format == source
        assert likeness(opened(variant.data), alone(data, settings, variant.width)) > 0.93


@pytest.mark.parametrize("format_", ["JPEG", "Original"])
@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        # Nothing is enlarged, nor stored twice: an image 600 px wide is its own variant.
        ({"widths": (5000, 601, 600, 599)}, {599: (599, 399)}),
        ({"widths": (300, 100), "max_width": 300}, {100: (100, 67)}),
        # 100 px high is 150 wide.
        ({"widths": (300, 150, 60), "max_height": 100}, {60: (60, 40)}),
        ({"widths": (1,)}, {1: (1, 1)}),
        ({"widths": ()}, {}),
    ],
)
def test_only_what_is_narrower(
    format_: Format, limits: dict[str, int], expected: dict[int, tuple[int, int]]
) -> None:
    data = photos.encoded(photos.photograph(), "JPEG")
    assert sizes(encoded(data, compression(format_, **limits))) == expected


def test_a_variant_is_not_made_of_one_that_is_hardly_wider() -> None:
    """Each scaling by a little blurs."""
    data = photos.encoded(photos.photograph(), "PNG")
    close, alone = (encoded(data, compression(widths=widths)) for widths in ((300, 299), (299,)))
    assert close.variants[1] == alone.variants[0]


@pytest.mark.parametrize("format_", ["JPEG", "Original"])
def test_widths_are_of_the_picture_as_it_is_seen(format_: Format) -> None:
    """Stored on its side: 400 x 600 pixels that are 600 x 400."""
    data = turned(photos.photograph(), 6, "JPEG")
    result = encoded(data, compression(format_, widths=(500, 300)))
    assert sizes(result) == {500: (500, 333), 300: (300, 200)}
    upright = photos.encoded(photos.photograph(), "JPEG")
    for variant in result.variants:
        expected = alone(upright, compression(format_), variant.width)
        assert likeness(opened(variant.data), expected) > 0.9


def test_an_original_that_is_kept_has_variants_too() -> None:
    data = photos.encoded(photos.photograph(), "JPEG", quality=10)
    result = encoded(data, compression(widths=(300,)))
    assert (result.unchanged, sizes(result)) == (True, {300: (300, 200)})


@pytest.mark.parametrize("format_", ["JPEG", "Original"])
def test_no_variant_takes_more_bytes_than_the_image(format_: Format) -> None:
    """Less of it for more bytes: a chart that loses its palette, a JPEG of low quality."""
    chart = photos.photograph().quantize(8, dither=Image.Dither.NONE)
    for data in (
        photos.encoded(chart, "PNG"),
        photos.encoded(photos.photograph(), "JPEG", quality=5),
    ):
        result = encoded(data, compression(format_, widths=(590, 580, 30)))
        assert 30 in sizes(result)
        assert max(len(variant.data) for variant in result.variants) < len(result.data)
        if format_ == "Original":
            assert list(sizes(result)) == [30]


def test_frames_that_only_variants_need() -> None:
    """An animation that is kept as it came is kept without variants where they cannot be made."""
    data = animated("GIF")
    settings = compression("Original", widths=(60,))
    width, height = opened(data).size
    result = compress(data, settings, 2 * width * height)
    assert isinstance(result, Encoded)
    assert (result.unchanged, result.variants) == (True, [])
    narrowed = compress(data, compression("Original", max_width=60), 2 * width * height)
    assert not isinstance(narrowed, Encoded)


@pytest.mark.parametrize("source", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_variants_of_an_animation(source: str) -> None:
    """All frames with Original; else the first, with the warning that the image has."""
    data = animated(source)
    result = encoded(data, compression("Original", widths=(60,)))
    frames = [opened(file).n_frames for file in (data, result.data, result.variants[0].data)]  # type: ignore[attr-defined]
    assert frames == [3, 3, 3]
    assert sizes(result) == {60: (60, 45)}
    still = encoded(data, compression("WebP", widths=(60,)))
    assert sizes(still) == {60: (60, 45)}
    assert still.warning is not None


@pytest.mark.parametrize("format_", ["JPEG", "Original"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_profile_and_metadata_are_those_of_the_image(format_: Format, orientation: int) -> None:
    profile = icc.display_p3()
    data = turned(photos.photograph(), orientation, "JPEG", icc_profile=profile)
    settings = compression(
        format_, widths=(300, 120), metadata="Keep", keep_original_if_smaller=False
    )
    result = encoded(data, settings)
    for file in (result.data, *(variant.data for variant in result.variants)):
        image = opened(file)
        assert image.info["icc_profile"] == profile
        assert image.getexif()[0x10F] == "Camera"
    stripped = encoded(data, compression(format_, widths=(300,)))
    image = opened(stripped.variants[0].data)
    assert image.info["icc_profile"] == profile
    assert not image.getexif()


def test_transparent_pixels() -> None:
    image = photos.photograph().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    data = photos.encoded(image, "PNG")
    settings = compression(widths=(300,), background="#00ff00")
    flat = encoded(data, settings).variants[0].data
    assert opened(flat).getpixel((150, 1))[1] > 230  # type: ignore[index]
    assert opened(encoded(data, compression("WebP", widths=(300,))).variants[0].data).mode == "RGBA"


def test_each_variant_is_as_similar_as_was_asked_for() -> None:
    """The search is each one's own: smaller pictures need a higher quality."""
    data = photos.encoded(photos.photograph(), "PNG")
    result = encoded(data, compression(widths=(300, 150), target_ssim_permille=960))
    whole = opened(data).convert("RGB")
    for variant in result.variants:
        image = opened(variant.data)
        pixels = whole.resize(image.size, Image.Resampling.BICUBIC, reducing_gap=2.0)
        assert 0.955 <= ssim(pixels, image) < 0.975


@pytest.mark.parametrize("format_", ["WebP", "Original"])
def test_crops_show_the_image_and_not_its_variants(format_: Format) -> None:
    settings = compression(format_, max_width=700)
    varied = compression(format_, max_width=700, widths=(300,))
    plain, result = sampled(large(), settings), sampled(large(), varied)
    assert isinstance(plain.crops, Crops)
    assert result.crops == plain.crops


@pytest.mark.parametrize("source", ["PNG", "JPEG"])
def test_crops_of_an_original_that_is_kept(source: str) -> None:
    data = large(source)
    plain = sampled(data, compression("Original"))
    assert isinstance(plain.crops, Crops)
    assert sampled(data, compression("Original", widths=(300,))).crops == plain.crops
