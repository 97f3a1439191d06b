"""What an evaluation holds: every figure with its interval, and how it is written as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from medcli.data.target import Target, target_to_dict
from medcli.evaluation.resampling import Interval, IntervalKind

__all__ = ["SCHEMA", "ClassRow", "Evaluation", "Figure", "Section"]

SCHEMA = "medcli-evaluation/1"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """One number with what is needed to judge it.

    Args:
        name: such as `auc`.
        value: the estimate; NaN where undefined.
        low: lower end of the 95 % interval; NaN where there is none.
        high: upper end.
        failed: resamples in which the figure was undefined; they are left out of the interval.
        convention: what exactly it is.
        headline: whether it is shown first.
        interval: how the interval came about, see `interval_kind`; empty where there is none.
    """

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    failed: int = 0
    convention: str = ""
    headline: bool = False
    interval: IntervalKind | Literal[""] = ""

    @classmethod
    def of(cls, name: str, value: float, found: Interval, convention: str = "", *, headline: bool = False) -> Figure:
        """A figure with an interval over resamples."""
        kind = "" if math.isnan(found.low) else found.kind
        return cls(name, value, found.low, found.high, found.failed, convention, headline, kind)

    @property
    def remark(self) -> str:
        """The convention and, where it is not the percentiles of the draws, the kind of interval."""
        kind = {"centred": "centred interval", "sandwich": "sandwich interval"}.get(self.interval, "")
        return "; ".join(part for part in (self.convention, kind) if part)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        return {
            "value": _number(self.value),
            "low": _number(self.low),
            "high": _number(self.high),
            "interval": self.interval or None,
            "failed_resamples": self.failed,
            "convention": self.convention,
            "headline": self.headline,
        }


@dataclass(frozen=True)
class ClassRow:
    """The figures of one class, grade or label.

    Args:
        name: the class.
        n: cases that were judged (for a label: observed entries).
        positives: cases of this class.
        figures: name -> figure.
    """

    name: str
    n: int
    positives: int
    figures: Mapping[str, Figure]


class Section(Protocol):
    """A part of an evaluation beyond its figures, such as a referral table."""

    @property
    def name(self) -> str:
        """Its key in the JSON document."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """JSON values, NaN as None; everything there is."""
        ...

    def text(self, *, verbose: bool, width: int | None = None) -> str:
        """A heading and a table for people, short unless verbose; empty where there is nothing to say.

        Tables wider than `width` columns are parted; None leaves them whole.
        """
        ...


@dataclass(frozen=True)
class Evaluation:
    """All figures of one split.

    Args:
        data_name: the data set.
        split: `train`, `val`, `test` or `""`.
        target: what was predicted.
        n: labelled cases.
        excluded: cases without any label.
        patients: number of patients among the labelled cases, or None when no patients are known.
        resamples: bootstrap resamples behind the intervals.
        bins: bins of the calibration figures.
        binning: `width` or `mass`.
        figures: overall figures by name, in reading order.
        classes: per class or label; empty for multioutput.
        confusion: int64 [K, K], rows labels, columns predictions, or None (multilabel, multioutput).
        reliability: for single-label targets, the rows (cases, mean confidence, accuracy) of the bins that hold cases.
        outputs: for multioutput, the evaluation of each output by name.
        notes: sentences the reader should see.
        calibrated: how the scores became probabilities; empty for the model's own scores.
        sections: further parts, in reading order.
        draws: figure -> bootstrap draws [r]; kept for differences between evaluations, not stored.
    """

    data_name: str
    split: str
    target: Target
    n: int
    excluded: int
    patients: int | None
    resamples: int
    bins: int
    binning: str
    figures: Mapping[str, Figure]
    classes: tuple[ClassRow, ...] = ()
    confusion: npt.NDArray[np.int64] | None = None
    reliability: tuple[tuple[int, float, float], ...] = ()
    outputs: Mapping[str, Evaluation] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    calibrated: str = ""
    sections: tuple[Section, ...] = ()
    draws: Mapping[str, Floats] = field(default_factory=dict, repr=False, compare=False)

    def value(self, name: str) -> float:
        """The estimate of a figure; NaN when this target has no such figure."""
        return self.figures[name].value if name in self.figures else math.nan

    def to_dict(self) -> dict[str, Any]:
        """A JSON document (schema `medcli-evaluation/1`); NaN becomes None."""
        return {
            "schema": SCHEMA,
            "data": self.data_name,
            "split": self.split,
            "target": target_to_dict(self.target),
            "n": self.n,
            "excluded": self.excluded,
            "patients": self.patients,
            "resamples": self.resamples,
            "calibrated": self.calibrated or None,
            "bins": self.bins,
            "binning": self.binning,
            "figures": {name: figure.to_dict() for name, figure in self.figures.items()},
            "classes": [
                {
                    "name": row.name,
                    "n": row.n,
                    "positives": row.positives,
                    "figures": {name: figure.to_dict() for name, figure in row.figures.items()},
                }
                for row in self.classes
            ],
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "reliability": [
                {"n": count, "confidence": confidence, "accuracy": accuracy}
                for count, confidence, accuracy in self.reliability
            ],
            "outputs": {name: one.to_dict() for name, one in self.outputs.items()},
            "notes": list(self.notes),
            "sections": {section.name: section.to_dict() for section in self.sections},
        }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
