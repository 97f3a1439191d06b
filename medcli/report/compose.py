"""The whole report, put together: what stands first, and the order of the sections."""

from __future__ import annotations

import math
from typing import Literal

import medcli
from medcli.evaluation.figures import Figure
from medcli.evaluation.render import interval_text, number_text
from medcli.report.checking import checklist_section
from medcli.report.document import Document, Notice, Section, Tile, named
from medcli.report.sections.calibration import calibration_section
from medcli.report.sections.card import RESEARCH_ONLY, card_section, limits_section
from medcli.report.sections.clinical import decision_section, operating_section, referral_section, subgroup_section
from medcli.report.sections.data import data_section
from medcli.report.sections.examples import examples_section
from medcli.report.sections.provenance import provenance_section
from medcli.report.sections.results import results_section
from medcli.report.sections.training import training_section
from medcli.report.sections.uncertainty import uncertainty_section
from medcli.report.subject import Judged, Subject
from medcli.report.tables import moment, spelled
from medcli.runs.status import now

__all__ = ["compose"]

_TILES = 4


def compose(subject: Subject, checklist: Literal["tripod-ai", "claim", "none"]) -> Document:
    """Everything there is to say about a subject; what cannot be said is named as absent."""
    sections: list[Section] = [
        results_section(subject),
        calibration_section(subject),
        referral_section(subject),
        operating_section(subject),
        decision_section(subject),
        uncertainty_section(subject),
        subgroup_section(subject),
        examples_section(subject),
        data_section(subject),
        training_section(subject),
        card_section(subject),
        limits_section(subject),
    ]
    if checklist != "none":
        sections.append(checklist_section(checklist, subject))
    sections.append(provenance_section(subject))
    return Document(
        title=_title(subject),
        subtitle=_subtitle(subject),
        made=f"{moment(now())} by medcli {medcli.__version__}",
        tiles=_tiles(subject.judged),
        notices=_notices(subject),
        sections=named(sections),
        front=_front(subject),
    )


def _title(subject: Subject) -> str:
    data = "" if subject.judged is None else subject.judged.evaluation.data_name
    if subject.facts is None:
        return f"Predictions {data or subject.source}"
    summary = subject.facts.summary
    name = _short(summary.architecture) or subject.facts.run.path.name
    if subject.facts.ensemble is not None:
        members = subject.facts.ensemble.ready or subject.facts.ensemble.members
        kinds = dict.fromkeys(_short(one.architecture) for one in members if one.architecture)
        name = f"ensemble of {len(members)}" + (f" ({', '.join(kinds)})" if 0 < len(kinds) < 4 else "")
    data = data or summary.data
    return f"{name} on {data}" if data else name


def _short(architecture: str) -> str:
    """Our own architectures go by their bare names."""
    return architecture.removeprefix("medcli/")


def _subtitle(subject: Subject) -> str:
    if subject.judged is None:
        return "no results yet"
    evaluation = subject.judged.evaluation
    target = evaluation.target
    what = {
        "binary": f"binary, positive class {target.class_names[target.positive] if target.class_names else ''}",
        "multiclass": f"{len(target.class_names)} classes",
        "ordinal": f"{len(target.class_names)} grades",
        "multilabel": f"{len(target.class_names)} labels",
        "multioutput": f"{len(target.outputs)} outputs",
    }[target.task]
    patients = "" if evaluation.patients is None else f" of {evaluation.patients:,} patients"
    split = f" of {evaluation.split}" if evaluation.split else ""
    return f"{what}; judged on {evaluation.n:,} cases{split}{patients}"


def _tiles(judged: Judged | None) -> tuple[Tile, ...]:
    if judged is None:
        return ()
    shown = [one for one in judged.evaluation.figures.values() if one.headline]
    wanted = [one for one in shown if not math.isnan(one.value)] or shown
    return tuple(_tile(one) for one in wanted[:_TILES])


def _tile(figure: Figure) -> Tile:
    interval = interval_text(figure)
    below = f"95 % interval {interval}" if interval != "-" else "no interval"
    return Tile(
        spelled(figure.name), number_text(figure.value), below, None if math.isnan(figure.value) else figure.value
    )


def _notices(subject: Subject) -> tuple[Notice, ...]:
    found = [Notice(RESEARCH_ONLY, "warning")]
    facts, judged = subject.facts, subject.judged
    if facts is not None and not facts.finished:
        go_on = ""
        if facts.run.checkpoint_file.is_file() and facts.summary.state != "running":
            go_on = f" `medcli {facts.summary.command} --resume {facts.summary.path}` continues it."
        found.append(Notice(f"The training of this run is {facts.summary.state}, not completed.{go_on}", "warning"))
    if facts is not None:
        found += [Notice(problem, "warning") for problem in facts.problems]
    if judged is not None:
        if judged.on_val:
            text = "Judged on the validation cases that chose the best epoch: better than new cases would be."
            found.append(Notice(text, "warning"))
        if not judged.predictions.calibrated:
            found.append(Notice("Scores are not calibrated by medcli: they rank cases, and are called scores here."))
    if subject.raw:
        found.append(Notice("The run's calibrator was left aside (`--raw`)."))
    return tuple(found)


def _front(subject: Subject) -> dict[str, object]:
    """What readers of Markdown model cards look for."""
    front: dict[str, object] = {"library_name": "medcli", "tags": ["medical-imaging", "research-only"]}
    judged = subject.judged
    if judged is None:
        return front
    evaluation = judged.evaluation
    metrics = [
        {"type": one.name, "value": one.value, "name": spelled(one.name)}
        for one in evaluation.figures.values()
        if one.headline and math.isfinite(one.value)
    ]
    name = _title(subject)
    result = {
        "task": {"type": "image-classification", "name": evaluation.target.task},
        "dataset": {"name": evaluation.data_name or "predictions", "type": "custom", "split": evaluation.split},
        "metrics": metrics,
    }
    return {**front, "model-index": [{"name": name, "results": [result]}]}
