"""What readers marked, and how far they agree with each other and with a model.

A finding is an ellipse or an area with a sign. Two are the same where both have one sign and the centre of one lies in
the other, or they overlap by a tenth; each is matched once, the best overlap first.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.diffmap.components import Component
from medcli.diffmap.froc import LEAST_OVERLAP, overlap
from medcli.errors import UsageProblem

__all__ = ["PUBLISHED", "Agreement", "Ellipse", "Finding", "Reading", "agreement", "of_components", "read_readings"]

PUBLISHED: Mapping[str, Any] = {
    "what": "five readers of chest radiograph pairs in a published study; other pairs, other rules of matching",
    "pai_per_finding": {"value": 0.55, "low": 0.46, "high": 0.64},
    "pai_per_pair": {"value": 0.61},
    "one_reader_against_the_others": {
        "positive": {"1": 0.46, "2": 0.72, "3": 0.80, "4": 0.89},
        "negative": {"1": 0.46, "2": 0.62, "3": 0.82, "4": 0.85},
    },
}
SIGNS: Mapping[str, int] = {
    **dict.fromkeys(("appearance", "new", "increase", "progression", "positive", "+"), 1),
    **dict.fromkeys(("disappearance", "resolved", "decrease", "regression", "negative", "-"), -1),
    **dict.fromkeys(("persistence", "unchanged", "persistent"), 0),
}
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Ellipse:
    """One mark.

    Args:
        cx: column of the centre, in pixels of the follow-up's file (0.5 is the middle of the first).
        cy: row of the centre.
        rx: half axis that lies along the columns before turning.
        ry: the other half axis.
        angle: degrees, clockwise as the picture is seen.
        sign: 1 new or denser, -1 gone or less dense.
    """

    cx: float
    cy: float
    rx: float
    ry: float
    angle: float
    sign: int

    def mask(self, size: int, file_size: tuple[int, int]) -> Mask:
        """Its pixels on the square grid, bool [size, size]; the one below its centre at least.

        Args:
            size: side of the grid that the follow-up was fitted into, its long side filling it.
            file_size: (height, width) of the follow-up's file.
        """
        height, width = file_size
        scale = size / max(height, width)
        top, left = ((size - max(1, round(side * scale))) // 2 for side in (height, width))
        x, y = self.cx * scale + left, self.cy * scale + top
        rows, columns = np.mgrid[:size, :size] + 0.5
        turn = np.deg2rad(self.angle)
        along = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
        across = (rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)
        inside = (along / (self.rx * scale)) ** 2 + (across / (self.ry * scale)) ** 2 <= 1
        inside[min(size - 1, max(0, int(y))), min(size - 1, max(0, int(x)))] = True
        return np.asarray(inside)


@dataclass(frozen=True)
class Reading:
    """What one reader marked in one pair.

    Args:
        pair: its identifier.
        reader: name.
        ellipses: changes alone; what persists is none.
    """

    pair: str
    reader: str
    ellipses: tuple[Ellipse, ...]


@dataclass(frozen=True)
class Finding:
    """An area with a sign.

    Args:
        sign: 1 or -1.
        mask: bool [H, W].
        centre: (row, column).
    """

    sign: int
    mask: Mask
    centre: tuple[int, int]


@dataclass(frozen=True)
class Agreement:
    """How far readers and a model agree.

    Args:
        readers: how many.
        pairs: read by at least two of them, or by the model and one.
        per_finding: 2M / (2M + U) of all readers' matched (M) and unmatched (U) findings, over all pairs of readers.
        per_pair: the same within a pair, averaged; both without findings count as agreement.
        model_per_finding: of the model with each reader.
        model_per_pair: likewise.
        consensus: by sign, by k: (share of the findings of at least k readers that the model has, their number).
        left_out: by sign, by k: (share of the findings of at least k others that the reader left out has, number).
    """

    readers: int
    pairs: int
    per_finding: float
    per_pair: float
    model_per_finding: float
    model_per_pair: float
    consensus: Mapping[str, Mapping[int, tuple[float, int]]]
    left_out: Mapping[str, Mapping[int, tuple[float, int]]]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""

        def table(by_sign: Mapping[str, Mapping[int, tuple[float, int]]]) -> dict[str, Any]:
            return {
                sign: {str(k): {"value": _number(share), "findings": count} for k, (share, count) in rows.items()}
                for sign, rows in by_sign.items()
            }

        return {
            "readers": self.readers,
            "pairs": self.pairs,
            "pai_per_finding": _number(self.per_finding),
            "pai_per_pair": _number(self.per_pair),
            "model_pai_per_finding": _number(self.model_per_finding),
            "model_pai_per_pair": _number(self.model_per_pair),
            "consensus_sensitivity": table(self.consensus),
            "one_reader_against_the_others": table(self.left_out),
            "published": dict(PUBLISHED),
        }


def read_readings(folder: str) -> tuple[Reading, ...]:
    """Every reading below a folder: `PAIR/READER.json`, a list of ellipses or a document with `ellipses`.

    Raises:
        UsageProblem: no such folder, nothing in it, or a file that is no reading, with file and entry.
    """
    root = Path(folder).expanduser()
    files = sorted(root.rglob("*.json")) if root.is_dir() else []
    if not files:
        raise UsageProblem(
            f"`{folder}` " + ("holds no JSON file" if root.is_dir() else "is no folder"),
            where="--readers",
            hint="one file per pair and reader: `READERS/PAIR/READER.json`",
            code="no-readings",
        )
    readings = []
    for path in files:
        try:
            document = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UsageProblem(f"`{path}` is no JSON: {error}", where="--readers", code="bad-reading") from None
        facts = document if isinstance(document, dict) else {"ellipses": document}
        marks = facts.get("ellipses")
        if not isinstance(marks, list):
            raise UsageProblem(f"`{path}` has no list `ellipses`", where="--readers", code="bad-reading")
        pair = facts.get("pair", path.parent.relative_to(root).as_posix())
        ellipses = [_ellipse(mark, path, number) for number, mark in enumerate(marks)]
        readings.append(
            Reading(str(pair), str(facts.get("reader", path.stem)), tuple(one for one in ellipses if one.sign))
        )
    seen: set[tuple[str, str]] = set()
    for one in readings:
        if (one.pair, one.reader) in seen:
            raise UsageProblem(
                f"reader `{one.reader}` has read `{one.pair}` twice", where="--readers", code="duplicate-reading"
            )
        seen.add((one.pair, one.reader))
    return tuple(readings)


def of_components(found: Sequence[Component]) -> tuple[Finding, ...]:
    """A map's areas as findings."""
    return tuple(Finding(one.sign, one.mask, (round(one.centroid[0]), round(one.centroid[1]))) for one in found)


