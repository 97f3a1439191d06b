"""From settings to data sets: which source reads what, which labels mean what, and which case is in which split."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.dataset import DataSet, Samples
from medcli.data.decode import parse_window
from medcli.data.labels import BadLabel, Labelled, LabelRules, read_labels
from medcli.data.leave_out import cases_to_leave_out
from medcli.data.named_sets import BUILT_IN, Named, named_sets
from medcli.data.sources.cases import Cases
from medcli.data.splits import SPLITS, draw, make_splits, val_from_train
from medcli.data.subset import take
from medcli.data.tables import is_table
from medcli.data.target import Target
from medcli.errors import UsageProblem, nearest
from medcli.settings.groups import DataSettings

__all__ = ["load_data", "patients_by_pattern"]

SHOWN = 8


def load_data(
    settings: DataSettings,
    *,
    data_tables: Mapping[str, Mapping[str, Any]] | None = None,
    target: Target | None = None,
    lenient: bool = False,
) -> tuple[DataSet, ...]:
    """Load every data set of `settings.data`. No image is decoded here.

    Args:
        settings: what to read and how.
        data_tables: `[data.NAME]` tables of configuration files.
        target: read the labels as this target, for a model that exists already. Then nothing is drawn: a set without
            splits is one test split.
        lenient: leave impossible labels out and list them in `extra["impossible"]` as (id, where, reason).

    Raises:
        UsageProblem: whatever is wrong with paths, tables, labels or splits, with file and line.
    """
    sets = named_sets(settings, data_tables or {})
    names = tuple(one.name for one in sets)
    return tuple(_load(one, names, target, lenient) for one in sets)


def _load(one: Named, names: Sequence[str], target: Target | None, lenient: bool) -> DataSet:
    if one.path.startswith(BUILT_IN):
        from medcli.data.synthetic.source import load_synthetic

        return _limited(replace(load_synthetic(one.path, one.settings, target), name=one.name), one.settings)
    try:
        parse_window(one.settings.window)
    except ValueError as error:
        raise UsageProblem(str(error), where="--window", code="bad-window") from None
    cases = _cases(one, target)
    try:
        labelled = read_labels(cases.columns, cases.where, _rules(cases, one.settings, target))
    except UsageProblem as problem:
        raise _located(problem, one.path) from problem
    listed = frozenset[str]()
    if one.settings.leave_out is not None:
        listed = cases_to_leave_out(one.settings.leave_out, one.name, cases.ids, names)
        labelled = replace(labelled, bad=tuple(bad for bad in labelled.bad if cases.ids[bad.row] not in listed))
    if labelled.bad and not labelled.keep.any() and target is not None:
        raise _other_target(cases, target, one.path)
    if labelled.bad and not lenient:
        raise _impossible(labelled.bad, one.path)
    cases = _with_patients(cases, one.settings)
    dataset = _dataset(one, cases, labelled, listed, drawing=target is None)
    if target is None and not lenient:
        _refuse_one_class(dataset)
    return _limited(dataset, one.settings)


def _cases(one: Named, target: Target | None) -> Cases:
    path = Path(one.path)
    chosen = one.settings
    if not path.exists():
        raise UsageProblem(
            f"`{one.path}` does not exist", where="--data", hint=_similar_path(path), code="missing-path"
        )
    if path.is_dir():
        _refuse_flags(
            chosen, "a folder of class folders", ("image_dir", "image_column", "label_column", "patient_column")
        )
        from medcli.data.sources.folder import folder_cases

        return folder_cases(one.path, chosen.window)
    if path.suffix.lower() == ".npz":
        _refuse_flags(chosen, "an .npz file", ("image_dir", "image_column", "label_column", "patient_column"))
        from medcli.data.sources.npz import npz_cases

        return npz_cases(one.path)
    if is_table(one.path):
        from medcli.data.sources.table import TableColumns, table_cases

        wanted = TableColumns(
            image="".join(chosen.image_column),
            labels=chosen.label_column,
            patient="".join(chosen.patient_column),
            split=chosen.split_column or "",
            image_dir="".join(chosen.image_dir),
            expected=_label_columns(target),
        )
        return table_cases(one.path, wanted, chosen.window, skip_missing=chosen.skip_unreadable)
    raise UsageProblem(
        f"`{one.path}` is neither a folder, a table (.csv, .tsv, .txt, also .gz) nor an .npz file",
        where="--data",
        code="unknown-data-kind",
    )


def _label_columns(target: Target | None) -> tuple[str, ...]:
    """The columns that held a model's labels, where its target tells: a column per label or output."""
    if target is None:
        return ()
    names = {"multilabel": target.class_names, "multioutput": tuple(output.name for output in target.outputs)}
    return names.get(target.task, ())


