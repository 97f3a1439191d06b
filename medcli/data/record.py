"""What a run keeps about its data: enough to prove later that it is the same, and to say what is not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from medcli.data.dataset import DataSet, Samples
from medcli.data.splits import split_hash
from medcli.data.target import Target, target_to_dict

__all__ = ["class_counts", "compare_records", "data_record", "labels_hash", "split_rows"]

SCHEMA = "medcli-data/1"
THREADS = 4


def data_record(dataset: DataSet) -> dict[str, Any]:
    """Hashes and counts of a data set, as JSON can hold them. Reads every image's stored bytes once.

    Keys: schema, name, origin, target, channels, made_splits, split_hash (which case is in which split), classes_hash
    (names and order), notes, skipped, and per split: count, patients, class counts, and hashes of identifiers, labels
    and files.
    """
    names = [name for samples in dataset.splits.values() for name in samples.ids.tolist()]
    where = [split for split, samples in dataset.splits.items() for _ in range(len(samples))]
    target = target_to_dict(dataset.target)
    return {
        "schema": SCHEMA,
        "name": dataset.name,
        "origin": dataset.origin,
        "target": target,
        "classes_hash": _hash(repr(sorted(target.items()))),
        "channels": dataset.channels,
        "made_splits": dataset.made_splits,
        "split_hash": split_hash(names, where),
        "splits": {split: _split_record(samples, dataset.target) for split, samples in dataset.splits.items()},
        "skipped": [list(pair) for pair in dataset.skipped],
        "notes": list(dataset.notes),
    }


def class_counts(samples: Samples, target: Target) -> dict[str, Any]:
    """Cases per class; for multilabel positive cases per label and `(missing)`; for multioutput a table each."""
    labels = samples.labels
    if target.task == "multilabel":
        counts: dict[str, Any] = {
            name: int((labels[:, position] == 1).sum()) for position, name in enumerate(target.class_names)
        }
        missing = int(np.isnan(labels).sum())
        return counts | ({"(missing)": missing} if missing else {})
    if target.task == "multioutput":
        return {
            output.name: {name: int((labels[:, position] == value).sum()) for value, name in enumerate(output.classes)}
            | ({"(ignored)": ignored} if (ignored := int((labels[:, position] < 0).sum())) else {})
            for position, output in enumerate(target.outputs)
        }
    return {name: int((labels == value).sum()) for value, name in enumerate(target.class_names)}


def split_rows(dataset: DataSet) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The split file of a run: header (id, split, patient, label or one column per label) and one row per case."""
    target = dataset.target
    if target.task == "multilabel":
        names: tuple[str, ...] = target.class_names
    elif target.task == "multioutput":
        names = tuple(output.name for output in target.outputs)
    else:
        names = ("label",)
    rows: list[tuple[str, ...]] = []
    for split, samples in dataset.splits.items():
        patients = [""] * len(samples) if samples.patients is None else samples.patients.tolist()
        labels = samples.labels.reshape(len(samples), -1).tolist()
        for name, patient, values in zip(samples.ids.tolist(), patients, labels, strict=True):
            rows.append((name, split, patient, *(_label_text(value, target, at) for at, value in enumerate(values))))
    return ("id", "split", "patient", *names), rows


def compare_records(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two records of a data set, as sentences; where it lies and what was noted do not count."""
    differences: list[str] = []
    if old.get("target") != new.get("target"):
        differences.append(f"the target was {_target_text(old)} and is {_target_text(new)}")
    before, after = old.get("splits", {}), new.get("splits", {})
    for split in (*before, *(name for name in after if name not in before)):
        if split not in after or split not in before:
            differences.append(f"the {split} split is {'new' if split in after else 'gone'}")
            continue
        one, two = before[split], after[split]
        if one["count"] != two["count"]:
            differences.append(f"{split} had {one['count']} images and has {two['count']}")
        elif one["ids_hash"] != two["ids_hash"]:
            differences.append(f"{split} holds other images")
        elif one["files_hash"] != two["files_hash"]:
            differences.append(f"the contents of image files in {split} changed")
        if one["count"] == two["count"] and one["labels_hash"] != two["labels_hash"]:
            differences.append(f"labels in {split} changed")
    if not differences and old.get("split_hash") != new.get("split_hash"):
        differences.append("cases moved between splits")
    return differences


def _split_record(samples: Samples, target: Target) -> dict[str, Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        fingerprints = list(pool.map(samples.images.fingerprint, range(len(samples))))
    return {
        "count": len(samples),
        "patients": None if samples.patients is None else len(set(samples.patients.tolist())),
        "classes": class_counts(samples, target),
        "ids_hash": _hash("\n".join(samples.ids.tolist())),
        "labels_hash": labels_hash(samples),
        "files_hash": hashlib.sha256(b"".join(fingerprints)).hexdigest(),
    }


def labels_hash(samples: Samples) -> str:
    """The `labels_hash` of a split: alike where as many cases have the same labels in the same order."""
    return hashlib.sha256(np.ascontiguousarray(samples.labels).tobytes()).hexdigest()


def _label_text(value: float, target: Target, position: int) -> str:
    if target.task == "multilabel":
        return "" if value != value else str(int(value))
    classes = target.outputs[position].classes if target.task == "multioutput" else target.class_names
    return "" if value < 0 else classes[int(value)]


def _target_text(record: Mapping[str, Any]) -> str:
    target = record.get("target", {})
    names = target.get("class_names") or [output["name"] for output in target.get("outputs", [])]
    return f"{target.get('task')} ({', '.join(names[:8])}{' …' if len(names) > 8 else ''})"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
