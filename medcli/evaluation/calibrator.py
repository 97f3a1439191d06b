"""What a calibrator is: a handful of numbers that turn a model's scores into probabilities, and where they come from.

It is applied to predictions by plain numpy, so that evaluation, prediction and an exported model use one definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.evaluation.calibrator_fits import LARGEST_LOGIT, beta_features, tame
from medcli.evaluation.predictions import Predictions

__all__ = [
    "METHODS",
    "Calibrator",
    "Fit",
    "Method",
    "Origin",
    "apply_calibrator",
    "calibrate_logits",
    "calibrated_already",
    "margin_of",
]

Floats = npt.NDArray[np.float64]
Method = Literal["temperature", "vector", "platt", "beta", "isotonic"]

METHODS: Mapping[Method, tuple[str, ...]] = {
    "temperature": ("temperature",),
    "vector": ("weights", "offsets"),
    "platt": ("slope", "offset"),
    "beta": ("a", "b", "c"),
    "isotonic": ("logits", "probabilities"),
}
"""Methods and the names of their parameters."""


@dataclass(frozen=True)
class Fit:
    """The map of one question: of a single-label target, one label, or one output.

    Args:
        name: the label or output; empty for a single-label target.
        parameters: name -> values, as `METHODS` lists them; empty where the scores stay as they are.
        cases: labelled cases it was fitted on.
        counts: those cases by class (for a label: negatives, positives).
        note: why nothing was fitted, or a bound that was hit; else empty.
    """

    name: str
    parameters: Mapping[str, tuple[float, ...]]
    cases: int
    counts: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True)
class Origin:
    """What a calibrator was fitted on.

    Args:
        split: `val`, or what the file said; empty where it did not say.
        data_name: the data set.
        file: the predictions file, relative to the run where it belongs to one.
        sha256: of that file.
        cases: labelled cases.
        patients: their number, or None where unknown.
        members: number of members or passes whose mean was calibrated; 0 for a single model.
        test_allowed: fitted on a test split because the user insisted.
    """

    split: str = ""
    data_name: str = ""
    file: str = ""
    sha256: str = ""
    cases: int = 0
    patients: int | None = None
    members: int = 0
    test_allowed: bool = False


@dataclass(frozen=True)
class Calibrator:
    """A fitted map from logits to probabilities.

    Args:
        method: one of `METHODS`.
        target: the target of the predictions it was fitted on.
        fits: one per question, in the target's order.
        origin: what it was fitted on.
    """

    method: Method
    target: Target
    fits: tuple[Fit, ...]
    origin: Origin = field(default_factory=Origin)

    def describe(self) -> str:
        """Such as `temperature, fitted on val`."""
        where = self.origin.split or self.origin.data_name or "other predictions"
        return f"{self.method}, fitted on {where}" + (
            " although it is a test split" if self.origin.test_allowed else ""
        )

    def notes(self) -> list[str]:
        """What the reader should know of single questions."""
        return [f"{fit.name}: {fit.note}" if fit.name else fit.note for fit in self.fits if fit.note]


def calibrate_logits(calibrator: Calibrator, logits: npt.NDArray[Any]) -> Floats:
    """Calibrated logits in float64, of the shape of `logits` [n, ...]; softmax or sigmoid makes them probabilities.

    A question that could not be fitted keeps its logits. A temperature never changes which class is highest.
    """
    result: Floats = np.array(logits, dtype=np.float64)
    target = calibrator.target
    for index, fit in enumerate(calibrator.fits):
        if not fit.parameters:
            continue
        if target.task == "multilabel":
            result[:, index] = _map_margin(calibrator.method, fit, margin_of(result[:, index]))
        elif target.task == "multioutput":
            classes = len(target.outputs[index].classes)
            result[:, index, :classes] = _map_classes(calibrator.method, fit, result[:, index, :classes], 1)
        else:
            result = _map_classes(calibrator.method, fit, result, target.positive)
    return result


def apply_calibrator(calibrator: Calibrator, predictions: Predictions) -> Predictions:
    """The same cases with calibrated logits; members keep their own, because their mean is what is calibrated.

    Raises:
        UsageProblem: another target (code `other-target`), or scores that are calibrated already.
    """
    if predictions.target != calibrator.target:
        raise UsageProblem(
            "the calibrator was fitted for another target than that of these predictions",
            where=predictions.data_name or None,
            hint="calibrate with predictions of the same model, classes in the same order",
            code="other-target",
        )
    if predictions.calibrated:
        raise calibrated_already(predictions)
    return replace(
        predictions, logits=calibrate_logits(calibrator, predictions.logits), calibrated=calibrator.describe()
    )


def margin_of(values: npt.NDArray[Any]) -> Floats:
    """Logits [n] of a yes-or-no question in float64; infinite ones count as those of 1e-15 and 1 - 1e-15."""
    wide = np.asarray(values, dtype=np.float64)
    result: Floats = np.where(np.isinf(wide), np.sign(wide) * LARGEST_LOGIT, wide)
    return result


def calibrated_already(predictions: Predictions) -> UsageProblem:
    """The refusal to calibrate twice."""
    return UsageProblem(
        f"these predictions are calibrated already ({predictions.calibrated})",
        where=predictions.data_name or None,
        hint="use the scores of the model itself, as `medcli evaluate RUN --raw --save-predictions FILE` writes them",
        code="calibrated-already",
    )


def _map_margin(method: Method, fit: Fit, margin: Floats) -> Floats:
    values = [np.asarray(fit.parameters[name]) for name in METHODS[method]]
    if method == "temperature":
        return np.asarray(margin / values[0])
    if method == "platt":
        return np.asarray(values[0] * margin + values[1])
    if method == "beta":
        return np.asarray(beta_features(margin) @ np.concatenate(values))
    chances = np.interp(margin, values[0], values[1])
    return np.asarray(np.log(chances) - np.log1p(-chances))


def _map_classes(method: Method, fit: Fit, logits: Floats, positive: int) -> Floats:
    if method == "temperature":
        return np.asarray(tame(logits) / fit.parameters["temperature"][0])
    if method == "vector":
        plain = tame(logits)
        # As in the fit: the offset of a row's logits says nothing, and weights would turn it into something.
        plain = plain - plain.mean(axis=1, keepdims=True)
        return np.asarray(plain * np.array(fit.parameters["weights"]) + np.array(fit.parameters["offsets"]))
    plain = tame(logits)
    moved = _map_margin(method, fit, plain[:, positive] - plain[:, 1 - positive])
    result = np.zeros_like(plain)
    result[:, positive] = moved
    return result
