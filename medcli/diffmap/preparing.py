"""From a pair to what a difference model sees, in training, scoring and prediction alike: read, check, align, match."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from medcli.diffmap.checks import Concern, check_alignment, check_headers, check_images, settle
from medcli.diffmap.intensity import match
from medcli.diffmap.pairs import Pair, PairImages
from medcli.diffmap.reading import read_pair
from medcli.diffmap.registration import How, Quality, Registered, register

__all__ = ["Prepared", "align", "filled", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """A pair on one grid, in follow-up coordinates.

    Args:
        images: the baseline aligned (and matched), the follow-up, the target (NaN outside `valid`) and the common mask.
        unaligned: the baseline as it was read.
        registered: how it was aligned.
        concerns: what the user should read.
    """

    images: PairImages
    unaligned: npt.NDArray[np.float32]
    registered: Registered
    concerns: tuple[Concern, ...] = ()

    @property
    def quality(self) -> Quality:
        """Of the alignment."""
        return self.registered.quality


def prepare(
    pair: Pair,
    image_size: int,
    how: How = "affine",
    *,
    matched: bool = True,
    checked: bool = True,
    allow_mismatch: bool = False,
    window: str = "auto",
) -> Prepared:
    """Read, check and align one pair.

    Args:
        pair: two files, or a drawn pair.
        image_size: side of the square images.
        how: see `register`.
        matched: whether the baseline gets the follow-up's grey scale and exposure gradient.
        checked: whether headers, pixels and alignment are judged; without, nothing is refused.
        allow_mismatch: whether what would be refused is only told.
        window: DICOM display window.

    Raises:
        UsageProblem: the pair is refused (`Problems` for several reasons), or SimpleITK is missing.
        RunFailure: a file cannot be read.
    """
    found = list(check_headers(pair)) if checked else []
    if checked:
        # A wrong patient must be said even where the file cannot be decoded, and before seconds are spent.
        settle(found, allow_mismatch=allow_mismatch, where=pair.identifier)
    images = read_pair(pair, image_size, window=window)
    if checked:
        found += check_images(images)
        settle(found, allow_mismatch=allow_mismatch, where=pair.identifier)
    prepared = align(images, how, matched=matched)
    if checked:
        found += check_alignment(prepared.quality, how)
    settled = settle(found, allow_mismatch=allow_mismatch, where=pair.identifier) if checked else ()
    return replace(prepared, concerns=settled)


def align(images: PairImages, how: How = "affine", *, matched: bool = True) -> Prepared:
    """Lay the baseline over the follow-up and match its grey scale; the target keeps NaN where either shows nothing."""
    same = np.array_equal(images.baseline, images.followup)
    # Of one image with itself the answer is known, and an optimiser's last digits would only blur it.
    registered = register(
        images.baseline,
        images.followup,
        "none" if same else how,
        baseline_valid=images.baseline_valid,
        followup_valid=images.valid,
    )
    baseline = registered.warped
    if matched and not same:
        baseline = np.where(registered.valid, match(baseline, images.followup, registered.valid), np.float32(0))
    target = images.target
    if target is not None:
        target = np.where(registered.valid, target, np.float32("nan"))
    aligned = replace(images, baseline=baseline, target=target, valid=registered.valid, baseline_valid=registered.valid)
    return Prepared(aligned, images.baseline, registered)


def filled(images: PairImages) -> npt.NDArray[np.float32]:
    """The baseline as networks see it, float32 [H, W]: where not both images show something it repeats the follow-up,
    since what one image alone shows is no change.
    """
    return np.where(images.valid, images.baseline, images.followup).astype(np.float32)
