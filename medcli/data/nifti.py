"""Two-dimensional NIfTI as a radiograph hangs: head (or front) up, the patient's right on the left."""

from __future__ import annotations

import gzip
import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.dataset import Picture
from medcli.data.decode import Facts, Say, UnreadableImage, check_size
from medcli.registry.layout import install_line

__all__ = ["decode_nifti"]

GZIP_MAGIC = b"\x1f\x8b"
COLOUR = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def decode_nifti(data: bytes, name: str, window: str | tuple[float, float], say: Say, facts: Facts) -> Picture:
    """Decode a .nii or .nii.gz that holds one slice.

    Orientation: with one declared, axes are brought to the closest of right, anterior, superior, the axis of length
    one is dropped, and both remaining ones are turned for display. With none declared, the first axis runs along the
    columns and the second down the rows, as DICOM converters write it.

    Range: a given window; else the header's cal_min and cal_max; else, for unscaled 8- and 16-bit integers, that of the
    type; else the file's own smallest and largest value, since NIfTI declares none.

    Raises:
        UnreadableImage: nibabel missing, no NIfTI, or more than one slice.
    """
    try:
        import nibabel as nib
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError
        from nibabel.wrapstruct import WrapStructError

        # nibabel says what it finds odd in a header on the terminal, before it raises.
        logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    except ModuleNotFoundError:
        line = install_line(("medcli[nifti]",))
        raise UnreadableImage(name, f"reading NIfTI needs nibabel: `{line}`") from None
    raw = gzip.decompress(data) if data[:2] == GZIP_MAGIC else data
    kind: Any = nib.Nifti2Image if raw[:2] in {b"\x1c\x02", b"\x02\x1c"} else nib.Nifti1Image
    try:
        image = kind.from_bytes(raw)
    except (HeaderDataError, ImageFileError, WrapStructError):
        raise UnreadableImage(name, "this is not a NIfTI file") from None
    header = image.header
    shape = tuple(int(side) for side in image.shape)
    sides = [side for side in shape if side > 1]
    facts |= {
        "format": "NIfTI",
        "shape": list(shape),
        "type": str(header.get_data_dtype()),
        "spacing_mm": [round(float(zoom), 4) for zoom in header.get_zooms()[: len(shape)]],
        "orientation_codes": [int(header["qform_code"]), int(header["sform_code"])],
    }
    if len(sides) > 2:
        raise UnreadableImage(name, f"holds a volume of {'×'.join(map(str, shape))}, and only single slices are read")
    values, scaled = _values(image, name)
    pixels = _hung(values, shape, image.affine, bool(header["qform_code"] or header["sform_code"]), say)
    check_size(name, pixels.shape[1], pixels.shape[0])
    if pixels.ndim == 3:
        say("0 is black, 255 is white")
        return Picture(np.ascontiguousarray(pixels), 0.0, 255.0)
    return _ranged(pixels, name, window, (float(header["cal_min"]), float(header["cal_max"])), scaled, say)


def _values(image: Any, name: str) -> tuple[npt.NDArray[Any], bool]:
    """The array, and whether the header's slope and intercept changed it."""
    stored = image.dataobj.get_unscaled()
    if stored.dtype == COLOUR:
        return np.stack([stored[channel] for channel in "RGB"], axis=-1), False
    if stored.dtype.kind not in "iuf":
        raise UnreadableImage(name, f"values of type {stored.dtype} are not supported")
    slope, intercept = (float(part) for part in (image.dataobj.slope, image.dataobj.inter))
    scaled = (slope, intercept) != (1.0, 0.0)
    return (np.asarray(image.dataobj) if scaled else stored), scaled


def _hung(
    values: npt.NDArray[Any], shape: tuple[int, ...], affine: npt.NDArray[Any], oriented: bool, say: Say
) -> npt.NDArray[Any]:
    """[H, W] or [H, W, 3], hung for display."""
    from nibabel.orientations import aff2axcodes, apply_orientation, io_orientation

    colour = values.shape[len(shape) :]
    volume = values.reshape(*shape[:3], *([1] * (3 - len(shape))), *colour)
    if not oriented:
        say("no orientation declared: first axis along the columns, second down the rows")
        return np.swapaxes(_flat(volume), 0, 1)
    axes = "".join(map(str, aff2axcodes(affine)))
    say(f"axes {axes} brought to RAS, then hung with head or front up and the patient's right on the left")
    canonical = apply_orientation(volume, io_orientation(affine))
    return np.swapaxes(_flat(canonical)[::-1, ::-1], 0, 1)


def _flat(volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Without one of the three axes that has length one, the last such."""
    axis = max(position for position in range(3) if volume.shape[position] == 1)
    return volume.squeeze(axis)


def _ranged(
    pixels: npt.NDArray[Any],
    name: str,
    window: str | tuple[float, float],
    declared: tuple[float, float],
    scaled: bool,
    say: Say,
) -> Picture:
    if isinstance(window, tuple):
        from medcli.data.dicom import apply_window

        say(f"window centre {window[0]:g}, width {window[1]:g}, as asked for")
        return Picture(apply_window(np.nan_to_num(pixels, nan=-np.inf), *window), 0.0, 1.0)
    if declared[1] > declared[0]:
        low, high = declared
        say(f"range declared by the header: {low:g} is black, {high:g} is white")
    elif pixels.dtype in {np.dtype("uint8"), np.dtype("uint16")} and not scaled:
        say(f"0 is black, {np.iinfo(pixels.dtype).max} is white")
        return Picture(np.ascontiguousarray(pixels), 0.0, float(np.iinfo(pixels.dtype).max))
    else:
        finite = pixels[np.isfinite(pixels)]
        if not finite.size:
            raise UnreadableImage(name, "holds no finite number")
        low, high = float(finite.min()), float(finite.max())
        say(f"NIfTI declares no range; the file's own smallest ({low:g}) is black and largest ({high:g}) is white")
        high = high if high > low else low + 1
    values = np.nan_to_num(pixels.astype(np.float32), nan=low, posinf=high, neginf=low)
    return Picture(np.ascontiguousarray(np.clip(values, low, high)), low, high)
