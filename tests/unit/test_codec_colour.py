"""Colours, depth and transparency, measured against what a colour management system says."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from imageprocessing_contract.request import Format
from PIL import Image, ImageChops, ImageCms
from skimage.color import lab2rgb

from tests import icc, photos
from tests.codec import colour_distance, compression, encoded, opened

FORMATS: tuple[Format, ...] = ("JPEG", "WebP", "AVIF")
# What quality 95 alone costs on this photograph (0.6 to 1.1) and a margin; a lost profile 5 to 8.
CODING = 1.8


def seen(image: Image.Image) -> Image.Image:
    """The image in sRGB as its profile has it."""
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert("RGB")
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    target = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    assert converted is not None
    return converted


@pytest.mark.parametrize("profile", [icc.display_p3(), icc.adobe_rgb()])
@pytest.mark.parametrize("out", FORMATS)
def test_wide_colours_stay_wide(out: Format, profile: bytes) -> None:
    source = photos.encoded(photos.photograph(), "PNG", icc_profile=profile)
    result = opened(encoded(source, compression(out, quality=95)).data)
    assert result.info.get("icc_profile") == profile
    assert colour_distance(seen(result), seen(opened(source))) < CODING
    assert colour_distance(result, seen(opened(source))) > 2  # the profile matters here


@pytest.mark.parametrize("out", FORMATS)
def test_large_profile_is_applied(out: Format) -> None:
    source = photos.encoded(photos.photograph(), "PNG", icc_profile=icc.display_p3(20_000))
    result = opened(encoded(source, compression(out, quality=95)).data)
    assert "icc_profile" not in result.info
    assert colour_distance(result, seen(opened(source))) < CODING


@pytest.mark.parametrize("profile", [icc.srgb(), b"not a profile" * 20, icc.cmyk(), icc.grey(1.8)])
def test_profile_that_changes_nothing_or_does_not_fit_is_dropped(profile: bytes) -> None:
    source = photos.encoded(photos.photograph(), "PNG", icc_profile=profile)
    result = opened(encoded(source, compression(quality=95)).data)
    assert "icc_profile" not in result.info
    assert colour_distance(result, photos.photograph()) < CODING


def test_lcms_own_srgb_is_dropped() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = photos.encoded(photos.photograph(), "PNG", icc_profile=profile)
    assert "icc_profile" not in opened(encoded(source).data).info


def test_grey_profile_is_kept() -> None:
    grey = photos.photograph().convert("L")
    source = photos.encoded(grey, "PNG", icc_profile=icc.grey(1.0))
    result = opened(encoded(source, compression(quality=95)).data)
    assert (result.mode, result.info["icc_profile"]) == ("L", icc.grey(1.0))
    assert colour_distance(seen(result), seen(opened(source))) < CODING


@pytest.mark.parametrize("format_", ["JPEG", "TIFF"])
def test_cmyk_with_a_profile(format_: str) -> None:
    """Pillow writes CMYK JPEGs inverted and with Adobe's marker, as Photoshop does."""
    picture = photos.photograph().resize((200, 133)).convert("CMYK")
    options = {"quality": 100} if format_ == "JPEG" else {}
    source = photos.encoded(picture, format_, icc_profile=icc.cmyk(), **options)
    inks = np.asarray(opened(source)).reshape(-1, 4) / 255
    lab = np.array([icc.cmyk_lab(*ink) for ink in inks])
    right = (lab2rgb(lab) * 255).round().astype(np.uint8).reshape(133, 200, 3)
    result = opened(encoded(source, compression(quality=98)).data)
    assert result.mode == "RGB"
    assert "icc_profile" not in result.info
    # Black is carried over to sRGB's black and white to its white (black point compensation).
    assert colour_distance(result, Image.fromarray(right)) < 2.5
    assert colour_distance(opened(source), Image.fromarray(right)) > 6


@pytest.mark.parametrize("kind", ["CMYK", "YCCK"])
def test_cmyk_and_ycck_without_a_profile(kind: str) -> None:
    picture = photos.photograph()
    inks = picture.convert("CMYK")
    if kind == "CMYK":
        source = photos.encoded(inks, "JPEG", quality=95)
    else:
        # Pillow writes every component inverted and says CMYK; what it has to hold to come out
        # as YCCK is the inverse of that, of the inks taken for red, green and blue.
        cyan, magenta, yellow, black = inks.split()
        parts = Image.merge("RGB", (cyan, magenta, yellow)).convert("YCbCr").split()
        inverted = [ImageChops.invert(part) for part in parts]
        source = photos.encoded(Image.merge("CMYK", (*inverted, black)), "JPEG", quality=95)
        at = source.index(b"Adobe") + 11
        source = source[:at] + b"\2" + source[at + 1 :]
    result = opened(encoded(source, compression(quality=95)).data)
    assert result.mode == "RGB"
    assert colour_distance(result, picture) < 2


