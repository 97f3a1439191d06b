"""Predictions as delimited text in our own layout, and the choice between it and the binary file by the name's ending.

The layout is `id,label,logit_CLASS...,patient,split`, with `label_NAME` per label of a multilabel target, and
`label_OUTPUT` and `logit_OUTPUT/CLASS` for a multioutput one. `medcli.prediction.foreign` reads it back.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.tables import is_table
from medcli.errors import RunFailure, UsageProblem
from medcli.evaluation.predictions import Predictions, load_predictions, save_predictions
from medcli.evaluation.scores import probabilities
from medcli.prediction.foreign import Columns, ReadTable, read_prediction_table

__all__ = ["read_any", "write_any", "write_prediction_table"]


def read_any(path: str, columns: Columns) -> ReadTable:
    """Read a predictions file of ours (.npz) or a table (.csv, .tsv, also .gz).

    Raises:
        UsageProblem: whatever is wrong, with file and line.
    """
    if is_table(path):
        return read_prediction_table(path, columns)
    if columns != Columns():
        raise UsageProblem(
            f"`{path}` is no table, so flags for columns and classes do not apply to it", code="not-a-table"
        )
    return ReadTable(load_predictions(path))


def write_any(path: str, predictions: Predictions, *, overwrite: bool = False) -> None:
    """Write predictions as `.npz`, or as our own table when the name ends in .csv, .tsv (also .gz).

    Raises:
        UsageProblem: the file exists already, or the ending is none of these.
    """
    if Path(path).exists() and not overwrite:
        raise UsageProblem(f"`{path}` exists already", hint="`--overwrite` replaces it", code="file-exists")
    if is_table(path):
        write_prediction_table(path, predictions)
    elif path.lower().endswith(".npz"):
        save_predictions(path, predictions)
    else:
        raise UsageProblem(f"`{path}` ends in neither .npz nor .csv", where="--save-predictions", code="unknown-format")


def write_prediction_table(path: str | os.PathLike[str], predictions: Predictions) -> None:
    """Write our own layout; reading it back gives the same labels and logits to the last digit.

    Calibrated predictions are written as `prob_CLASS` columns: a table cannot say how its scores came about, and
    probabilities are what a reader will take them for.

    Raises:
        RunFailure: the file cannot be written.
    """
    target = predictions.target
    kind = "prob" if predictions.calibrated else "logit"
    labels = predictions.labels
    logits = probabilities(predictions) if predictions.calibrated else predictions.logits
    header = ["id"]
    cells: list[Sequence[str]] = [[str(name) for name in predictions.ids]]
    if target.task == "multilabel":
        for index, name in enumerate(target.class_names):
            header.append(f"label_{name}")
            cells.append(["" if np.isnan(value) else str(int(value)) for value in labels[:, index]])
    elif target.task == "multioutput":
        for index, output in enumerate(target.outputs):
            header.append(f"label_{output.name}")
            cells.append(_class_cells(labels[:, index], output.classes))
    else:
        header.append("label")
        cells.append(_class_cells(labels, target.class_names))
    if target.task == "multioutput":
        for index, output in enumerate(target.outputs):
            for position, name in enumerate(output.classes):
                header.append(f"{kind}_{output.name}/{name}")
                cells.append([repr(float(str(value))) for value in logits[:, index, position]])
    else:
        for index, name in enumerate(target.class_names):
            header.append(f"{kind}_{name}")
            # The shortest text of the stored type, so that float32 stays short and is read back exactly.
            cells.append([str(value) for value in logits[:, index]])
    if predictions.patients is not None:
        header.append("patient")
        cells.append([str(name) for name in predictions.patients])
    if predictions.split:
        # So that nobody calibrates on a test split unawares.
        header.append("split")
        cells.append([predictions.split] * len(predictions))
    text = io.StringIO(newline="")
    destination = Path(path)
    writer = csv.writer(text, delimiter="\t" if ".tsv" in destination.name.lower() else ",", lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*cells, strict=True))
    content = text.getvalue().encode()
    temporary = destination.with_name(f".{destination.name}.part")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(gzip.compress(content, mtime=0) if destination.suffix.lower() == ".gz" else content)
        temporary.replace(destination)
    except OSError as problem:
        temporary.unlink(missing_ok=True)
        raise RunFailure(f"cannot write the predictions: {problem.strerror}", where=str(destination)) from problem


def _class_cells(labels: npt.NDArray[Any], names: tuple[str, ...]) -> list[str]:
    return ["" if label < 0 else names[label] for label in labels.tolist()]
