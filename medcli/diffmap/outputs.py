"""The files of a map: values for programs, pictures for people, findings for both, and a DICOM object for a viewer.

All lie on the follow-up's own pixels. Nothing that identifies a patient is written, but into DICOM where both images
already agree on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo

from medcli import __version__
from medcli.diffmap.findings import SIDES
from medcli.diffmap.headers import is_dicom
from medcli.diffmap.pairs import Pair
from medcli.diffmap.pictures import CAUTION, PACKING, Drawing, draw_overlay, draw_sheet
from medcli.diffmap.prediction import FoundMap, Mapper
from medcli.diffmap.reading import MAP_MIDDLE, MAP_SCALE
from medcli.errors import UsageProblem
from medcli.registry.layout import install_line
from medcli.runs.directory import replace_text, writing

__all__ = [
    "FILES",
    "FORMATS",
    "Written",
    "check_free",
    "claim",
    "folder_name",
    "folder_names",
    "require_formats",
    "summary",
    "write_map",
]

FORMATS = ("png", "npy", "nifti", "json", "dicom")
DEFAULT_FORMATS = ("png", "npy", "json")
FINDINGS = "findings.json"
FILES = ("map.npy", "map.nii.gz", "map.png", "overlay.png", "sheet.png", "overlay.dcm", FINDINGS)
SERIES = f"Difference map - {CAUTION.lower()}"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
KEPT = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Written:
    """Where a map lies.

    Args:
        folder: its folder.
        files: names in it.
        document: what `findings.json` holds.
    """

    folder: str
    files: tuple[str, ...]
    document: dict[str, Any]


def require_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """The formats asked for, or the usual ones.

    Raises:
        UsageProblem: a package is missing that one of them needs.
    """
    chosen = tuple(formats) or DEFAULT_FORMATS
    for name, package, extra in (("nifti", "nibabel", "diffmap"), ("dicom", "pydicom", "dicom")):
        if name in chosen:
            try:
                __import__(package)
            except ModuleNotFoundError:
                raise UsageProblem(
                    f"`--format {name}` needs {package}, which is not installed",
                    where="--format",
                    hint=install_line((f"medcli[{extra}]",)),
                    code="missing-extra",
                ) from None
    return chosen


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Make sure that a map may be written into a folder; nothing is changed yet.

    Raises:
        UsageProblem: it is a file, or is not empty and `overwrite` was not said or does not concern a map of ours.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageProblem(f"`{folder}` is a file", where="--out", hint="name a directory", code="out-occupied")
    if folder.is_dir() and any(folder.iterdir()):
        ours = (folder / FINDINGS).is_file()
        if not (ours and overwrite):
            raise UsageProblem(
                f"`{folder}` is not empty" + ("" if ours or not overwrite else ", and medcli wrote no map there"),
                where="--out",
                hint="`--overwrite` replaces this map" if ours else "name a new directory with `--out DIR`",
                code="out-occupied",
            )


def claim(folder: Path, *, overwrite: bool) -> None:
    """Make the folder, and take away an older map's files lest they pass for the new one's.

    Raises:
        UsageProblem: see `check_free`.
        RunFailure: the disk refuses.
    """
    check_free(folder, overwrite=overwrite)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).unlink(missing_ok=True)


def folder_name(identifier: str) -> str:
    """A pair's name as a path below the output folder, whatever a table calls it."""
    parts = [re.sub(r"[^\w.+-]+", "_", part).strip(".") for part in identifier.split("/")]
    return "/".join(part for part in parts if part) or "pair"


def folder_names(pairs: Sequence[Pair]) -> list[str]:
    """A folder for each pair; those that would share one get a number behind the name."""
    taken: dict[str, int] = {}
    names = []
    for pair in pairs:
        name = folder_name(pair.identifier)
        taken[name.lower()] = taken.get(name.lower(), 0) + 1
        names.append(name if taken[name.lower()] == 1 else f"{name}~{taken[name.lower()]}")
    return names


