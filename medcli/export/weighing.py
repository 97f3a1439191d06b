"""A smaller network beside the one it was made from, on the same validation cases: figures, size, latency."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.bundles.bundle import open_session
from medcli.evaluation.calibrator import apply_calibrator
from medcli.evaluation.paired import Difference, paired_difference
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.proportions import finite
from medcli.evaluation.report import evaluate
from medcli.export.run_cases import RunCases
from medcli.export.source import Source
from medcli.settings.groups import EvaluationSettings

__all__ = ["Change", "Latency", "answers", "changes", "distance", "latency", "surely_kept", "worst_change"]

ROUNDS, SECONDS = 20, 3.0


@dataclass(frozen=True)
class Change:
    """A figure of the network and of the smaller one, the higher the better.

    Args:
        figure: `auc` (of the classes that occur, where some do not) or `accuracy`.
        difference: smaller minus original.
        allowed: most it may fall.
    """

    figure: str
    difference: Difference
    allowed: float

    @property
    def drop(self) -> float:
        """How much is lost."""
        return self.difference.first - self.difference.second

    @property
    def excessive(self) -> bool:
        """Whether that is too much; what is no number is."""
        return not self.drop <= self.allowed + 1e-12

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        one = self.difference
        return {
            "figure": self.figure,
            "before": finite(one.first),
            "after": finite(one.second),
            "drop": finite(self.drop),
            "low": finite(0.0 - one.high),
            "high": finite(0.0 - one.low),
            "allowed": self.allowed,
            "cases": one.n,
        }


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one picture, medians of rounds that took turns.

    Args:
        before: of the network.
        after: of the smaller one.
        rounds: how many.
    """

    before: float
    after: float
    rounds: int


def answers(network: Path, images: npt.NDArray[np.float32], batch_size: int) -> npt.NDArray[np.float32]:
    """Logits float32 [n, ...]."""
    session = open_session(network)
    parts = [
        session.run(["logits"], {"images": images[start : start + batch_size]})[0]
        for start in range(0, len(images), batch_size)
    ]
    return np.concatenate(parts)


def changes(
    source: Source,
    cases: RunCases,
    before: npt.NDArray[np.float32],
    after: npt.NDArray[np.float32],
    max_drop: float,
    *,
    resamples: int = 0,
) -> tuple[Change, ...]:
    """What the smaller network loses, with paired intervals over patients where resamples are drawn.

    Answers that are no numbers lose everything. One case more or less is within what accuracy may lose, unless
    nothing may be lost: with 78 cases it is more than a hundredth.
    """
    first = _judged(source, cases, before)
    broken = bool((np.isnan(after) | np.isposinf(after)).any())
    second = first if broken else _judged(source, cases, after)
    settings = EvaluationSettings(bootstrap=resamples)
    found = []
    for figure in _figures(first, settings):
        difference = paired_difference(first, second, figure, settings)
        if broken:
            difference = Difference(difference.first, math.nan, math.nan, math.nan, difference.n, 0, None, 0)
        slack = 1 / max(1, difference.n) if figure == "accuracy" and max_drop else 0.0
        found.append(Change(figure, difference, max(max_drop, slack)))
    return tuple(found)


def worst_change(found: tuple[Change, ...]) -> Change | None:
    """The first figure that lost too much."""
    return next((one for one in found if one.excessive), None)


def surely_kept(found: tuple[Change, ...]) -> bool:
    """Whether nothing lost too much, and AUC does not at the lower end of its interval (DeLong's) either.

    Of AUC alone: the interval of accuracy is wider than what is allowed on all but thousands of cases. Where no AUC has
    an interval, nothing is sure.
    """
    areas = found[0].difference.areas if found else None
    return worst_change(found) is None and areas is not None and -areas.overall.low <= found[0].allowed + 1e-12


def distance(before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]) -> float:
    """How far logits [n, ...] moved, as a share of how much those of the network differ from case to case.

    It needs no labels, so it tells the better of two smaller networks where their figures cannot.
    """
    rows = [one.reshape(len(one), -1).astype(np.float64) for one in (before, after)]
    fixed = np.isfinite(rows[0]).all(axis=0)  # an output of fewer classes than another is filled up with infinities
    first, second = (one[:, fixed] for one in rows)
    spread = float(np.sqrt(first.var(axis=0).mean())) if first.size else 0.0
    return float(np.sqrt(np.mean((second - first) ** 2))) / spread if spread else math.inf


def latency(before: Path, after: Path, image: npt.NDArray[np.float32]) -> Latency:
    """Measure both side by side.

    Args:
        before: the network.
        after: the smaller one.
        image: float32 [1, C, S, S].
    """
    sessions = [open_session(one) for one in (before, after)]
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + SECONDS
    for turn in range(ROUNDS + 3):
        one, other = (_milliseconds(session, image) for session in sessions)
        if turn >= 3:
            times.append((one, other))
            if time.perf_counter() > end:
                break
    first, second = zip(*times, strict=True)
    return Latency(statistics.median(first), statistics.median(second), len(times))


def _milliseconds(session: Any, image: npt.NDArray[np.float32]) -> float:
    start = time.perf_counter()
    session.run(["logits"], {"images": image})
    return 1000 * (time.perf_counter() - start)


def _judged(source: Source, cases: RunCases, logits: npt.NDArray[np.float32]) -> Predictions:
    found = cases.answered(logits, source)
    return found if source.calibrator is None else apply_calibrator(source.calibrator, found)


def _figures(predictions: Predictions, settings: EvaluationSettings) -> list[str]:
    """AUC (of the classes that occur, where some do not) and accuracy, as far as these cases have them."""
    figures = evaluate(predictions, replace(settings, bootstrap=0)).figures
    known = [name for name, one in figures.items() if math.isfinite(one.value)]
    areas = [name for name in ("auc", "auc_present") if name in known][:1]
    # Among many labels, accuracy is the rate of negatives.
    others = ["accuracy"] if "accuracy" in known and predictions.target.task != "multilabel" else []
    return [*areas, *others]
