"""DICOM pixels as a display would show them, in the order the standard demands, with every step told.

decode -> modality LUT or rescale -> VOI LUT or window -> inversion relative to the range reached by then. The range is
the declared one (bits stored, LUT depth or window), never an image's own minimum and maximum. Nothing that identifies a
patient is read into a message.
"""

from __future__ import annotations

import io
import logging
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, pixel_array
from pydicom.pixels.decoders.base import get_decoder

from medcli.data.dataset import Picture
from medcli.data.decode import Facts, Say, UnreadableImage, check_size
from medcli.registry.layout import install_line

__all__ = ["Shown", "apply_window", "decode_dicom", "header_channels"]

# pydicom reports oddities of a file, values included, to a logger that writes to the terminal by default.
logging.getLogger("pydicom").addHandler(logging.NullHandler())

PIXEL_TAGS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
REQUIRED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PhotometricInterpretation")
GREY = ("MONOCHROME1", "MONOCHROME2")
FACTS = (
    "Modality", "BodyPartExamined", "ViewPosition", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated",
    "BitsStored", "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth",
    "VOILUTFunction", "PresentationLUTShape", "PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio",
    "PixelPaddingValue", "BurnedInAnnotation", "LossyImageCompression",
)  # fmt: skip
IDENTIFYING = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientAddress", "OtherPatientIDs", "AccessionNumber",
    "ReferringPhysicianName", "InstitutionName", "OperatorsName",
)  # fmt: skip

Shown = tuple[npt.NDArray[Any], float, float]  # pixels and the values that stand for black and white


def header_channels(file: IO[bytes]) -> int | None:
    """1 or 3 by the photometric interpretation."""
    header = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=["PhotometricInterpretation"])
    kind = header.get("PhotometricInterpretation")
    return None if kind is None else 1 if kind in GREY else 3


def decode_dicom(data: bytes, name: str, window: str | tuple[float, float], say: Say, facts: Facts) -> Picture:
    """Decode one single-frame DICOM.

    Args:
        data: the file's contents.
        name: for messages.
        window: `auto` (the file's VOI LUT, else its first window, else everything), `full`, or (centre, width).
        say: receives each step.
        facts: receives header facts.

    Raises:
        UnreadableImage: no DICOM, no pixels, several frames, a decoder that is missing, or a window that is none.
    """
    try:
        # Old archives leave out the preamble that marks a DICOM file; the check for pixels below replaces it.
        header = pydicom.dcmread(io.BytesIO(data), force=True)
    except InvalidDicomError:
        raise UnreadableImage(name, "this is not a DICOM file") from None
    _facts(header, facts)
    if not any(tag in header for tag in PIXEL_TAGS):
        if "SOPClassUID" not in header:
            raise UnreadableImage(name, "this is not a DICOM file")
        raise UnreadableImage(name, f"this DICOM file holds no pixels (it is a {header.SOPClassUID.name})")
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        raise UnreadableImage(name, f"holds {frames} frames, and only single pictures are read")
    lacking = [keyword for keyword in REQUIRED if header.get(keyword) is None]
    if lacking:
        raise UnreadableImage(name, f"the header lacks {', '.join(lacking)}")
    check_size(name, int(header.Columns), int(header.Rows))
    _check_decoder(header, name)
    kind = str(header.PhotometricInterpretation)
    syntax = header.file_meta.TransferSyntaxUID.name
    try:
        stored = pixel_array(header)
    except RuntimeError as error:  # what pydicom raises once every decoder has refused the data
        raise UnreadableImage(name, f"its pixel data is damaged: no decoder of {syntax} can read it") from error
    say(f"decoded {syntax}: {stored.shape[1]}×{stored.shape[0]}, {stored.dtype}, {kind}")
    if kind == "PALETTE COLOR":
        colours = apply_color_lut(stored, header)[..., :3]
        say("colours looked up in the palette")
        return _picture((colours, 0.0, float(np.iinfo(colours.dtype).max)))
    if stored.ndim == 3:
        high = float(2 ** int(header.BitsStored) - 1)
        if kind.startswith("YBR"):
            say("converted from YBR to RGB")
        say(f"0 is black, {high:g} is white")
        return _picture((stored, 0.0, high))
    if kind not in GREY:
        raise UnreadableImage(name, f"photometric interpretation `{kind}` is not supported")
    padded = _padding(stored, header)
    shown = _voi(_modality(_within_bits(stored, header, say), header, say), header, window, name, say)
    pixels, low, high = shown
    if kind == "MONOCHROME1" or str(header.get("PresentationLUTShape", "")).upper() == "INVERSE":
        # low + high - x, and not a negative or a maximum of the image: the inverse keeps the declared range.
        pixels = low + high - pixels.astype(np.float64)
        pixels = pixels.astype(shown[0].dtype)
        because = "MONOCHROME1" if kind == "MONOCHROME1" else "the presentation LUT shape"
        say(f"inverted within {low:g}..{high:g}, because of {because}")
    if padded is not None:
        pixels = np.where(padded, np.asarray(low, dtype=pixels.dtype), pixels)
        say(f"{int(padded.sum())} padding pixels set to black")
    say(f"{low:g} is black, {high:g} is white")
    return _picture((pixels, low, high))


