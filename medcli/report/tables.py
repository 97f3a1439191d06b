"""Figures, shares and counts as cells: one spelling of a number in the whole report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

from medcli.evaluation.clinical_text import number, percent
from medcli.evaluation.figures import Figure
from medcli.evaluation.proportions import Proportion
from medcli.evaluation.render import interval_text, number_text
from medcli.report.document import Cell

__all__ = [
    "count",
    "duration",
    "figure_cells",
    "headings",
    "moment",
    "number_cell",
    "percent_cell",
    "share_cell",
    "spelled",
    "value_cell",
]

_NAMES: Mapping[str, str] = {
    "auc": "AUC",
    "auprc": "average precision",
    "ece": "ECE",
    "ece_positive": "ECE of the positive class",
    "ece_width": "ECE, equal width",
    "ece_mass": "ECE, equal count",
    "ece_classwise": "class-wise ECE",
    "ece_average": "average calibration error",
    "ece_debiased": "debiased calibration error",
    "ece_smooth": "smooth ECE",
    "ece_by_chance": "ECE by chance",
    "mce": "MCE",
    "mce_unfiltered": "MCE, all bins",
    "nll": "NLL",
    "brier": "Brier score",
    "brier_half": "Brier score, half form",
    "augrc": "AUGRC",
    "aurc": "AURC",
    "auroc_error": "AUROC of errors",
    "aupr_error": "AUPR of errors",
    "qwk": "quadratic weighted kappa",
    "qwk_expected": "quadratic weighted kappa of the expected grade",
    "kappa": "Cohen's kappa",
    "mae": "mean absolute error (grades)",
    "mae_expected": "mean absolute error of the expected grade",
    "off_by_2": "two or more grades off",
    "f1": "F1",
    "f1_macro": "F1, macro",
    "f1_weighted": "F1, weighted",
    "f1_positive": "F1 of the positive class",
    "all_negative": "accuracy of never saying yes",
    "observed_expected": "observed / expected",
}


def spelled(name: str) -> str:
    """A figure's name for people: `AUC`, `balanced accuracy`."""
    base = name.removesuffix("_present")
    text = _NAMES.get(base, base.replace("_", " "))
    return f"{text}, of those that can be judged" if base != name else text


def value_cell(value: float, digits: int = 4) -> Cell:
    """A number with four digits, in full for programs; `-` where undefined."""
    return Cell(number_text(value) if digits == 4 else number(value, digits), _known(value))


def number_cell(value: float, digits: int = 3) -> Cell:
    """A number with so many digits, `inf` where it has no end."""
    return Cell(number(value, digits), _known(value))


def percent_cell(value: float) -> Cell:
    """A share in per cent."""
    return Cell(percent(value), _known(value))


def figure_cells(figure: Figure | None) -> tuple[Cell, Cell]:
    """(value, interval)."""
    if figure is None:
        return Cell("-"), Cell("-")
    return value_cell(figure.value), Cell(interval_text(figure))


def share_cell(share: Proportion | None) -> Cell:
    """A share with its interval."""
    if share is None or math.isnan(share.value):
        return Cell("-")
    return Cell(f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]", share.value)


def count(value: int) -> Cell:
    """A whole number with thousands apart."""
    return Cell(f"{value:,}", float(value))


def headings(names: Sequence[str]) -> tuple[str, ...]:
    """Figures as column headings."""
    return tuple(spelled(name) for name in names)


def duration(seconds: float) -> str:
    """A time span in words: `1 h 12 min`, `75 s`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def moment(text: str) -> str:
    """A recorded UTC time to the minute; as it stands where it is no time."""
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return text


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
