"""The smallest quality at which an image still looks like itself.

Structural similarity (Wang et al., 2004, doi:10.1109/TIP.2003.819861) of the luma, in blocks of
7 x 7 pixels side by side. Seven, because the edges of JPEG's blocks of 8 then lie inside.
"""

from __future__ import annotations

import io
from bisect import bisect_left
from collections.abc import Callable

import msgspec
from PIL import Image, ImageMath

from imageprocessing_worker import encode, picture
from imageprocessing_worker.encode import Extras

_BLOCK = 7
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_LONGEST = 2048
"""Pixels a side that are looked at, in the middle: all 50 million would take 1.2 GB."""
_QUALITIES = range(1, 101)


def smallest_quality(image: Image.Image, name: str, permille: int) -> int:
    """From 1 to 100, for an encoder with Pillow's `name`; 100 where none is enough.

    Seven encodings, halving the range each time: a higher quality is hardly ever less similar.
    """
    sample = picture.middle(image, _LONGEST)
    luma = sample.convert("L")
    if name == "JPEG":
        sample = luma  # coded apart from the colours, so the result is the same
    likeness = _likeness(luma)

    def similarity(quality: int) -> float:
        data = encode.encode(sample, name, quality, Extras())
        return likeness(Image.open(io.BytesIO(data), formats=[name]).convert("L"))

    found = bisect_left(_QUALITIES, permille / 1000, key=similarity)
    return _QUALITIES[min(found, len(_QUALITIES) - 1)]


class _Moments(msgspec.Struct, frozen=True):
    """Of each block: the mean, and the mean of the squares."""

    pixels: Image.Image
    mean: Image.Image
    square: Image.Image


def _moments(luma: Image.Image) -> _Moments:
    pixels = luma.convert("F")
    return _Moments(pixels, pixels.reduce(_BLOCK), _product(pixels, pixels))


def _product(one: Image.Image, other: Image.Image) -> Image.Image:
    """The mean of the products, block by block."""
    product: Image.Image = ImageMath.lambda_eval(lambda m: m["a"] * m["b"], a=one, b=other)
    return product.reduce(_BLOCK)


def _likeness(luma: Image.Image) -> Callable[[Image.Image], float]:
    """What tells how similar another image of the same size is: 1 where it is the same."""
    x = _moments(luma)

    def compare(other: Image.Image) -> float:
        y = _moments(other)
        similar = ImageMath.lambda_eval(
            lambda m: (
                ((2 * m["mx"] * m["my"] + _C1) * (2 * (m["xy"] - m["mx"] * m["my"]) + _C2))
                / (
                    (m["mx"] * m["mx"] + m["my"] * m["my"] + _C1)
                    * (m["xx"] - m["mx"] * m["mx"] + m["yy"] - m["my"] * m["my"] + _C2)
                )
            ),
            mx=x.mean,
            my=y.mean,
            xx=x.square,
            yy=y.square,
            xy=_product(x.pixels, y.pixels),
        )
        mean: float = similar.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        return mean

    return compare
