"""A benchmark against an earlier one: what has become slower or larger, and what cannot be compared at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from medcli.benchmark.rows import Facts, Row, read_rows, row_from_json
from medcli.errors import UsageProblem

__all__ = ["Change", "Comparison", "compare_rows", "read_earlier"]

CONDITIONS = ("device", "precision", "memory_format", "threads", "runtime", "image_size", "in_channels")
"""What has to be equal before two times can be compared."""

COMPARED = {"median_ms": "median", "peak_bytes": "peak memory", "device_bytes": "device memory"}


@dataclass(frozen=True)
class Change:
    """One figure of one batch size then and now.

    Args:
        label: of the row.
        batch_size: of the pass.
        figure: `median_ms`, `peak_bytes`, `device_bytes`, or `state` where it was measured then and is not now.
        before: the earlier value.
        now: the present one; None where there is none.
        ratio: now over before.
        verdict: `worse`, `better`, or `same` within the tolerance.
        reason: why it is not measured now.
    """

    label: str
    batch_size: int
    figure: str
    before: float
    now: float | None
    ratio: float | None
    verdict: Literal["worse", "better", "same"]
    reason: str = ""

    def sentence(self) -> str:
        """What a person reads."""
        if self.now is None or self.ratio is None:
            return f"{self.label}, batch {self.batch_size}: measured then, not now ({self.reason})"
        before, now = (_shown(self.figure, value) for value in (self.before, self.now))
        return (
            f"{self.label}, batch {self.batch_size}: {COMPARED[self.figure]} {before} -> {now} ({self.ratio - 1:+.0%})"
        )


@dataclass(frozen=True)
class Comparison:
    """Two benchmarks side by side.

    Args:
        earlier: the file.
        tolerance: share by which a figure may grow.
        changes: of every row and batch size that both have.
        apart: (label, why) of rows that both have and that were measured under other conditions.
        only_now: labels that the earlier one lacks.
        only_then: labels that this one lacks.
    """

    earlier: str
    tolerance: float
    changes: tuple[Change, ...]
    apart: tuple[tuple[str, str], ...]
    only_now: tuple[str, ...]
    only_then: tuple[str, ...]

    @property
    def worse(self) -> tuple[Change, ...]:
        """What became worse beyond the tolerance."""
        return tuple(change for change in self.changes if change.verdict == "worse")

    @property
    def met(self) -> bool:
        """Whether something could be compared, and nothing is worse."""
        return bool(self.changes) and not self.worse

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "earlier": self.earlier,
            "tolerance": self.tolerance,
            "met": self.met,
            "worse": len(self.worse),
            "changes": [asdict(change) for change in self.changes],
            "not_comparable": [{"label": label, "reason": reason} for label, reason in self.apart],
            "only_now": list(self.only_now),
            "only_then": list(self.only_then),
        }


def read_earlier(text: str) -> dict[str, Row]:
    """The rows of an earlier benchmark: its directory, its `results.json` or its `results.jsonl`.

    Raises:
        UsageProblem: there is nothing, or it is no benchmark.
    """
    path = Path(text)
    if path.is_dir():
        path = path / "results.jsonl"
    if not path.is_file():
        raise UsageProblem(
            f"there are no results of a benchmark at `{text}`",
            where="--compare-to",
            hint="name the directory of an earlier benchmark, or its `results.json`",
            code="no-results",
        )
    if path.suffix == ".jsonl":
        rows = read_rows(path)
    else:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            found = document.get("result", document)["rows"]
            rows = {row.item.key: row for row in map(row_from_json, found)}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageProblem(
                f"`{text}` holds no results of a benchmark: {error}",
                where="--compare-to",
                hint="name the directory of an earlier benchmark, or its `results.json`",
                code="bad-results",
            ) from error
    if not rows:
        raise UsageProblem(f"`{text}` holds no row yet", where="--compare-to", code="no-results")
    return rows


def compare_rows(rows: Sequence[Row], earlier: dict[str, Row], *, name: str, tolerance: float) -> Comparison:
    """Compare what both have.

    Args:
        rows: of this benchmark.
        earlier: of the other, by item key.
        name: its file.
        tolerance: share by which a figure may grow before it is worse.
    """
    changes: list[Change] = []
    apart: list[tuple[str, str]] = []
    for row in rows:
        old = earlier.get(row.item.key)
        if old is None or old.facts is None:
            continue
        if row.facts is not None and (why := _apart(old.facts, row.facts)):
            apart.append((row.item.label, why))
            continue
        changes += _changes(row, old, tolerance)
    now, then = {row.item.key for row in rows}, set(earlier)
    return Comparison(
        name,
        tolerance,
        tuple(changes),
        tuple(apart),
        tuple(row.item.label for row in rows if row.item.key not in then),
        tuple(row.item.label for key, row in earlier.items() if key not in now),
    )


def _apart(old: Facts, new: Facts) -> str:
    differing = [
        f"{name.replace('_', ' ')} {getattr(old, name)} -> {getattr(new, name)}"
        for name in CONDITIONS
        if getattr(old, name) != getattr(new, name)
    ]
    return ", ".join(differing)


def _changes(row: Row, old: Row, tolerance: float) -> list[Change]:
    found: list[Change] = []
    for before in old.timings:
        after = row.timing(before.batch_size)
        if before.state != "measured" or before.median_ms is None or after is None:
            continue
        if after.state != "measured":
            reason = after.reason or after.state
            label = row.item.label
            found.append(Change(label, before.batch_size, "state", before.median_ms, None, None, "worse", reason))
            continue
        for figure in COMPARED:
            one, other = getattr(before, figure), getattr(after, figure)
            if not one or other is None or (figure == "peak_bytes" and before.peak_of != after.peak_of):
                continue
            ratio = other / one
            verdict: Literal["worse", "better", "same"] = (
                "worse" if ratio > 1 + tolerance else "better" if ratio < 1 / (1 + tolerance) else "same"
            )
            found.append(Change(row.item.label, before.batch_size, figure, one, other, ratio, verdict))
    return found


def _shown(figure: str, value: float) -> str:
    return f"{value:.3g} ms" if figure == "median_ms" else f"{value / 2**20:,.0f} MiB"
