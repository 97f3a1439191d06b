"""Scores of images as rows with one column per class, the way a spreadsheet or a script wants them.

The columns are called scores where they come straight from the network, and probabilities where they were calibrated.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.target import Target
from medcli.evaluation.scores import sigmoid, softmax
from medcli.evaluation.uncertainty import MEASURES, doubts_of

__all__ = ["as_csv", "doubt_table", "score_columns", "score_rows"]


def score_columns(target: Target, *, calibrated: bool = False) -> tuple[str, ...]:
    """Names of the columns: `image`, a `score_CLASS` each (`prob_CLASS` where calibrated), `predicted`.

    For several outputs each has its `score_OUTPUT/CLASS` columns and a `predicted_OUTPUT`.
    """
    kind = "prob" if calibrated else "score"
    if target.task == "multioutput":
        names = [
            name
            for output in target.outputs
            for name in (*(f"{kind}_{output.name}/{label}" for label in output.classes), f"predicted_{output.name}")
        ]
        return ("image", *names)
    expected = ("expected_grade",) if target.task == "ordinal" else ()
    return ("image", *(f"{kind}_{name}" for name in target.class_names), "predicted", *expected)


def score_rows(
    names: Sequence[str], logits: npt.NDArray[np.floating[Any]], target: Target
) -> list[tuple[str | float, ...]]:
    """One row per image, in the given order.

    Single-label scores sum to one and the highest wins (the lower class among equals). A label of a multilabel target
    is predicted when its score is strictly above 0.5; several are joined by `|`. `expected_grade` is the mean grade
    under the scores, counted from 0.

    Args:
        names: [n].
        logits: [n, ...] as in `Predictions`.
        target: what is predicted.
    """
    if target.task == "multilabel":
        table = sigmoid(logits)
        return [
            (
                name,
                *scores,
                "|".join(label for label, score in zip(target.class_names, scores, strict=True) if score > 0.5),
            )
            for name, scores in zip(names, table.tolist(), strict=True)
        ]
    if target.task == "multioutput":
        table = softmax(logits)
        return [(name, *_outputs(scores, target)) for name, scores in zip(names, table, strict=True)]
    table = softmax(logits)
    grades = np.arange(target.num_classes)
    rows: list[tuple[str | float, ...]] = []
    for name, scores in zip(names, table, strict=True):
        expected = (float(scores @ grades),) if target.task == "ordinal" else ()
        rows.append((name, *scores.tolist(), target.class_names[int(scores.argmax())], *expected))
    return rows


def _outputs(scores: npt.NDArray[np.float64], target: Target) -> list[str | float]:
    cells: list[str | float] = []
    for output, own in zip(target.outputs, scores, strict=True):
        kept = own[: len(output.classes)]
        cells += [*kept.tolist(), output.classes[int(kept.argmax())]]
    return cells


def doubt_table(
    member_logits: npt.NDArray[Any], target: Target, weights: npt.NDArray[np.float64] | None
) -> tuple[tuple[str, ...], list[tuple[float, ...]]]:
    """(names of the columns, one row per image) of what several answers say apart from their mean.

    A column `uncertainty_MEASURE` for each of `MEASURES`, and `uncertainty_grade` (a standard deviation in grades)
    where classes are ordered; with `_NAME` behind it for a label or output.

    Args:
        member_logits: [answers, n, ...] as in `Predictions`.
        target: what is predicted.
        weights: [answers], or None for equal ones.
    """
    names: list[str] = []
    values: list[npt.NDArray[np.float64]] = []
    for one in doubts_of(member_logits, target, weights):
        ending = f"_{one.name}" if one.name else ""
        names += [f"uncertainty_{measure}{ending}" for measure in MEASURES]
        values += [one.measure(measure) for measure in MEASURES]
        if one.grades is not None:
            names.append(f"uncertainty_grade{ending}")
            values.append(one.grades.total)
    return tuple(names), [tuple(row) for row in np.stack(values, axis=1).tolist()]


def as_csv(columns: Sequence[str], rows: Sequence[Sequence[str | float]]) -> str:
    """Comma-separated text with a header; scores with six digits after the point."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    return text.getvalue()
