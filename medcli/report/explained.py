"""The pictures that `medcli explain --save` left in a run, as far as they can be shown."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcli.runs.directory import RunDirectory

__all__ = ["SCHEMA", "Explained", "Explanation", "read_explanations"]

SCHEMA = "medcli-explanations/1"

_LARGEST = 20 * 2**20
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Explanation:
    """One explained case.

    Args:
        identifier: the case.
        method: how it was explained.
        target_class: the class whose score is explained.
        label: its label; empty where unknown.
        probability: the score of that class; NaN where unknown.
        worst: whether it is one of the worst errors rather than an example.
        png: the picture.
    """

    identifier: str
    method: str
    target_class: str
    label: str
    probability: float
    worst: bool
    png: bytes


@dataclass(frozen=True)
class Explained:
    """What was found.

    Args:
        cases: examples and worst errors, in the order of the index.
        problems: what could not be shown, as sentences.
        calibrator: how their scores became probabilities; empty for the network's own.
    """

    cases: tuple[Explanation, ...] = ()
    problems: tuple[str, ...] = ()
    calibrator: str = ""


def read_explanations(run: RunDirectory) -> Explained:
    """The index `explanations/index.json` with its pictures; entries that are not sound are named and left out.

    Only PNG files below that folder are taken: the index may come from another machine.
    """
    folder = run.path / "explanations"
    index = folder / "index.json"
    if not index.is_file():
        return Explained()
    try:
        document: Any = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        return Explained(problems=(f"`explanations/index.json` cannot be read: {problem}",))
    entries = (
        document.get("explanations", document.get("cases", document.get("items")))
        if isinstance(document, dict)
        else document
    )
    if not isinstance(entries, list):
        return Explained(problems=("`explanations/index.json` holds no list of explanations",))
    cases, problems = [], []
    for position, entry in enumerate(entries, start=1):
        found = _case(entry, folder)
        if isinstance(found, str):
            problems.append(f"explanation {position} is left out: {found}")
        else:
            cases.append(found)
    how = document.get("calibrator") if isinstance(document, dict) else None
    return Explained(tuple(cases), tuple(problems), str(how or ""))


def _case(entry: Any, folder: Path) -> Explanation | str:
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
        return "it names no file"
    path = (folder / entry["file"]).resolve()
    if not path.is_relative_to(folder.resolve()):
        return "its file is outside the folder"
    try:
        if path.stat().st_size > _LARGEST:
            return "its picture is larger than 20 MiB"
        png = path.read_bytes()
    except OSError as problem:
        return f"its picture cannot be read: {(problem.strerror or str(problem)).lower()}"
    if not png.startswith(_SIGNATURE):
        return "its picture is no PNG"
    chance = entry.get("probability")
    number = float(chance) if isinstance(chance, int | float) and not isinstance(chance, bool) else math.nan

    def text(name: str) -> str:
        value = entry.get(name)
        return "" if value is None else str(value)

    return Explanation(
        text("id"),
        text("method"),
        text("target_class"),
        text("label"),
        number,
        text("kind") == "worst-error",
        png,
    )
