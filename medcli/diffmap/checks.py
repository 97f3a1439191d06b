"""What speaks against comparing two images: each concern a value with a code, and one place that decides what it stops.

A map between the wrong two images looks like any other map, so what can be told from headers and pixels is told before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from medcli.diffmap.headers import Header, plane, read_header
from medcli.diffmap.pairs import Pair, PairImages
from medcli.diffmap.registration import Quality, rough_agreement
from medcli.errors import MedcliError, Problems, UsageProblem

__all__ = ["Concern", "check_alignment", "check_headers", "check_images", "reasons", "settle"]

Weight = Literal["stop", "refuse", "warn"]
# By how much agreement must gain. Over 109 real pairs of 39 patients a sound baseline never gained .02 from turning or
# inverting and gained .04 from mirroring in 5; of spoilt ones 105 (turned), 104 (inverted), 82 (mirrored) are found.
MARGIN, MIRROR_MARGIN = 0.05, 0.04
FLAT = 0.01  # spread between the 2nd and 98th percentile below which an image shows nothing
WEAK = 0.35  # after affine alignment: 2 of 95 pairs of one patient lie below, 42 of 95 of two patients
# A date as DICOM writes it, perhaps with hours, minutes and seconds. As numbers, a day with its time exceeds every day.
STAMP = re.compile(r"(19|20)\d{6}(\d{2}){0,3}")
Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Concern:
    """One reason not to trust a comparison.

    Args:
        code: a stable slug, such as `patient-mismatch`.
        weight: `stop` (no map is possible), `refuse` (only with `--allow-mismatch`), or `warn`.
        message: lower-case start, no full stop, nothing that identifies a patient.
        hint: what to do, or None.
    """

    code: str
    weight: Weight
    message: str
    hint: str | None = None


def check_headers(pair: Pair) -> tuple[Concern, ...]:
    """What headers, and the table that names the pair, say: patient, view, side, order in time, same file."""
    if pair.drawn is not None:
        return ()
    first, second = read_header(pair.baseline), read_header(pair.followup)
    found: list[Concern] = []
    if _same_bytes(pair.baseline, pair.followup):
        found.append(Concern("same-file", "warn", "both images are the same file, so the map is zero everywhere"))
    if first.patient and second.patient and first.patient != second.patient:
        found.append(Concern("patient-mismatch", "refuse", "the headers name two different patients"))
    views = (first.view or pair.views[0], second.view or pair.views[1])
    found += _view(*views)
    if {first.laterality, second.laterality} == {"L", "R"} or {first.rows_run, second.rows_run} == {"L", "R"}:
        found.append(
            Concern("laterality-mismatch", "warn", "the headers give the images opposite sides: one may be mirrored")
        )
    found += _order(pair, first, second)
    for name, one, other in (
        ("modality", first.modality, second.modality),
        ("body part", first.body_part, second.body_part),
    ):
        if one and other and one.upper() != other.upper():
            found.append(Concern(f"{name.replace(' ', '-')}-mismatch", "warn", f"{name} `{one}` against `{other}`"))
    return tuple(found)


def check_images(images: PairImages, *, orientation: bool = True) -> tuple[Concern, ...]:
    """What the pixels say: blank, of other proportions, mirrored, turned, inverted.

    Args:
        images: from `read_pair`.
        orientation: whether to try the mirrored, turned and inverted baseline (0.07 s).
    """
    found: list[Concern] = []
    blank = False
    for name, image, valid in (
        ("BASELINE", images.baseline, images.baseline_valid),
        ("FOLLOWUP", images.followup, images.valid),
    ):
        shown = image[valid]
        if shown.size == 0 or float(np.subtract(*np.percentile(shown, (98, 2)))) < FLAT:
            blank = True
            found.append(Concern("blank-image", "stop", f"{name} is blank: it has one grey value nearly everywhere"))
    found += _proportions(*images.sizes)
    if blank or not orientation or np.array_equal(images.baseline, images.followup):
        return tuple(found)
    return (*found, *_orientation(images))


def check_alignment(quality: Quality, how: str) -> tuple[Concern, ...]:
    """What the registration says about itself."""
    if quality.failures and how == "none":
        text = f"the images do not lie over each other ({quality.ncc_after:.2f}), and `--register none` leaves them so"
        return (Concern("not-aligned", "warn", text),)
    if quality.failures:
        return (
            Concern(
                "alignment-failed",
                "refuse",
                f"the images could not be laid over each other: {'; '.join(quality.failures)}",
                "another view, another patient or a corrupt image does this; look at both images",
            ),
        )
    if quality.ncc_after < WEAK:
        text = f"the images agree little after alignment ({quality.ncc_after:.2f})"
        return (Concern("weak-alignment", "warn", text),)
    return ()


def settle(
    concerns: Iterable[Concern], *, allow_mismatch: bool = False, where: str | None = None
) -> tuple[Concern, ...]:
    """Raise what must not pass; return what the user should still read.

    Args:
        concerns: of one pair.
        allow_mismatch: `--allow-mismatch`: what would be refused is a warning.
        where: the pair's name, for errors.

    Raises:
        UsageProblem: (several as `Problems`) a concern that stops, or that is refused and not allowed.
    """
    everything = tuple(concerns)
    bad = [one for one in everything if one.weight == "stop" or (one.weight == "refuse" and not allow_mismatch)]
    problems: Sequence[MedcliError] = [
        UsageProblem(one.message, where=where, hint=_hint(one), code=one.code) for one in bad
    ]
    if len(problems) > 1:
        raise Problems(problems)
    if problems:
        raise problems[0]
    return everything


def reasons(problem: MedcliError) -> str:
    """Everything that was found wrong with one pair, in one line of a list of pairs."""
    return "; ".join(one.message for one in (problem.problems if isinstance(problem, Problems) else (problem,)))


def _hint(one: Concern) -> str | None:
    if one.weight == "stop":
        return one.hint
    allow = "`--allow-mismatch` compares them all the same"
    return f"{one.hint}; {allow}" if one.hint else allow


def _view(first: str, second: str) -> list[Concern]:
    if not first or not second or first.upper() == second.upper():
        return []
    planes = (plane(first), plane(second))
    if all(planes) and planes[0] == planes[1]:
        return [
            Concern(
                "projection-differs",
                "warn",
                f"`{first}` against `{second}`: the heart's size differs by projection alone",
            )
        ]
    return [Concern("view-mismatch", "refuse", f"view `{first}` against `{second}`", "compare images of one view")]


def _order(pair: Pair, first: Header, second: Header) -> list[Concern]:
    dates = (first.date or pair.dates[0], second.date or pair.dates[1])
    if not all(dates) or not _later(*dates):
        return []
    return [
        Concern(
            "time-order", "refuse", "BASELINE was taken after FOLLOWUP", "swap the two images: the sign would be wrong"
        )
    ]


def _later(one: str, other: str) -> bool:
    """Whether the first of two times follows the second, as far as the coarser of them tells."""
    if not all(STAMP.fullmatch(date) for date in (one, other)):
        with suppress(ValueError):
            return float(one) > float(other)
    length = min(len(one), len(other))
    return one[:length] > other[:length]


def _proportions(first: tuple[int, int], second: tuple[int, int]) -> list[Concern]:
    if first == second or not all((*first, *second)):
        return []
    shapes = [height / width for height, width in (first, second)]
    text = f"sizes differ: {first[1]}×{first[0]} and {second[1]}×{second[0]} pixels"
    if max(shapes) / min(shapes) > 1.1:
        text += ", of other proportions; neither is stretched"
    return [Concern("sizes-differ", "warn", text)]


def _orientation(images: PairImages) -> list[Concern]:
    def agreement(image: Image, valid: Mask) -> float:
        return rough_agreement(
            np.ascontiguousarray(image), images.followup, np.ascontiguousarray(valid), images.valid, refined=False
        )

    image, valid = images.baseline, images.baseline_valid
    as_is = agreement(image, valid)
    tried: dict[str, float] = {
        "mirrored": agreement(image[:, ::-1], valid[:, ::-1]),
        "inverted": agreement(1 - image, valid),
        "rotated by 180°": agreement(image[::-1, ::-1], valid[::-1, ::-1]),
        "rotated by 90°": agreement(np.rot90(image, 1), np.rot90(valid, 1)),
        "rotated by 270°": agreement(np.rot90(image, 3), np.rot90(valid, 3)),
    }
    name, best = max(tried.items(), key=lambda item: item[1])
    if best < as_is + (MIRROR_MARGIN if name == "mirrored" else MARGIN):
        return []
    figures = f"it fits better when {name} ({best:.2f} against {as_is:.2f})"
    if name == "mirrored":
        return [Concern("mirrored", "warn", f"one image may be mirrored: {figures}", "look at the side markers")]
    if name == "inverted":
        return [
            Concern(
                "inverted",
                "refuse",
                f"one image has black and white exchanged: {figures}",
                "correct its photometric interpretation (MONOCHROME1 or MONOCHROME2), or invert the file",
            )
        ]
    return [Concern("rotated", "refuse", f"one image is turned: {figures}", "turn it upright first")]


def _same_bytes(first: str, second: str) -> bool:
    one, other = Path(first), Path(second)
    try:
        if one.samefile(other):
            return True
        return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()
    except OSError:
        return False
