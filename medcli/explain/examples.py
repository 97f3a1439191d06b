"""Which cases of a run's own test data are worth a picture: right answers of every class, and the worst errors.

Right answers are not the surest ones, which would flatter the model, but lie at even distances from the least sure to
the surest. Errors are ranked by how wrong they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medcli.data.dataset import Samples
from medcli.data.load import load_data
from medcli.errors import UsageProblem
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.scores import columns_of, probabilities
from medcli.explain.questions import Question
from medcli.runs.directory import RunDirectory
from medcli.runs.records import read_config
from medcli.settings.groups import DataSettings

__all__ = ["Example", "Kind", "choose_examples", "own_dataset", "own_samples", "own_settings"]

Kind = Literal["example", "worst-error"]


@dataclass(frozen=True)
class Example:
    """A case and the question to ask about it.

    Args:
        row: in the predictions.
        question: the class that the model answered; of a label, that label.
        kind: `example` for a right answer.
    """

    row: int
    question: Question
    kind: Kind


def choose_examples(predictions: Predictions, count: int) -> tuple[Example, ...]:
    """Up to `count` right answers, spread over the classes, then up to `count` errors, the worst first.

    An error is the worse the less likely the model called the truth; of ordered grades, the further off it is. Missed
    labels and false alarms of a multilabel target take turns, and no case is shown twice as an error.
    """
    multilabel = predictions.target.task == "multilabel"
    right, wrong = _of_labels(predictions) if multilabel else _of_classes(predictions)
    return (*_spread(right, count), *_distinct(wrong, count))


def own_settings(run: RunDirectory) -> tuple[DataSettings, Mapping[str, Mapping[str, Any]]]:
    """How a run read its data, and the `[data.NAME]` tables that belong to it.

    Raises:
        UsageProblem: the run does not say, or was not trained on a set of labelled images.
    """
    saved = read_config(run)
    resolved = saved.resolved()
    if "data" not in resolved.values or "label_column" not in resolved.values:
        raise UsageProblem(
            f"`{run.path}` was not trained on labelled images, so it has none to show",
            where=str(run.config_file),
            code="no-data",
        )
    return resolved.group(DataSettings), saved.data_tables


def own_dataset(run: RunDirectory, data: Sequence[str] = (), image_dir: Sequence[str] = ()) -> dict[str, Samples]:
    """The splits of the data that a run was trained on, as its settings describe them.

    Args:
        run: the run.
        data: where the data lies now, where it has moved.
        image_dir: the same for the folder of a table's images.

    Raises:
        UsageProblem: the data is no longer there, or can no longer be read so.
    """
    settings, tables = own_settings(run)
    if data:
        settings = replace(settings, data=tuple(data))
    if image_dir:
        settings = replace(settings, image_dir=tuple(image_dir))
    try:
        (dataset,) = load_data(settings, data_tables={} if data else tables)
    except UsageProblem as problem:
        if problem.code == "missing-path":
            problem.hint = "`--data PATH` says where the run's data lies now"
        raise
    return dict(dataset.splits)


def own_samples(
    run: RunDirectory, stored: Predictions, data: Sequence[str] = (), image_dir: Sequence[str] = ()
) -> tuple[Samples, dict[str, int]]:
    """The cases of stored predictions with their images, and the position of every identifier among them.

    Raises:
        UsageProblem: the data is not what the run was measured on (code `data-changed`).
    """
    splits = own_dataset(run, data, image_dir)
    samples = splits.get(stored.split)
    found = {} if samples is None else {str(name): row for row, name in enumerate(samples.ids)}
    names = [str(name) for name in stored.ids]
    if samples is None or any(name not in found for name in names):
        gone = [name for name in names if name not in found]
        raise UsageProblem(
            f"{len(gone)} of the {len(names)} `{stored.split}` cases that the run was measured on are not in its data "
            f"any more, first `{gone[0]}`",
            where=str(Path(run.path) / "config.toml"),
            hint="`--data PATH` says where the run's data lies now; images can also be named one by one",
            code="data-changed",
        )
    rows = [found[name] for name in names]
    if not np.array_equal(samples.labels[rows], stored.labels, equal_nan=stored.labels.dtype.kind == "f"):
        raise UsageProblem(
            "labels of the run's data have changed since it was measured",
            where=str(Path(run.path) / "predictions"),
            hint="name the images to explain one by one",
            code="data-changed",
        )
    return samples, found


_Sorted = list[list[tuple[float, Example]]]
"""Groups (of one class or label), each with a number to sort by."""


def _of_classes(predictions: Predictions) -> tuple[_Sorted, _Sorted]:
    right: _Sorted = []
    wrong: list[tuple[float, Example]] = []
    for output, column in enumerate(columns_of(predictions)):
        answers = column.scores.argmax(axis=1)
        ordered = column.target.task == "ordinal"
        for label in range(column.scores.shape[1]):
            rows = np.flatnonzero((column.labels == label) & (answers == label))
            asked = Question(predictions.target, label, output)
            right.append([(float(column.scores[row, label]), Example(int(row), asked, "example")) for row in rows])
        for row in np.flatnonzero((column.labels >= 0) & (answers != column.labels)):
            truth, answer = int(column.labels[row]), int(answers[row])
            badness = 1 - float(column.scores[row, truth]) + (abs(answer - truth) if ordered else 0)
            asked = Question(predictions.target, answer, output)
            wrong.append((badness, Example(int(row), asked, "worst-error")))
    return right, [wrong]


def _of_labels(predictions: Predictions) -> tuple[_Sorted, _Sorted]:
    scores, labels = probabilities(predictions), predictions.labels
    right: _Sorted = []
    missed: list[tuple[float, Example]] = []
    alarms: list[tuple[float, Example]] = []
    for position in range(len(predictions.target.class_names)):
        asked = Question(predictions.target, position)
        score, label = scores[:, position], labels[:, position]
        true, said = label == 1, score > 0.5
        right.append(_cases(true & said, score, asked, "example"))
        missed += _cases(true & ~said, 1 - score, asked, "worst-error")
        alarms += _cases((label == 0) & said, score, asked, "worst-error")
    return right, [missed, alarms]


def _cases(
    chosen: npt.NDArray[np.bool_], order: npt.NDArray[np.float64], asked: Question, kind: Kind
) -> list[tuple[float, Example]]:
    return [(float(order[row]), Example(int(row), asked, kind)) for row in np.flatnonzero(chosen)]


def _spread(groups: _Sorted, count: int) -> list[Example]:
    """As many of every group as there is room for, at even distances in their order."""
    places = [0] * len(groups)
    while sum(places) < count and any(place < len(group) for place, group in zip(places, groups, strict=True)):
        for position, group in enumerate(groups):
            if places[position] < len(group) and sum(places) < count:
                places[position] += 1
    found = []
    for place, group in zip(places, groups, strict=True):
        ranked = sorted(group, key=lambda pair: (pair[0], pair[1].row))
        found += [ranked[int((number + 0.5) * len(ranked) / place)][1] for number in range(place)]
    return found


def _distinct(groups: _Sorted, count: int) -> list[Example]:
    """The worst of every group in turn, no case twice."""
    ranked = [sorted(group, key=lambda pair: (-pair[0], pair[1].row)) for group in groups]
    found: dict[int, Example] = {}
    turns: Iterator[tuple[float, Example] | None] = chain.from_iterable(zip_longest(*ranked))
    for pair in turns:
        if pair is not None and len(found) < count:
            found.setdefault(pair[1].row, pair[1])
    return list(found.values())