def test_lab_and_ycbcr_tiffs() -> None:
    picture = photos.photograph()
    lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    as_lab = ImageCms.applyTransform(picture, lab)
    assert as_lab is not None
    for image in (as_lab, picture.convert("YCbCr")):
        settings = compression(quality=95, max_width=300)
        result = opened(encoded(photos.encoded(image, "TIFF"), settings).data)
        assert (
            colour_distance(result, picture.resize((300, 200), Image.Resampling.LANCZOS)) < CODING
        )


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled(format_: str) -> None:
    eight = np.asarray(photos.photograph().convert("L")).astype(np.uint16)
    # Every 16 bit level between: what is clipped becomes white, what is truncated is one off.
    sixteen = eight * 257 - np.minimum(eight, 100)
    source = photos.encoded(Image.fromarray(sixteen), format_)
    result = opened(encoded(source, compression("WebP", quality=100)).data).convert("L")
    exact = np.round(sixteen / 257)
    assert abs(np.asarray(result) - exact).mean() < 2


def test_16_bit_levels_are_exact() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    tiff = photos.encoded(Image.fromarray(levels), "TIFF")
    png = photos.encoded(Image.fromarray(levels), "PNG")
    for source in (tiff, png):
        # A size of its own makes an Original be decoded and encoded, losslessly here.
        original = compression("Original", max_width=256, metadata="Keep")
        turned = encoded(photos.encoded(opened(source), "PNG", exif=turned_exif()), original)
        upright = np.asarray(opened(turned.data))
        exact = np.round(levels / 257).astype(np.uint8)
        assert (np.rot90(exact, -1) == upright).all()


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
@pytest.mark.parametrize("bands", [3, 4])
def test_16_bit_colours_are_scaled(format_: str, bands: int) -> None:
    """Over the whole range, for Pillow has no such image and reads them its own way."""
    rows, columns = np.mgrid[0:128, 0:512]
    wide = np.zeros((128, 512, bands), np.uint16)
    for band, level in enumerate((columns * 128 + rows, 65535 - columns * 128, rows * 515)):
        wide[..., band] = level
    if bands == 4:
        wide[..., 3] = columns * 128 + 127
    source = png_of(wide) if format_ == "PNG" else tiff_of(wide)
    result = np.asarray(opened(encoded(source, compression("WebP", quality=100)).data))
    exact = np.round(wide / 257)
    if bands == 4:
        assert abs(result[..., 3] - exact[..., 3]).max() <= 1
        result, exact = result[:, 256:, :3], exact[:, 256:, :3]  # what can be seen well
    # WebP's own error is 1.0 and 1.1 in the mean and 6 at most; clipped levels are 127 away.
    assert abs(result - exact).mean() < 2
    assert abs(result - exact).max() < 12