def _refuse_flags(settings: DataSettings, what: str, fields: Sequence[str]) -> None:
    for field in (*fields, "split_column"):
        if getattr(settings, field):
            flag = "--" + field.replace("_", "-")
            raise UsageProblem(f"`{flag}` belongs to a table, and the data is {what}", where=flag, code="not-a-table")


def _rules(cases: Cases, settings: DataSettings, target: Target | None) -> LabelRules:
    return LabelRules(
        task=settings.task or cases.task,
        class_names=settings.class_names or cases.class_names,
        positive=settings.positive_class or _known_positive(cases, settings),
        ignored=settings.ignore_class,
        ordinal_columns=settings.ordinal_column,
        expected=target,
    )


def _known_positive(cases: Cases, settings: DataSettings) -> str | None:
    """The finding as the source knows it, unless the user renamed the classes or asked for another task."""
    return cases.positive if not settings.class_names and settings.task in {None, "binary"} else None


def _with_patients(cases: Cases, settings: DataSettings) -> Cases:
    if settings.patient_pattern is None:
        return cases
    if cases.patients is not None:
        raise UsageProblem("`--patient-column` and `--patient-pattern` exclude each other", code="two-patients")
    return replace(cases, patients=patients_by_pattern(cases.ids, settings.patient_pattern))


