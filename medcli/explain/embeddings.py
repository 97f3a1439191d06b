"""Features as a file: every image with its identifier, split, patient, labels, and what the network sees in it."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.target import Target, target_to_dict
from medcli.errors import UsageProblem
from medcli.runs.directory import writing

__all__ = ["ENDINGS", "SCHEMA", "Embeddings", "check_ending", "label_columns", "write_embeddings"]

SCHEMA = "medcli-embeddings/1"
ENDINGS = (".npz", ".csv", ".tsv", ".csv.gz", ".tsv.gz")


@dataclass(frozen=True)
class Embeddings:
    """Features of a set.

    Args:
        ids: str [n].
        splits: str [n], `train`, `val` or `test`; `""` where the set has none.
        labels: see `Target`.
        target: what the labels are of.
        features: float32 [n, D].
        name: of the network, for people.
        patients: str [n] or None.
    """

    ids: npt.NDArray[np.str_]
    splits: npt.NDArray[np.str_]
    labels: npt.NDArray[Any]
    target: Target
    features: npt.NDArray[np.float32]
    name: str
    patients: npt.NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.ids)


def check_ending(path: Path) -> None:
    """Refuse a file name that says no format.

    Raises:
        UsageProblem: code `unknown-format`.
    """
    if not path.name.lower().endswith(ENDINGS):
        raise UsageProblem(f"`{path}` ends in neither .npz nor .csv", where="--out", code="unknown-format")


def write_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Write `.npz` (arrays `features`, `ids`, `splits`, `labels`, `patients`, and `target` as JSON) or a table.

    A table has the columns id, split, patient (where known), label or one column per label or output, and f0, f1, ….

    Raises:
        UsageProblem: another ending.
        RunFailure: it cannot be written.
    """
    check_ending(path)
    draft = path.with_name(f".{path.name}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("wb") as file:
                if path.suffix.lower() == ".npz":
                    np.savez_compressed(file, allow_pickle=False, **_arrays(embeddings))
                else:
                    text = _as_text(embeddings, "\t" if ".tsv" in path.name.lower() else ",").encode()
                    file.write(gzip.compress(text, mtime=0) if path.suffix.lower() == ".gz" else text)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def label_columns(labels: npt.NDArray[Any], target: Target) -> dict[str, list[str]]:
    """Labels as words by column: `label`, or one column per label (0, 1) or output; empty where unknown."""
    if target.task == "multilabel":
        return {
            name: ["" if np.isnan(value) else str(int(value)) for value in labels[:, position]]
            for position, name in enumerate(target.class_names)
        }
    if target.outputs:
        return {
            output.name: ["" if value < 0 else output.classes[value] for value in labels[:, position].tolist()]
            for position, output in enumerate(target.outputs)
        }
    return {"label": ["" if value < 0 else target.class_names[value] for value in labels.tolist()]}


def _arrays(embeddings: Embeddings) -> dict[str, npt.NDArray[Any]]:
    arrays = {
        "schema": np.array(SCHEMA),
        "network": np.array(embeddings.name),
        "target": np.array(json.dumps(target_to_dict(embeddings.target), ensure_ascii=False)),
        "ids": embeddings.ids,
        "splits": embeddings.splits,
        "labels": embeddings.labels,
        "features": embeddings.features,
    }
    return arrays if embeddings.patients is None else {**arrays, "patients": embeddings.patients}


def _as_text(embeddings: Embeddings, delimiter: str) -> str:
    columns: dict[str, Sequence[str]] = {"id": embeddings.ids.tolist(), "split": embeddings.splits.tolist()}
    if embeddings.patients is not None:
        columns["patient"] = embeddings.patients.tolist()
    columns |= label_columns(embeddings.labels, embeddings.target)
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow([*columns, *(f"f{number}" for number in range(embeddings.features.shape[1]))])
    for row, cells in enumerate(zip(*columns.values(), strict=True)):
        # The shortest text that reads back as the same float32.
        writer.writerow([*cells, *map(str, embeddings.features[row])])
    return text.getvalue()
