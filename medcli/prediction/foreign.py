"""Tables of predictions as any tool writes them: which columns are scores, which are labels, and what they say.

Nothing is guessed that changes a number: what the column names leave open is an error that names the flag.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.sources.cases import split_word
from medcli.data.tables import Table, read_table
from medcli.data.target import Output, Target
from medcli.errors import UsageProblem, listed
from medcli.evaluation.predictions import Predictions, check_predictions
from medcli.prediction.score_patterns import find_scores

__all__ = ["Columns", "ReadTable", "columns_from", "read_prediction_table"]

Floats = npt.NDArray[np.float64]

_MISSING = frozenset({"", "nan", "na", "n/a", "none", "null"})
_SUM_TOLERANCE = 5e-3
"""How far the scores of one case may be from summing to one: four classes rounded to three digits stay inside."""


@dataclass(frozen=True)
class Columns:
    """How the columns are called; empty means by our own layout.

    Args:
        identifier: column with the case.
        probabilities: pattern of the probability columns, such as `prob_*`, or several as `A,B`.
        logits: pattern of the logit columns, or several.
        labels: label columns.
        patient: column with the patient.
        class_names: names in the order of the score columns.
        task: what is predicted, where the columns leave it open.
        positive: for two classes, the finding.
        ordinal: of several outputs, those whose classes are ordered.
    """

    identifier: str = ""
    probabilities: str = ""
    logits: str = ""
    labels: tuple[str, ...] = ()
    patient: str = ""
    class_names: tuple[str, ...] = ()
    task: str | None = None
    positive: str | None = None
    ordinal: tuple[str, ...] = ()


def columns_from(values: Mapping[str, Any]) -> Columns:
    """The columns that resolved settings name."""
    patients = values["patient_column"]
    return Columns(
        identifier=values["id_column"] or "",
        probabilities=values["prob_columns"] or "",
        logits=values["logit_columns"] or "",
        labels=tuple(values["label_column"]),
        patient=patients[0] if patients else "",
        class_names=tuple(values["class_names"]),
        task=values["task"],
        positive=values["positive_class"],
        ordinal=tuple(values["ordinal_column"]),
    )


@dataclass(frozen=True)
class ReadTable:
    """What a table held, and what the reader should be told about it."""

    predictions: Predictions
    notes: tuple[str, ...] = field(default=())


def read_prediction_table(path: str, columns: Columns) -> ReadTable:
    """Read a table of predictions.

    Probabilities p become log p (classes that exclude each other) or log p/(1-p) (labels) in float64, so that turning
    them back changes no digit that matters and no rank.

    Raises:
        UsageProblem: columns that are missing or ambiguous, cells that are no numbers, probabilities that do not add
            up, labels that are no class; with file and line.
    """
    table = read_table(path)
    notes: list[str] = []
    names, score_columns, are_logits = find_scores(table, columns.probabilities, columns.logits)
    scores = np.stack([_numbers(table, column) for column in score_columns], axis=1)
    if not are_logits:
        _check_range(table, score_columns, scores)
    ids = _identifiers(table, columns, notes)
    target, labels, logits = _target_and_logits(table, columns, names, scores, are_logits, notes)
    patient = columns.patient or ("patient" if "patient" in table.columns else "")
    patients = np.array(table.column(patient, "--patient-column"), dtype=np.str_) if patient else None
    split = _split(table, notes)
    predictions = Predictions(ids, labels, logits, target, split, data_name=_stem(path), patients=patients)
    try:
        check_predictions(predictions)
    except ValueError as problem:
        raise UsageProblem(str(problem), where=path, code="bad-predictions") from problem
    return ReadTable(predictions, tuple(notes))


def _split(table: Table, notes: list[str]) -> str:
    """The split that all rows belong to by a column `split`, or empty; a mixture is said, not parted."""
    if "split" not in table.columns:
        return ""
    words = sorted({split_word(cell) or "" for cell in table.column("split", "--split-column")})
    if len(words) == 1:
        return words[0]
    if known := [word for word in words if word]:
        notes.append(f"column `split` holds {listed(known)}: all {len(table.rows)} rows are judged as one set")
    return ""


def _numbers(table: Table, column: str) -> Floats:
    cells = table.column(column, "--prob-columns")
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError:
        values = np.array([_float(cell) for cell in cells])
    bad = np.isnan(values)
    if bad.any():
        row = int(bad.argmax())
        what = f"`{cells[row]}` in column `{column}` is not a number" if cells[row] else f"column `{column}` is empty"
        raise UsageProblem(what, where=table.where(row), code="bad-score")
    return values


def _float(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _check_range(table: Table, columns: list[str], scores: Floats) -> None:
    bad = (scores < 0) | (scores > 1)
    if bad.any():
        row, column = (int(index) for index in np.argwhere(bad)[0])
        raise UsageProblem(
            f"{scores[row, column]:g} in column `{columns[column]}` is no probability",
            where=table.where(row),
            hint="`--logit-columns 'PATTERN'` is for scores before the softmax or sigmoid",
            code="bad-score",
        )


def _identifiers(table: Table, columns: Columns, notes: list[str]) -> npt.NDArray[np.str_]:
    column = columns.identifier or ("id" if "id" in table.columns else "")
    if column:
        cells = table.column(column, "--id-column")
        seen: dict[str, int] = {}
        for row, cell in enumerate(cells):
            if seen.setdefault(cell, row) != row:
                raise UsageProblem(
                    f"`{cell}` stands in column `{column}` twice, first in line {table.lines[seen[cell]]}",
                    where=table.where(row),
                    hint="a row is one case; `--id-column COLUMN` names the column that tells cases apart, "
                    "`--patient-column COLUMN` that of the patients",
                    code="bad-predictions",
                )
        return np.array(cells, dtype=np.str_)
    notes.append("no column `id`: rows are numbered from 1 (`--id-column COLUMN` names one)")
    return np.array([str(row + 1) for row in range(len(table.rows))], dtype=np.str_)


def _target_and_logits(
    table: Table, columns: Columns, names: list[str], scores: Floats, are_logits: bool, notes: list[str]
) -> tuple[Target, npt.NDArray[Any], Floats]:
    label_columns = _label_columns(table, columns, names, notes)
    task = columns.task
    if task == "multioutput" or (task is None and len(label_columns) >= 1 and all("/" in name for name in names)):
        output_names = [column.removeprefix("label_") for column in label_columns]
        outputs, positions = _outputs(names, output_names, columns.ordinal)
        labels = np.stack(
            [_classes(table, column, output.classes) for column, output in zip(label_columns, outputs, strict=True)],
            axis=1,
        )
        widest = max(len(output.classes) for output in outputs)
        logits = np.full((len(table.rows), len(outputs), widest), -np.inf)
        for index, chosen in enumerate(positions):
            own = scores[:, chosen]
            logits[:, index, : len(chosen)] = own if are_logits else _log(table, own)
        return Target("multioutput", (), outputs), labels, logits
    if task == "multilabel" or (task is None and len(label_columns) > 1):
        class_names = _renamed(columns, names)
        flags = np.stack([_flags(table, column) for column in label_columns], axis=1)
        if flags.shape[1] != len(names):
            raise UsageProblem(
                f"there are {len(names)} score columns but {flags.shape[1]} label columns",
                where=table.path,
                code="labels-and-scores",
            )
        with np.errstate(divide="ignore"):
            logits = scores if are_logits else np.log(scores) - np.log1p(-scores)
        return Target("multilabel", class_names), flags, logits
    if len(label_columns) > 1:
        raise UsageProblem(f"`--task {task}` has one label column, and there are {len(label_columns)}", code="labels")
    if len(names) == 1:
        target = _one_score_target(columns, names[0])
        positive = scores[:, 0]
        logits = np.zeros((len(positive), 2))
        if are_logits:
            logits[:, target.positive] = positive
        else:
            with np.errstate(divide="ignore"):
                logits[:, target.positive] = np.log(positive)
                logits[:, 1 - target.positive] = np.log1p(-positive)
    else:
        class_names = _renamed(columns, names)
        kind = task or ("binary" if len(names) == 2 else "multiclass")
        if kind == "binary" and len(names) != 2:
            found = f"there are {len(names)} score columns"
            raise UsageProblem(f"`--task binary` has two classes, and {found}", code="task")
        target = Target(kind, class_names, positive=_positive(columns, class_names))  # type: ignore[arg-type]
        logits = scores if are_logits else _log(table, scores)
    return target, _classes(table, label_columns[0], target.class_names), logits


def _label_columns(table: Table, columns: Columns, names: list[str], notes: list[str]) -> list[str]:
    if columns.labels:
        labels = table.named(columns.labels)
        for column in labels:
            table.column(column, "--label-column")
        return _in_order_of_scores(list(labels), names, notes)
    if "label" in table.columns:
        return ["label"]
    own = [name for name in table.columns if name.startswith("label_")]
    if own:
        return _in_order_of_scores(own, names, notes)
    if len(names) > 1 and all(name in table.columns for name in names):
        notes.append(f"labels were read from the columns named like the scores: `{names[0]}` to `{names[-1]}`")
        return list(names)
    raise UsageProblem(
        f"`{table.path}` has no column `label`; its columns are {table.listed()}",
        hint="`--label-column COLUMN` names it (`A,B` for several); without labels there is nothing to compare with",
        code="no-labels",
    )


def _in_order_of_scores(labels: list[str], names: list[str], notes: list[str]) -> list[str]:
    """Label columns in the order of the score columns, by name where the names agree."""
    if len(labels) != len(names) or len(labels) == 1:
        return labels
    by_name = {label.removeprefix("label_"): label for label in labels}
    if set(by_name) == set(names):
        return [by_name[name] for name in names]
    pairs = ", ".join(f"`{label}` for `{name}`" for label, name in list(zip(labels, names, strict=True))[:3])
    notes.append(f"label and score columns have different names and were matched in order: {pairs}, …")
    return labels


def _outputs(
    names: list[str], labels: list[str], ordinal: tuple[str, ...]
) -> tuple[tuple[Output, ...], list[list[int]]]:
    outputs, positions = [], []
    for label in labels:
        chosen = [index for index, name in enumerate(names) if name.startswith(f"{label}/")]
        if not chosen:
            raise UsageProblem(
                f"output `{label}` has labels but no score columns `…{label}/CLASS`", code="labels-and-scores"
            )
        classes = tuple(names[index].removeprefix(f"{label}/") for index in chosen)
        outputs.append(Output(label, classes, label in ordinal))
        positions.append(chosen)
    return tuple(outputs), positions


def _renamed(columns: Columns, names: list[str]) -> tuple[str, ...]:
    if columns.class_names and len(columns.class_names) != len(names):
        raise UsageProblem(
            f"`--class-names` has {len(columns.class_names)} names for {len(names)} score columns",
            where="--class-names",
            code="class-names",
        )
    return columns.class_names or tuple(names)


def _one_score_target(columns: Columns, name: str) -> Target:
    if columns.class_names:
        if len(columns.class_names) != 2:
            raise UsageProblem(
                f"one score column means two classes; `--class-names` has {len(columns.class_names)}",
                where="--class-names",
                code="class-names",
            )
        return Target("binary", columns.class_names, positive=_positive(columns, columns.class_names))
    return Target("binary", (f"not {name}", name) if name and not name.startswith("not ") else ("0", "1"))


def _positive(columns: Columns, names: tuple[str, ...]) -> int:
    if columns.positive is None:
        return 1
    if columns.positive not in names:
        raise UsageProblem(
            f"`{columns.positive}` is not one of the classes {', '.join(f'`{name}`' for name in names)}",
            where="--positive-class",
            code="unknown-class",
        )
    return names.index(columns.positive)


def _classes(table: Table, column: str, names: tuple[str, ...]) -> npt.NDArray[np.int64]:
    index = {name: position for position, name in enumerate(names)}
    for position in range(len(names)):
        # Class names that are numbers themselves win over positions.
        for spelling in (str(position), f"{position}.0"):
            index.setdefault(spelling, position)
    labels = np.full(len(table.rows), -1, dtype=np.int64)
    for row, cell in enumerate(table.column(column, "--label-column")):
        if cell in index:
            labels[row] = index[cell]
        elif cell.lower() not in _MISSING:
            raise UsageProblem(
                f"`{cell}` in column `{column}` is no class ({', '.join(names[:8])}) and not 0 to {len(names) - 1}",
                where=table.where(row),
                hint="`--class-names A,B,…` names the classes in the order of the score columns",
                code="bad-label",
            )
    return labels


def _flags(table: Table, column: str) -> npt.NDArray[np.float32]:
    meaning = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "true": 1.0, "false": 0.0}
    values = np.full(len(table.rows), np.nan, dtype=np.float32)
    for row, cell in enumerate(table.column(column, "--label-column")):
        text = cell.lower()
        if text in meaning:
            values[row] = meaning[text]
        elif text not in _MISSING:
            raise UsageProblem(
                f"label `{cell}` in column `{column}` is neither 0, 1 nor empty",
                where=table.where(row),
                code="bad-label",
            )
    return values


def _log(table: Table, scores: Floats) -> Floats:
    off = np.abs(scores.sum(axis=1) - 1)
    if (off > _SUM_TOLERANCE).any():
        row = int((off > _SUM_TOLERANCE).argmax())
        raise UsageProblem(
            f"the probabilities of this case add up to {scores[row].sum():.4g}, not to 1",
            where=table.where(row),
            hint="`--task multilabel` is for labels that do not exclude each other, `--logit-columns` for logits",
            code="bad-score",
        )
    with np.errstate(divide="ignore"):
        result: Floats = np.log(scores)
    return result


def _stem(path: str) -> str:
    name = Path(path).name
    for suffix in (".gz", ".csv", ".tsv", ".txt"):
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    return name
