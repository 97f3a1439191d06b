"""What an image file says about itself that matters for a pair: whose it is, from when, which view, how large a pixel.

Nothing that identifies a patient leaves this module: a patient is the digest of the identifier.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcli.data.decode import image_suffix, quiet

__all__ = ["Header", "is_dicom", "read_header"]

MAGIC_AT = 128
VIEWS = {"AP": "frontal", "PA": "frontal", "LL": "lateral", "RL": "lateral", "LAT": "lateral", "LATERAL": "lateral"}
TAGS = (
    "PatientID", "PatientName", "AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime", "ContentDate",
    "ContentTime", "StudyDate", "StudyTime", "ViewPosition", "Laterality", "ImageLaterality", "PatientOrientation",
    "PhotometricInterpretation", "PixelSpacing", "ImagerPixelSpacing", "Modality", "BodyPartExamined",
    "StudyInstanceUID", "SOPInstanceUID",
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """Facts of one file; every field is empty or None where the file does not say.

    Args:
        patient: digest of the patient's identifier (eight characters).
        date: of the acquisition as `YYYYMMDD` or `YYYYMMDDHHMMSS`, else of the study; sorts by time.
        view: as written, such as `PA`.
        laterality: `L`, `R` or `U` as written.
        rows_run: direction in which a row of pixels runs in the patient (`L` as radiographs hang, `R` if mirrored).
        photometric: photometric interpretation.
        modality: such as `DX`.
        body_part: as written.
        spacing: mm per pixel (row, column).
    """

    patient: str = ""
    date: str = ""
    view: str = ""
    laterality: str = ""
    rows_run: str = ""
    photometric: str = ""
    modality: str = ""
    body_part: str = ""
    spacing: tuple[float, float] | None = None

    @property
    def plane(self) -> str:
        """`frontal`, `lateral`, or empty."""
        return plane(self.view)


def plane(view: str) -> str:
    """`frontal`, `lateral`, or empty for a view's name that is not known."""
    return VIEWS.get(view.strip().upper(), "")


def is_dicom(path: str | Path) -> bool:
    """By the first bytes, or by the name where the file cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(MAGIC_AT + 4)[MAGIC_AT:] == b"DICM" or image_suffix(str(path)) in {".dcm", ".dicom"}
    except OSError:
        return image_suffix(str(path)) in {".dcm", ".dicom"}


def read_header(path: str | Path) -> Header:
    """The facts of one file; an empty header for a format that has none, or a file that cannot be read."""
    if is_dicom(path):
        return _dicom(path)
    if image_suffix(str(path)) in {".nii", ".nii.gz"}:
        return Header(spacing=_nifti_spacing(path))
    return Header()


def _dicom(path: str | Path) -> Header:
    import pydicom

    try:
        with quiet():
            file = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(TAGS))
    except Exception:
        return Header()  # the pass that decodes the file will say what is wrong with it

    def text(name: str) -> str:
        value = file.get(name)
        return "" if value is None else str(value).strip()

    who = text("PatientID") or text("PatientName")
    orientation = file.get("PatientOrientation")
    return Header(
        patient=hashlib.sha256(who.encode()).hexdigest()[:8] if who else "",
        date=_date(text),
        view=text("ViewPosition"),
        laterality=(text("ImageLaterality") or text("Laterality")).upper(),
        rows_run=str(orientation[0])[:1].upper() if orientation else "",
        photometric=text("PhotometricInterpretation"),
        modality=text("Modality"),
        body_part=text("BodyPartExamined"),
        spacing=_pair(file.get("PixelSpacing")) or _pair(file.get("ImagerPixelSpacing")),
    )


def _date(text: Any) -> str:
    moment = text("AcquisitionDateTime")
    if moment:
        return str(moment)[:14]
    for day, time in (
        ("AcquisitionDate", "AcquisitionTime"),
        ("ContentDate", "ContentTime"),
        ("StudyDate", "StudyTime"),
    ):
        if text(day):
            return str(text(day)) + str(text(time))[:6]
    return ""


def _pair(value: Any) -> tuple[float, float] | None:
    try:
        row, column = (float(part) for part in value)
    except (TypeError, ValueError):
        return None
    return (row, column) if row > 0 and column > 0 else None


def _nifti_spacing(path: str | Path) -> tuple[float, float] | None:
    try:
        import nibabel as nib

        zooms = [float(zoom) for zoom in nib.load(path).header.get_zooms()[:2]]
    except Exception:
        return None  # as above
    # The first axis runs along the columns. Ones are what a writer leaves that knows no spacing.
    return (zooms[1], zooms[0]) if min(zooms) > 0 and zooms != [1.0, 1.0] else None