def png_of(wide: np.ndarray[Any, Any]) -> bytes:
    """A PNG of 16 bit, which Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        sums = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + sums

    height, width, bands = wide.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[bands], 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff_of(wide: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    extra = ["unassalpha"] if wide.shape[2] == 4 else None
    tifffile.imwrite(buffer, wide, photometric="rgb", extrasamples=extra)
    return buffer.getvalue()


def test_colours_told_without_a_profile_are_taken_for_srgb() -> None:
    """A limit that the design names: here nclx says Display P3, and it does not count."""
    picture = photos.photograph("coffee.png")
    plain = photos.encoded(picture, "AVIF", quality=95)
    at = plain.index(b"nclx") + 4
    said = plain[:at] + struct.pack(">H", 12) + plain[at + 2 :]
    result = opened(encoded(said, compression(quality=95)).data)
    assert "icc_profile" not in result.info
    assert colour_distance(result, picture) < CODING
    picture.info["icc_profile"] = icc.display_p3()
    assert 0.4 < colour_distance(result, seen(picture)) < 4


def turned_exif() -> bytes:
    exif = Image.Exif()
    exif[0x112] = 6
    return exif.tobytes()


def test_float_and_32_bit_tiffs() -> None:
    grey = photos.photograph().convert("L")
    as_float = Image.fromarray(np.asarray(grey).astype(np.float32) / 255)
    wide = Image.fromarray(np.asarray(grey).astype(np.int32) << 23)
    for image in (as_float, wide):
        result = opened(encoded(photos.encoded(image, "TIFF"), compression(quality=95)).data)
        assert colour_distance(result, grey) < CODING


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_palette_and_grey_png(mode: str) -> None:
    picture = photos.photograph()
    image = picture.quantize(256) if mode == "P" else picture.convert(mode)
    result = opened(encoded(photos.encoded(image, "PNG"), compression(quality=95)).data)
    assert result.mode == ("RGB" if mode == "P" else "L")
    # Dots of black and white are the hardest there is for JPEG.
    assert colour_distance(result, image.convert("RGB")) < (8 if mode == "1" else 3)


def transparent(kind: str) -> bytes:
    """A photograph whose left half is transparent, as PNG."""
    picture = photos.photograph().resize((300, 200))
    alpha = Image.new("L", picture.size, 255)
    alpha.paste(0, (0, 0, 150, 200))
    if kind in ("RGBA", "LA"):
        picture = picture.convert(kind[:-1])
        picture.putalpha(alpha)
        return photos.encoded(picture, "PNG")
    if kind == "P":
        indexes = picture.quantize(255)
        indexes.putpalette([*(indexes.getpalette() or [])[: 255 * 3], 0, 0, 0])
        indexes.paste(255, (0, 0, 150, 200))
        return photos.encoded(indexes, "PNG", transparency=255)
    key: tuple[int, int, int] | int = (1, 2, 3) if kind == "RGB" else 7
    picture = picture.convert(kind)
    pixels = np.asarray(picture).copy()
    pixels[pixels == 7] = 8
    pixels[:, :150] = key
    if kind == "I;16":
        wide = pixels.astype(np.uint16) * 257
        return photos.encoded(Image.fromarray(wide), "PNG", transparency=7 * 257)
    return photos.encoded(Image.fromarray(pixels), "PNG", transparency=key)


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "RGB", "L"])
def test_transparency_goes_onto_the_background(kind: str) -> None:
    settings = compression(background="#20c040", quality=95)
    result = np.asarray(opened(encoded(transparent(kind), settings).data).convert("RGB"))
    assert abs(result[:, :140].mean(axis=(0, 1)) - (0x20, 0xC0, 0x40)).max() < 2
    assert result[:, 160:].std() > 20


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "RGB", "L"])
@pytest.mark.parametrize("out", ["WebP", "AVIF"])
def test_transparency_is_kept(kind: str, out: Format) -> None:
    result = opened(encoded(transparent(kind), compression(out)).data)
    alpha = np.asarray(result.getchannel("A"))
    assert alpha[:, :140].max() <= 2
    assert alpha[:, 160:].min() >= 253


def test_transparency_with_a_profile_is_laid_onto_an_srgb_background() -> None:
    image = opened(transparent("RGBA"))
    source = photos.encoded(image, "PNG", icc_profile=icc.display_p3())
    result = opened(encoded(source, compression(background="#20c040", quality=95)).data)
    assert "icc_profile" not in result.info
    left = np.asarray(result)[:, :140].mean(axis=(0, 1))
    assert abs(left - (0x20, 0xC0, 0x40)).max() < 2
    flat = Image.new("RGB", image.size, "#ffffff")
    flat.paste(image.convert("RGB"))
    flat.info["icc_profile"] = icc.display_p3()
    right = (160, 0, 300, 200)
    assert colour_distance(result.crop(right), seen(flat).crop(right)) < CODING


def test_an_alpha_channel_that_hides_nothing_is_dropped() -> None:
    source = photos.encoded(photos.photograph().convert("RGBA"), "PNG")
    assert opened(encoded(source, compression("WebP")).data).mode == "RGB"


def test_edges_of_transparency_take_no_colour_from_what_is_hidden() -> None:
    """Resized without weighing by alpha, hidden green would shine through at the edge."""
    image = Image.new("RGBA", (400, 400), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 200, 400))
    settings = compression("WebP", max_width=50, quality=100)
    result = np.asarray(opened(encoded(photos.encoded(image, "PNG"), settings).data))
    visible = result[result[..., 3] > 32]
    assert visible[:, 1].max() < 40
