"""A training and what is kept of it: claim the directory, record, learn, take the best weights, predict, evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from medcli.data.record import data_record
from medcli.data.subset import take
from medcli.evaluation.figures import Evaluation
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.render import render
from medcli.models.build import load_run
from medcli.prediction.finish import write_predictions
from medcli.prediction.predict import as_predictions
from medcli.runs.directory import RunDirectory, claim_run, plan_run, replace_text
from medcli.runs.records import append_log, read_metrics
from medcli.training.best import Best
from medcli.training.dry_run import DryRun, dry_run
from medcli.training.engine import Prepared, prepare, raw_of, require_splits, train
from medcli.training.frozen import passes
from medcli.training.imbalance import distortions
from medcli.training.interruption import Interrupted
from medcli.training.keeping import Beginning, completed, kept, reserve, stopped
from medcli.training.loop import Trained
from medcli.training.nearest import few_neighbours
from medcli.training.overfit import Overfit, overfit_batch
from medcli.training.plots import draw_curves, draw_evaluation
from medcli.training.processes import place
from medcli.training.progress import TrainingProgress
from medcli.training.start import Start
from medcli.training.strategies import tuning_to_json
from medcli.training.team import Team
from medcli.training.trackers import refuse_missing, tracked

__all__ = ["Outcome", "Watch", "conduct", "finish", "rehearse", "try_one_batch"]


@dataclass(frozen=True)
class Watch:
    """Who is told what happens.

    Args:
        progress: watches the loop.
        say: receives sentences the user should read.
        reading: told (split, images read, images in all) while images are decoded.
        confirm: asked before a run is replaced.
    """

    progress: TrainingProgress
    say: Callable[[str], None]
    reading: Callable[[str, int, int], None]
    confirm: Callable[[str], bool]


@dataclass(frozen=True)
class Outcome:
    """A finished training.

    Args:
        run: its directory.
        best: the best epoch and its figure.
        epochs: epochs learnt.
        early: whether patience ended it.
        seconds: time spent learning.
        evaluations: figures by split.
    """

    run: RunDirectory
    best: Best
    epochs: int
    early: bool
    seconds: float
    evaluations: Mapping[str, Evaluation]


def conduct(start: Start, watch: Watch, *, command: str, out: str | None, overwrite: bool) -> Outcome:
    """Carry out a training from its plan to its evaluation.

    Raises:
        UsageProblem: found before anything was written.
        RunFailure: while running; the run says so in `status.json` and keeps the traceback in `log.txt`.
        Interrupted: by a signal, with everything saved.
    """
    plan = start.plan
    require_splits(plan)
    refuse_missing(plan.training.log_with)
    run = start.run or plan_run(command, plan.spec.architecture, out=out)
    if place().rank > 0:
        return _attend(start, watch)
    if start.run is None:
        reserve(run, overwrite=overwrite, confirm=watch.confirm)
    prepared = prepare(plan, progress=watch.reading)
    for note in prepared.notes:
        watch.say(note)
    if start.run is None:
        claim_run(run, command=command, overwrite=overwrite)
    with kept(run, _beginning(start, prepared, command)) as began:
        prepared.parts.team.from_first(str(run.path.resolve()))

        def say(text: str) -> None:
            watch.say(text)
            append_log(run, text)

        for note in prepared.notes:
            append_log(run, note)
        with tracked(watch.progress, plan.training.log_with, run, start.resolved) as progress:
            trained = train(prepared, run, progress, resume=start.run is not None, extend=start.extend, say=say)
        if trained.signal:
            raise stopped(run, began, trained)
        outcome = finish(prepared, run, trained)
        completed(run, began, trained)
        return outcome


def _attend(start: Start, watch: Watch) -> Outcome:
    """What every process but the first does: read, learn and predict its share; the first one writes and speaks."""
    prepared = prepare(start.plan, progress=watch.reading)
    run = RunDirectory(Path(prepared.parts.team.from_first("")))
    trained = train(prepared, run, watch.progress, resume=start.run is not None, extend=start.extend)
    if trained.signal:
        raise Interrupted(trained.signal, "stopped with the first process", "see there")
    predict_splits(prepared, run)
    position = trained.position
    return Outcome(run, position.best, position.epoch, trained.early, position.seconds, {})


def finish(prepared: Prepared, run: RunDirectory, trained: Trained) -> Outcome:
    """Take the best weights back from their file, predict validation and test with them, evaluate and draw."""
    plan = prepared.plan
    evaluations = write_predictions(run.path, predict_splits(prepared, run))
    text = "\n\n\n".join(render(evaluation, verbose=True) for evaluation in evaluations.values())
    replace_text(run.path / "evaluation.txt", text + "\n")
    draw_curves([row for row in read_metrics(run) if "epoch" in row], plan.monitor, run.plots / "curves.png")
    for split, evaluation in evaluations.items():
        draw_evaluation(evaluation, run.plots / f"{split}.png")
    position = trained.position
    return Outcome(run, position.best, position.epoch, trained.early, position.seconds, evaluations)


def predict_splits(prepared: Prepared, run: RunDirectory) -> tuple[Predictions, ...]:
    """Predict validation and test with the best weights; of several processes each one its share."""
    plan, team = prepared.plan, prepared.parts.team
    if team.agreed(int(not run.holds_model)):
        # Another machine does not see this disk.
        if not team.first:
            return ()
        prepared = replace(prepared, parts=replace(prepared.parts, team=Team()))
    network = load_run(run, prepared.device).classifier
    return tuple(
        as_predictions(
            raw_of(prepared, network, split),
            prepared.batches[split].samples,
            target=plan.data.target,
            head_kind=plan.spec.head_kind,
            split=split,
            data_name=plan.data.name,
        )
        for split in ("val", "test")
        if split in prepared.batches
    )


def rehearse(start: Start, watch: Watch) -> DryRun:
    """`--dry-run`: two real steps on a few batches, nothing written."""
    plan = start.plan
    require_splits(plan)
    window = plan.compute.batch_size * plan.training.accumulate
    samples = plan.data.splits["train"]
    steps = -(-len(samples) // window)
    few = {"train": take(samples, range(min(len(samples), window)))}
    small = replace(
        plan,
        strategy=plan.strategy and few_neighbours(plan.strategy, len(few["train"])),
        data=replace(plan.data, splits=few),
        data_settings=replace(plan.data_settings, cache="memory", cache_limit=None),
    )
    prepared = prepare(small, progress=watch.reading, keep_features=False)
    for note in prepared.notes:
        watch.say(note)
    return dry_run(prepared, steps, passes(plan))


def try_one_batch(start: Start, watch: Watch) -> Overfit:
    """`--overfit-batch`: learn one batch by heart, nothing written."""
    plan = start.plan
    require_splits(plan)
    samples = plan.data.splits["train"]
    few = {"train": take(samples, range(min(len(samples), plan.compute.batch_size)))}
    prepared = prepare(
        replace(
            plan,
            data=replace(plan.data, splits=few),
            data_settings=replace(plan.data_settings, cache="memory", cache_limit=None),
        ),
        progress=watch.reading,
        keep_features=False,
    )
    return overfit_batch(prepared)


def _beginning(start: Start, prepared: Prepared, command: str) -> Beginning:
    """What this training is."""
    plan, tuning = start.plan, prepared.parts.tuning
    skipped = tuple(item for batches in prepared.batches.values() for item in batches.skipped)
    groups = {} if tuning is None else {"groups.json": json.dumps(tuning_to_json(tuning), indent=1) + "\n"}
    return Beginning(
        command,
        start.resolved,
        plan.spec.architecture,
        data_record(replace(plan.data, skipped=(*plan.data.skipped, *skipped))),
        [prepared.built.entry.origin],
        _facts(prepared),
        plan.training.epochs,
        goes_on=start.run is not None,
        extend=start.extend,
        data_changes=start.data_changes,
        files=groups,
    )


def _facts(prepared: Prepared) -> dict[str, object]:
    report = prepared.built.load_report
    return {
        "device": str(prepared.device),
        "gpu": torch.cuda.get_device_name(prepared.device) if prepared.device.type == "cuda" else None,
        "precision": prepared.precision,
        "threads": torch.get_num_threads(),
        "seed": prepared.plan.compute.seed,
        "images": {split: batches.note for split, batches in prepared.batches.items()},
        "weights": None if report is None else report.sentence(),
        # What must be made up for by calibration on untouched data before probabilities are read as such.
        "probabilities_distorted_by": list(distortions(prepared.plan.training, prepared.plan.loss)),
    }
