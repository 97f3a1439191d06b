"""What a pair of radiographs is: two pictures of one patient, what is known about them, and the map between them.

Everything downstream (training, scoring, prediction) takes pairs from here, whether they lie in folders, in a table, in
DICOM files, or are drawn when they are read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["DEFAULT_PAIRS", "PATTERN", "SYNTHETIC_PAIRS", "Drawn", "Pair", "PairImages", "PairSet", "synthetic_pairs"]

SYNTHETIC_PAIRS = "synthetic/chest-pairs"
DEFAULT_PAIRS = 200
# Every split has a patient in a set of six, and a longer set begins with the same ones.
PATTERN = ("train", "train", "val", "train", "train", "test", *["train"] * 3, "val", "train", "train", "test")


@dataclass(frozen=True)
class Drawn:
    """A phantom pair that is drawn when it is read, the same every time.

    Args:
        seed: of the set.
        number: of the pair within the set; it decides about patient, change and nuisance.
        size: side in pixels.
        nuisance: factor on every difference of pose, exposure and devices; 0 leaves nothing but the change.
        quiet_share: share of pairs in which nothing but nuisance differs.
    """

    seed: int
    number: int
    size: int
    nuisance: float = 1.0
    quiet_share: float = 0.2


@dataclass(frozen=True)
class Pair:
    """Two images of one patient, by name.

    Args:
        identifier: unique within its set.
        baseline: path of the earlier image.
        followup: path of the later image.
        map: path of the true map in follow-up coordinates, or None.
        mask: path of the mask of valid pixels, or None.
        patient: name, empty where unknown.
        split: `train`, `val`, `test`, or empty.
        nuisance_only: whether nothing but pose, exposure and devices differs; None where unknown.
        spacing: mm per pixel of the follow-up (row, column) where known.
        dates: of both images as text that sorts by time, empty where unknown.
        views: of both images, such as `PA`, empty where unknown.
        drawn: for a pair that has no files.
    """

    identifier: str
    baseline: str
    followup: str
    map: str | None = None
    mask: str | None = None
    patient: str = ""
    split: str = ""
    nuisance_only: bool | None = None
    spacing: tuple[float, float] | None = None
    dates: tuple[str, str] = ("", "")
    views: tuple[str, str] = ("", "")
    drawn: Drawn | None = None


@dataclass(frozen=True)
class PairSet:
    """Pairs under one name.

    Args:
        name: the folder's, table's or built-in set's own.
        pairs: in a stable order.
        notes: sentences the user should read.
    """

    name: str
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    def split(self, name: str) -> PairSet:
        """The pairs of one split, or an empty set."""
        return PairSet(self.name, tuple(pair for pair in self.pairs if pair.split == name), self.notes)


@dataclass(frozen=True)
class PairImages:
    """One pair as pixels.

    Args:
        baseline: float32 [H, W] in [0, 1], dense tissue bright.
        followup: float32 [H, W] likewise.
        target: float32 [H, W] in [-1, 1], positive where the follow-up is denser; NaN outside `valid`. None if unknown.
        valid: bool [H, W] in follow-up coordinates: the follow-up (and the baseline, where known) shows something.
        baseline_valid: bool [H, W] in the baseline's own coordinates: not padding.
        spacing_mm: (row, column) of these pixels, or None.
        sizes: (height, width) of both files.
    """

    baseline: npt.NDArray[np.float32]
    followup: npt.NDArray[np.float32]
    target: npt.NDArray[np.float32] | None
    valid: npt.NDArray[np.bool_]
    baseline_valid: npt.NDArray[np.bool_]
    spacing_mm: tuple[float, float] | None = None
    sizes: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))


def synthetic_pairs(
    count: int = DEFAULT_PAIRS, *, seed: int = 0, size: int = 128, nuisance: float = 1.0, quiet_share: float = 0.2
) -> PairSet:
    """The built-in set: phantom pairs, each of a patient of its own, drawn when they are read."""
    pairs = tuple(
        Pair(
            identifier=f"p{number:05d}/pair_0",
            baseline=f"{SYNTHETIC_PAIRS}/p{number:05d}/prior",
            followup=f"{SYNTHETIC_PAIRS}/p{number:05d}/current",
            patient=f"p{number:05d}",
            split=PATTERN[number % len(PATTERN)],
            drawn=Drawn(seed, number, size, nuisance, quiet_share),
        )
        for number in range(count)
    )
    return PairSet(SYNTHETIC_PAIRS, pairs)
