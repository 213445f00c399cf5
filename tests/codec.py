"""What tests of the codec share: settings, and how far two images are apart."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import numpy as np
from imageprocessing_contract.request import Compression, Format
from imageprocessing_worker.codec import Encoded, Refused, compress
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity

from tests.unit.tasks import COMPRESSION

MAX_PIXELS = 50_000_000


def compression(format: Format = "JPEG", **changes: Any) -> Compression:  # noqa: A002
    """Settings as the CRD's defaults have them, but for the changes."""
    return msgspec.structs.replace(COMPRESSION, format=format, **changes)


def encoded(data: bytes, settings: Compression | None = None) -> Encoded:
    """The compressed image; a refusal fails the test."""
    result = compress(data, settings or compression(), MAX_PIXELS)
    assert isinstance(result, Encoded), result
    return result


def refused(data: bytes, settings: Compression | None = None, limit: int = MAX_PIXELS) -> Refused:
    """The refusal; an image fails the test."""
    result = compress(data, settings or compression(), limit)
    assert isinstance(result, Refused), result
    return result


def opened(data: bytes) -> Image.Image:
    """The image that these bytes are, decoded."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def colour_distance(one: Image.Image, other: Image.Image) -> float:
    """Mean CIEDE2000 over all pixels, taking both for sRGB; 1 can just be seen."""
    lab = [rgb2lab(np.asarray(image.convert("RGB"))) for image in (one, other)]
    return float(deltaE_ciede2000(*lab).mean())


def likeness(one: Image.Image, other: Image.Image) -> float:
    """SSIM: 1 is the same image."""
    arrays = [np.asarray(image.convert("RGB")) for image in (one, other)]
    return float(structural_similarity(*arrays, channel_axis=2))
