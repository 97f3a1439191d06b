"""Decision curves as plain text: net benefits at a few thresholds, or where each label's model is worth acting on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medcli.evaluation.clinical_text import percent
from medcli.evaluation.decision import DecisionCurve
from medcli.evaluation.render import aligned

__all__ = ["decision_text"]

_FEW = (0.05, 0.1, 0.2, 0.3, 0.5)


def decision_text(curves: Sequence[DecisionCurve], calibrated: str, *, verbose: bool, width: int | None = None) -> str:
    """Net benefit in true positives per 1000 cases; a sentence where scores are no probabilities."""
    if not calibrated:
        return (
            "no decision curve: it weighs harm by probabilities, and these scores are not calibrated "
            "(`medcli calibrate` makes probabilities of them)"
        )
    # One question needs a name only where the target does not name it: from which grade on one acts.
    whose = f" of {curves[0].name}" if len(curves) == 1 and curves[0].name else ""
    title = (
        f"decision curve{whose}: net benefit per 1000 cases (true positives less false alarms times the threshold's "
        "odds)\n"
        f"scores calibrated: {calibrated}"
    )
    if len(curves) == 1:
        text = f"{title}\n{_curve(curves[0])}"
        return f"{text}\n{_useful(curves[0])}"
    rows = []
    for one in curves:
        low, high = one.useful
        at = one.at(one.prevalence)
        rows.append(
            [
                one.name,
                percent(one.prevalence),
                "nowhere" if math.isnan(low) else f"{_threshold(low)} to {_threshold(high)}",
                _threshold(float(one.thresholds[at])),
                _model(one, at),
                f"{1000 * max(0.0, float(one.treat_all[at])):.1f}",
            ]
        )
    columns = ["label", "prevalence", "better than treating all or none", "acting from", "model", "all or none"]
    text = f"{title}\n" + aligned(columns, rows, width=width)
    if verbose:
        text += "".join(f"\n\n{one.name}\n{_curve(one)}" for one in curves)
    return text


def _curve(one: DecisionCurve) -> str:
    rows = []
    for threshold in _FEW:
        at = one.at(threshold)
        rows.append(
            [
                _threshold(threshold),
                _model(one, at),
                f"{1000 * one.treat_all[at]:.1f}",
                "0",
            ]
        )
    return aligned(["acting from", "model", "everyone", "no one"], rows, left=0)


def _model(one: DecisionCurve, at: int) -> str:
    value, reach = 1000 * float(one.model[at]), 1960 * float(one.error[at])
    return f"{value:.1f}" + ("" if math.isnan(reach) else f" [{value - reach:.1f}, {value + reach:.1f}]")


def _useful(one: DecisionCurve) -> str:
    low, high = one.useful
    if math.isnan(low):
        return "nowhere better, beyond chance, than acting on everyone or on no one"
    return f"better, beyond chance, than acting on everyone or on no one from {_threshold(low)} to {_threshold(high)}"


def _threshold(value: float) -> str:
    return f"{100 * value:.3g} %"