def apply_window(
    pixels: npt.NDArray[Any], centre: float, width: float, function: str = "LINEAR"
) -> npt.NDArray[np.float32]:
    """A display window to 0..1 (DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Args:
        pixels: values after the modality LUT.
        centre: window centre.
        width: window width, at least 1 for LINEAR, above 0 otherwise.
        function: `LINEAR`, `LINEAR_EXACT` or `SIGMOID`.

    Raises:
        ValueError: a width the standard forbids, or an unknown function.
    """
    values = pixels.astype(np.float64)
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise ValueError(f"window width {width:g} is not allowed")
    if function == "SIGMOID":
        return (0.5 + 0.5 * np.tanh(2 * (values - centre) / width)).astype(np.float32)  # exp would overflow
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    elif function != "LINEAR_EXACT":
        raise ValueError(f"window function `{function}` is unknown")
    if width == 0:
        return (values > centre).astype(np.float32)
    return np.clip((values - centre) / width + 0.5, 0.0, 1.0).astype(np.float32)


def _facts(header: pydicom.Dataset, facts: Facts) -> None:
    facts["format"] = "DICOM"
    syntax = getattr(header.file_meta, "TransferSyntaxUID", None)
    facts["transfer_syntax"] = syntax.name if syntax is not None else "none declared"
    for keyword in FACTS:
        value = header.get(keyword)
        if value not in (None, ""):
            facts[keyword] = [str(item) for item in value] if isinstance(value, list) else _plain(value)
            if isinstance(value, pydicom.multival.MultiValue):
                facts[keyword] = [_plain(item) for item in value]
    present = [keyword for keyword in IDENTIFYING if header.get(keyword) not in (None, "")]
    if present:
        facts["identifying_tags"] = present  # their names only


def _plain(value: Any) -> Any:
    return value if isinstance(value, int) else float(value) if isinstance(value, float) else str(value)


def _check_decoder(header: pydicom.Dataset, name: str) -> None:
    syntax = getattr(header.file_meta, "TransferSyntaxUID", None)
    if syntax is None:
        # Without a declared encoding the oldest default applies (PS3.10 7.1: implicit VR, little endian).
        encoding = header.original_encoding
        implicit, little = encoding[0] is not False, encoding[1] is not False
        header.file_meta.TransferSyntaxUID = (
            pydicom.uid.ImplicitVRLittleEndian
            if implicit
            else pydicom.uid.ExplicitVRLittleEndian
            if little
            else pydicom.uid.ExplicitVRBigEndian
        )
        return
    if not syntax.is_compressed or syntax == pydicom.uid.DeflatedExplicitVRLittleEndian:
        return
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UnreadableImage(name, f"compressed as {syntax.name}, which cannot be decoded") from None
    if not decoder.is_available:
        raise UnreadableImage(
            name,
            f"compressed as {syntax.name}, and its decoder is not installed: `{install_line(('medcli[dicom]',))}`",
        )


