"""What an ensemble keeps: the pooled predictions with its members' answers, their figures, and what each counts."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medcli.data.tables import is_table
from medcli.ensemble.joining import Answers, join
from medcli.errors import MedcliError, UsageProblem
from medcli.evaluation.figures import Evaluation
from medcli.evaluation.predictions import Predictions, load_predictions
from medcli.evaluation.render import render
from medcli.evaluation.report import evaluate
from medcli.evaluation.uncertainty_section import uncertainty_section
from medcli.prediction.finish import write_predictions
from medcli.prediction.foreign import Columns
from medcli.prediction.tables import read_any
from medcli.runs.directory import RunDirectory, claim_run, open_run, plan_run, replace_text
from medcli.runs.members import Ensemble, Member, fingerprint, is_ensemble, member_run, place_between, write_ensemble
from medcli.runs.records import read_config, read_data, write_config, write_data, write_environment
from medcli.runs.status import Status, held, now, write_status
from medcli.settings.groups import EvaluationSettings
from medcli.settings.resolve import Resolved
from medcli.training.best import default_monitor
from medcli.training.plots import draw_evaluation

__all__ = ["Kept", "Row", "join_files", "join_runs", "keep", "stored_answers"]

QUICK = EvaluationSettings(bootstrap=0)


@dataclass(frozen=True)
class Row:
    """One member in the table of an ensemble.

    Args:
        member: which.
        figures: of the last split (test where there is one), without intervals; empty for a member that failed.
    """

    member: Member
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Kept:
    """An ensemble that was pooled and written.

    Args:
        run: its directory.
        ensemble: its members with their weights.
        evaluations: figures of the pooled predictions, by split.
        rows: every member with its own figures.
        split: the split of these.
        notes: sentences the user should read.
    """

    run: RunDirectory
    ensemble: Ensemble
    evaluations: Mapping[str, Evaluation]
    rows: tuple[Row, ...]
    split: str
    notes: tuple[str, ...] = ()

    def best(self) -> dict[str, object]:
        """What `runs list` shows: the validation figure of the pooled predictions."""
        found = self.evaluations.get("val")
        if found is None:
            return {}
        monitor = default_monitor(found.target)
        value = found.value(monitor) if monitor in found.figures else math.nan
        return {"monitor": monitor, "value": value} if math.isfinite(value) else {}


def stored_answers(run: RunDirectory, name: str) -> Answers:
    """The predictions a run stored.

    Raises:
        UsageProblem: there are none (code `no-predictions`), or a file is damaged.
    """
    found = {split: run.predictions(split) for split in ("val", "test")}
    held_here = {split: load_predictions(path) for split, path in found.items() if path.is_file()}
    if not held_here:
        raise UsageProblem(
            f"run `{run.path}` has no stored predictions: its training did not finish",
            hint=f"`medcli train --resume {run.path}` finishes it",
            code="no-predictions",
        )
    return Answers(name, held_here)


def keep(run: RunDirectory, ensemble: Ensemble, answers: Sequence[Answers] | None = None, *, seed: int = 0) -> Kept:
    """Pool the members that completed, evaluate, and write everything into the ensemble's directory.

    Args:
        run: the ensemble's directory, claimed.
        ensemble: its members.
        answers: of its `ready` members, in their order; None to read them from their runs.
        seed: of the resampling.

    Raises:
        UsageProblem: members that do not agree, see `join`.
        RunFailure: a file cannot be written.
    """
    ready = ensemble.ready
    if answers is None:
        answers = [stored_answers(member_run(run, one), one.name) for one in ready]
    joined = join(answers, ensemble.weights_by)
    for member, weight in zip(ready, joined.weights.tolist(), strict=True):
        ensemble = ensemble.with_member(replace(member, weight=weight))
    write_ensemble(run, ensemble)
    evaluations = write_predictions(run.path, tuple(joined.by_split.values()), seed=seed)
    texts = []
    for split, evaluation in evaluations.items():
        doubt = uncertainty_section(joined.by_split[split])
        texts.append(render(replace(evaluation, sections=() if doubt is None else (doubt,)), verbose=True))
        draw_evaluation(evaluation, run.plots / f"{split}.png")
    replace_text(run.path / "evaluation.txt", "\n\n\n".join(texts) + "\n")
    last = list(joined.by_split)[-1]
    figures = {one.name: _figures(one.by_split[last]) for one in answers}
    rows = tuple(Row(one, figures.get(one.name, {})) for one in ensemble.members)
    return Kept(run, ensemble, evaluations, rows, last, joined.notes)


def join_runs(
    paths: Sequence[str],
    resolved: Resolved,
    *,
    out: str | None,
    overwrite: bool,
    confirm: Callable[[str], bool] = lambda question: True,
) -> Kept:
    """Join runs that exist; they stay where they are and are referred to.

    Raises:
        UsageProblem: fewer than two, one named twice, one that is an ensemble itself or did not finish, or members that
            do not agree; nothing is written then.
    """
    runs = [open_run(path) for path in paths]
    names = _names([run.path.resolve().name for run in runs], [str(run.path) for run in runs])
    _refuse_few(paths, "RUN", [str(run.path.resolve()) for run in runs])
    for run in runs:
        if is_ensemble(run.path):
            raise UsageProblem(
                f"`{run.path}` is an ensemble itself",
                hint=f"join its members: `{run.path}/members/*`",
                code="is-an-ensemble",
            )
    answers = [stored_answers(run, name) for run, name in zip(runs, names, strict=True)]
    # Whether they agree is found out before anything is written.
    weights_by = str(resolved.values["weights_by"])
    join(answers, weights_by)
    target = plan_run("ensemble", f"{len(runs)}-runs", out=out)
    claim_run(target, command="ensemble", overwrite=overwrite, confirm=confirm)
    members = []
    for run, name in zip(runs, names, strict=True):
        architecture, seed = _made_with(run)
        place = place_between(target, run.path)
        members.append(Member(name, place, architecture, seed, "completed", fingerprint=fingerprint(run)))
    ensemble = Ensemble("runs", tuple(members), weights_by)
    record = None
    with contextlib.suppress(MedcliError):
        record = read_data(runs[0])
    return _written(target, ensemble, answers, resolved, record)


def join_files(
    paths: Sequence[str],
    columns: Columns,
    resolved: Resolved,
    *,
    out: str | None,
    overwrite: bool,
    confirm: Callable[[str], bool] = lambda question: True,
) -> Kept:
    """Join files of predictions: one per member, or for each split one per member, in one order of members.

    Raises:
        UsageProblem: fewer than two, one named twice, splits with different numbers of files, or members that do not
            agree; nothing is written then.
    """
    _refuse_few(paths, "PREDICTIONS", [str(Path(path).resolve()) for path in paths])
    by_split: dict[str, list[tuple[str, Predictions]]] = {}
    notes = []
    for path in paths:
        read = read_any(path, columns if is_table(path) else Columns())
        notes += [f"{Path(path).name}: {note}" for note in read.notes]
        split = read.predictions.split if read.predictions.split in ("val", "test") else "test"
        by_split.setdefault(split, []).append((path, read.predictions))
    counts = {split: len(found) for split, found in by_split.items()}
    if len(set(counts.values())) > 1 or min(counts.values()) < 2:
        told = ", ".join(f"{count} of {split}" for split, count in counts.items())
        raise UsageProblem(
            f"every member has one file of each split, and there are {told}",
            hint="name two or more files of one split, or the same number of each in the same order",
            code="uneven-members",
        )
    order = sorted(by_split, key=("val", "test").index)
    last = by_split[order[-1]]
    names = _names([Path(path).name.partition(".")[0] for path, _ in last], [path for path, _ in last])
    answers = []
    for place, name in enumerate(names):
        own = {split: replace(by_split[split][place][1], split=split) for split in order}
        answers.append(Answers(name, own))
    weights_by = str(resolved.values["weights_by"])
    join(answers, weights_by)
    target = plan_run("ensemble", f"{len(names)}-predictions", out=out)
    claim_run(target, command="ensemble", overwrite=overwrite, confirm=confirm)
    members = tuple(
        Member(name, place_between(target, Path(path)), state="completed")
        for name, (path, _) in zip(names, last, strict=True)
    )
    kept = _written(target, Ensemble("predictions", members, weights_by), answers, resolved, None)
    return replace(kept, notes=(*notes, *kept.notes))


def _written(
    run: RunDirectory,
    ensemble: Ensemble,
    answers: Sequence[Answers],
    resolved: Resolved,
    record: Mapping[str, Any] | None,
) -> Kept:
    with held(run):
        began = now()
        write_status(run, Status("running", "ensemble", began, now(), 0, len(answers)))
        architectures = dict.fromkeys(one.architecture for one in ensemble.members if one.architecture)
        write_config(run, replace(resolved, architecture=", ".join(architectures) or None))
        write_environment(run, plugins=[])
        if record is not None:
            write_data(run, record)
        try:
            kept = keep(run, ensemble, answers, seed=int(resolved.values["seed"]))
        except BaseException as error:
            sentence = error.message if isinstance(error, MedcliError) else str(error)
            write_status(run, Status("failed", "ensemble", began, now(), 0, len(answers), {}, sentence))
            raise
        write_status(run, Status("completed", "ensemble", began, now(), len(answers), len(answers), kept.best()))
    return kept


def _refuse_few(paths: Sequence[str], what: str, resolved: Sequence[str]) -> None:
    if len(paths) < 2:
        raise UsageProblem(
            "one member is no ensemble",
            hint=f"`medcli ensemble {what} {what}` joins two; `medcli ensemble ARCH --members 5` trains five",
            code="one-member",
        )
    twice = next((path for path, one in zip(paths, resolved, strict=True) if resolved.count(one) > 1), None)
    if twice is not None:
        raise UsageProblem(f"`{twice}` is named twice", hint="name each member once", code="named-twice")


def _names(short: Sequence[str], whole: Sequence[str]) -> list[str]:
    return [long if short.count(name) > 1 else name for name, long in zip(short, whole, strict=True)]


def _made_with(run: RunDirectory) -> tuple[str, int | None]:
    try:
        saved = read_config(run)
    except MedcliError:
        return "", None
    seed = saved.values.get("seed")
    return saved.architecture or "", seed if isinstance(seed, int) else None


def _figures(predictions: Predictions) -> dict[str, float]:
    try:
        return {name: figure.value for name, figure in evaluate(predictions, QUICK).figures.items()}
    except UsageProblem:  # without labels there is nothing to compare
        return {}
