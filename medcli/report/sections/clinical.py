"""What a ward asks: what to refer, at which threshold to act, whether acting helps, for whom it works less well."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence

from medcli.data.target import Target
from medcli.evaluation.clinical import DecisionSection, OperatingSection, SelectiveSection, SubgroupSection
from medcli.evaluation.decision import CONVENTION, DecisionCurve
from medcli.evaluation.figures import Figure
from medcli.evaluation.operating import OperatingPoint
from medcli.evaluation.questions import yes_or_no
from medcli.evaluation.referral import CONVENTIONS, Referral, Selective
from medcli.evaluation.render import interval_text
from medcli.evaluation.subgroups import GroupRow, Subgroups
from medcli.report.document import (
    Absent,
    Block,
    Bullets,
    Cell,
    Gallery,
    Heading,
    Notice,
    Picture,
    Section,
    Table,
    Text,
    cells,
)
from medcli.report.pictures import OVERLAID, decision_picture, risk_picture
from medcli.report.subject import Subject
from medcli.report.tables import count, number_cell, percent_cell, share_cell, spelled, value_cell

__all__ = ["decision_section", "operating_section", "referral_section", "subgroup_section"]

_AREAS = ("augrc", "aurc")
_SHARE = 0.2
_MOST_PICTURES = 30
_THRESHOLDS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5)


def referral_section(subject: Subject) -> Section:
    """Selective prediction: risk–coverage curves and what leaving the least sure cases to a reader changes."""
    found = None if subject.judged is None else subject.judged.section("selective")
    if not isinstance(found, SelectiveSection):
        return Section("referral", "Referral", (Absent("the referral table", "there are no predictions yet"),))
    questions = found.questions
    asked = any(one.threshold is not None for one in questions)
    how = f" Answers: {found.decided}." if found.decided else ""
    reader = "a reader who overlooks nothing" if asked else "a reader"
    intro = f"If the answers the model is least sure of go to {reader}, fewer errors are left.{how}"
    blocks: list[Block] = [Text(intro)]
    if len(questions) == 1:
        # The section's answers may follow another threshold than those of the evaluation's figures.
        same = questions[0].threshold in (None, 0.5)
        figures = subject.judged.evaluation.figures if subject.judged is not None and same else {}
        blocks += [_referral_table(questions[0]), *_selective_figures(questions[0], figures)]
    else:
        blocks += [_label_table(questions, asked), _selective_table(questions)]
    blocks.append(Gallery(tuple(_risk_pictures(questions))))
    if found.deferred:
        blocks.append(_deferred(found))
    return Section("referral", "Referral", tuple(blocks))


def _risk_pictures(questions: Sequence[Selective]) -> list[Picture]:
    if len(questions) <= OVERLAID:
        return [risk_picture(questions)]
    return [risk_picture([one], one.name) for one in questions[:_MOST_PICTURES]]


def _referral_table(one: Selective) -> Table:
    asked = one.threshold is not None
    patients = one.table[0].kept_patients is not None
    columns = ["referred", "kept", "errors kept", "error rate of those kept"]
    if asked:
        columns += ["found or referred", "missed", "sensitivity of those kept", "specificity of those kept"]
        columns += ["patients missed"] if patients else []
    rows = []
    for row in one.table:
        line = [percent_cell(row.referred), count(row.risk.n), count(row.risk.count), share_cell(row.risk)]
        if asked:
            line += [share_cell(row.found), count(row.missed), share_cell(row.sensitivity), share_cell(row.specificity)]
            line += [count(row.missed_patients or 0)] if patients else []
        rows.append(tuple(line))
    caption = f"{one.errors:,} of {one.n:,} answers are wrong; what is left of them when the least sure go to a reader"
    return Table(caption, tuple(columns), tuple(rows), (), f"Bounds: {CONVENTIONS['bounds']}.")


def _selective_figures(one: Selective, figures: Mapping[str, Figure]) -> list[Block]:
    if math.isnan(one.auroc.value):
        return [Text("No errors to find." if not one.errors else "Every answer is wrong: no ranking helps.")]
    low, high = one.auroc.interval
    rows = [
        *((spelled(name), one.values[name], _resampled(figures.get(name)), CONVENTIONS[name]) for name in _AREAS),
        ("AURC, trapezoids", one.values["aurc_trapezoid"], "", CONVENTIONS["aurc_trapezoid"]),
        ("AUROC of errors", one.auroc.value, _span(low, high), CONVENTIONS["auroc_error"]),
        ("AUPR of errors", one.values["aupr_error"], f"by chance {one.values['risk']:.4f}", CONVENTIONS["aupr_error"]),
        ("Spearman", one.values["spearman"], _p(one.values["spearman_p"]), CONVENTIONS["spearman"]),
    ]
    kept = [
        cells(percent_cell(risk), percent_cell(coverage), number_cell(threshold), share_cell(bounds))
        for risk, (coverage, threshold, bounds) in one.coverage_at.items()
    ]
    return [
        Table(
            "How well uncertainty finds errors",
            ("figure", "value", "95 % interval", "what it is"),
            tuple(cells(name, value_cell(value), more or "-", remark) for name, value, more, remark in rows),
            (0, 2, 3),
        ),
        Table(
            "How many cases can be kept at an error rate",
            ("error rate at most", "kept", "from confidence", "error rate of those kept"),
            tuple(kept),
            (),
        ),
    ]


def _label_table(questions: Sequence[Selective], asked: bool) -> Table:
    whose = "label" if asked else "output"
    columns = [whose, "cases", "errors", "errors left", "AUROC of errors"]
    columns += ["found", "found or referred", "missed", "missed then"] if asked else []
    rows = []
    for one in questions:
        before, after = one.table[0], _at(one)
        line: list[Cell | str] = [one.name, count(one.n), count(one.errors), count(after.risk.count)]
        line.append(Cell(_area_text(one), one.auroc.value if one.auroc.value == one.auroc.value else None))
        if asked:
            line += [share_cell(before.found), share_cell(after.found), count(before.missed), count(after.missed)]
        rows.append(cells(*line))
    caption = f"If the {100 * _SHARE:.0f} % least sure answers of each {whose} go to a reader"
    return Table(caption, tuple(columns), tuple(rows), (0,), f"Bounds: {CONVENTIONS['bounds']}.")


def _selective_table(questions: Sequence[Selective]) -> Table:
    rows = tuple(
        cells(
            one.name,
            *(number_cell(one.values[name], 5) for name in ("augrc", "aurc")),
            *(value_cell(one.values[name]) for name in ("aupr_error", "risk", "spearman")),
            _p(one.values["spearman_p"]),
            *(percent_cell(one.coverage_at[risk][0]) for risk in (0.01, 0.05)),
        )
        for one in questions
    )
    columns = ("", "AUGRC", "AURC", "AUPR of errors", "by chance", "Spearman", "p", "kept at 1 % errors")
    note = f"AUGRC: {CONVENTIONS['augrc']}. AURC: {CONVENTIONS['aurc']}. Kept: {CONVENTIONS['coverage_at_risk']}."
    return Table("How well uncertainty finds errors", (*columns, "kept at 5 % errors"), rows, (0,), note)


def _resampled(figure: Figure | None) -> str:
    return "" if figure is None or math.isnan(figure.low) else interval_text(figure)


def _at(one: Selective) -> Referral:
    return next(row for row in one.table if row.share == _SHARE)


def _area_text(one: Selective) -> str:
    low, high = one.auroc.interval
    value = one.auroc.value
    return "-" if math.isnan(value) else f"{value:.3f}" + ("" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]")


def _deferred(section: SelectiveSection) -> Table:
    rows = []
    for one in section.deferred:
        result = one.result
        missed = count(result.missed) if result.found is not None else Cell("-")
        rows.append(
            cells(
                one.name or "-",
                str(one.rule),
                number_cell(result.threshold),
                percent_cell(result.referred),
                count(result.risk.count),
                share_cell(result.risk),
                share_cell(result.found),
                missed,
                number_cell(one.cost(), 0),
            )
        )
    columns = ("question", "rule", "confidence below", "referred", "errors kept", "error rate of those kept")
    note = f"Confidence thresholds chosen on {section.chosen_on}." if section.chosen_on else ""
    more = ("found or referred", "missed", "cost")
    return Table("What goes to a reader by rule", (*columns, *more), tuple(rows), (0, 1), note)


def operating_section(subject: Subject) -> Section:
    """Frozen thresholds: those asked for, else the customary ones where validation cases can choose them."""
    identifier, title = "operating-points", "Operating points"
    judged = subject.judged
    if judged is None:
        return Section(identifier, title, (Absent("operating points", "there are no predictions yet"),))
    target = judged.predictions.target
    found = judged.section("operating_points") or judged.customary
    if found is None and target.task == "ordinal":
        why = "a threshold belongs to a yes-or-no answer, and nobody said from which grade on it is yes"
        return Section(identifier, title, (Absent("operating points", why, _cut_command(subject, target)),))
    if found is None and not yes_or_no(target):
        why = f"a threshold belongs to a yes-or-no answer, and this target is {target.task}"
        return Section(identifier, title, (Absent("operating points", why),))
    if not isinstance(found, OperatingSection):
        command = f"{subject.again} --operating-point sens=0.9 --choose-on VAL.npz"
        why = "no other cases are here on which a threshold could be chosen"
        return Section(identifier, title, (Absent("operating points", why, command),))
    blocks: list[Block] = []
    if found.same:
        text = "Thresholds were chosen on these very cases: what they achieve here is too good to expect elsewhere."
        blocks.append(Notice(text, "warning"))
    elif found.chosen_on:
        text = f"Thresholds were chosen on {found.chosen_on} and frozen; a score of at least the threshold means yes."
        blocks.append(Text(text))
    if found is judged.customary:
        blocks.append(Text("Nobody asked for particular ones; these are customary (`--operating-point` chooses)."))
    blocks += _points(found.points)
    return Section(identifier, title, tuple(blocks))


def _cut_command(subject: Subject, target: Target) -> str:
    """The command that parts grades in the middle; where to part them is for the reader to say."""
    rule = f"sens=0.9@{target.class_names[len(target.class_names) // 2]}"
    choose = "" if subject.facts is not None else " --choose-on VAL.npz"
    return f"{subject.again} --operating-point {shlex.quote(rule)}{choose}"


def _points(points: Sequence[OperatingPoint]) -> list[Block]:
    named = any(point.name for point in points)
    rows, worth = [], []
    for point in points:
        head: list[Cell | str] = [*([point.name] if named else []), point.rule.aim]
        if math.isnan(point.threshold):
            rows.append(cells(*head, *["-"] * 10))
            continue
        _, false, missed, _ = point.counts
        plus, minus = point.likelihood_ratios
        shares = (point.sensitivity, point.specificity, point.ppv, point.npv)
        tail = [count(missed), count(false), number_cell(point.alerts, 1), number_cell(plus, 2), number_cell(minus, 2)]
        rows.append(cells(*head, Cell(f"{point.threshold:.4g}", point.threshold), *map(share_cell, shares), *tail))
        for one in point.at:
            spans = [Cell(f"{value:.3f} {_span(low, high)}", value) for value, low, high in (one.ppv, one.npv)]
            worth.append(cells(*head, percent_cell(one.prevalence), *spans))
    what = "grades" if any(point.rule.cut for point in points) else "label"
    first = [*([what] if named else []), "rule"]
    columns = (*first, "threshold", "sensitivity", "specificity", "PPV", "NPV", "missed", "false alarms")
    more = ("calls per 100", "LR+", "LR-")
    texts = (0, 1) if named else (0,)
    blocks: list[Block] = [Table("What frozen thresholds achieve", (*columns, *more), tuple(rows), texts)]
    if worth:
        note = "Intervals from the 97.5 % intervals of both shares."
        caption = "What answers are worth where so many of those examined have the finding"
        blocks.append(Table(caption, (*first, "prevalence", "PPV", "NPV"), tuple(worth), texts, note))
    lacking = list(dict.fromkeys(f"`{point.name}`" for point in points if math.isnan(point.threshold)))
    if lacking:
        who = ", ".join(lacking)
        blocks.append(Notice(f"No threshold could be chosen for {who}: the cases to choose on lack one kind."))
    return blocks


def decision_section(subject: Subject) -> Section:
    """Decision curves, where scores are probabilities."""
    identifier, title = "decision", "Decision curves"
    judged = subject.judged
    if judged is None:
        return Section(identifier, title, (Absent("decision curves", "there are no predictions yet"),))
    target = judged.predictions.target
    found = judged.decision or judged.section("decision_curves")
    if found is None and target.task == "ordinal":
        why = "acting or not is a yes-or-no question, and nobody said from which grade on it is yes"
        return Section(identifier, title, (Absent("decision curves", why, _cut_command(subject, target)),))
    if found is None and not yes_or_no(target):
        why = f"acting or not is a yes-or-no question, and this target is {target.task}"
        return Section(identifier, title, (Absent("decision curves", why),))
    if not isinstance(found, DecisionSection) or not found.curves:
        why = "a net benefit weighs harm by probabilities, and these scores are not calibrated"
        if subject.facts is not None:
            command = f"medcli calibrate {subject.source}"
        else:
            command = f"{subject.again} --method temperature"
        return Section(identifier, title, (Absent("decision curves", why, command),))
    several = len(found.curves) > 1
    pictures = [decision_picture(one, one.name) for one in found.curves[:_MOST_PICTURES]]
    fitted = ", cross-fitted" if judged.decision is not None and "cross-fitted" not in found.calibrated else ""
    calibrated = found.calibrated + fitted
    blocks: list[Block] = [
        Text(f"Does acting on the model do more good than acting on everyone or on no one? Scores: {calibrated}."),
        Gallery(tuple(pictures)),
        _benefits(found.curves) if several else _benefit(found.curves[0]),
    ]
    return Section(identifier, title, tuple(blocks))


def _benefit(one: DecisionCurve) -> Table:
    rows = []
    for threshold in _THRESHOLDS:
        at = one.at(threshold)
        row = (percent_cell(threshold), _gain(one, at), number_cell(1000 * float(one.treat_all[at]), 1), Cell("0", 0.0))
        rows.append(row)
    columns = ("acting from", "model", "everyone", "no one")
    return Table("Net benefit per 1000 cases", columns, tuple(rows), (), CONVENTION)


def _benefits(curves: Sequence[DecisionCurve]) -> Table:
    rows = []
    for one in curves:
        at = one.at(one.prevalence)
        low, high = one.useful
        where = "nowhere" if math.isnan(low) else f"{100 * low:.3g} % to {100 * high:.3g} %"
        simple = number_cell(1000 * max(0.0, float(one.treat_all[at])), 1)
        acting = Cell(f"{100 * float(one.thresholds[at]):.3g} %", float(one.thresholds[at]))
        rows.append(cells(one.name, percent_cell(one.prevalence), where, acting, _gain(one, at), simple))
    columns = ("label", "prevalence", "better than all or none", "acting from", "model", "all or none")
    caption = "Net benefit per 1000 cases where one acts from the label's own prevalence on"
    return Table(caption, columns, tuple(rows), (0, 2), CONVENTION)


def _gain(one: DecisionCurve, at: int) -> Cell:
    value, reach = 1000 * float(one.model[at]), 1960 * float(one.error[at])
    interval = "" if math.isnan(reach) else f" [{value - reach:.1f}, {value + reach:.1f}]"
    return Cell(f"{value:.1f}{interval}", value)


def subgroup_section(subject: Subject) -> Section:
    """Figures per group of people, on request."""
    found = None if subject.judged is None else subject.judged.section("subgroups")
    if not isinstance(found, SubgroupSection):
        table = "" if subject.facts is None else " --by-table TABLE.csv"
        command = f"{subject.again} --by COLUMN{table}"
        why = "no column with groups of people was named; whether it works less well for some is not shown"
        absent = Absent("subgroups", why, command if subject.judged is not None else "")
        return Section("subgroups", "Subgroups", (absent,))
    blocks: list[Block] = []
    for one in found.columns:
        blocks += _column(one)
    return Section("subgroups", "Subgroups", tuple(blocks))


def _column(one: Subgroups) -> list[Block]:
    labels = list(dict.fromkeys(row.label for row in one.rows))
    several = len(labels) > 1
    blocks: list[Block] = [Heading(f"By {one.column}" + (f" ({one.note})" if one.note else ""))]
    if one.means:
        rows = []
        for name, (area, _) in one.means.items():
            rows.append(cells(name, Cell(f"{area.value:.3f} {_span(*area.interval)}", area.value)))
        labelled = next((number for _, number in one.means.values()), 0)
        what = f"Mean AUC of the {labelled} labels that every group has" if several else "AUC by group"
        blocks.append(Table(what, ("group", "AUC"), tuple(rows)))
    columns = (*(["label"] if several else []), "group", "cases", "with finding", "AUC", "sensitivity", "specificity")
    more = ("accuracy", "expected / observed", "slope")
    rows = [cells(*([row.label] if several else []), *_group_cells(row)) for row in one.rows]
    caption = f"Figures by {one.column}, at one threshold for all"
    blocks.append(Table(caption, (*columns, *more), tuple(rows), (0, 1) if several else (0,)))
    remarks = []
    if one.gap is not None:
        worst, best, difference = one.gap
        span = _span(difference.low, difference.high)
        text = f"AUC lowest in {worst}, highest in {best}: gap {difference.value:.3f} {span}"
        extremes = " (picked as the extremes of several, so it is overstated)" if len(one.groups) > 2 else ""
        remarks.append(text + extremes)
    few = sorted({row.withheld for row in one.rows if row.withheld})
    remarks += [f"withheld, because figures would say more about single people: {', '.join(few)}"] if few else []
    return [*blocks, *([Bullets(tuple(remarks))] if remarks else [])]


def _group_cells(row: GroupRow) -> list[Cell | str]:
    if row.withheld:
        return [row.group, "withheld", *["-"] * 7]
    area = Cell("-")
    if row.area is not None:
        area = Cell(f"{row.area.value:.3f} {_span(*row.area.interval)}", row.area.value)
    events = Cell("-") if row.sensitivity is None else count(row.events)
    shares = map(share_cell, (row.sensitivity, row.specificity, row.accuracy))
    return [row.group, count(row.n), events, area, *shares, number_cell(row.expected, 2), number_cell(row.slope, 2)]


def _span(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"[{low:.3f}, {high:.3f}]"


def _p(value: float) -> str:
    return "-" if math.isnan(value) else "p < 0.001" if value < 0.001 else f"p {value:.3f}"
