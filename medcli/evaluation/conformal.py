"""Sets of classes that hold the true one as often as asked, whatever the model: split conformal prediction.

Published tools differ by one order statistic, which costs coverage on small calibration sets; here it is the exact one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, betabinom

from medcli.data.target import Target, target_from_dict, target_to_dict
from medcli.errors import UsageProblem
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.proportions import finite
from medcli.evaluation.resampling import clusters_of
from medcli.evaluation.scores import probabilities

__all__ = [
    "METHODS",
    "Cell",
    "Conformal",
    "ConformalSets",
    "apply_conformal",
    "conformal_from_dict",
    "fit_conformal",
    "order_statistic",
    "smallest_count",
]

Method = Literal["lac", "aps", "raps"]
METHODS: tuple[Method, ...] = get_args(Method)

Floats = npt.NDArray[np.float64]

RAPS_WEIGHT = 0.05
RAPS_FREE = 1
"""Regularised sets pay this much for each class beyond the first; the classes here are too few for larger offsets."""


def order_statistic(n: int, miscoverage: float) -> int:
    """Which of n calibration scores, counted from the smallest, is the threshold: k = ceil((n + 1)(1 - miscoverage)).

    Above n there is none, and only the set of all classes keeps the promise.
    """
    # Decimal as typed: in binary, (9 + 1)(1 - 0.1) may end up a hair above 9 and cost a whole order statistic.
    return math.ceil((n + 1) * (1 - Fraction(str(miscoverage))))


def smallest_count(miscoverage: float) -> int:
    """The fewest calibration cases for which `order_statistic` exists."""
    return math.ceil(1 / Fraction(str(miscoverage))) - 1


@dataclass(frozen=True)
class Cell:
    """One threshold and what it rests on.

    Args:
        name: label, class or `label/class`; empty for the one threshold of all.
        n: calibration scores (one for each patient).
        k: the order statistic taken.
        threshold: a class belongs to the set when its score is at most this; infinite where n is too small.
    """

    name: str
    n: int
    k: int
    threshold: float

    def band(self, level: float = 0.95) -> tuple[float, float]:
        """Where the true coverage lies with this probability over draws of the calibration set: Beta(k, n + 1 - k)."""
        if self.k > self.n:
            return 1.0, 1.0
        tail = (1 - level) / 2
        low, high = beta.ppf([tail, 1 - tail], self.k, self.n + 1 - self.k)
        return float(low), float(high)

    def band_of_share(self, cases: int, level: float = 0.95) -> tuple[float, float]:
        """As `band`, for the share of a test set of so many independent cases (beta-binomial)."""
        if self.k > self.n or not cases:
            return (1.0, 1.0) if cases else (math.nan, math.nan)
        tail = (1 - level) / 2
        # Summed by hand: scipy searches each quantile with a distribution function that costs a sum of its own.
        below = np.cumsum(betabinom.pmf(np.arange(cases + 1), cases, self.k, self.n + 1 - self.k))
        low, high = np.minimum(np.searchsorted(below, [tail, 1 - tail]), cases)
        return float(low) / cases, float(high) / cases


@dataclass(frozen=True)
class Conformal:
    """A fitted rule that turns scores into sets.

    Args:
        method: `lac` (1 - score of the class), `aps` (scores summed down to the class, randomised at the edge) or
            `raps` (as aps, with a charge for every class beyond the first).
        miscoverage: share of sets that may miss the true class.
        target: what is predicted.
        by_class: whether every class has a threshold of its own.
        cells: one; or one per class (`by_class`); for a multilabel target one per label, or two with `by_class`.
        seed: of the randomisation and of the choice of one image per patient.
        notes: what the reader should know.
    """

    method: Method
    miscoverage: float
    target: Target
    by_class: bool
    cells: tuple[Cell, ...]
    seed: int
    notes: tuple[str, ...] = ()

    @property
    def convention(self) -> str:
        """What the sets are, in one phrase."""
        scores = {
            "lac": "score 1 - p of the class",
            "aps": "score: sum of the scores down to the class, randomised at the edge",
            "raps": f"as aps, plus {RAPS_WEIGHT:g} for each class beyond the first {RAPS_FREE}",
        }
        each = " of each class" if self.by_class else " of each label" if self.target.task == "multilabel" else ""
        return f"split conformal, {scores[self.method]}; threshold{each}: exact order statistic ceil((n+1)(1-alpha))"

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `conformal_from_dict` reads them back."""
        return {
            "method": self.method,
            "miscoverage": self.miscoverage,
            "target": target_to_dict(self.target),
            "by_class": self.by_class,
            "cells": [
                {"name": cell.name, "n": cell.n, "k": cell.k, "threshold": finite(cell.threshold)}
                for cell in self.cells
            ],
            "seed": self.seed,
            "notes": list(self.notes),
            "convention": self.convention,
        }