def _padding(stored: npt.NDArray[Any], header: pydicom.Dataset) -> npt.NDArray[np.bool_] | None:
    value = header.get("PixelPaddingValue")
    if value is None:
        return None
    low, high = sorted((int(value), int(header.get("PixelPaddingRangeLimit", value))))
    mask = (stored >= low) & (stored <= high)
    return mask if mask.any() else None


def _stored_range(header: pydicom.Dataset) -> tuple[float, float]:
    bits = int(header.BitsStored)
    return (
        (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)
        if header.get("PixelRepresentation") == 1
        else (0.0, 2.0**bits - 1)
    )


def _within_bits(stored: npt.NDArray[Any], header: pydicom.Dataset, say: Say) -> Shown:
    """Stored values and their declared range; bits above those stored hold overlays in old files and are cut off."""
    if stored.dtype.kind == "f":
        low, high = float(np.nanmin(stored)), float(np.nanmax(stored))
        say(f"float pixels declare no range; their own smallest ({low:g}) and largest ({high:g}) are taken")
        return np.nan_to_num(stored, nan=low), low, high if high > low else low + 1
    low, high = _stored_range(header)
    if stored.min() < low or stored.max() > high:
        say(f"values outside the {int(header.BitsStored)} bits stored are cut off")
        stored = stored & int(high) if low == 0 and stored.dtype.kind == "u" else np.clip(stored, low, high)
    return stored, low, high


def _modality(shown: Shown, header: pydicom.Dataset, say: Say) -> Shown:
    pixels, low, high = shown
    if header.get("ModalityLUTSequence"):
        bits = int(header.ModalityLUTSequence[0].LUTDescriptor[2])
        say(f"modality LUT of {bits} bits")
        return apply_modality_lut(pixels, header), 0.0, 2.0**bits - 1
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    if slope is None or intercept is None:
        return shown
    slope, intercept = float(slope), float(intercept)
    if (slope, intercept) == (1.0, 0.0):
        return shown
    ends = sorted((low * slope + intercept, high * slope + intercept))
    say(f"rescaled by slope {slope:g} and intercept {intercept:g}: declared range {ends[0]:g}..{ends[1]:g}")
    return apply_modality_lut(pixels, header), ends[0], ends[1]


def _voi(shown: Shown, header: pydicom.Dataset, window: str | tuple[float, float], name: str, say: Say) -> Shown:
    pixels = shown[0]
    if isinstance(window, tuple):
        say(f"window centre {window[0]:g}, width {window[1]:g}, as asked for")
        return apply_window(pixels, *window), 0.0, 1.0
    if window == "full":
        say("no window: the whole declared range, as asked for")
        return shown
    if header.get("VOILUTSequence"):
        bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
        say(f"VOI LUT of {bits} bits" + (" (it goes before the window)" if "WindowCenter" in header else ""))
        rounded = pixels if pixels.dtype.kind in "iu" else np.rint(pixels).astype(np.int64)
        return apply_voi(rounded, header), 0.0, 2.0**bits - 1
    centres, widths = _numbers(header, "WindowCenter"), _numbers(header, "WindowWidth")
    if not centres or not widths:
        say("the file has no window: its whole declared range")
        return shown
    function = str(header.get("VOILUTFunction") or "LINEAR").upper()
    which = f" (the first of {len(centres)})" if len(centres) > 1 else ""
    say(f"window centre {centres[0]:g}, width {widths[0]:g}, {function}{which}")
    try:
        return apply_window(pixels, centres[0], widths[0], function), 0.0, 1.0
    except ValueError as error:
        raise UnreadableImage(
            name, f"the file's {error} (`--window full` or `--window CENTRE,WIDTH` reads it)"
        ) from None


def _numbers(header: pydicom.Dataset, keyword: str) -> list[float]:
    value = header.get(keyword)
    if value is None or value == "":
        return []
    return [float(item) for item in value] if isinstance(value, pydicom.multival.MultiValue) else [float(value)]


def _picture(shown: Shown) -> Picture:
    """uint8 and uint16 as they are, everything else as float32."""
    pixels, low, high = shown
    if pixels.dtype not in {np.dtype("uint8"), np.dtype("uint16")}:
        pixels = pixels.astype(np.float32)
    return Picture(np.ascontiguousarray(pixels), float(low), float(high if high > low else low + 1))
