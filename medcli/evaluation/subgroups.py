"""The same model on different people: figures per subgroup, at one threshold for all, with small cells withheld."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.evaluation.delong import Area, AreaDifference, area_under_roc, compare_areas, mean_area
from medcli.evaluation.proportions import Proportion, finite, proportion
from medcli.evaluation.questions import Question
from medcli.evaluation.weak_calibration import weak_calibration

__all__ = ["FEWEST_CASES", "FEWEST_EVENTS", "GroupRow", "Subgroups", "banded", "subgroups"]

Floats = npt.NDArray[np.float64]

FEWEST_CASES = 30
FEWEST_EVENTS = 10
"""Below either, figures say more about single people than about the group, and are withheld."""

MISSING = "(not known)"
_CLIP = 1e-12
_MOST_GROUPS = 12
_BANDS = 4


def banded(values: Sequence[str]) -> tuple[npt.NDArray[np.str_], str]:
    """A column as groups: as it stands, or numbers of many values in four bands of about equal count.

    Returns:
        Group names [n], and a sentence where bands were made (else empty).
    """
    unknown = {"", "nan", "na", "n/a", "none", "null"}
    cells = np.array([MISSING if value.strip().lower() in unknown else value.strip() for value in values], np.str_)
    known = cells != MISSING
    if len(np.unique(cells[known])) <= _MOST_GROUPS:
        return cells, ""
    try:
        numbers = cells[known].astype(np.float64)
    except ValueError:
        return cells, ""
    inner = np.quantile(numbers, np.arange(1, _BANDS) / _BANDS, method="inverted_cdf")
    edges = np.unique(inner)
    band = np.searchsorted(edges, numbers, side="left")
    names = np.array(
        [_band_name(numbers[band == index]) if (band == index).any() else "" for index in range(len(edges) + 1)]
    )
    result = cells.astype(object)
    result[known] = names[band]
    return result.astype(np.str_), f"{len(np.unique(band))} bands of about equal count"


def _band_name(numbers: Floats) -> str:
    return f"{numbers.min():g} to {numbers.max():g}"


@dataclass(frozen=True)
class GroupRow:
    """One question in one group.

    Args:
        group: the value of the column.
        label: the label or output, or empty.
        n: cases with a known answer.
        events: positives (for a question of several classes: errors).
        withheld: why there are no figures, or empty.
        area: area under the ROC curve; None where there is none.
        accuracy: share of right answers.
        sensitivity: at the threshold of all; None unless it is a yes-or-no question.
        specificity: as sensitivity.
        expected: sum of the scores over the events: above 1 the scores are too high here; NaN where it has no meaning.
        intercept: calibration in the large; NaN where undefined.
        slope: calibration slope.
    """

    group: str
    label: str
    n: int
    events: int
    withheld: str = ""
    area: Area | None = None
    accuracy: Proportion | None = None
    sensitivity: Proportion | None = None
    specificity: Proportion | None = None
    expected: float = math.nan
    intercept: float = math.nan
    slope: float = math.nan

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None. A withheld row tells neither counts nor figures."""
        if self.withheld:
            return {"group": self.group, "label": self.label, "withheld": self.withheld}
        shares = {name: getattr(self, name) for name in ("accuracy", "sensitivity", "specificity")}
        return {
            "group": self.group,
            "label": self.label,
            "n": self.n,
            "events": self.events,
            "withheld": "",
            "auc": None if self.area is None else self.area.to_dict(),
            **{name: None if one is None else one.to_dict() for name, one in shares.items()},
            "expected_over_observed": finite(self.expected),
            "intercept": finite(self.intercept),
            "slope": finite(self.slope),
        }


@dataclass(frozen=True)
class Subgroups:
    """All groups of one column.

    Args:
        column: its name.
        note: how it was cut into bands, or empty.
        groups: (name, cases, patients or None) of every group, in the order of the rows.
        rows: one per question and group.
        means: group -> mean area over the labels that every shown group has (multilabel), and how many those are.
        gaps: (worst group, best group, difference of their areas), for the mean or the single question; None where
            fewer than two groups can be judged.
    """

    column: str
    note: str
    groups: tuple[tuple[str, int, int | None], ...]
    rows: tuple[GroupRow, ...]
    means: dict[str, tuple[Area, int]]
    gap: tuple[str, str, AreaDifference] | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        shown = {row.group for row in self.rows if not row.withheld}
        gap = None
        if self.gap is not None:
            worst, best, difference = self.gap
            gap = {"worst": worst, "best": best, **difference.to_dict()}
        return {
            "column": self.column,
            "note": self.note,
            "groups": [
                {"group": name, "n": n, "patients": patients} if name in shown else {"group": name, "n": None}
                for name, n, patients in self.groups
            ],
            "rows": [row.to_dict() for row in self.rows],
            "mean_auc": {name: {**area.to_dict(), "labels": count} for name, (area, count) in self.means.items()},
            "auc_gap": gap,
        }


