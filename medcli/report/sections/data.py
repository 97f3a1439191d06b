"""What the data were: splits, patients, classes and how common they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medcli.data.target import Target
from medcli.evaluation.clinical_text import percent
from medcli.evaluation.predictions import Predictions
from medcli.report.document import Absent, Block, Bullets, Cell, Facts, Notice, Section, Table, Text, cells
from medcli.report.subject import Subject
from medcli.report.tables import count

__all__ = ["data_section"]

_MOST_SKIPPED = 20
_KINDS = {"binary": "class", "multiclass": "class", "ordinal": "grade", "multilabel": "label", "multioutput": "class"}


def data_section(subject: Subject) -> Section:
    """From the run's record of its data, and from the predictions that are judged."""
    blocks: list[Block] = []
    facts = subject.facts
    if facts is not None:
        blocks += _recorded(facts.data) if facts.data else [
            Absent("the record of the data", "the run holds no readable `data.json`: its start did not finish")
        ]  # fmt: skip
    if subject.judged is not None:
        blocks += _judged(subject.judged.predictions, alone=facts is None)
    if subject.notes:
        blocks.append(Bullets(subject.notes))
    return Section("data", "Data", tuple(blocks))


def _recorded(record: Mapping[str, Any]) -> list[Block]:
    target = record.get("target") or {}
    splits: Mapping[str, Any] = record.get("splits") or {}
    rows = [
        ("data set", str(record.get("name", ""))),
        ("read from", str(record.get("origin", ""))),
        ("task", str(target.get("task", ""))),
    ]
    names = target.get("class_names") or []
    if target.get("task") == "binary" and len(names) == 2:
        rows.append(("positive class", str(names[int(target.get("positive", 1))])))
    made = "drawn by medcli, by patient where patients are known" if record.get("made_splits") else "those of the data"
    rows += [("splits", made), ("channels", str(record.get("channels", "")))]
    blocks: list[Block] = [Facts(tuple(row for row in rows if row[1]))]
    blocks.append(
        Table(
            "Images and patients by split",
            ("split", "images", "patients"),
            tuple(
                cells(name, count(int(part["count"])), _patients(part.get("patients"))) for name, part in splits.items()
            ),
        )
    )
    if all(part.get("patients") is None for part in splits.values()):
        blocks.append(
            Notice(
                "No patients are recorded. If one patient has several images, splits may share patients, and intervals "
                "take every image for a patient of its own.",
                "warning",
            )
        )
    blocks += _class_tables(str(target.get("task", "")), splits)
    skipped = record.get("skipped") or []
    if skipped:
        shown = tuple(f"`{name}`: {reason}" for name, reason in skipped[:_MOST_SKIPPED])
        more = len(skipped) - _MOST_SKIPPED
        blocks += [
            Text(f"{len(skipped)} images could not be read and were left out:"),
            Bullets((*shown, *([f"{more} more, named in `data.json`"] if more > 0 else []))),
        ]
    notes = [*map(str, record.get("notes") or []), *map(str, record.get("accepted_changes") or [])]
    return [*blocks, *([Bullets(tuple(notes))] if notes else [])]


def _patients(value: Any) -> Cell:
    return count(value) if isinstance(value, int) else Cell("not recorded")


def _class_tables(task: str, splits: Mapping[str, Any]) -> list[Block]:
    """Counts with shares by class and split; a table for each output of a multioutput target."""
    if not splits:
        return []
    first = next(iter(splits.values())).get("classes") or {}
    if task == "multioutput":
        return [
            _class_table(f"Cases by class: {output}", "class", [name for name in held if name[:1] != "("], {
                split: (part["classes"].get(output, {}), sum(part["classes"].get(output, {}).values()))
                for split, part in splits.items()
            })
            for output, held in first.items()
        ]  # fmt: skip
    kind = _KINDS.get(task, "class")
    names = [name for name in first if name != "(missing)"]
    columns = {split: (part.get("classes") or {}, int(part["count"])) for split, part in splits.items()}
    caption = "Positive cases by label (share of the images)" if task == "multilabel" else f"Cases by {kind} (share)"
    return [_class_table(caption, kind, names, columns)]


def _class_table(
    caption: str, kind: str, names: Sequence[str], columns: Mapping[str, tuple[Mapping[str, int], int]]
) -> Table:
    rows = [cells(name, *(_counted(int(held.get(name, 0)), of) for held, of in columns.values())) for name in names]
    missing = [int(held.get("(missing)", 0)) for held, _ in columns.values()]
    if any(missing):
        rows.append(cells("(missing entries)", *(count(one) for one in missing)))
    return Table(caption, (kind, *columns), tuple(rows))


def _counted(cases: int, of: int) -> Cell:
    share = f" ({percent(cases / of)})" if of else ""
    return Cell(f"{cases:,}{share}", float(cases))


def _judged(predictions: Predictions, *, alone: bool) -> list[Block]:
    """Counts of the cases that are judged; for a file of another tool it is all that is known."""
    target, labels = predictions.target, predictions.labels
    known = ~np.isnan(labels.astype(np.float64)) & (labels >= 0)
    labelled = known.any(axis=1) if known.ndim == 2 else known
    where = " ".join(part for part in (predictions.data_name, predictions.split) if part) or "the predictions"
    rows = [("judged here", f"{where}: {int(labelled.sum()):,} labelled cases")]
    if not labelled.all():
        rows.append(("without a label", f"{int((~labelled).sum()):,} cases, left out"))
    if predictions.patients is not None:
        _, repeats = np.unique(predictions.patients[labelled], return_counts=True)
        spread = (
            f", {int(np.median(repeats))} images each at the median, at most {repeats.max()}" if len(repeats) else ""
        )
        rows.append(("patients", f"{len(repeats):,}{spread}"))
    else:
        rows.append(("patients", "not known: intervals take every image for a patient of its own"))
    if alone:
        rows.insert(1, ("task", target.task))
    blocks: list[Block] = [Facts(tuple(rows))]
    if alone:
        blocks += _prevalence(target, predictions)
        blocks.append(
            Absent(
                "the data behind the model",
                "predictions say nothing about the images the model learnt from, nor how they were split",
            )
        )
    return blocks


def _prevalence(target: Target, predictions: Predictions) -> list[Block]:
    labels = predictions.labels
    if target.task == "multilabel":
        rows = []
        for index, name in enumerate(target.class_names):
            seen = ~np.isnan(labels[:, index])
            positive = int((labels[seen, index] > 0.5).sum())
            rows.append(cells(name, _counted(positive, int(seen.sum())), count(int(seen.sum()))))
        return [Table("Positive cases by label (share of observed)", ("label", "positive", "observed"), tuple(rows))]
    tables = []
    columns = [(output.name, output.classes, labels[:, at]) for at, output in enumerate(target.outputs)]
    for name, classes, values in columns or [("", target.class_names, labels)]:
        of = int((values >= 0).sum())
        rows = [cells(one, _counted(int((values == at).sum()), of)) for at, one in enumerate(classes)]
        caption = f"Cases by class (share): {name}" if name else f"Cases by {_KINDS[target.task]} (share)"
        tables.append(Table(caption, (_KINDS[target.task], "cases"), tuple(rows)))
    return list(tables)