def conformal_from_dict(values: Mapping[str, Any]) -> Conformal:
    """Read what `to_dict` wrote.

    Raises:
        ValueError: something is missing or is not what it should be.
    """
    try:
        cells = tuple(
            Cell(
                str(cell["name"]),
                int(cell["n"]),
                int(cell["k"]),
                math.inf if cell["threshold"] is None else float(cell["threshold"]),
            )
            for cell in values["cells"]
        )
        found = Conformal(
            values["method"],
            float(values["miscoverage"]),
            target_from_dict(values["target"]),
            bool(values["by_class"]),
            cells,
            int(values["seed"]),
            tuple(str(note) for note in values["notes"]),
        )
    except (KeyError, TypeError) as problem:
        raise ValueError(f"the conformal part is damaged: {problem}") from problem
    if found.method not in METHODS:
        raise ValueError(f"`{found.method}` is no kind of conformal sets")
    if len(cells) != len(_cell_names(found.target, found.by_class)):
        raise ValueError(f"{len(cells)} conformal thresholds do not fit this target")
    return found


@dataclass(frozen=True)
class ConformalSets:
    """Sets of classes.

    Args:
        members: bool [n, K], the classes in each set; multilabel [n, L, 2], whether 0 (absent) and 1 (present) are.
    """

    members: npt.NDArray[np.bool_]

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Number of classes in each set, [n] or [n, L]."""
        result: npt.NDArray[np.int64] = self.members.sum(axis=-1).astype(np.int64)
        return result


def fit_conformal(
    predictions: Predictions, *, method: Method = "lac", miscoverage: float = 0.1, by_class: bool = False, seed: int = 0
) -> Conformal:
    """Find the thresholds on calibration cases, which the model and its calibrator have not learned from.

    Where patients are known, one case of each is drawn: scores of one patient are not exchangeable. Cases without a
    label are left out.

    Raises:
        UsageProblem: too few cases for this miscoverage (code `too-few-cases`), a multioutput target, or none labelled.
    """
    target = predictions.target
    if not 0 < miscoverage < 1:
        raise UsageProblem(f"{miscoverage:g} is no share of missed cases", where="--miscoverage", code="bad-value")
    if target.task == "multioutput":
        raise UsageProblem(
            "conformal sets are for one question; this target has several outputs",
            where="--conformal",
            code="not-for-this-target",
        )
    names = _cell_names(target, by_class)
    scores = _class_scores(predictions, method, seed, "calibration")
    labels = predictions.labels
    notes: list[str] = []
    groups: list[Floats] = []
    if target.task == "multilabel":
        for index in range(len(target.class_names)):
            rows = _one_each(predictions, ~np.isnan(labels[:, index]), seed)
            answers = labels[rows, index].astype(np.int64)
            own = scores[rows, index, answers]
            groups += [own[answers == value] for value in (0, 1)] if by_class else [own]
    else:
        rows = _one_each(predictions, labels >= 0, seed)
        answers = labels[rows].astype(np.int64)
        own = scores[rows, answers]
        groups += [own[answers == value] for value in range(target.num_classes)] if by_class else [own]
    if predictions.patients is not None:
        notes.append("one case of each patient was drawn for the thresholds")
    cells = tuple(_cell(name, own, miscoverage) for name, own in zip(names, groups, strict=True))
    short = [cell for cell in cells if cell.k > cell.n]
    # Labels are many and some are rare: those are answered with both, and said. Everything else was asked for as such.
    if short and (target.task != "multilabel" or len(short) == len(cells)):
        what = f"class `{short[0].name}` has" if by_class else "there are"
        who = "patients" if predictions.patients is not None else "cases"
        hint = f"`--miscoverage {_sufficient(short[0].n)}` is within reach of these" if short[0].n else None
        raise UsageProblem(
            f"{what} {short[0].n} labelled {who} to calibrate on; a miscoverage of {miscoverage:g} needs at least "
            f"{smallest_count(miscoverage)}",
            where="--miscoverage",
            hint=hint,
            code="too-few-cases",
        )
    if short:
        notes.append(
            f"fewer than {smallest_count(miscoverage)} cases, so never ruled out: "
            + ", ".join(cell.name for cell in short)
        )
    return Conformal(method, miscoverage, target, by_class, cells, seed, tuple(notes))


def apply_conformal(conformal: Conformal, predictions: Predictions) -> ConformalSets:
    """The set of each case.

    Raises:
        UsageProblem: the predictions are of another target.
    """
    if predictions.target != conformal.target:
        raise UsageProblem("the conformal thresholds belong to another target", code="other-target")
    scores = _class_scores(predictions, conformal.method, conformal.seed, "use")
    thresholds = np.array([cell.threshold for cell in conformal.cells])
    if conformal.target.task == "multilabel":
        thresholds = thresholds.reshape(len(conformal.target.class_names), 2 if conformal.by_class else 1)
    return ConformalSets(scores <= thresholds)


def _sufficient(n: int) -> str:
    """The smallest miscoverage, rounded up to three digits, that n cases allow."""
    return f"{math.ceil(1000 / (n + 1)) / 1000:g}"


def _cell_names(target: Target, by_class: bool) -> tuple[str, ...]:
    if target.task != "multilabel":
        return target.class_names if by_class else ("",)
    if not by_class:
        return target.class_names
    return tuple(f"{name}/{answer}" for name in target.class_names for answer in ("absent", "present"))


def _cell(name: str, own: Floats, miscoverage: float) -> Cell:
    k = order_statistic(len(own), miscoverage)
    return Cell(name, len(own), k, float(np.partition(own, k - 1)[k - 1]) if k <= len(own) else math.inf)


def _one_each(predictions: Predictions, known: npt.NDArray[np.bool_], seed: int) -> npt.NDArray[np.int64]:
    rows = np.flatnonzero(known)
    if predictions.patients is None or not len(rows):
        return rows
    owners = clusters_of(predictions.patients, len(predictions)).index[rows]
    # By a number that goes with the case, so that the order of the file decides nothing.
    drawn = rows[np.lexsort((_uniform(predictions.ids[rows], seed, "patient"), owners))]
    owners = clusters_of(predictions.patients, len(predictions)).index[drawn]
    return np.sort(drawn[np.append(True, owners[1:] != owners[:-1])])


def _class_scores(predictions: Predictions, method: Method, seed: int, use: str) -> Floats:
    """How little each class conforms, [n, K] or [n, L, 2]: small for likely classes."""
    scores = probabilities(predictions)
    if predictions.target.task == "multilabel":
        scores = np.stack([1 - scores, scores], axis=-1)
    if method == "lac":
        return 1 - scores
    flat = scores.reshape(-1, scores.shape[-1])
    order = np.argsort(-flat, axis=1, kind="stable")
    ordered = np.take_along_axis(flat, order, axis=1)
    edge = _uniform(predictions.ids, seed, use)
    edge = np.repeat(edge, len(flat) // max(1, len(edge)))[:, None]
    summed = np.cumsum(ordered, axis=1) - edge * ordered
    if method == "raps":
        summed = summed + RAPS_WEIGHT * np.maximum(0, np.arange(1, flat.shape[1] + 1) - RAPS_FREE)
    result = np.empty_like(flat)
    np.put_along_axis(result, order, summed, axis=1)
    return result.reshape(scores.shape)


def _uniform(ids: npt.NDArray[np.str_], seed: int, use: str) -> Floats:
    """A number in [0, 1) per case that follows from its name, so that no order and no other case changes it."""
    start = hashlib.blake2b(f"{seed}/{use}/".encode(), digest_size=8)
    numbers = np.empty(len(ids), dtype=np.float64)
    for index, name in enumerate(ids.tolist()):
        one = start.copy()
        one.update(name.encode())
        numbers[index] = int.from_bytes(one.digest(), "big") / 2**64
    return numbers
