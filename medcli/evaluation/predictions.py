"""Predictions: the one file on which evaluation, calibration, ensembles and reports work.

The file is an `.npz` of plain arrays. Nothing in it is ever unpickled, and reading it back is validated, because the
file may come from another machine or another version.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.target import Target, target_from_dict, target_to_dict
from medcli.errors import RunFailure, UsageProblem

__all__ = [
    "SCHEMA",
    "Predictions",
    "check_predictions",
    "load_predictions",
    "save_predictions",
]

SCHEMA = "medcli-predictions/1"

_REQUIRED = ("schema", "target", "split", "data_name", "ids", "labels", "logits")
_OPTIONAL = ("patients", "member_logits", "member_weights", "features")


@dataclass(frozen=True)
class Predictions:
    """Identifiers, labels and logits of one split.

    Args:
        ids: str [n].
        labels: see `Target`; NaN (multilabel) or -1 (others) where unknown, so unlabelled images fit too.
        logits: [n, K] (binary, multiclass, ordinal: ordinal and CORN/CORAL store log class probabilities), [n, L]
            (multilabel) or [n, O, Kmax] padded with -inf (multioutput). float32 from a network; float64 when they are
            the logarithms of another tool's probabilities, so that turning them back loses nothing.
        target: what is predicted.
        split: `train`, `val`, `test` or `""`.
        data_name: the data set's name.
        patients: str [n] or None.
        member_logits: float32 [m, n, ...] or None: the answers of the members of an ensemble, passes with dropout, or
            views of a picture, whose mean score `logits` are.
        member_weights: float64 [m], summing to one, or None where they count the same.
        features: float32 [n, D] or None.
        calibrated: how the logits became those of probabilities, such as `temperature, fitted on val`; empty for the
            model's own scores.
    """

    ids: npt.NDArray[np.str_]
    labels: npt.NDArray[Any]
    logits: npt.NDArray[np.floating[Any]]
    target: Target
    split: str = ""
    data_name: str = ""
    patients: npt.NDArray[np.str_] | None = None
    member_logits: npt.NDArray[np.float32] | None = None
    features: npt.NDArray[np.float32] | None = None
    calibrated: str = ""
    member_weights: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.ids)


def check_predictions(predictions: Predictions) -> None:
    """Refuse predictions whose arrays disagree.

    Raises:
        ValueError: naming the array and what is wrong with it.
    """
    target, n = predictions.target, len(predictions.ids)
    ids, labels, logits = predictions.ids, predictions.labels, predictions.logits
    if ids.ndim != 1 or ids.dtype.kind != "U":
        raise ValueError("`ids` is no list of strings")
    if len(np.unique(ids)) != n:
        values, counts = np.unique(ids, return_counts=True)
        raise ValueError(f"`ids` has `{values[counts > 1][0]}` more than once")
    shape = (n, *target.logits_shape)
    if logits.shape != shape:
        raise ValueError(f"`logits` has shape {list(logits.shape)}, but {n} cases of this target need {list(shape)}")
    if logits.dtype.kind != "f":
        raise ValueError("`logits` are no floating-point numbers")
    _check_logits(predictions)
    _check_labels(labels, target, n)
    for name, array in (("patients", predictions.patients), ("features", predictions.features)):
        if array is not None and len(array) != n:
            raise ValueError(f"`{name}` has {len(array)} entries for {n} cases")
    members = predictions.member_logits
    if members is not None and members.shape[1:] != shape:
        raise ValueError(f"`member_logits` has shape {list(members.shape)}, expected [members, {n}, ...]")
    _check_weights(predictions)


def _check_weights(predictions: Predictions) -> None:
    members, weights = predictions.member_logits, predictions.member_weights
    if members is None:
        return
    if np.isnan(members).any():
        raise ValueError("`member_logits` are not numbers")
    if weights is None:
        return
    if weights.shape != members.shape[:1]:
        raise ValueError(f"`member_weights` has shape {list(weights.shape)}, but there are {len(members)} members")
    if weights.dtype.kind != "f" or not (weights >= 0).all() or not abs(weights.sum() - 1) < 1e-6:
        raise ValueError("`member_weights` are no shares that sum to 1")


def _check_logits(predictions: Predictions) -> None:
    logits, target = predictions.logits, predictions.target
    missing = np.isnan(logits)
    if target.task != "multilabel":
        # A class cannot be infinitely likely next to another one; -inf is a probability of exactly 0.
        missing = missing | np.isposinf(logits)
    bad = missing.reshape(len(logits), -1).any(axis=1) if len(logits) else np.zeros(0, bool)
    if bad.any():
        first = predictions.ids[bad.argmax()]
        raise ValueError(f"`logits` of `{first}` are not numbers ({int(bad.sum())} cases in all)")
    if target.task != "multilabel" and len(logits) and not np.isfinite(logits).any(axis=-1).all():
        raise ValueError("`logits` has a case whose classes are all impossible (-inf)")
    for index, output in enumerate(target.outputs):
        if np.isfinite(logits[:, index, len(output.classes) :]).any():
            raise ValueError(f"`logits` of output `{output.name}` are not padded with -inf")


def _check_labels(labels: npt.NDArray[Any], target: Target, n: int) -> None:
    if target.task == "multilabel":
        if labels.shape != (n, target.num_classes):
            raise ValueError(f"`labels` has shape {list(labels.shape)}, expected {[n, target.num_classes]}")
        known = labels[~np.isnan(labels.astype(np.float64))]
        if not np.isin(known, (0, 1)).all():
            raise ValueError("`labels` holds something else than 0, 1 and NaN (missing)")
        return
    shape = (n, len(target.outputs)) if target.task == "multioutput" else (n,)
    if labels.shape != shape:
        raise ValueError(f"`labels` has shape {list(labels.shape)}, expected {list(shape)}")
    if labels.dtype.kind not in "iu":
        raise ValueError("`labels` are no whole numbers")
    columns = [len(output.classes) for output in target.outputs] or [target.num_classes]
    table = labels.reshape(n, len(columns))
    for index, classes in enumerate(columns):
        column = table[:, index]
        outside = (column < -1) | (column >= classes)
        if outside.any():
            found = f"{column[outside][0]}, but there are {classes} classes (0 to {classes - 1})"
            raise ValueError(f"`labels` holds {found}")


def save_predictions(path: str | os.PathLike[str], predictions: Predictions) -> None:
    """Write predictions to an `.npz` file, in one step: a reader sees the old file or the new one.

    Raises:
        RunFailure: when the arrays disagree, or the file cannot be written.
    """
    destination = Path(path)
    try:
        check_predictions(predictions)
    except ValueError as problem:
        raise RunFailure(f"the predictions are inconsistent: {problem}", where=str(destination)) from problem
    arrays: dict[str, npt.NDArray[Any]] = {
        "schema": np.array(SCHEMA),
        "target": np.array(json.dumps(target_to_dict(predictions.target), ensure_ascii=False)),
        "split": np.array(predictions.split),
        "data_name": np.array(predictions.data_name),
        "ids": predictions.ids,
        "labels": predictions.labels,
        "logits": predictions.logits,
    }
    if predictions.calibrated:
        arrays["calibrated"] = np.array(predictions.calibrated)
    for name in _OPTIONAL:
        array = getattr(predictions, name)
        if array is not None:
            arrays[name] = array
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=destination.parent, prefix=f".{destination.name}.", suffix=".part")
    except OSError as problem:
        raise RunFailure(f"cannot write the predictions: {problem.strerror}", where=str(destination)) from problem
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        umask = os.umask(0)
        os.umask(umask)
        # mkstemp makes the file private; a result should have the rights any other new file has.
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(destination)
    except OSError as problem:
        Path(temporary).unlink(missing_ok=True)
        raise RunFailure(f"cannot write the predictions: {problem.strerror}", where=str(destination)) from problem
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_predictions(path: str | os.PathLike[str]) -> Predictions:
    """Read and check an `.npz` file written by `save_predictions`.

    Raises:
        UsageProblem: code `bad-predictions`, saying which file and what is wrong with it.
    """
    source = Path(path)
    if not source.is_file():
        raise UsageProblem("no such predictions file", where=str(source), code="bad-predictions")
    arrays = _read_arrays(source)
    schema = str(arrays["schema"]) if "schema" in arrays else None
    if schema is None:
        hint = "a data set goes to `--data`" if any(name.endswith("_images") for name in arrays) else None
        found = ", ".join(f"`{name}`" for name in sorted(arrays)[:6]) or "nothing"
        raise _refusal(source, f"this is no predictions file of medcli: it holds {found}", hint)
    if schema != SCHEMA:
        raise _refusal(source, f"the file has schema `{schema}`, this medcli reads `{SCHEMA}`")
    absent = [name for name in _REQUIRED if name not in arrays]
    if absent:
        raise _refusal(source, f"the file lacks {', '.join(f'`{name}`' for name in absent)}")
    try:
        target_values = json.loads(str(arrays["target"]))
        if not isinstance(target_values, dict):
            raise ValueError("its target is no table")
        predictions = Predictions(
            ids=arrays["ids"],
            labels=arrays["labels"],
            logits=arrays["logits"],
            target=target_from_dict(target_values),
            split=str(arrays["split"]),
            data_name=str(arrays["data_name"]),
            patients=arrays.get("patients"),
            member_logits=arrays.get("member_logits"),
            features=arrays.get("features"),
            calibrated=str(arrays.get("calibrated", "")),
            member_weights=arrays.get("member_weights"),
        )
        check_predictions(predictions)
    except ValueError as problem:
        raise _refusal(source, str(problem)) from problem
    return predictions


def _read_arrays(source: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        # Opened here, because numpy leaves the file open when the archive in it is damaged.
        with source.open("rb") as file:
            # numpy takes whatever is neither an archive nor an array for a pickle.
            if file.read(2) not in {b"PK", b"\x93N"}:
                raise zipfile.BadZipFile
            file.seek(0)
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise _refusal(source, "this is a single array, not an .npz file of several")
            with archive:
                return {name: archive[name] for name in archive.files}
    except ValueError as problem:
        if "pickle" in str(problem).lower() or "object" in str(problem).lower():
            what = "it holds Python objects, which could run code; medcli does not open them"
            raise _refusal(source, what) from problem
        raise _refusal(source, f"it cannot be read: {problem}") from problem
    except (zipfile.BadZipFile, EOFError, KeyError, OSError) as problem:
        raise _refusal(source, "it is damaged or no .npz file") from problem


def _refusal(source: Path, what: str, hint: str | None = None) -> UsageProblem:
    return UsageProblem(what, where=str(source), hint=hint, code="bad-predictions")
