"""Brings decoded pixels to what every output can hold: 8 bit grey or RGB, with or without alpha.

Colours stay right: a profile is either dropped because it says sRGB, kept with
the image, or applied.
"""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import product

from PIL import Image, ImageCms

# Display P3 and Adobe RGB as cameras and phones embed them take under 1 KiB, grey
# profiles up to 4 KiB; those beyond are tables for printers and scanners, often larger
# than the picture itself.
MAX_PROFILE_BYTES = 16 << 10

# Largest difference, in levels of 255, at which a profile counts as sRGB: the profiles
# called sRGB by HP, Apple, Google, ArgyllCMS and lcms differ by up to 2 from one another.
_SAME_LEVELS = 2
_STEPS = (0, 16, 32, 64, 96, 128, 160, 192, 224, 255)

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
# Deterministic and the same for matrix and table profiles.
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION

_SIXTEEN_TO_EIGHT = [(value * 255 + 32767) // 65535 for value in range(65536)]


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Palettes resolved and depth scaled: L, LA, RGB, RGBA or CMYK, LAB as they are."""
    transparent = image.has_transparency_data
    match image.mode:
        case "L" | "RGB" if not transparent:
            return image
        case "LA" | "RGBA" | "CMYK" | "LAB":
            return image
        case "1" | "L":
            return image.convert("LA" if transparent else "L")
        case "La":
            return image.convert("LA")
        case "I;16" | "I;16L" | "I;16B" | "I;16N" | "I" | "F":
            return _scaled(image)
        case _:
            return image.convert("RGBA" if transparent else "RGB")


def _scaled(image: Image.Image) -> Image.Image:
    key = image.info.get("transparency")
    if image.mode == "F":
        return _float_to_eight_bits(image)
    wide = image.convert("I")
    low, high = wide.getextrema()
    # Pillow's I is 32 bit, and most files that come as it hold 8 or 16 of them.
    if isinstance(high, tuple) or isinstance(low, tuple):
        raise ValueError("a grey image has one band")
    if image.mode == "I" and (high > 65535 or low < 0):
        bottom, top = min(low, 0), (1 << 31) - 1
        return _float_to_eight_bits(wide.convert("F"), bottom, top)
    grey = wide.point(_SIXTEEN_TO_EIGHT, "L")
    if isinstance(key, int) and low <= key <= high:
        opaque = wide.point([0 if value == key else 255 for value in range(65536)], "L")
        grey.putalpha(opaque)
    return grey


def _float_to_eight_bits(
    image: Image.Image, bottom: float | None = None, top: float | None = None
) -> Image.Image:
    low, high = image.getextrema()
    if isinstance(high, tuple) or isinstance(low, tuple):
        raise ValueError("a grey image has one band")
    if bottom is None or top is None:
        # 0 to 1 is how programs save floats; anything else is stretched.
        bottom, top = (0.0, 1.0) if 0 <= low <= high <= 1 else (low, high)
    scale = 255 / (top - bottom) if top > bottom else 0.0
    offset = 0.5 - bottom * scale
    return image.point(lambda value: value * scale + offset).convert("L")


def usable_profile(image: Image.Image) -> bytes | None:
    """The embedded profile, where it fits the pixels and does not just say sRGB."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or len(profile) < 128:
        return None
    space = {"L": b"GRAY", "1": b"GRAY", "LA": b"GRAY", "CMYK": b"CMYK", "LAB": b"Lab "}
    if image.mode.startswith("I") or image.mode == "F":
        expected = b"GRAY"
    else:
        expected = space.get(image.mode, b"RGB ")
    if profile[16:20] != expected or not needed(profile):
        return None
    return profile


@lru_cache(maxsize=64)
def needed(profile: bytes) -> bool:
    """Whether colours would shift without this profile; False for one that cannot be read."""
    space = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK", b"Lab ": "LAB"}.get(profile[16:20])
    if space is None:
        return False
    if space == "RGB":
        colours = bytes(level for colour in product(_STEPS, repeat=3) for level in colour)
    else:
        colours = bytes(_STEPS) * len(Image.getmodebands(space) * "x")
    width = len(colours) // Image.getmodebands(space)
    patches = Image.frombytes(space, (width, 1), colours)
    try:
        seen = _apply(patches, profile)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return False
    if space not in ("RGB", "L"):
        return True
    reference = patches.convert("RGB").tobytes()
    differences = (abs(a - b) for a, b in zip(seen.tobytes(), reference, strict=True))
    return max(differences) > _SAME_LEVELS


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """L, LA, RGB or RGBA in sRGB, by the profile where there is one."""
    if profile is not None:
        try:
            return _apply(image, profile)
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a broken profile is no reason to lose the picture
    if image.mode == "LAB":
        transform = ImageCms.buildTransform(_LAB, _SRGB, "LAB", "RGB", _INTENT, _FLAGS)
        converted = ImageCms.applyTransform(image, transform)
        return converted if converted is not None else image
    return image.convert("RGB") if image.mode == "CMYK" else image


def _apply(image: Image.Image, profile: bytes) -> Image.Image:
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    solid = image.convert({"LA": "L", "RGBA": "RGB"}[image.mode]) if alpha else image
    converted = ImageCms.applyTransform(solid, _transform(profile, solid.mode))
    if converted is None:
        raise ValueError("the profile was not applied")
    if alpha:
        converted.putalpha(alpha)
    return converted


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.buildTransform(source, _SRGB, mode, "RGB", _INTENT, _FLAGS)