def agreement(
    readings: Mapping[str, Mapping[str, Sequence[Finding]]], model: Mapping[str, Sequence[Finding]]
) -> Agreement:
    """Of readers and a model.

    Args:
        readings: pair -> reader -> findings, empty where the reader saw none.
        model: pair -> findings; pairs that it has not are left out.
    """
    pairs = sorted(pair for pair in readings if pair in model)
    names = sorted({reader for pair in pairs for reader in readings[pair]})
    among = [(first, second) for pair in pairs for first, second in combinations(readings[pair].values(), 2)]
    beside = [(model[pair], one) for pair in pairs for one in readings[pair].values()]
    per_finding, per_pair = _pai(among)
    model_per_finding, model_per_pair = _pai(beside)
    consensus: dict[tuple[int, int], list[bool]] = defaultdict(list)
    others: dict[tuple[int, int], list[bool]] = defaultdict(list)
    for pair in pairs:
        read = readings[pair]
        for group, backing in _groups(list(read.values())):
            hit = any(_same(one, finding) for one in model[pair] for finding in group)
            for k in range(1, backing + 1):
                consensus[group[0].sign, k].append(hit)
        for reader in read if len(read) > 1 else ():
            for group, backing in _groups([found for name, found in read.items() if name != reader]):
                hit = any(_same(one, finding) for one in read[reader] for finding in group)
                for k in range(1, backing + 1):
                    others[group[0].sign, k].append(hit)
    return Agreement(
        len(names),
        len(pairs),
        per_finding,
        per_pair,
        model_per_finding,
        model_per_pair,
        _shares(consensus, len(names)),
        _shares(others, len(names) - 1),
    )


