"""The smallest quality that keeps an image similar enough."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import numpy as np
import pytest
from imageprocessing_contract.request import Compression
from imageprocessing_worker import codec, encode, similarity
from imageprocessing_worker.encode import Extras
from imageprocessing_worker.encoded import Encoded
from PIL import Image
from skimage.metrics import structural_similarity

from tests import photos
from tests.stored import stored_spec

PHOTOS = [data for _, data in photos.crops(4, 500, 375)]


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def ssim(one: Image.Image, other: Image.Image) -> float:
    """Of the luma, by scikit-image."""
    found = structural_similarity(np.array(one.convert("L")), np.array(other.convert("L")))
    return float(found)


def encoded(image: Image.Image, name: str, quality: int) -> Image.Image:
    return opened(encode.encode(image.copy(), name, quality, Extras()))


def compressed(data: bytes, **fields: Any) -> Encoded:
    output = {"gcs": {"bucket": "shop"}}
    spec = stored_spec(source={"inline": "x"}, output=output, compression=fields)
    found = codec.compress(data, msgspec.convert(spec["compression"], Compression), 10**8)
    assert isinstance(found, Encoded)
    return found


@pytest.mark.parametrize("data", PHOTOS)
@pytest.mark.parametrize("name", ["JPEG", "WEBP"])
def test_it_is_the_smallest_that_is_similar_enough(data: bytes, name: str) -> None:
    """scikit-image agrees to 0.005, by which one quality less may still pass."""
    image = opened(data)
    quality = similarity.smallest_quality(image, name, 950)
    assert 1 < quality < 100
    assert ssim(image, encoded(image, name, quality)) >= 0.945
    assert ssim(image, encoded(image, name, quality - 2)) < 0.955


def test_more_similarity_takes_more_quality() -> None:
    image = opened(PHOTOS[0])
    found = [similarity.smallest_quality(image, "JPEG", permille) for permille in (800, 950, 990)]
    assert found == sorted(set(found))


@pytest.mark.parametrize(
    ("name", "mode"),
    [("JPEG", "L"), ("JPEG", "RGB"), ("WEBP", "L"), ("WEBP", "LA"), ("WEBP", "RGBA")],
)
@pytest.mark.parametrize("size", [(1, 1), (6, 3), (8, 700)])
def test_any_mode_and_size(name: str, mode: str, size: tuple[int, int]) -> None:
    image = Image.effect_noise(size, 60).convert(mode)
    before = image.tobytes()
    assert 1 <= similarity.smallest_quality(image, name, 960) <= 100
    assert image.tobytes() == before


def test_what_cannot_be_reached_gets_the_best() -> None:
    noise = Image.effect_noise((200, 200), 120).convert("RGB")
    assert similarity.smallest_quality(noise, "WEBP", 1000) == 100


def test_of_a_large_image_the_middle_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise at the edges, which would take a high quality, and nothing in the middle."""
    # The codec sets it for each image, and leaves it there.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    image = Image.effect_noise((2600, 2600), 120).convert("RGB")
    image.paste((90, 120, 150), (250, 250, 2350, 2350))
    assert similarity.smallest_quality(image, "JPEG", 980) == 1


@pytest.mark.parametrize("format_", ["JPEG", "WebP"])
def test_it_overrides_quality(format_: str) -> None:
    """And the images that come out are as similar as was asked for."""
    for data in PHOTOS:
        found = compressed(data, format=format_, quality=5, targetSSIMPermille=960)
        assert 0.955 <= ssim(opened(data), opened(found.data)) < 0.975


def test_the_original_is_still_kept_if_smaller() -> None:
    small = io.BytesIO()
    opened(PHOTOS[0]).save(small, "JPEG", quality=20)
    found = compressed(small.getvalue(), targetSSIMPermille=999)
    assert found.unchanged
