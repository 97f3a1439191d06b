"""PNG, JPEG, TIFF and their like, through Pillow, without losing depth and without trusting what a mode name hides."""

from __future__ import annotations

import io
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from medcli.data.dataset import Picture
from medcli.data.decode import Facts, Say, UnreadableImage, check_size

__all__ = ["decode_raster", "float_range", "header_channels"]

# Our own limit (`check_size`) is the only one: Pillow's warns through a global that threads cannot share.
Image.MAX_IMAGE_PIXELS = None

GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
TIFF_BITS, TIFF_FORMAT, TIFF_LOW, TIFF_HIGH, TIFF_SUBFILE, TIFF_ICC = 258, 339, 340, 341, 254, 34675


def header_channels(file: IO[bytes]) -> int | None:
    """1 or 3 by the mode in the header."""
    with Image.open(file) as image:
        return None if image.mode in {"P", "PA"} else 1 if image.mode in GREY_MODES else 3


def decode_raster(data: bytes, name: str, _window: object, say: Say, facts: Facts) -> Picture:
    """Decode with Pillow: orientation honoured, transparency over black, palettes and CMYK as RGB, 16 bits kept.

    Raises:
        UnreadableImage: not an image, truncated, several frames, or a size outside `check_size`.
    """
    try:
        opened = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise UnreadableImage(name, "this is not an image (or of a kind that is not supported)") from None
    with opened as image:
        facts |= {"format": image.format, "mode": image.mode, "width": image.width, "height": image.height}
        check_size(name, image.width, image.height)
        _refuse_frames(image, name, say)
        say(f"decoded as {image.format}, {image.width}×{image.height}, mode {image.mode}")
        tags: Any = getattr(image, "tag_v2", {})
        declared = _declared_range(tags)
        if image.info.get("dpi"):
            facts["dpi"] = tuple(round(float(value), 2) for value in image.info["dpi"])
        if image.format == "PNG" and image.mode in {"RGB", "RGBA"} and len(data) > 24 and data[24] == 16:
            say("16-bit colour reduced to 8 bits by the decoder")
        image.load()
        turned = ImageOps.exif_transpose(image)
        if turned.size != image.size or image.getexif().get(0x0112, 1) not in {0, 1}:
            say("turned as its EXIF orientation says")
        return _picture(turned, name, declared, tags, say)


def float_range(pixels: npt.NDArray[Any], say: Say) -> tuple[float, float]:
    """The range of pixels whose file declares none: 0 to 1 if all lie inside, else smallest to largest.

    Raises:
        ValueError: no finite value.
    """
    finite = pixels[np.isfinite(pixels)]
    if finite.size == 0:
        raise ValueError("holds no finite number")
    low, high = float(finite.min()), float(finite.max())
    if low >= 0 and high <= 1 and pixels.dtype.kind == "f":
        say("the file declares no range; all values lie in 0..1, so 0 is black and 1 is white")
        return 0.0, 1.0
    say(f"the file declares no range; its own smallest ({low:g}) is black and largest ({high:g}) is white")
    return low, high if high > low else low + 1.0


def _refuse_frames(image: Image.Image, name: str, say: Say) -> None:
    frames = int(getattr(image, "n_frames", 1))
    if frames == 1:
        return
    if image.format == "MPO":
        say("the camera stored previews beside the picture; the picture itself is used")
        return
    if image.format == "TIFF":
        full = 0
        for page in range(frames):
            image.seek(page)
            full += not int(image.tag_v2.get(TIFF_SUBFILE, 0)) & 1  # type: ignore[attr-defined]
        image.seek(0)
        if full == 1:
            say("reduced copies in the file are passed over")
            return
    raise UnreadableImage(name, f"holds {frames} frames or pages, and only single pictures are read")


def _declared_range(tags: Any) -> tuple[float, float] | None:
    """SMinSampleValue and SMaxSampleValue of a TIFF."""
    try:
        low, high = (float(np.ravel(tags[tag])[0]) for tag in (TIFF_LOW, TIFF_HIGH))
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return (low, high) if high > low else None


def _picture(image: Image.Image, name: str, declared: tuple[float, float] | None, tags: Any, say: Say) -> Picture:
    mode = image.mode
    if mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)
        bits = int(np.ravel(tags.get(TIFF_BITS, 16))[0])
        high = float(2**bits - 1)
        say(f"{bits} bits kept: 0 is black, {high:g} is white")
        return Picture(np.minimum(pixels, np.uint16(high)), 0.0, high)
    if mode in {"I", "F"}:
        values = np.asarray(image)
        if mode == "I" and values.min() >= 0 and values.max() <= 65535 and image.format == "PNG":
            say("16 bits kept: 0 is black, 65535 is white")
            return Picture(values.astype(np.uint16), 0.0, 65535.0)
        if declared:
            say(f"range declared by the file: {declared[0]:g} is black, {declared[1]:g} is white")
        try:
            low, high = declared or float_range(values, say)
        except ValueError as error:
            raise UnreadableImage(name, str(error)) from None
        return Picture(np.clip(np.nan_to_num(values.astype(np.float32), nan=low), low, high), low, high)
    image = _flattened(image, say)
    pixels8 = np.ascontiguousarray(np.asarray(image), dtype=np.uint8)
    say("8 bits: 0 is black, 255 is white")
    return Picture(pixels8, 0.0, 255.0)


def _flattened(image: Image.Image, say: Say) -> Image.Image:
    """The same picture in mode L or RGB."""
    if image.mode in {"L", "RGB"} and "transparency" not in image.info:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "CMYK":
        return _from_cmyk(image, say)
    if image.mode in {"YCbCr", "LAB", "HSV", "RGBX"}:
        say(f"converted from {image.mode} to RGB")
        return image.convert("RGB")
    grey = image.mode in {"L", "LA", "La"}
    if image.mode in {"P", "PA"}:
        say("colours looked up in the palette")
        colours = np.asarray(image.convert("RGB"))
        grey = bool((colours[..., 0] == colours[..., 1]).all() and (colours[..., 1] == colours[..., 2]).all())
    with_alpha = image.convert("RGBA")
    if with_alpha.getchannel("A").getextrema() != (255, 255):
        say("transparent parts shown over black")
        with_alpha = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), with_alpha)
    return with_alpha.convert("RGB").getchannel(0) if grey else with_alpha.convert("RGB")


def _from_cmyk(image: Image.Image, say: Say) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except ImageCms.PyCMSError:
            converted = None
        if converted is not None:
            say("converted from CMYK to RGB by the file's own colour profile")
            return converted
    say("converted from CMYK to RGB without a colour profile")
    return image.convert("RGB")
