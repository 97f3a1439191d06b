"""From one column of label text to class names and the index of each case, whether the classes are named or found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from medcli.data.sources.cases import LabelColumn
from medcli.errors import UsageProblem, listed, nearest

__all__ = ["ABSENT", "BAD", "MISSING", "BadLabel", "classes_of", "named", "whole"]

MISSING = frozenset({"", "nan"})
ABSENT = -1
BAD = -2


@dataclass(frozen=True)
class BadLabel:
    """A label that fits no class.

    Args:
        row: position of the case.
        where: its file and line.
        reason: a sentence part.
    """

    row: int
    where: str
    reason: str


def classes_of(
    column: LabelColumn, where: Callable[[int], str], names: tuple[str, ...], ignored: tuple[str, ...]
) -> tuple[tuple[str, ...], npt.NDArray[np.int64], tuple[BadLabel, ...]]:
    """Class names without the ignored ones, and per case the index, -1 (no label) or -2 (impossible)."""
    texts = [whole(cell.strip()) for cell in column.cells]
    counts = Counter(text for text in texts if text.lower() not in MISSING)
    dropped = {whole(text) for text in ignored}
    if names:
        if len(set(names)) != len(names):
            raise UsageProblem(f"`--class-names` names a class twice: {named(names)}", code="class-names")
        meaning, reasons = _named(counts, names, dropped)
        # An ignored class keeps its place among the given names, so that numbers still point at the right ones.
        classes = tuple(name for name in names if name not in dropped)
    else:
        classes, meaning, reasons = _found(counts, dropped, column.name)
    index = {name: position for position, name in enumerate(classes)}
    table = {text: index.get(name, ABSENT) for text, name in meaning.items()}
    codes = np.array([table.get(text, BAD if text in reasons else ABSENT) for text in texts], dtype=np.int64)
    bad = tuple(
        BadLabel(row, where(row), f"label `{column.cells[row]}` in `{column.name}` {reasons[texts[row]]}")
        for row in np.flatnonzero(codes == BAD).tolist()
    )
    return classes, codes, bad


def _named(counts: Counter[str], names: tuple[str, ...], dropped: set[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Label text -> class name, and label text -> why it fits none, where the classes are named."""
    known = {whole(name): name for name in names}
    by_position = not any(_is_number(name) for name in names)
    meaning: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for text in counts:
        if text in known:
            meaning[text] = known[text]
        elif text in dropped:
            meaning[text] = text
        elif by_position and text.isdecimal() and int(text) < len(names):
            meaning[text] = names[int(text)]
        elif by_position and _is_number(text):
            reasons[text] = f"is out of range: {len(names)} classes are numbered 0 to {len(names) - 1}"
        else:
            close = nearest(text, names, 1)
            reasons[text] = f"is none of the classes {named(names)}" + (
                f"; did you mean `{close[0]}`?" if close else ""
            )
    return meaning, reasons


def _found(
    counts: Counter[str], dropped: set[str], column: str
) -> tuple[tuple[str, ...], dict[str, str], dict[str, str]]:
    """Classes, meanings and reasons where nothing names the classes: whole numbers without a gap, or any text."""
    present = {text: count for text, count in counts.items() if text not in dropped}
    numbers = {text for text in present if _is_number(text)}
    reasons: dict[str, str] = {}
    if 2 * sum(present[text] for text in numbers) >= sum(present.values()) > 0:
        reasons = {text: "is no number, while most others are" for text in present if text not in numbers}
        reasons |= {text: "is no whole number from 0 up" for text in numbers if not text.isdecimal()}
        whole = sorted(int(text) for text in numbers if text.isdecimal())
        gap = next((b for a, b in pairwise(whole) if b > a + 1), None)
        if gap is not None:
            below = max(value for value in whole if value < gap)
            above = sum(count for text, count in present.items() if text.isdecimal() and int(text) >= gap)
            if 2 * above > sum(present.values()):
                raise UsageProblem(
                    f"the numbers in `{column}` leave gaps (nothing lies between {below} and {gap}), so they number no "
                    "classes by themselves",
                    hint="`--class-names A,B,…` names the classes in order; `--label-column` chooses another column",
                    code="not-a-label",
                )
            reason = (
                f"is out of range: nothing lies between it and {below} (`--class-names` names classes that are rare)"
            )
            reasons |= {str(value): reason for value in whole if value >= gap}
        classes = tuple(str(value) for value in whole if str(value) not in reasons)
    else:
        classes = tuple(sorted(present))
        if len(classes) > 20 and 2 * len(classes) > sum(present.values()):
            raise UsageProblem(
                f"`{column}` holds {len(classes)} different values in {sum(present.values())} rows: it is no label",
                hint="`--label-column COLUMN` names the column with the labels",
                code="not-a-label",
            )
    return classes, {text: text for text in classes}, reasons


def whole(text: str) -> str:
    """`3.0` as `3`: a column with gaps makes spreadsheets and data frames write whole numbers so."""
    head, dot, tail = text.partition(".")
    return str(int(head)) if head.isdecimal() and (not dot or (tail and not tail.strip("0"))) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def named(names: Iterable[str]) -> str:
    """Classes or columns for a message: a dozen of them, so that the right one is found there."""
    return listed(names, 12)
