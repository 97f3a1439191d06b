"""From a pair's files to two images on one grid, with the true map and the mask of what is shown.

Both images become squares of one size without being stretched: the long side fills the square, the rest is black and
not valid. NIfTI is read as the layout's authors write it: first axis along the columns, whatever the header's affine.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.dataset import Picture
from medcli.data.decode import UnreadableImage, check_size, image_suffix, read_picture
from medcli.diffmap.headers import read_header
from medcli.diffmap.pairs import Pair, PairImages
from medcli.diffmap.phantom import draw_phantom_pair
from medcli.diffmap.scaling import padded_square
from medcli.errors import RunFailure
from medcli.registry.layout import install_line

__all__ = ["MAP_MIDDLE", "MAP_SCALE", "fit_map", "read_image", "read_map", "read_pair", "squared_image"]

MAP_MIDDLE, MAP_SCALE = 32768, 32767  # a 16-bit PNG's value for 0, and per unit of the map
Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def read_pair(pair: Pair, image_size: int, *, window: str = "auto") -> PairImages:
    """One pair as pixels.

    Args:
        pair: from `load_pairs` or `pair_of_files`.
        image_size: side of the square images.
        window: DICOM display window, see `DataSettings.window`.

    Raises:
        RunFailure: a file cannot be read, holds NaN, or map and follow-up differ in size.
    """
    if pair.drawn is not None:
        drawn = draw_phantom_pair(replace(pair.drawn, size=image_size))
        target = np.where(drawn.valid, drawn.target, np.float32("nan")).astype(np.float32)
        everything = np.ones_like(drawn.valid)
        side = (image_size, image_size)
        return PairImages(drawn.prior, drawn.current, target, drawn.valid, everything, None, (side, side))
    baseline, baseline_valid, first = squared_image(pair.baseline, image_size, window)
    followup, valid, second = squared_image(pair.followup, image_size, window)
    if pair.mask is not None:
        mask = read_image(pair.mask)
        _same_size(pair.mask, (mask.pixels.shape[0], mask.pixels.shape[1]), second, "mask")
        shown = (mask.pixels > mask.low).astype(np.float32)
        valid = valid & (padded_square(Picture(shown, 0.0, 1.0), image_size) > 0.99)
    mapped: Image | None = None
    if pair.map is not None:
        values = read_map(pair.map)
        _same_size(pair.map, (values.shape[0], values.shape[1]), second, "map")
        mapped = np.where(valid, fit_map(values, image_size), np.float32("nan")).astype(np.float32)
    spacing = pair.spacing or read_header(pair.followup).spacing
    if spacing is not None:
        factor = max(second) / image_size
        spacing = (spacing[0] * factor, spacing[1] * factor)
    return PairImages(baseline, followup, mapped, valid, baseline_valid, spacing, (first, second))


def read_image(path: str, window: str = "auto") -> Picture:
    """One file; unlike elsewhere in medcli, a NaN is an error and NIfTI keeps its transposed grid.

    Raises:
        RunFailure: the file cannot be read, or holds NaN or infinite values.
    """
    try:
        if image_suffix(path) in {".nii", ".nii.gz"}:
            values = _nifti(path)
            check_size(path, values.shape[1], values.shape[0])
            low, high = float(values.min()), float(values.max())
            # The layout's images are in [0, 1] already; another file's own range is all it declares.
            return Picture(values, 0.0, 1.0) if low >= 0 and high <= 1 else Picture(values, low, max(high, low + 1e-6))
        picture = read_picture(path, window)
    except UnreadableImage as error:
        raise RunFailure(f"`{path}` cannot be read: {error.reason}", code="unreadable-image") from None
    if image_suffix(path) in {".tif", ".tiff"}:
        _refuse_nan(_raw_tiff(path), path)
    return picture


def read_map(path: str) -> Image:
    """A difference map in [-1, 1] at its own size (float32 [H, W]).

    NIfTI and NumPy hold the values themselves; a 16-bit PNG holds 32768 + 32767 · value.

    Raises:
        RunFailure: unreadable, NaN, not 16 bits, or outside [-1, 1].
    """
    suffix = image_suffix(path)
    try:
        if suffix in {".nii", ".nii.gz"}:
            values = _nifti(path)
        elif path.lower().endswith(".npy"):
            values = np.load(path, allow_pickle=False).astype(np.float32)
            _refuse_nan(values, path)
        else:
            picture = read_picture(path)
            if picture.pixels.dtype != np.uint16 or picture.pixels.ndim != 2:
                raise RunFailure(
                    f"`{path}` is no map: a map as PNG has 16 bits and one channel, where {MAP_MIDDLE} is no change",
                    hint="write it as NIfTI or .npy with values in [-1, 1]",
                    code="map-depth",
                )
            values = ((picture.pixels.astype(np.float32) - MAP_MIDDLE) / MAP_SCALE).astype(np.float32)
    except UnreadableImage as error:
        raise RunFailure(f"`{path}` cannot be read: {error.reason}", code="unreadable-image") from None
    except (OSError, ValueError) as error:
        raise RunFailure(f"`{path}` cannot be read: {error}", code="unreadable-image") from None
    if float(np.abs(values).max()) > 1.001:
        raise RunFailure(f"`{path}` has values outside [-1, 1]", code="map-range")
    return np.clip(values, -1, 1)


def fit_map(values: Image, image_size: int) -> Image:
    """A map on the square grid of its follow-up: the same scaling and padding as the images (0 in the padding)."""
    return np.clip(padded_square(Picture(values, 0.0, 1.0), image_size), -1, 1)


def squared_image(path: str, size: int, window: str = "auto") -> tuple[Image, Mask, tuple[int, int]]:
    """One file on the square grid (float32 [size, size] in [0, 1]), where it is no padding, and its own size.

    Raises:
        RunFailure: the file cannot be read.
    """
    picture = read_image(path, window)
    height, width = picture.pixels.shape[:2]
    image = np.clip(padded_square(picture, size), 0, 1)
    shown = padded_square(Picture(np.ones((height, width), np.float32), 0.0, 1.0), size) > 0.99
    return image, shown, (int(height), int(width))


def _same_size(path: str, size: tuple[int, int], followup: tuple[int, int], what: str) -> None:
    if size != followup:
        raise RunFailure(
            f"`{path}` is {size[1]}×{size[0]} pixels and the follow-up {followup[1]}×{followup[0]}: a {what} lies on "
            "the follow-up's grid",
            code="size-mismatch",
        )


def _nifti(path: str) -> Image:
    try:
        import nibabel as nib
    except ModuleNotFoundError:
        line = install_line(("medcli[diffmap]",))
        raise UnreadableImage(path, f"reading NIfTI needs nibabel: `{line}`") from None
    if not Path(path).is_file():
        raise UnreadableImage(path, "no such file")
    try:
        volume: Any = nib.load(path)
        values = np.asarray(volume.dataobj, dtype=np.float32)
    except Exception as error:
        raise UnreadableImage(path, f"this is not a NIfTI file that can be read ({type(error).__name__})") from None
    flat = values.squeeze()
    if flat.ndim != 2:
        raise UnreadableImage(path, f"holds a volume of {'×'.join(map(str, values.shape))}, and only slices are read")
    _refuse_nan(flat, path)
    return np.ascontiguousarray(flat.T)


def _raw_tiff(path: str) -> npt.NDArray[Any]:
    from PIL import Image as Pillow

    with Pillow.open(path) as image:
        return np.asarray(image)


def _refuse_nan(values: npt.NDArray[Any], path: str) -> None:
    bad = int((~np.isfinite(values)).sum()) if values.dtype.kind == "f" else 0
    if bad:
        raise RunFailure(
            f"`{path}` holds {bad:,} {'pixel that is' if bad == 1 else 'pixels that are'} NaN or infinite",
            hint="give them a grey value, such as that of their neighbours, before the comparison",
            code="nan-pixels",
        )