def matches(first: Sequence[Finding], second: Sequence[Finding]) -> int:
    """How many findings of both are the same, each matched once, the best overlap first."""
    candidates = [
        (-overlap(one.mask, other.mask), row, column)
        for row, one in enumerate(first)
        for column, other in enumerate(second)
        if _same(one, other)
    ]
    rows: set[int] = set()
    columns: set[int] = set()
    for _, row, column in sorted(candidates):
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
    return len(rows)


def _pai(both: Sequence[tuple[Sequence[Finding], Sequence[Finding]]]) -> tuple[float, float]:
    """(per finding, per pair); NaN where nothing was compared or, per finding, where nobody found anything."""
    matched = [matches(first, second) for first, second in both]
    everything = [len(first) + len(second) for first, second in both]
    total = sum(everything)
    single = [2 * hit / count if count else 1.0 for hit, count in zip(matched, everything, strict=True)]
    return 2 * sum(matched) / total if total else float("nan"), float(np.mean(single)) if single else float("nan")


def _groups(readers: Sequence[Sequence[Finding]]) -> list[tuple[list[Finding], int]]:
    """Findings that hang together by being the same, and how many readers stand behind each group."""
    every = [(finding, reader) for reader, found in enumerate(readers) for finding in found]
    parent = list(range(len(every)))

    def root(one: int) -> int:
        while parent[one] != one:
            one = parent[one]
        return one

    for one, other in combinations(range(len(every)), 2):
        if every[one][1] != every[other][1] and _same(every[one][0], every[other][0]):
            parent[root(other)] = root(one)
    groups: dict[int, list[int]] = defaultdict(list)
    for one in range(len(every)):
        groups[root(one)].append(one)
    return [([every[one][0] for one in held], len({every[one][1] for one in held})) for held in groups.values()]


def _same(one: Finding, other: Finding) -> bool:
    if one.sign != other.sign:
        return False
    inside = bool(one.mask[other.centre]) or bool(other.mask[one.centre])
    return inside or overlap(one.mask, other.mask) >= LEAST_OVERLAP


def _shares(hits: Mapping[tuple[int, int], Sequence[bool]], most: int) -> dict[str, dict[int, tuple[float, int]]]:
    return {
        name: {
            k: (float(np.mean(hits[sign, k])) if hits.get((sign, k)) else float("nan"), len(hits.get((sign, k), ())))
            for k in range(1, most + 1)
        }
        for name, sign in (("positive", 1), ("negative", -1))
    }


def _ellipse(mark: Any, path: Path, number: int) -> Ellipse:
    def wrong(problem: str) -> UsageProblem:
        return UsageProblem(
            f"ellipse {number + 1} {problem}",
            where=str(path),
            hint='each is like {"cx": 210, "cy": 140, "rx": 30, "ry": 20, "angle": 15, "label": "Appearance"}',
            code="bad-reading",
        )

    if not isinstance(mark, dict):
        raise wrong("is no object")
    values = []
    for name in ("cx", "cy", "rx", "ry", "angle"):
        value = mark.get(name, 0 if name == "angle" else None)
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise wrong(f"has no number `{name}`")
        values.append(float(value))
    if min(values[2], values[3]) <= 0:
        raise wrong("has an axis that is not above 0")
    label = mark.get("label")
    sign = int(np.sign(label)) if isinstance(label, int | float) else SIGNS.get(str(label).strip().lower())
    if sign is None:
        raise wrong(f"has the label `{label}`, which is none of {', '.join(SIGNS)}")
    cx, cy, rx, ry, angle = values
    return Ellipse(cx, cy, rx, ry, angle, sign)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
