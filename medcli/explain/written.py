"""Explanations as files: pictures with the words that belong to them, and the index by which a report finds them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medcli.data.dataset import Preprocessing
from medcli.errors import UsageProblem
from medcli.explain.engine import Explained
from medcli.explain.geometry import displayed, placed
from medcli.explain.methods import Explainer
from medcli.explain.overlay import Caption, draw_overlay
from medcli.runs.directory import RunDirectory, replace_text, writing

__all__ = [
    "FOLDER",
    "INDEX",
    "SCHEMA",
    "Entry",
    "describe",
    "draw",
    "file_names",
    "read_index",
    "write_index",
    "write_maps",
]

SCHEMA = "medcli-explanations/1"
FOLDER, INDEX = "explanations", "index.json"


@dataclass(frozen=True)
class Entry:
    """One picture in the index.

    Args:
        id: of the case.
        file: the PNG, relative to the index.
        method: as `--method` names it.
        layer: where it looks, or empty.
        target_class: the class or label that is explained.
        label: the truth: a class, `yes` or `no` for a label, empty where unknown.
        probability: of that class.
        kind: `example` or `worst-error`.
        caption: the same in a sentence.
    """

    id: str
    file: str
    method: str
    layer: str
    target_class: str
    label: str
    probability: float
    kind: str
    caption: str


def draw(one: Explained, explainer: Explainer, preprocessing: Preprocessing, path: Path, *, scores: str) -> None:
    """Write the picture of one explanation.

    Args:
        scores: what its number is called: `score`, or `probability` once calibrated.

    Raises:
        RunFailure: it cannot be written.
    """
    caption = Caption(
        one.case.name if one.case.kind else Path(one.case.name).name,
        f"{one.question.name} · {scores} {one.probability:.2f}",
        _truth(one),
        explainer.title,
        "nothing speaks for this class" if one.empty else "" if explainer.by_class else "the same for every class",
    )
    over = placed(_from_nothing(one, explainer), one.picture, preprocessing)
    with writing(path):
        draw_overlay(displayed(one.picture), over, caption, path, pixelwise=explainer.method == "integrated-gradients")


def describe(one: Explained, explainer: Explainer, file: str, *, scores: str) -> Entry:
    """The index entry of one explanation."""
    truth = f", true: {one.truth}" if one.truth else ""
    caption = f"{one.question.name}, {scores} {one.probability:.2f}{truth}; {explainer.title}"
    return Entry(
        one.case.name,
        file,
        explainer.method,
        explainer.layer,
        one.question.name,
        one.truth,
        one.probability,
        one.case.kind,
        caption,
    )


def file_names(explained: Sequence[tuple[str, str]], method: str) -> list[str]:
    """A PNG name for every (image, class), no two alike."""
    taken: set[str] = set()
    names = []
    for image, question in explained:
        stem = _plain(Path(image).name.rsplit(".", 1)[0] if "." in Path(image).name else Path(image).name)
        base = f"{stem}-{_plain(question)}-{_plain(method)}"
        name = next(word for number in range(len(explained) + 1) if (word := _numbered(base, number)) not in taken)
        taken.add(name)
        names.append(f"{name}.png")
    return names


def write_maps(path: Path, explained: Sequence[Explained], explainer: Explainer) -> None:
    """Write the bare maps to an `.npz`: `maps` float32 [n, h, w], `ids`, `classes`, `scores`, `method`, `layer`.

    Raises:
        RunFailure: it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                allow_pickle=False,
                maps=np.stack([one.grid.numpy() for one in explained]),
                ids=np.array([one.case.name for one in explained]),
                classes=np.array([one.question.name for one in explained]),
                scores=np.array([one.probability for one in explained]),
                method=np.array(explainer.method),
                layer=np.array(explainer.layer),
            )


def write_index(run: RunDirectory, entries: Sequence[Entry], facts: dict[str, Any]) -> Path:
    """Write `explanations/index.json` into a run; pictures of an earlier index that are not in this one are removed.

    Args:
        run: the run.
        entries: whose files are there already.
        facts: what else is known, such as the split and the outcome of the sanity check.

    Raises:
        RunFailure: it cannot be written.
    """
    folder = run.path / FOLDER
    path = folder / INDEX
    kept = {one.file for one in entries} | {str(facts.get("sheet") or "")}
    for name in _earlier(path) - kept:
        (folder / name).unlink(missing_ok=True)
    document = {"schema": SCHEMA, **facts, "explanations": [vars(one) for one in entries]}
    replace_text(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_index(path: Path) -> dict[str, Any]:
    """An index as it was written.

    Raises:
        UsageProblem: it is no such file.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise UsageProblem("the index of explanations cannot be read", where=str(path), code="bad-index") from problem
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise UsageProblem("this is no index of explanations", where=str(path), code="bad-index")
    return document


def _earlier(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    try:
        document = read_index(path)
        names = {str(one["file"]) for one in document["explanations"]} | {str(document.get("sheet") or "")}
    except (UsageProblem, KeyError, TypeError):
        return set()
    # Only plain names: the index may come from another machine, and nothing outside the folder is ours to remove.
    return {name for name in names if name and name == Path(name).name and name.endswith(".png")}


def _from_nothing(one: Explained, explainer: Explainer) -> Any:
    """Attention is never zero; the least of it stands for nothing."""
    if explainer.method in {"attention", "rollout"}:
        return one.grid - one.grid.min()
    return one.grid.clamp_min(0)


def _truth(one: Explained) -> str:
    if not one.truth:
        return ""
    if one.question.target.task == "multilabel":
        return f"true: {one.question.name}" if one.truth == "yes" else f"true: no {one.question.name}"
    return f"true: {one.truth}"


def _plain(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", text).strip("_.") or "image"


def _numbered(base: str, number: int) -> str:
    return base if not number else f"{base}-{number + 1}"
