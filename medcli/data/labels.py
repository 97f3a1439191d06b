"""From label text to a target: which classes there are, which index each case has, and which labels are impossible.

Nothing is guessed: a label that fits no class is reported with its file and line, and numbers must leave no gap unless
the classes are named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.class_names import ABSENT, MISSING, BadLabel, classes_of, named, whole
from medcli.data.sources.cases import LabelColumn
from medcli.data.target import TASKS, Output, Target, Task
from medcli.errors import UsageProblem, nearest

__all__ = ["BadLabel", "LabelRules", "Labelled", "read_labels"]

YES, NO, UNCERTAIN = frozenset({"1", "true"}), frozenset({"0", "false"}), frozenset({"-1", "u"})
LABEL_SEPARATOR = "|"


@dataclass(frozen=True)
class LabelRules:
    """What the user said about labels; see `DataSettings`."""

    task: str | None = None
    class_names: tuple[str, ...] = ()
    positive: str | None = None
    ignored: tuple[str, ...] = ()
    ordinal_columns: tuple[str, ...] = ()
    expected: Target | None = None


@dataclass(frozen=True)
class Labelled:
    """The target and the labels of all cases.

    Args:
        target: what is predicted.
        labels: see `Target`; rows outside `keep` hold -1 or NaN.
        keep: bool [n], cases that have a usable label.
        bad: the impossible labels; their rows are not kept.
        notes: what the user should read.
    """

    target: Target
    labels: npt.NDArray[Any]
    keep: npt.NDArray[np.bool_]
    bad: tuple[BadLabel, ...]
    notes: tuple[str, ...]


def read_labels(columns: Sequence[LabelColumn], where: Callable[[int], str], rules: LabelRules) -> Labelled:
    """Understand the label columns.

    Raises:
        UsageProblem: the columns cannot be the task asked for, or name a single class only.
    """
    rules = replace(rules, ordinal_columns=_ordinal_columns(columns, rules.ordinal_columns))
    task = _task(columns, rules)
    if rules.expected is not None and len(columns) > 1 and task not in {"multilabel", "multioutput"}:
        raise UsageProblem(
            f"the model predicts one {task} target, and there are {len(columns)} label columns: "
            f"{named(column.name for column in columns)}",
            hint="name the one it was trained for with `--label-column COLUMN`",
            code="other-target",
        )
    if task == "multilabel":
        labelled = _multilabel(columns, where, rules)
    elif task == "multioutput":
        labelled = _multioutput(columns, where, rules)
    else:
        labelled = _single(columns[0], where, rules, task)
    if rules.positive is not None and labelled.target.task != "binary":
        raise UsageProblem(
            f"`--positive-class {rules.positive}` needs two classes; this target is {labelled.target.task} "
            f"with {labelled.target.num_classes}",
            code="not-binary",
        )
    return labelled


def _ordinal_columns(columns: Sequence[LabelColumn], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """As typed, with `A,B` taken apart where no column has that name, as `--label-column` is."""
    known = {column.name for column in columns}
    parts = [[name] if name in known else name.split(",") for name in wanted]
    return tuple(part.strip() for names in parts for part in names)


def _task(columns: Sequence[LabelColumn], rules: LabelRules) -> str | None:
    """The task where the number of columns or their contents decide it; None leaves it to the number of classes."""
    if rules.expected is not None:
        return rules.expected.task
    task = rules.task
    if task is not None and task not in TASKS:
        raise UsageProblem(f"`{task}` is no task; there are {', '.join(TASKS)}", code="unknown-task")
    unknown = [name for name in rules.ordinal_columns if name not in {column.name for column in columns}]
    if unknown:
        raise UsageProblem(
            f"`--ordinal-column {unknown[0]}` is not one of the label columns: {named(c.name for c in columns)}",
            code="unknown-column",
        )
    if len(columns) == 1:
        return "ordinal" if task is None and rules.ordinal_columns else task
    if task in {"binary", "multiclass", "ordinal"}:
        raise UsageProblem(
            f"`--task {task}` has one label column, and {len(columns)} were named",
            hint="`--task multioutput`, with `--ordinal-column COLUMN` for ordered classes",
            code="too-many-columns",
        )
    if task is not None:
        return task
    binary = all(set(_lowered(column.cells)) <= YES | NO | UNCERTAIN | MISSING for column in columns)
    return "multilabel" if binary and not rules.ordinal_columns else "multioutput"


def _single(column: LabelColumn, where: Callable[[int], str], rules: LabelRules, task: str | None) -> Labelled:
    expected = rules.expected
    names = expected.class_names if expected else rules.class_names
    classes, codes, bad = classes_of(column, where, names, rules.ignored)
    if expected is None:
        task = task or ("binary" if len(classes) == 2 else "multiclass")
        if task == "binary" and len(classes) > 2:
            raise UsageProblem(f"`--task binary` has two classes, and there are {len(classes)}: {named(classes)}")
        if len(classes) < 2 or (not names and len(set(codes[codes >= 0].tolist())) < 2):
            raise UsageProblem(
                f"`{column.name}` holds one class only (`{classes[0] if classes else ''}`); a classifier needs two",
                code="one-class",
            )
    notes = []
    positive = 1
    if task == "binary":
        positive = expected.positive if expected else _positive(classes, rules)
        if expected is None and rules.positive is None:
            notes.append(f"positive class: `{classes[positive]}` (`--positive-class` chooses the other)")
    missing = int((codes == ABSENT).sum())
    if missing:
        notes.append(f"{missing} cases without a label in `{column.name}` are left out")
    target = expected or Target(_checked(task), classes, positive=positive)
    return Labelled(target, np.maximum(codes, ABSENT), codes >= 0, bad, tuple(notes))


def _positive(classes: tuple[str, ...], rules: LabelRules) -> int:
    if rules.positive is None:
        return 1
    if rules.positive not in classes:
        raise UsageProblem(
            f"`--positive-class {rules.positive}` is not one of the classes {named(classes)}",
            hint=_hint(rules.positive, classes),
            code="unknown-class",
        )
    return classes.index(rules.positive)


def _multioutput(columns: Sequence[LabelColumn], where: Callable[[int], str], rules: LabelRules) -> Labelled:
    expected = rules.expected.outputs if rules.expected else ()
    if expected and [output.name for output in expected] != [column.name for column in columns]:
        raise UsageProblem(
            f"the label columns {named(c.name for c in columns)} are not those the model was trained for: "
            f"{named(output.name for output in expected)}",
            code="other-target",
        )
    labels = np.full((len(columns[0].cells), len(columns)), ABSENT, dtype=np.int64)
    outputs: list[Output] = []
    bad: list[BadLabel] = []
    for position, column in enumerate(columns):
        names = expected[position].classes if expected else rules.class_names
        classes, codes, column_bad = classes_of(column, where, names, rules.ignored)
        if not expected and len(classes) < 2:
            raise UsageProblem(f"`{column.name}` holds one class only; a classifier needs two", code="one-class")
        outputs.append(
            expected[position] if expected else Output(column.name, classes, column.name in rules.ordinal_columns)
        )
        labels[:, position] = np.maximum(codes, ABSENT)
        bad.extend(column_bad)
    keep: npt.NDArray[np.bool_] = np.any(labels >= 0, axis=1)
    keep[[problem.row for problem in bad]] = False
    ignored = int((labels < 0).sum())
    notes = [f"{ignored} of {labels.size} labels are empty or ignored and never reach the loss"] if ignored else []
    notes += _left_out(keep, bad)
    target = rules.expected or Target("multioutput", outputs=tuple(outputs))
    return Labelled(target, labels, keep, tuple(bad), tuple(notes))


def _multilabel(columns: Sequence[LabelColumn], where: Callable[[int], str], rules: LabelRules) -> Labelled:
    if len(columns) == 1 and not set(_lowered(columns[0].cells)) <= YES | NO | UNCERTAIN | MISSING:
        names, labels, bad = _tokens(columns[0], where, rules)
        uncertain = 0
    else:
        names = tuple(column.name for column in columns)
        if rules.class_names and not rules.expected:
            if len(rules.class_names) != len(columns):
                raise UsageProblem(
                    f"`--class-names` has {len(rules.class_names)} names for {len(columns)} label columns",
                    code="class-names",
                )
            names = rules.class_names
        labels, bad, uncertain = _flags(columns, where)
    if rules.expected and rules.expected.class_names != names:
        raise UsageProblem(
            f"the labels {named(names)} are not those the model was trained for: {named(rules.expected.class_names)}",
            code="other-target",
        )
    keep: npt.NDArray[np.bool_] = np.any(~np.isnan(labels), axis=1)
    keep[[problem.row for problem in bad]] = False
    notes = []
    missing = int(np.isnan(labels).sum()) - uncertain
    if missing:
        notes.append(f"{missing} of {labels.size} labels are missing and never reach the loss")
    if uncertain:
        notes.append(f"{uncertain} labels are -1 (uncertain) and are treated as missing")
    notes += _left_out(keep, bad)
    return Labelled(rules.expected or Target("multilabel", names), labels, keep, tuple(bad), tuple(notes))


def _flags(
    columns: Sequence[LabelColumn], where: Callable[[int], str]
) -> tuple[npt.NDArray[np.float32], list[BadLabel], int]:
    """0/1 columns as float32 [n, L], NaN where missing or uncertain; the bad ones; how many are uncertain."""
    values = {**dict.fromkeys(YES, 1.0), **dict.fromkeys(NO, 0.0), **dict.fromkeys(UNCERTAIN | MISSING, np.nan)}
    labels = np.full((len(columns[0].cells), len(columns)), np.nan, dtype=np.float32)
    bad: list[BadLabel] = []
    uncertain = 0
    for position, column in enumerate(columns):
        lowered = _lowered(column.cells)
        uncertain += sum(text in UNCERTAIN for text in lowered)
        for row, text in enumerate(lowered):
            value = values.get(text)
            if value is None:
                reason = f"label `{column.cells[row]}` in `{column.name}` is none of 0, 1, -1 (uncertain) or empty"
                bad.append(BadLabel(row, where(row), reason))
            else:
                labels[row, position] = value
    return labels, bad, uncertain


def _tokens(
    column: LabelColumn, where: Callable[[int], str], rules: LabelRules
) -> tuple[tuple[str, ...], npt.NDArray[np.float32], list[BadLabel]]:
    """One column of several labels, `Effusion|Mass`; ignored classes stand for no label at all."""
    ignored = set(rules.ignored)
    sets = [
        {part.strip() for part in cell.split(LABEL_SEPARATOR)} - {""} if cell.strip().lower() not in MISSING else None
        for cell in column.cells
    ]
    known = rules.expected.class_names if rules.expected else rules.class_names
    names = known or tuple(sorted(set().union(*(found or set() for found in sets)) - ignored))
    index = {name: position for position, name in enumerate(names)}
    labels = np.full((len(sets), len(names)), np.nan, dtype=np.float32)
    bad: list[BadLabel] = []
    for row, found in enumerate(sets):
        if found is None:
            continue
        labels[row] = 0.0
        for token in found - ignored:
            if token in index:
                labels[row, index[token]] = 1.0
            else:
                bad.append(BadLabel(row, where(row), f"label `{token}` is none of {named(names)}"))
    return names, labels, bad


def _lowered(cells: Sequence[str]) -> list[str]:
    known: dict[str, str] = {}
    for cell in set(cells):
        text = cell.strip().lower()
        known[cell] = "-1" if text in {"-1.0", "-1"} else whole(text)
    return [known[cell] for cell in cells]


def _left_out(keep: npt.NDArray[np.bool_], bad: Sequence[BadLabel]) -> list[str]:
    empty = int((~keep).sum()) - len({problem.row for problem in bad})
    return [f"{empty} cases without any label are left out"] if empty else []


def _checked(task: str | None) -> Task:
    assert task in TASKS
    return task


def _hint(word: str, known: Sequence[str]) -> str | None:
    close = nearest(word, known, 1)
    return f"did you mean `{close[0]}`?" if close else None
