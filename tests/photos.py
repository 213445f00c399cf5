"""Real photographs for tests and benchmarks: those that scikit-image installs.

Noise and single colours say nothing about a codec. scikit-image's data folder holds
freely licensed photographs (see its README.txt); it is found without importing the
package, which would take a second and NumPy.
"""

from __future__ import annotations

import importlib.util
import io
import random
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from PIL import Image

NAMES = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "retina.jpg",
    "rocket.jpg",
)
CAMERA_QUALITY = 90


def photographs() -> dict[str, bytes]:
    """The files as they are, by name: 451 to 1,411 pixels wide, all RGB."""
    return {name: (_folder() / name).read_bytes() for name in NAMES}


def photograph(name: str = "coffee.png") -> Image.Image:
    """One of them decoded, RGB."""
    return _decoded(name).copy()


def crops(count: int, width: int, height: int, format: str = "JPEG") -> Iterator[tuple[str, bytes]]:  # noqa: A002
    """`count` distinct pictures of width x height pixels: cut out, scaled, half of them mirrored.

    The same ones in every run. `format` is a name of Pillow's; lossy ones get the
    quality of a camera.
    """
    chance = random.Random(20260101)
    for number in range(count):
        name = NAMES[number % len(NAMES)]
        image = _decoded(name)
        # The largest part of this shape, and not less than half of that.
        largest = min(image.width / width, image.height / height)
        scale = largest * chance.uniform(0.5, 1)
        left = chance.uniform(0, image.width - width * scale)
        top = chance.uniform(0, image.height - height * scale)
        box = (left, top, left + width * scale, top + height * scale)
        part = image.resize((width, height), Image.Resampling.LANCZOS, box=box)
        if chance.random() < 0.5:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        yield f"{Path(name).stem}-{number}.{format.lower()}", encoded(part, format)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:  # noqa: A002
    """The image as a file; lossy formats at a camera's quality unless told otherwise."""
    if format in ("JPEG", "WEBP", "AVIF"):
        options = {"quality": CAMERA_QUALITY} | options
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@lru_cache(maxsize=len(NAMES))
def _decoded(name: str) -> Image.Image:
    with Image.open(_folder() / name) as image:
        return image.convert("RGB")


def _folder() -> Path:
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise RuntimeError("scikit-image is not installed: its photographs are the tests' pictures")
    return Path(found.origin).parent / "data"
