"""Several evaluations side by side, and what a model loses on data from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medcli.errors import UsageProblem
from medcli.evaluation.figures import Evaluation
from medcli.evaluation.render import INTERVAL, aligned, number_text
from medcli.evaluation.resampling import bootstrap_interval

__all__ = ["Gap", "gaps", "render_comparison"]

_COLUMNS = ("auc", "auc_present", "qwk", "mae", "accuracy", "balanced_accuracy", "f1_macro", "ece", "brier", "nll")


@dataclass(frozen=True)
class Gap:
    """How a figure differs on other data.

    Args:
        data: name of the external data set.
        figure: name of the figure.
        value: external minus internal.
        low: lower end of the 95 % interval; NaN where there is none.
        high: upper end.
    """

    data: str
    figure: str
    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {
            "data": self.data,
            "figure": self.figure,
            **{name: None if math.isnan(number) else number for name, number in numbers.items()},
        }


def gaps(internal: Evaluation, external: Sequence[Evaluation]) -> tuple[Gap, ...]:
    """External minus internal for every headline figure.

    The sets are resampled separately: the interval is that of the difference of two independent draws.

    Raises:
        UsageProblem: the evaluations are of different targets.
    """
    result = []
    for one in external:
        if one.target != internal.target:
            raise UsageProblem(f"`{one.data_name}` has another target than the internal test", code="other-target")
        for name, figure in internal.figures.items():
            if not figure.headline or name not in one.figures:
                continue
            value = one.value(name) - figure.value
            low = high = math.nan
            if not math.isnan(value) and one.draws and internal.draws:
                ours, theirs = internal.draws[name], one.draws[name]
                # The same seed drew both: unshuffled, sets of equal length would be resampled alike.
                mixed = np.random.default_rng(0).permutation(theirs)
                low, high, *_ = bootstrap_interval(name, value, np.asarray(mixed - ours), difference=True)
            result.append(Gap(one.data_name, name, value, low, high))
    return tuple(result)


def render_comparison(evaluations: Sequence[Evaluation], differences: Sequence[Gap], width: int | None = None) -> str:
    """A row per data set, then a row per external set and figure with the difference."""
    names = [name for name in _COLUMNS if any(name in one.figures for one in evaluations)]
    rows = [
        [
            " ".join(part for part in (one.data_name, one.split) if part),
            str(one.n),
            "-" if one.patients is None else str(one.patients),
            *(number_text(one.value(name)) for name in names),
        ]
        for one in evaluations
    ]
    parts = [aligned(["data", "n", "patients", *names], rows, width=width)]
    if differences:
        cells = [
            [
                gap.data,
                gap.figure,
                "-" if math.isnan(gap.value) else f"{gap.value:+.4f}",
                "-" if math.isnan(gap.low) else f"[{gap.low:+.4f}, {gap.high:+.4f}]",
            ]
            for gap in differences
        ]
        title = "generalisation gap: external minus internal test (95 % intervals from independent resamples)"
        parts.append(f"{title}\n" + aligned(["data", "figure", "gap", INTERVAL], cells, left=2, width=width))
    return "\n\n".join(parts)
