"""What conformal sets achieve on cases their thresholds have not seen: coverage against its band, and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.evaluation.conformal import Cell, Conformal, apply_conformal
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.proportions import finite
from medcli.evaluation.render import aligned

__all__ = ["ConformalReport", "Coverage", "report_conformal"]


@dataclass(frozen=True)
class Coverage:
    """How often the sets of some cases hold the true answer.

    Args:
        name: a class, a label, or empty for all cases.
        n: cases.
        share: of sets with the true answer; NaN without cases.
        low: lower end of where `share` lies for 95 % of calibration sets and test sets of these sizes; NaN where the
            thresholds promise nothing for these cases alone.
        high: upper end.
        sizes: cases by size of their set, 0 to all classes.
    """

    name: str
    n: int
    share: float
    low: float
    high: float
    sizes: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        return {
            "name": self.name,
            "n": self.n,
            "coverage": finite(self.share),
            "expected_low": finite(self.low),
            "expected_high": finite(self.high),
            "sizes": list(self.sizes),
            "single": self.of_size(1),
            "empty": self.of_size(0),
        }

    def of_size(self, size: int) -> float | None:
        """Share of sets of this size; None without cases."""
        return self.sizes[size] / self.n if self.n else None


@dataclass(frozen=True)
class ConformalReport:
    """Sets on cases that were not calibrated on.

    Args:
        conformal: the thresholds.
        rows: all cases first, then each class; for a multilabel target each label.
    """

    conformal: Conformal
    rows: tuple[Coverage, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**self.conformal.to_dict(), "reported": [row.to_dict() for row in self.rows]}

    def text(self, *, width: int | None = None) -> str:
        """A table and what it rests on."""
        rows = []
        for row in self.rows:
            band = "-" if np.isnan(row.low) else f"[{row.low:.4f}, {row.high:.4f}]"
            sizes = " ".join(f"{size}:{count}" for size, count in enumerate(row.sizes) if count)
            rows.append([row.name or "all", str(row.n), "-" if not row.n else f"{row.share:.4f}", band, sizes])
        lines = [
            f"conformal sets that miss at most {self.conformal.miscoverage:g} ({self.conformal.convention})",
            aligned(["cases of", "n", "coverage", "expected in 95 %", "sets by size"], rows, width=width),
            "the promise holds for new cases like the calibration cases, not for another site or mix of findings",
        ]
        return "\n".join([*lines, *self.conformal.notes])


def report_conformal(conformal: Conformal, predictions: Predictions) -> ConformalReport:
    """Coverage and sizes on labelled cases; unlabelled ones are left out.

    Raises:
        UsageProblem: the predictions are of another target.
    """
    members, labels = apply_conformal(conformal, predictions).members, predictions.labels
    cells, target = conformal.cells, conformal.target
    rows: list[Coverage] = []
    if target.task == "multilabel":
        for index, name in enumerate(target.class_names):
            seen = ~np.isnan(labels[:, index])
            cell = None if conformal.by_class else cells[index]
            rows.append(_row(name, members[seen, index], labels[seen, index].astype(np.int64), cell))
        return ConformalReport(conformal, tuple(rows))
    seen = labels >= 0
    own, sets = labels[seen].astype(np.int64), members[seen]
    rows.append(_row("", sets, own, None if conformal.by_class else cells[0]))
    for index, name in enumerate(target.class_names):
        rows.append(_row(name, sets[own == index], own[own == index], cells[index] if conformal.by_class else None))
    return ConformalReport(conformal, tuple(rows))


def _row(name: str, sets: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64], cell: Cell | None) -> Coverage:
    n, classes = sets.shape
    held = np.take_along_axis(sets, labels[:, None], axis=1)[:, 0]
    sizes = np.bincount(sets.sum(axis=1), minlength=classes + 1)
    low, high = cell.band_of_share(n) if cell is not None and n else (float("nan"), float("nan"))
    share = float(held.mean()) if n else float("nan")
    return Coverage(name, n, share, float(low), float(high), tuple(int(count) for count in sizes))
