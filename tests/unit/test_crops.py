"""The crops that the report compares: the same place, before and after, of any image."""

from __future__ import annotations

import io
import random

import pytest
from imageprocessing_contract.request import Compression, Format
from imageprocessing_worker import crops
from imageprocessing_worker.codec import compress
from imageprocessing_worker.encoded import Crops, Encoded
from PIL import Image, ImageChops, ImageStat

from tests import photos
from tests.codec import MAX_PIXELS, compression, opened


def sampled(data: bytes, settings: Compression) -> Encoded:
    result = compress(data, settings, MAX_PIXELS, sample=True)
    assert isinstance(result, Encoded)
    return result


def crops_of(result: Encoded) -> tuple[Image.Image, Image.Image]:
    assert isinstance(result.crops, Crops), result.crops
    return opened(result.crops.before), opened(result.crops.after)


def middle(image: Image.Image) -> Image.Image:
    left, top = (image.width - 512) // 2, (image.height - 512) // 2
    return image.convert("RGB").crop((left, top, left + 512, top + 512))


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean of all channels, in levels of 255."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


def large(format: str = "JPEG", **options: object) -> bytes:  # noqa: A002
    return photos.encoded(photos.photograph().resize((800, 600)), format, **options)


@pytest.mark.parametrize("format", ["JPEG", "WebP", "AVIF"])
def test_the_same_place_of_the_original_and_of_what_is_stored(format: Format) -> None:  # noqa: A002
    data = large()
    result = sampled(data, compression(format, quality=20))
    before, after = crops_of(result)
    assert before.size == after.size == (512, 512)
    assert difference(before, middle(opened(data))) < 2
    assert difference(after, middle(opened(result.data))) < 2
    assert difference(before, after) > 3
    # And nothing of it changes what is stored.
    assert result.data == compress(data, compression(format, quality=20), MAX_PIXELS).data  # type: ignore[union-attr]


def test_at_the_size_of_the_result_and_upright() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    data = large(exif=turned.tobytes())
    result = sampled(data, compression(max_height=600, quality=90))
    assert (result.width, result.height) == (450, 600)
    before, after = crops_of(result)
    assert before.size == after.size == (450, 512)
    assert difference(before, after) < 3
    assert not before.getexif()


def test_what_is_kept_is_the_same_twice() -> None:
    data = large(quality=5)
    result = sampled(data, compression(quality=95))
    assert result.unchanged
    assert isinstance(result.crops, Crops)
    assert result.crops.before == result.crops.after


@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF"])
@pytest.mark.parametrize("width", [None, 520])
def test_originals(source: str, width: int | None) -> None:
    data = large(source, **({"speed": 10} if source == "AVIF" else {}))
    result = sampled(data, compression("Original", max_width=width))
    before, after = crops_of(result)
    assert difference(before, after) < 3
    assert before.size == after.size == (512, 512 if width is None else 390)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("format", ["JPEG", "Original"])
def test_pixels_of_any_kind(mode: str, format: Format) -> None:  # noqa: A002
    image = photos.photograph().resize((520, 520))
    if mode == "I;16":
        image = image.convert("L").convert("I").point(lambda level: level * 257).convert("I;16")
    elif mode == "P":
        image = image.quantize(64, dither=Image.Dither.NONE)
    else:
        image = image.convert(mode, dither=Image.Dither.NONE)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    data = photos.encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    before, after = crops_of(sampled(data, compression(format)))
    assert before.mode == after.mode == "RGB"
    assert difference(before, after) < 6


def test_small_pictures_are_whole() -> None:
    data = photos.encoded(photos.photograph().resize((40, 30)), "PNG")
    before, after = crops_of(sampled(data, compression()))
    assert before.size == after.size == (40, 30)


def test_their_size_is_bounded() -> None:
    """Noise takes more than any picture: at worse quality, or not at all."""
    noise = Image.frombytes("RGB", (512, 512), random.Random(1).randbytes(3 << 18))
    grain = Image.blend(photos.photograph().resize((512, 512)), noise, 0.15)
    result = sampled(photos.encoded(grain, "PNG"), compression())
    assert isinstance(result.crops, Crops)
    assert len(result.crops.before) <= crops.MOST_BYTES
    result = sampled(photos.encoded(noise, "PNG"), compression())
    assert isinstance(result.crops, str)
    assert "64000 bytes" in result.crops


def test_animations_have_none() -> None:
    frames = [photos.photograph().resize((60, 60)), Image.new("RGB", (60, 60))]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    for format in ("JPEG", "Original"):  # noqa: A001
        result = sampled(buffer.getvalue(), compression(format))  # type: ignore[arg-type]
        assert result.crops == "it has more than one frame"


@pytest.mark.parametrize("error", [MemoryError("no room"), OSError("encoder error")])
@pytest.mark.parametrize("where", ["_middle", "_encoded"])
def test_an_error_costs_only_the_crops(
    monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(crops, where, fails)
    result = sampled(large(), compression())
    assert result.crops == f"{type(error).__name__}: {error}"
    assert result.data == compress(large(), compression(), MAX_PIXELS).data  # type: ignore[union-attr]
