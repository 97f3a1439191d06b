"""Decision curves as plain text: net benefits at a few thresholds, or where each label's model is worth acting on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medcli.evaluation.clinical_text import percent
from medcli.evaluation.decision import DecisionCurve
from medcli.evaluation.render import aligned

__all__ = ["decision_text"]

_FEW = (0.05, 0.1, 0.2, 0.3, 0.5)


def decision_text(curves: Sequence[DecisionCurve], calibrated: str, *, verbose: bool) -> str:
    """Net benefit in true positives per 1000 cases; a sentence where scores are no probabilities."""
    if not calibrated:
        return (
            "no decision curve: it weighs harm by probabilities, and these scores are not calibrated "
            "(`medcli calibrate` makes probabilities of them)"
        )
    title = (
        f"decision curve, scores calibrated by {calibrated}: net benefit per 1000 cases "
        "(true positives less false alarms times the odds of the threshold)"
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
                "nowhere" if math.isnan(low) else f"{low:.0%} to {high:.0%}",
                f"{float(one.thresholds[at]):.0%}",
                f"{1000 * one.model[at]:.1f} [{_end(one, at, -1)}, {_end(one, at, 1)}]",
                f"{1000 * max(0.0, float(one.treat_all[at])):.1f}",
            ]
        )
    columns = ["label", "prevalence", "better than treating all or none", "acting from", "model", "all or none"]
    text = f"{title}\n" + aligned(columns, rows)
    if verbose:
        text += "".join(f"\n\n{one.name}\n{_curve(one)}" for one in curves)
    return text


def _curve(one: DecisionCurve) -> str:
    rows = []
    for threshold in _FEW:
        at = one.at(threshold)
        rows.append(
            [
                f"{threshold:.0%}",
                f"{1000 * one.model[at]:.1f} [{_end(one, at, -1)}, {_end(one, at, 1)}]",
                f"{1000 * one.treat_all[at]:.1f}",
                "0",
            ]
        )
    return aligned(["acting from", "model", "everyone", "no one"], rows, left=0)


def _end(one: DecisionCurve, at: int, sign: int) -> str:
    return f"{1000 * (one.model[at] + sign * 1.96 * one.error[at]):.1f}"


def _useful(one: DecisionCurve) -> str:
    low, high = one.useful
    if math.isnan(low):
        return "nowhere better, beyond chance, than acting on everyone or on no one"
    return f"better, beyond chance, than acting on everyone or on no one from {low:.0%} to {high:.0%}"