def patients_by_pattern(names: Sequence[str], text: str) -> npt.NDArray[np.str_]:
    """The patient in each file's name, by a regular expression.

    Args:
        names: of files, with `/` between folders.
        text: its first group is the patient; with a slash it is matched against the path, else against the last part.

    Raises:
        UsageProblem: no regular expression, without a group, or a name that it does not match.
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageProblem(
            f"`{text}` is no regular expression: {error}",
            where="--patient-pattern",
            code="bad-regex",
        ) from None
    if not pattern.groups:
        raise UsageProblem(
            f"`{text}` has no group; the first group is the patient",
            where="--patient-pattern",
            hint=r"`--patient-pattern '^([^_]+)_'`",
            code="bad-regex",
        )
    # A pattern with a slash means the path, for patients that have folders of their own.
    whole = "/" in text
    ends = [name if whole else name.rsplit("/", 1)[-1] for name in names]
    found = [pattern.search(name) for name in ends]
    unmatched = [name for name, match in zip(ends, found, strict=True) if match is None or not match[1]]
    if unmatched:
        listed = ", ".join(f"`{name}`" for name in unmatched[:SHOWN])
        raise UsageProblem(
            f"{len(unmatched)} of {len(names)} file names hold no patient by this pattern: {listed}"
            + (" …" if len(unmatched) > SHOWN else ""),
            where="--patient-pattern",
            code="no-patient",
        )
    return np.array([match[1] for match in found if match], dtype=np.str_)


def _dataset(one: Named, cases: Cases, labelled: Labelled, listed: frozenset[str], *, drawing: bool) -> DataSet:
    settings = one.settings
    rows = np.flatnonzero(labelled.keep)
    if not len(rows):
        raise UsageProblem(f"no case of `{one.path}` has a usable label", code="no-labels")
    gone = [] if cases.splits is None else [s for s in SPLITS if s in cases.splits and s not in cases.splits[rows]]
    if gone and drawing:
        raise UsageProblem(
            f"no {' and no '.join(f'`{split}`' for split in gone)} case of `{one.path}` has a label",
            hint=f"`medcli data check --data {one.path}` counts labels by split",
            code="no-labels",
        )
    labels = labelled.labels[rows]
    patients = None if cases.patients is None else cases.patients[rows]
    notes = [*cases.notes, *labelled.notes]
    if _known_positive(cases, settings) and settings.positive_class is None:
        number = labelled.target.positive
        notes.append(
            f"positive class: `{labelled.target.class_names[number]}`, label {number} of this set "
            "(`--positive-class` chooses the other)"
        )
    made = drawing and cases.splits is None
    if cases.splits is None and not drawing:
        splits = np.full(len(rows), "test")
    elif cases.splits is None:
        splits = make_splits(labels, labelled.target, patients, settings.split, settings.split_seed)
        notes.append(_made_note(splits, patients, settings))
    else:
        splits = cases.splits[rows].astype("<U5")
        if drawing and "val" not in splits and "train" in splits:
            made = True
            train = np.flatnonzero(splits == "train")
            own = None if patients is None else patients[train]
            drawn = val_from_train(labels[train], labelled.target, own, settings.split, settings.split_seed)
            splits[train] = drawn
            by = "" if patients is None else " by patient"
            notes.append(
                f"the data has no val split: {int((drawn == 'val').sum())} of {len(train)} training cases were drawn "
                f"for it{by} (split seed {settings.split_seed})"
            )
    # Left out of the splits as they are: drawn anew without these cases, they would be other splits.
    stays = np.array([cases.ids[row] not in listed for row in rows])
    if listed:
        counts = ", ".join(f"{split} {n}" for split in SPLITS if (n := int((splits[~stays] == split).sum())))
        many = f"{len(listed)} case{'' if len(listed) == 1 else 's'} left out"
        notes.append(f"{many} that `{settings.leave_out}` lists{f' ({counts})' if counts else ''}")
    rows, splits = rows[stays], splits[stays]
    if cases.splits is not None:
        notes += _shared_patients(splits, None if patients is None else patients[stays])
    ids = np.array(cases.ids, dtype=np.str_)
    everything = Samples(ids, cases.images, labelled.labels, cases.patients)
    return DataSet(
        name=one.name,
        origin=one.path,
        target=labelled.target,
        splits={split: take(everything, rows[splits == split]) for split in SPLITS if (splits == split).any()},
        channels=cases.channels,
        notes=tuple(notes),
        skipped=cases.skipped,
        made_splits=made,
        extra={
            **cases.extra,
            "impossible": tuple((cases.ids[bad.row], bad.where, bad.reason) for bad in labelled.bad),
            "own_splits": cases.splits is not None,
        },
    )


def _made_note(splits: npt.NDArray[np.str_], patients: npt.NDArray[np.str_] | None, settings: DataSettings) -> str:
    counts = " / ".join(str(int((splits == split).sum())) for split in SPLITS)
    by = "by patient" if patients is not None else "by image (`--patient-column` keeps patients together)"
    return f"train / val / test were drawn {by}: {counts} (split seed {settings.split_seed})"


def _shared_patients(splits: npt.NDArray[np.str_], patients: npt.NDArray[np.str_] | None) -> list[str]:
    if patients is None:
        return []
    seen: dict[str, set[str]] = {}
    for patient, split in zip(patients.tolist(), splits.tolist(), strict=True):
        seen.setdefault(patient, set()).add(split)
    shared = sum(len(found) > 1 for found in seen.values())
    return (
        [f"{shared} patients are in more than one of the data's own splits (`medcli data check` lists them)"]
        if shared
        else []
    )


def _refuse_one_class(dataset: DataSet) -> None:
    train = dataset.splits.get("train")
    if train is None or dataset.target.task not in {"binary", "multiclass", "ordinal"}:
        return
    present = set(train.labels.tolist())
    if len(present) == 1:
        name = dataset.target.class_names[present.pop()]
        raise UsageProblem(
            f"the training cases hold one class only (`{name}`); a classifier needs two",
            where=dataset.origin,
            hint=f"`medcli data check --data {dataset.origin}` counts classes by split",
            code="one-class",
        )


def _limited(dataset: DataSet, settings: DataSettings) -> DataSet:
    if settings.limit is None:
        return dataset
    splits = {
        split: take(samples, draw(samples.labels, settings.limit, settings.split_seed))
        for split, samples in dataset.splits.items()
    }
    counts = ", ".join(f"{split} {len(samples)} of {len(dataset.splits[split])}" for split, samples in splits.items())
    return replace(dataset, splits=splits, notes=(*dataset.notes, f"limited to {counts}"))


def _located(problem: UsageProblem, path: str) -> UsageProblem:
    """The same problem with the data set it is about, unless it names a place of its own."""
    if problem.where:
        return problem
    return UsageProblem(problem.message, where=path, hint=problem.hint, code=problem.code)


def _other_target(cases: Cases, target: Target, path: str) -> UsageProblem:
    found = sorted({cell for column in cases.columns for cell in column.cells})
    known = target.class_names or tuple(name for output in target.outputs for name in output.classes)
    listed, trained = (
        ", ".join(f"`{name}`" for name in names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
        for names in (found, known)
    )
    return UsageProblem(
        f"the labels {listed} are none of the classes the model was trained for: {trained}",
        where=path,
        hint="`--label-column` chooses another column of a table; a model for these labels has to be trained",
        code="other-target",
    )


def _impossible(bad: Iterable[BadLabel], path: str) -> UsageProblem:
    listed = list(bad)
    if len(listed) == 1:
        return UsageProblem(listed[0].reason, where=listed[0].where, code="bad-label")
    lines = "\n".join(f"  {problem.where}: {problem.reason}" for problem in listed[:SHOWN])
    more = f"\n  and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return UsageProblem(
        f"{len(listed)} labels are impossible:\n{lines}{more}",
        where=listed[0].where,
        hint=f"`medcli data check --data {path} --fix-report FILE` lists them all, with the same flags about labels; "
        "`--leave-out FILE` then leaves them out",
        code="bad-label",
    )


def _similar_path(path: Path) -> str | None:
    if not path.parent.is_dir():
        return None
    close = nearest(path.name, [entry.name for entry in path.parent.iterdir()], 1)
    return f"did you mean `{path.parent / close[0]}`?" if close else None
