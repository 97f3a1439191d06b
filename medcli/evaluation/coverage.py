"""Whether conformal sets hold the true class as often as they promised, and what they cost in size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.evaluation.conformal import Cell, Conformal, apply_conformal
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.proportions import Proportion, finite, proportion
from medcli.evaluation.resampling import clusters_of

__all__ = ["Coverage", "set_coverage"]


@dataclass(frozen=True)
class Coverage:
    """How sets did on labelled cases, for the whole or for one label.

    Args:
        name: the label, or empty.
        promised: 1 - miscoverage.
        covered: share of sets that hold the true class, with an interval clustered by patient.
        band: where that share of so many independent cases falls in 95 of 100 calibration and test draws; (NaN, NaN)
            where there is no single threshold.
        sizes: number of sets of size 0, 1, ..., K.
        mean_size: classes per set.
        by_class: class -> share of its cases covered.
        by_size: size -> share of the sets of that size that hold the true class.
    """

    name: str
    promised: float
    covered: Proportion
    band: tuple[float, float]
    sizes: tuple[int, ...]
    mean_size: float
    by_class: Mapping[str, Proportion]
    by_size: Mapping[int, Proportion]

    @property
    def singletons(self) -> float:
        """Share of sets with exactly one class: the cases that are answered."""
        return self.sizes[1] / sum(self.sizes)

    @property
    def empty(self) -> float:
        """Share of sets without any class: cases unlike all calibration cases."""
        return self.sizes[0] / sum(self.sizes)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        return {
            "name": self.name,
            "promised": self.promised,
            "covered": self.covered.to_dict(),
            "band": [finite(end) for end in self.band],
            "sizes": list(self.sizes),
            "mean_size": self.mean_size,
            "singletons": self.singletons,
            "empty": self.empty,
            "by_class": {name: one.to_dict() for name, one in self.by_class.items()},
            "by_size": {str(size): one.to_dict() for size, one in self.by_size.items()},
        }


def set_coverage(conformal: Conformal, predictions: Predictions) -> tuple[Coverage, ...]:
    """Judge sets on labelled cases: one entry, or one per label that has any.

    Raises:
        UsageProblem: the predictions are of another target.
    """
    members, target = apply_conformal(conformal, predictions).members, conformal.target
    clusters = clusters_of(predictions.patients, len(predictions))
    owners = clusters.index if clusters.known else None
    if target.task != "multilabel":
        known = predictions.labels >= 0
        if not known.any():
            return ()
        cell = None if conformal.by_class else conformal.cells[0]
        found = _covered(
            "", members[known], predictions.labels[known], target.class_names, conformal, cell, _at(owners, known)
        )
        return (found,)
    result = []
    for index, name in enumerate(target.class_names):
        known = ~np.isnan(predictions.labels[:, index])
        if known.any():
            labels = predictions.labels[known, index].astype(np.int64)
            cell = None if conformal.by_class else conformal.cells[index]
            chosen = members[known, index]
            result.append(_covered(name, chosen, labels, ("absent", "present"), conformal, cell, _at(owners, known)))
    return tuple(result)


def _covered(
    name: str,
    members: npt.NDArray[np.bool_],
    labels: npt.NDArray[Any],
    classes: tuple[str, ...],
    conformal: Conformal,
    cell: Cell | None,
    owners: npt.NDArray[np.int64] | None,
) -> Coverage:
    held = members[np.arange(len(labels)), labels.astype(np.int64)]
    sizes = members.sum(axis=1)
    independent = len(labels) if owners is None else len(np.unique(owners))
    return Coverage(
        name,
        1 - conformal.miscoverage,
        proportion(held, owners),
        (math.nan, math.nan) if cell is None else cell.band_of_share(independent),
        tuple(np.bincount(sizes, minlength=len(classes) + 1).tolist()),
        float(sizes.mean()),
        {one: proportion(held[labels == i], _at(owners, labels == i)) for i, one in enumerate(classes)},
        {int(size): proportion(held[sizes == size], _at(owners, sizes == size)) for size in np.unique(sizes)},
    )


def _at(owners: npt.NDArray[np.int64] | None, rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64] | None:
    return None if owners is None else owners[rows]
