"""Referral tables, operating points and subgroups as plain text, in words a ward uses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medcli.evaluation.render import aligned

if TYPE_CHECKING:
    from medcli.evaluation.clinical import SelectiveSection
    from medcli.evaluation.operating import OperatingPoint
    from medcli.evaluation.proportions import Proportion
    from medcli.evaluation.referral import Referral, Selective
    from medcli.evaluation.subgroups import GroupRow, Subgroups

__all__ = ["deferral_text", "number", "operating_text", "percent", "share_text", "subgroup_text"]

_SHOWN = 0.2
"""The share referred in the table with a row per label."""

_MOST_LABELS = 20


def number(value: float, digits: int = 3) -> str:
    """A number, `-` where undefined, `inf` where it has no end."""
    return "-" if math.isnan(value) else "inf" if math.isinf(value) else f"{value:.{digits}f}"


def percent(value: float) -> str:
    """A share in per cent with one digit, two where it is small."""
    if math.isnan(value):
        return "-"
    return f"{100 * value:.2f} %" if 0 < value < 0.01 else f"{100 * value:.1f} %"


def share_text(share: Proportion | None) -> str:
    """A share with its interval, `-` without cases."""
    if share is None or math.isnan(share.value):
        return "-"
    return f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"


def operating_text(
    points: Sequence[OperatingPoint], chosen_on: str, same: bool, *, verbose: bool, width: int | None = None
) -> str:
    """A row per label and rule, then what the answers are worth at other prevalences."""
    title = "operating points (yes from the threshold on)"
    if same:
        title += "\nthresholds chosen on these very cases: what they achieve here is too good to be expected elsewhere"
    elif chosen_on:
        title += f"; thresholds chosen on {chosen_on} and frozen"
    named = any(point.name for point in points)
    what = "grades" if any(point.rule.cut for point in points) else "label"
    columns = [*([what] if named else []), "rule", "threshold", "sensitivity", "specificity", "PPV", "NPV"]
    columns += ["missed", "false alarms", "calls/100"]
    if verbose:
        columns += ["LR+", "LR-", "odds ratio"]
    rows = []
    for point in points:
        _, false, missed, _ = point.counts
        row = [*([point.name] if named else []), point.rule.aim, _threshold_text(point.threshold)]
        row += [share_text(point.sensitivity), share_text(point.specificity)]
        row += [number(point.ppv.value), number(point.npv.value)]
        unknown = math.isnan(point.threshold)
        row += ["-", "-", "-"] if unknown else [str(missed), str(false), number(point.alerts, 1)]
        if verbose:
            row += [number(ratio, 2) for ratio in (*point.likelihood_ratios, point.odds_ratio)]
        rows.append(row)
    parts = [f"{title}\n" + aligned(columns, rows, left=1 + named, width=width)]
    worth = [
        [
            *([point.name] if named else []),
            point.rule.aim,
            percent(one.prevalence),
            *(_span_text(*worth) for worth in (one.ppv, one.npv)),
        ]
        for point in points
        for one in point.at
    ]
    if worth:
        columns = [*([what] if named else []), "rule", "prevalence", "PPV", "NPV"]
        parts.append(
            "where so many of those examined have the finding (intervals from both shares' 97.5 % intervals)\n"
            + aligned(columns, worth, left=1 + named, width=width)
        )
    if any(math.isnan(point.threshold) for point in points):
        who = ", ".join(dict.fromkeys(f"`{point.name}`" for point in points if math.isnan(point.threshold)))
        parts.append(f"no threshold could be chosen for {who}: the cases to choose on lack positives or negatives")
    return "\n\n".join(parts)


def deferral_text(section: SelectiveSection, *, verbose: bool, width: int | None = None) -> str:
    """The referral table of one question, or one row per label or output."""
    parts = []
    if len(section.questions) == 1:
        parts.append(_referral_table(section.questions[0], section.decided, width))
    elif section.questions:
        parts.append(_label_table(section.questions, section.decided, width))
    if verbose:
        parts += [
            _selective_figures(one, width) for one in section.questions[: None if len(section.questions) == 1 else 0]
        ]
        if len(section.questions) > 1:
            parts.append(_selective_table(section.questions, width))
    if section.deferred:
        parts.append(_deferred_table(section, width))
    return "\n\n".join(parts)


def _referral_table(one: Selective, decided: str, width: int | None) -> str:
    asked = one.threshold is not None
    how = f" ({decided})" if decided else ""
    reader = "a reader who overlooks nothing" if asked else "a reader"
    title = f"if the least sure answers go to {reader}: {one.errors} of {one.n} answers are wrong{how}"
    columns = ["referred", "kept", "errors kept", "error rate of kept"]
    patients = one.table[0].kept_patients is not None
    if asked:
        columns += ["found or referred", "missed", "sensitivity of kept", "specificity of kept"]
        if patients:
            columns.append("missed patients")
    rows = []
    for row in one.table:
        cells = [percent(row.referred), str(row.risk.n), str(row.risk.count), share_text(row.risk)]
        if asked:
            cells += [share_text(row.found), str(row.missed), number(_value(row.sensitivity))]
            cells.append(number(_value(row.specificity)))
            if patients:
                cells.append(str(row.missed_patients))
        rows.append(cells)
    return f"{title}\n" + aligned(columns, rows, left=0, width=width) + f"\n{_error_line(one)}"


def _error_line(one: Selective) -> str:
    if math.isnan(one.auroc.value):
        return "no errors to find" if not one.errors else "every answer is wrong: no ranking helps"
    return (
        f"uncertainty finds errors: AUROC {_span_text(one.auroc.value, *one.auroc.interval)}, "
        f"AUPR {one.values['aupr_error']:.3f} (by chance {one.values['risk']:.3f}); AUGRC {one.values['augrc']:.4f}"
    )


def _label_table(questions: Sequence[Selective], decided: str, width: int | None) -> str:
    how = f"; {decided}" if decided else ""
    asked = any(one.threshold is not None for one in questions)
    whose, reader = ("label", "a reader who overlooks nothing") if asked else ("output", "a reader")
    title = f"if the least sure answers of each {whose} go to {reader} ({_SHOWN:.0%} of them{how})".replace("%", " %")
    columns = [whose, "errors", "AUROC of errors"]
    if asked:
        columns += ["found or referred", "missed"]
    rows = []
    for one in questions[:_MOST_LABELS]:
        before, after = one.table[0], _row_at(one, _SHOWN)
        area = _span_text(one.auroc.value, *one.auroc.interval)
        cells = [one.name, f"{one.errors} → {after.risk.count}", area]
        if asked:
            cells.append(f"{number(_value(before.found))} → {number(_value(after.found))}")
            cells.append(f"{before.missed} → {after.missed}")
        rows.append(cells)
    text = f"{title}\n" + aligned(columns, rows, width=width)
    if len(questions) > _MOST_LABELS:
        text += f"\n{len(questions) - _MOST_LABELS} more in the JSON document (`--json`)"
    low_sensitivity = [
        one for one in questions if one.table[0].sensitivity is not None and one.table[0].sensitivity.value < 0.5
    ]
    if asked and "0.5" in decided and len(low_sensitivity) > len(questions) / 2:
        text += (
            f"\n{len(low_sensitivity)} of {len(questions)} labels are missed more often than found at 0.5: "
            "`--operating-point sens=0.9` sets thresholds for use"
        )
    return text


def _row_at(one: Selective, share: float) -> Referral:
    return next(row for row in one.table if row.share == share)


def _value(share: Proportion | None) -> float:
    return math.nan if share is None else share.value


def _selective_figures(one: Selective, width: int | None) -> str:
    values = one.values
    lines = [
        f"AURC {values['aurc']:.5f} (mean over prefixes), {values['aurc_trapezoid']:.5f} (trapezoids); "
        f"E-AURC {values['e_aurc']:.5f}, E-AUGRC {values['e_augrc']:.5f}",
        f"Spearman of uncertainty with being wrong {number(values['spearman'])}, p {_p_text(values['spearman_p'])}",
    ]
    kept = [
        [percent(risk), percent(coverage), _threshold_text(threshold), share_text(bounds)]
        for risk, (coverage, threshold, bounds) in one.coverage_at.items()
    ]
    lines.append(
        aligned(["error rate at most", "keeps", "from confidence", "error rate of kept"], kept, left=0, width=width)
    )
    lines.append(
        aligned(
            ["keeping", "error rate of kept"],
            [[percent(coverage), share_text(bounds)] for coverage, bounds in one.risk_at.items()],
            left=0,
            width=width,
        )
    )
    return "\n".join(lines)


def _selective_table(questions: Sequence[Selective], width: int | None) -> str:
    rows = [
        [
            one.name,
            *(number(one.values[name], 5) for name in ("augrc", "aurc", "aurc_trapezoid")),
            *(number(one.values[name]) for name in ("aupr_error", "risk", "spearman")),
            _p_text(one.values["spearman_p"]),
            *(percent(one.coverage_at[risk][0]) for risk in (0.01, 0.05)),
        ]
        for one in questions
    ]
    columns = ["", "AUGRC", "AURC", "AURC (trapezoids)", "AUPR of errors", "by chance", "Spearman", "p"]
    return aligned([*columns, "kept at 1 % errors", "kept at 5 % errors"], rows, width=width)


def _deferred_table(section: SelectiveSection, width: int | None) -> str:
    title = "what goes to a reader by rule"
    if section.chosen_on:
        title += f"; confidence thresholds chosen on {section.chosen_on}"
    named = any(one.name for one in section.deferred)
    costs = any(one.rule.kind == "cost" for one in section.deferred)
    asked = any(one.result.sensitivity is not None for one in section.deferred)
    columns = [
        *(["label"] if named else []),
        "rule",
        "confidence below",
        "referred",
        "errors kept",
        "error rate of kept",
    ]
    columns += ["found or referred", "missed"] if asked else []
    columns += ["cost", "without"] if costs else []
    rows = []
    for one in section.deferred:
        result = one.result
        row = [*([one.name] if named else []), str(one.rule), _threshold_text(result.threshold)]
        row += [percent(result.referred), str(result.risk.count), share_text(result.risk)]
        row += [share_text(result.found), str(result.missed)] if asked else []
        if costs:
            errors = next(question.errors for question in section.questions if question.name == one.name)
            without = errors * one.rule.value if one.rule.kind == "cost" else math.nan
            row += [number(value, 0) for value in (one.cost(), without)]
        rows.append(row)
    return f"{title}\n" + aligned(columns, rows, left=1 + named, width=width)


def subgroup_text(one: Subgroups, *, verbose: bool, width: int | None = None) -> str:
    """A row per group; with many labels their mean area, and every label when verbose."""
    heading = f"by {one.column}" + (f" ({one.note})" if one.note else "")
    labels = list(dict.fromkeys(row.label for row in one.rows))
    if len(labels) == 1:
        rows = [_group_cells(row) for row in one.rows]
        text = f"{heading}\n" + aligned(["group", *_GROUP_COLUMNS], rows, width=width)
    else:
        shown = {row.group for row in one.rows if not row.withheld}
        rows = []
        for name, n, patients in one.groups:
            if name not in shown:
                rows.append([name, "withheld", "-", "-", "-"])
                continue
            withheld = sum(1 for row in one.rows if row.group == name and row.withheld)
            mean = "-"
            if name in one.means:
                area, _ = one.means[name]
                mean = _span_text(area.value, *area.interval)
            rows.append([name, str(n), "-" if patients is None else str(patients), mean, str(withheld)])
        common = next((count for _, count in one.means.values()), 0)
        columns = ["group", "cases", "patients", f"mean AUC of {common} labels", "labels withheld"]
        text = f"{heading}\n" + aligned(columns, rows, width=width)
        if verbose:
            every = [[row.label, *_group_cells(row)] for row in one.rows]
            text += "\n\n" + aligned(["label", "group", *_GROUP_COLUMNS], every, left=2, width=width)
    if one.gap is not None:
        worst, best, difference = one.gap
        text += (
            f"\nAUC lowest in `{worst}`, highest in `{best}`: gap {difference.value:.3f} "
            f"[{difference.low:.3f}, {difference.high:.3f}]"
        )
        if len(one.groups) > 2:
            text += " (picked as the extremes of several, so it is overstated)"
    few = sorted({row.withheld for row in one.rows if row.withheld})
    if few:
        text += f"\nwithheld: {', '.join(few)}"
    return text


_GROUP_COLUMNS = (
    "cases",
    "with finding",
    "AUC",
    "sensitivity",
    "specificity",
    "accuracy",
    "expected/observed",
    "slope",
)


def _group_cells(row: GroupRow) -> list[str]:
    if row.withheld:
        return [row.group, "withheld", *["-"] * (len(_GROUP_COLUMNS) - 1)]
    area = "-"
    if row.area is not None:
        area = _span_text(row.area.value, *row.area.interval)
    events = "-" if row.sensitivity is None else str(row.events)
    shares = [share_text(one) for one in (row.sensitivity, row.specificity, row.accuracy)]
    return [row.group, str(row.n), events, area, *shares, number(row.expected, 2), number(row.slope, 2)]


def _span_text(value: float, low: float, high: float) -> str:
    """A value with its interval, as far as they are defined."""
    return number(value) + ("" if math.isnan(low) else f" [{number(low)}, {number(high)}]")


def _threshold_text(value: float) -> str:
    return "-" if math.isnan(value) else "all" if math.isinf(value) else f"{value:.4g}"


def _p_text(value: float) -> str:
    return "-" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"
