"""Everything of a run that goes into a bundle, read once and checked before anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medcli.bundles.manifest import Threshold
from medcli.errors import MedcliError, UsageProblem
from medcli.evaluation.calibrator import Calibrator, apply_calibrator
from medcli.evaluation.operating import Rule, choose_threshold
from medcli.evaluation.predictions import load_predictions
from medcli.evaluation.questions import questions_of, yes_or_no
from medcli.export.graph import MeanNetwork, Network
from medcli.models.base import content_hash
from medcli.models.build import LoadedModel
from medcli.models.provenance import made_by
from medcli.prediction.finish import read_evaluations
from medcli.prediction.members import Jury, load_jury
from medcli.prediction.run_calibration import run_calibrator
from medcli.registry.cards import read_card
from medcli.registry.discovery import ARCHITECTURES, discover, find
from medcli.runs.directory import RunDirectory, open_run
from medcli.runs.members import is_ensemble
from medcli.runs.records import read_data
from medcli.runs.status import read_status

__all__ = ["RULES", "Source", "card_facts", "data_facts", "figure_facts", "read_source"]

RULES = (Rule("sens", 0.9), Rule("sens", 0.95), Rule("spec", 0.9), Rule("spec", 0.95))
"""Operating points that every bundle of a yes-or-no model carries."""


@dataclass(frozen=True)
class Source:
    """A run, as far as an export needs it.

    Args:
        run: its directory.
        jury: its model, or those of its members, on the CPU, in eval mode; adapters are not merged yet.
        calibrator: or None.
        conformal: thresholds of prediction sets, or None.
        thresholds: operating points chosen on its validation cases.
        facts: what a bundle tells about model, card, data and figures.
    """

    run: RunDirectory
    jury: Jury
    calibrator: Calibrator | None
    conformal: Mapping[str, Any] | None
    thresholds: tuple[Threshold, ...]
    facts: Mapping[str, Any]

    @property
    def loaded(self) -> LoadedModel:
        """The model, or the one whose target and preprocessing stand for all members."""
        return self.jury.first

    def network(self) -> Network | MeanNetwork:
        """Normalised images to logits and features."""
        classifiers = [one.classifier for one in self.jury.models]
        return MeanNetwork(classifiers, self.jury.weights) if self.jury.joined else Network(classifiers[0])

    def merge(self) -> None:
        """Add adapters to their networks, which are ordinary ones from then on."""
        for one in self.jury.models:
            if one.classifier.adapters is not None:
                one.classifier.merge()


def read_source(path: str, *, weights: str | None = None, rules: Sequence[Rule] = RULES) -> Source:
    """Read a run for its export.

    Args:
        path: the run directory.
        weights: the base of an adapter, where it is no longer where it was.
        rules: operating points to choose on the validation cases.

    Raises:
        UsageProblem: no run, a run without weights (code `no-model-file`), a stale calibrator, and as `load_jury`.
    """
    run = open_run(path)
    if not (run.holds_model or is_ensemble(run.path)):
        raise UsageProblem(
            f"run `{path}` holds no weights: it did not get as far as one epoch, or is no single model",
            hint=f"`medcli runs show {path}` says how it ended{_going_on(run)}",
            code="no-model-file",
        )
    calibrator = run_calibrator(run)
    jury = load_jury(run, weights=weights)
    if any(one.preprocessing != jury.first.preprocessing for one in jury.models):
        raise UsageProblem(
            f"the members of `{path}` want their pictures in different ways, and a bundle prepares them in one",
            where=str(run.path),
            hint="export the members one by one",
            code="several-preprocessings",
        )
    target = jury.target
    if calibrator is not None and calibrator.target != target:
        raise UsageProblem(
            "the run's calibrator was fitted for another target than that of its model",
            where=str(run.calibrator_file),
            hint=f"`medcli calibrate {run.path}` fits a new one",
            code="other-target",
        )
    return Source(
        run, jury, calibrator, _conformal(run), _thresholds(run, calibrator, rules), _facts(run, jury, calibrator)
    )


def _going_on(run: RunDirectory) -> str:
    """The command that would give a run weights, where there is one."""
    try:
        status = read_status(run)
    except MedcliError:
        return ""
    if status.state == "completed" or status.command not in {"train", "finetune", "lora", "diffmap train"}:
        return ""
    return f"; `medcli {status.command} --resume {run.path}` goes on"


def _conformal(run: RunDirectory) -> Mapping[str, Any] | None:
    if not run.calibrator_file.is_file():
        return None
    found = json.loads(run.calibrator_file.read_text(encoding="utf-8")).get("conformal")
    if found is not None:
        from medcli.evaluation.conformal import conformal_from_dict

        try:
            conformal_from_dict(found)
        except ValueError as problem:
            raise UsageProblem(str(problem), where=str(run.calibrator_file), code="bad-calibrator") from problem
    return found if isinstance(found, dict) else None


def _thresholds(run: RunDirectory, calibrator: Calibrator | None, rules: Sequence[Rule]) -> tuple[Threshold, ...]:
    file = run.predictions("val")
    if not file.is_file():
        return ()
    stored = load_predictions(file)
    if not yes_or_no(stored.target):
        return ()
    judged = stored if calibrator is None else apply_calibrator(calibrator, stored)
    found = []
    for question in questions_of(judged):
        for rule in rules:
            if question.scores is None or question.truth is None:
                continue
            value = choose_threshold(question.scores, question.truth, rule)
            if np.isfinite(value):
                found.append(Threshold(question.name, str(rule), value, len(question)))
    return tuple(found)


def _facts(run: RunDirectory, jury: Jury, calibrator: Calibrator | None) -> dict[str, Any]:
    spec = jury.first.spec
    parts = (run.model_file, run.adapter / "adapter_model.safetensors", run.path / "ensemble.json")
    classifiers = [one.classifier for one in jury.models]
    own = {id(parameter): parameter.numel() for one in classifiers for parameter in one.parameters()}
    return {
        "model": {
            "package": made_by(spec.architecture),
            "options": dict(spec.options),
            "head_kind": spec.head_kind,
            "head_norm": spec.head_norm,
            "parameters": sum(own.values()),
            "sha256": {file.name: content_hash(file) for file in parts if file.is_file()},
            "adapter": "merged" if any(one.adapters is not None for one in classifiers) else None,
            "members": [
                {"architecture": one.spec.architecture, "weight": weight}
                for one, weight in zip(jury.models, jury.weights, strict=True)
            ]
            if jury.joined
            else None,
        },
        "card": card_facts(spec.architecture),
        "data": data_facts(run),
        "figures": figure_facts(run),
        "figures_of": "the scores of the network itself" if calibrator is not None else "these scores",
    }


def card_facts(name: str, group: str = ARCHITECTURES) -> dict[str, Any]:
    """What a bundle repeats of a card; nothing where there is none."""
    card = read_card(find(discover(), name, group))
    if card is None:
        return {}
    return {
        "summary": card.summary,
        "family": card.family,
        "licence": card.licence,
        "modalities": list(card.modalities),
        "note": card.note,
        "references": [{"title": one.title, "year": one.year, "url": one.url} for one in card.references],
    }


def data_facts(run: RunDirectory) -> dict[str, Any]:
    """Names and counts, no paths and nothing of single cases: a bundle leaves the building."""
    if not run.data_file.is_file():
        return {}
    record = read_data(run)
    splits = record.get("splits", {})
    return {
        "name": record.get("name"),
        "splits": {
            split: {name: facts.get(name) for name in ("count", "patients", "classes")}
            for split, facts in splits.items()
            if isinstance(facts, dict)
        },
    }


def figure_facts(run: RunDirectory) -> dict[str, Any]:
    """The headline figures of each split with their intervals."""
    found = {}
    for split, document in read_evaluations(run.path).items():
        figures = document["figures"]
        found[split] = {
            name: {key: figure.get(key) for key in ("value", "low", "high")}
            for name, figure in figures.items()
            if isinstance(figure, dict) and figure.get("headline")
        }
    return found