def subgroups(column: str, values: Sequence[str], questions: Sequence[Question]) -> Subgroups:
    """Judge every question in every group of a column.

    Args:
        column: its name.
        values: its cells [cases of the predictions].
        questions: what was asked, with the thresholds of all.
    """
    names, note = banded(values)
    found = sorted(np.unique(names), key=lambda name: (name == MISSING, _sort_key(str(name))))
    owners = np.full(len(names), -1, dtype=np.int64)
    for question in questions:
        owners[question.rows] = question.owners
    known = any(question.known for question in questions)
    asked = owners >= 0
    groups = tuple(
        (
            str(name),
            int((asked & (names == name)).sum()),
            len(np.unique(owners[asked & (names == name)])) if known else None,
        )
        for name in found
    )
    count = int(owners.max()) + 1 if len(owners) else 0
    rows = tuple(
        _row(str(name), question, names[question.rows] == name, count) for question in questions for name in found
    )
    means = _means(rows, len(questions))
    return Subgroups(column, note, groups, rows, means, _gap({name: area for name, (area, _) in means.items()}))


def _row(name: str, question: Question, inside: npt.NDArray[np.bool_], count: int) -> GroupRow:
    wrong, owners = question.wrong[inside], question.owners[inside]
    clusters = owners if question.known else None
    n = len(wrong)
    if question.truth is None or question.scores is None:
        few = _withheld(n, None)
        if few:
            return GroupRow(name, question.name, n, 0, few)
        return GroupRow(name, question.name, n, int(wrong.sum()), accuracy=proportion(~wrong, clusters))
    truth, scores = question.truth[inside], question.scores[inside]
    events = int(truth.sum())
    few = _withheld(n, events)
    if few:
        return GroupRow(name, question.name, n, events, few)

    def among(rows: npt.NDArray[np.bool_]) -> Proportion:
        return proportion(~wrong[rows], None if clusters is None else clusters[rows])

    inner = np.clip(scores, _CLIP, 1 - _CLIP)
    intercept, slope = weak_calibration(np.log(inner) - np.log1p(-inner), truth, owners)
    return GroupRow(
        name,
        question.name,
        n,
        events,
        "",
        area_under_roc(scores, truth, owners, count),
        proportion(~wrong, clusters),
        among(truth),
        among(~truth),
        float(scores.sum() / events),
        intercept.value,
        slope.value,
    )


def _withheld(n: int, events: int | None) -> str:
    if n < FEWEST_CASES:
        return f"fewer than {FEWEST_CASES} cases"
    if events is not None and min(events, n - events) < FEWEST_EVENTS:
        return f"fewer than {FEWEST_EVENTS} {'with' if events < n - events else 'without'} the finding"
    return ""


def _means(rows: Sequence[GroupRow], asked: int) -> dict[str, tuple[Area, int]]:
    """The mean area of each group over the labels that all groups with any area have."""
    areas: dict[str, dict[str, Area]] = {}
    for row in rows:
        if row.area is not None:
            areas.setdefault(row.group, {})[row.label] = row.area
    if not areas:
        return {}
    # A rare group must not leave the others without a mean: those with under half of the labels do not count here.
    full = {group: of for group, of in areas.items() if 2 * len(of) >= asked}
    common = set.intersection(*(set(of) for of in full.values())) if full else set()
    if not common:
        return {}
    return {group: (mean_area([of[label] for label in sorted(common)]), len(common)) for group, of in full.items()}


def _gap(areas: dict[str, Area]) -> tuple[str, str, AreaDifference] | None:
    judged = {name: area for name, area in areas.items() if name != MISSING and area.defined}
    if len(judged) < 2:
        return None
    worst = min(judged, key=lambda name: judged[name].value)
    best = max(judged, key=lambda name: judged[name].value)
    return worst, best, compare_areas(judged[worst], judged[best])


def _sort_key(name: str) -> tuple[int, float, str]:
    try:
        return 0, float(name.partition(" to ")[0]), name
    except ValueError:
        return 1, 0.0, name