def write_map(found: FoundMap, mapper: Mapper, folder: Path, formats: Sequence[str], colour_limit: float) -> Written:
    """Write one map into a folder that `claim` has prepared. `findings.json` comes last: a folder with it is whole.

    Raises:
        RunFailure: the disk is full or refuses.
    """
    written: list[str] = []
    values = found.own_size() if {"png", "npy", "nifti"} & set(formats) else None
    if values is not None and "npy" in formats:
        with writing(folder / "map.npy"):
            np.save(folder / "map.npy", values)
        written.append("map.npy")
    if values is not None and "nifti" in formats:
        _write_nifti(values, found, folder / "map.nii.gz")
        written.append("map.nii.gz")
    if values is not None and "png" in formats:
        _write_png(values, folder / "map.png")
        written.append("map.png")
    if {"png", "dicom"} & set(formats):
        drawing = Drawing(
            found.pictured,
            found.values,
            found.grid,
            found.findings,
            mapper.limits,
            colour_limit,
            mapper.signed,
            found.pair.identifier,
            f"{mapper.spec.model.split('/')[-1]} at {mapper.spec.image_size} px, registration {mapper.how}",
            found.prepared.quality.ncc_after,
            tuple(one.message for one in found.concerns if one.weight == "refuse"),
        )
        draw_overlay(drawing, folder / "overlay.png")
        if "dicom" in formats:
            _write_dicom(folder / "overlay.png", found, folder / "overlay.dcm")
            written.append("overlay.dcm")
        if "png" in formats:
            draw_sheet(drawing, folder / "sheet.png")
            written += ["overlay.png", "sheet.png"]
        else:
            (folder / "overlay.png").unlink()
    document = _document(found, mapper, colour_limit, tuple(written))
    replace_text(folder / FINDINGS, json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    return Written(str(folder), (*written, FINDINGS), document)


def summary(found: FoundMap) -> list[dict[str, Any]]:
    """The findings as JSON holds them."""
    return [
        {
            "id": one.id,
            "sign": one.sign,
            "area_px": one.area_px,
            "area_mm2": None if one.area_mm2 is None else round(one.area_mm2, 2),
            "centroid": [round(place, 2) for place in one.centroid],
            "box": list(one.box),
            "peak": round(one.peak, 6),
            "mean": round(one.mean, 6),
            "side": one.side,
        }
        for one in found.findings
    ]


def _document(found: FoundMap, mapper: Mapper, colour_limit: float, files: tuple[str, ...]) -> dict[str, Any]:
    known = np.isfinite(found.values)
    quality = asdict(found.prepared.quality)
    headers = found.headers
    least = found.grid.area(mapper.limits.min_area)
    least_mm2 = None if found.spacing is None else round(least * found.spacing[0] * found.spacing[1], 2)
    return {
        "schema": "medcli-findings/1",
        "medcli": __version__,
        "caution": CAUTION.lower(),
        "pair": found.pair.identifier,
        "baseline": {
            "file": found.pair.baseline,
            "size": list(found.prepared.images.sizes[0]),
            "view": headers[0].view,
        },
        "followup": {"file": found.pair.followup, "size": list(found.grid.shape), "view": headers[1].view},
        "model": {
            "name": mapper.spec.model,
            "run": mapper.wanted.run,
            "image_size": mapper.spec.image_size,
            "antisymmetric": mapper.antisymmetric,
        },
        "map": {
            "kind": mapper.spec.map,
            "shape": list(found.grid.shape),
            "known_share": round(float(known.mean()), 6),
            "lowest": float(found.values[known].min()) if known.any() else None,
            "highest": float(found.values[known].max()) if known.any() else None,
            "png_scale": {
                "zero": MAP_MIDDLE,
                "per_unit": MAP_SCALE,
                "unknown": 0,
                "value": f"(pixel - {MAP_MIDDLE}) / {MAP_SCALE}",
            },
            "npy_unknown": "NaN",
        },
        "spacing_mm": None if found.spacing is None else list(found.spacing),
        "limits": {
            **asdict(mapper.limits),
            "min_area_px": max(1, round(least)),
            "min_area_mm2": least_mm2,
            "colour_limit": colour_limit,
        },
        "registration": {"how": mapper.how, **quality, "failures": list(quality["failures"])},
        "conventions": {
            "sign": "1: new or denser in the follow-up, -1: gone or less dense"
            if mapper.signed
            else "a map of magnitudes has no signs; every finding has 1",
            "places": "(row, column) in pixels of the follow-up's file, the middle of the first pixel being (0, 0)",
            "box": "(top, left, bottom, right), the last two exclusive",
            "area": "of pixels at or above the threshold, those of the follow-up's file; mm² at the detector where the "
            "header gives only that. The limit `min_area` alone counts pixels of the model's square",
            "side": SIDES,
        },
        "warnings": [{"code": one.code, "message": one.message} for one in found.concerns],
        "files": list(files),
        "findings": summary(found),
    }


def _write_png(values: Image, path: Path) -> None:
    """16 bits: 32768 is no change, 0 is unknown; the scale stands in the file too."""
    levels = np.where(np.isfinite(values), np.rint(MAP_MIDDLE + MAP_SCALE * np.nan_to_num(values)), 0)
    text = PngInfo()
    text.add_text("Description", f"difference map, {CAUTION.lower()}; value = (pixel - {MAP_MIDDLE}) / {MAP_SCALE}")
    with writing(path):
        Pillow.fromarray(levels.astype(np.uint16)).save(path, pnginfo=text, compress_level=PACKING)


def _write_nifti(values: Image, found: FoundMap, path: Path) -> None:
    """One slice, first axis along the rows of the picture; the follow-up's own geometry where it is NIfTI."""
    import nibabel as nib

    affine, header = None, None
    if found.pair.drawn is None and found.pair.followup.lower().endswith((".nii", ".nii.gz")):
        source: Any = nib.load(found.pair.followup)
        affine, header = source.affine, source.header
    volume = np.ascontiguousarray(values.T)[..., None]
    if affine is None:
        down, across = found.spacing or (1.0, 1.0)
        # Columns run to the patient's left (right in a mirrored film), rows down; NIfTI counts to the right and up.
        leftwards = 1.0 if found.headers[1].rows_run == "R" else -1.0
        affine = np.array([[leftwards * across, 0, 0, 0], [0, 0, 1.0, 0], [0, -down, 0, 0], [0, 0, 0, 1.0]])
    image: Any = nib.Nifti1Image(volume, affine)
    if header is not None:
        image.header.set_xyzt_units(*header.get_xyzt_units())
    elif found.spacing is not None:
        image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"difference map, {CAUTION.lower()}"
    with writing(path):
        nib.save(image, path)


def _write_dicom(picture: Path, found: FoundMap, path: Path) -> None:
    """The overlay as a secondary capture in a study of its own."""
    import datetime

    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    with Pillow.open(picture) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    now = datetime.datetime.now(tz=datetime.UTC)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SECONDARY_CAPTURE
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = SECONDARY_CAPTURE, meta.MediaStorageSOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.Modality, made.ConversionType = "OT", "WSD"
    made.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    made.SeriesDescription = SERIES
    made.DerivationDescription = f"medcli {__version__}: difference of two radiographs, {CAUTION.lower()}"
    made.BurnedInAnnotation = "YES"
    made.Manufacturer, made.SoftwareVersions = "medcli", __version__
    made.StudyDate = made.ContentDate = made.SeriesDate = now.strftime("%Y%m%d")
    made.StudyTime = made.ContentTime = made.SeriesTime = now.strftime("%H%M%S")
    made.StudyID = made.AccessionNumber = made.ReferringPhysicianName = ""
    made.SeriesNumber, made.InstanceNumber = 1, 1
    for name in KEPT:
        setattr(made, name, "")
    files = [found.pair.baseline, found.pair.followup]
    if found.pair.drawn is None and all(is_dicom(file) for file in files):
        first, second = (
            pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=list(KEPT)) for file in files
        )
        # One identifier in both, or none at all: a map may never go to the wrong patient's record.
        if first.get("PatientID") and first.get("PatientID") == second.get("PatientID"):
            for name in KEPT:
                value = first.get(name)
                if value is not None and value == second.get(name):
                    setattr(made, name, value)
    made.Rows, made.Columns, _ = pixels.shape
    made.SamplesPerPixel, made.PlanarConfiguration, made.PixelRepresentation = 3, 0, 0
    made.PhotometricInterpretation = "RGB"
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit = 7
    data = pixels.tobytes()
    made.PixelData = data + b"\0" * (len(data) % 2)
    with writing(path):
        made.save_as(path, enforce_file_format=True)
