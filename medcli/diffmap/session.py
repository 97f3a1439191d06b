"""A training of maps, or on masked pictures, and what is kept of it: directory, records, best weights, figures."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from medcli.data.subset import take
from medcli.diffmap.course import MaskLesson
from medcli.diffmap.engine import HELD_OUT, Ready, learn, make_ready
from medcli.diffmap.judging import Judged, figures_of, judge, subtracted, to_json
from medcli.diffmap.plan import DifferenceStart
from medcli.diffmap.plots import draw_course, draw_maps, draw_pictures
from medcli.diffmap.run import load_difference, save_difference
from medcli.runs.directory import RunDirectory, claim_run, plan_run, replace_text
from medcli.runs.records import append_log, read_metrics
from medcli.training.best import Best
from medcli.training.dry_run import DryRun, peak_memory
from medcli.training.keeping import Beginning, completed, kept, reserve, stopped
from medcli.training.loop import Trained
from medcli.training.memory import explain_out_of_memory
from medcli.training.optimisers import set_rate
from medcli.training.session import Watch
from medcli.training.trackers import refuse_missing, tracked

__all__ = ["DifferenceOutcome", "conduct", "rehearse"]

SHOWN = 6
"""Examples in the sheet."""


@dataclass(frozen=True)
class DifferenceOutcome:
    """A finished training.

    Args:
        run: its directory.
        best: the best epoch and its figure.
        epochs: epochs learnt.
        early: whether patience ended it.
        seconds: time spent learning.
        figures: by split, of the model and of subtraction; empty for masked pictures.
    """

    run: RunDirectory
    best: Best
    epochs: int
    early: bool
    seconds: float
    figures: Mapping[str, Mapping[str, float]]


def conduct(start: DifferenceStart, watch: Watch, *, out: str | None, overwrite: bool) -> DifferenceOutcome:
    """Carry out a training from its plan to its figures.

    Raises:
        UsageProblem: found before anything was written.
        RunFailure: while running; the run says so in `status.json` and keeps the traceback in `log.txt`.
        Interrupted: by a signal, with everything saved.
    """
    plan, command = start.plan, start.resolved.command
    refuse_missing(plan.training.log_with)
    run = start.run or plan_run(command.replace(" ", "-"), plan.spec.model, out=out)
    if start.run is None:
        reserve(run, overwrite=overwrite, confirm=watch.confirm)
    ready = make_ready(plan, progress=watch.reading)
    for note in ready.notes:
        watch.say(note)
    if start.run is None:
        claim_run(run, command=command, overwrite=overwrite)
    with kept(run, _beginning(start, ready)) as began:

        def say(text: str) -> None:
            watch.say(text)
            append_log(run, text)

        for note in ready.notes:
            append_log(run, note)
        with tracked(watch.progress, plan.training.log_with, run, start.resolved) as progress:
            trained = learn(ready, run, progress, resume=start.run is not None, extend=start.extend, say=say)
        if trained.signal:
            raise stopped(run, began, trained)
        outcome = _finish(ready, run, trained)
        completed(run, began, trained)
        return outcome


def rehearse(start: DifferenceStart, watch: Watch) -> DryRun:
    """`--dry-run`: two real steps on a few cases, nothing written but caches."""
    plan = start.plan
    window = plan.compute.batch_size * plan.training.accumulate
    samples = plan.data.splits["train"]
    steps = -(-len(samples) // window)
    few = {"train": take(samples, range(min(len(samples), window)))}
    small = replace(
        plan,
        data=replace(plan.data, splits=few),
        data_settings=replace(plan.data_settings, cache="memory", cache_limit=None),
    )
    ready = make_ready(small, progress=watch.reading)
    for note in ready.notes:
        watch.say(note)
    course, losses, seconds = ready.course, list[float](), 0.0
    if ready.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(ready.device)
    with explain_out_of_memory(plan):
        for epoch in range(2):
            began = time.perf_counter()
            course.begin_epoch(epoch, True)
            set_rate(course.optimizer, course.schedule.factor(epoch))
            losses.append(
                float(course.learn(tuple(islice(course.batches.epoch(epoch), plan.training.accumulate)), epoch))
            )
            seconds = time.perf_counter() - began
    counts = [(one.numel(), one.requires_grad) for one in course.learner.network.parameters()]
    return DryRun(
        parameters=sum(count for count, _ in counts),
        trainable=sum(count for count, learns in counts if learns),
        device=str(ready.device),
        precision=ready.precision,
        steps_per_epoch=steps,
        epochs=plan.training.epochs,
        loss=losses[0],
        seconds_per_step=seconds,
        hours=seconds * steps * plan.training.epochs / 3600,
        peak_memory_gib=peak_memory(ready.device) / 2**30,
    )


def _beginning(start: DifferenceStart, ready: Ready) -> Beginning:
    plan = start.plan
    skipped = tuple(item for batches in ready.batches.values() for item in batches.skipped)
    record = replace(plan, data=replace(plan.data, skipped=(*plan.data.skipped, *skipped))).record
    counts = [(one.numel(), one.requires_grad) for one in ready.course.learner.network.parameters()]
    facts: dict[str, Any] = {
        "device": str(ready.device),
        "gpu": torch.cuda.get_device_name(ready.device) if ready.device.type == "cuda" else None,
        "precision": ready.precision,
        "threads": torch.get_num_threads(),
        "seed": plan.compute.seed,
        "images": {split: batches.note for split, batches in ready.batches.items()},
        "parameters": sum(count for count, _ in counts),
        "trainable": sum(count for count, learns in counts if learns),
        "weights": [note for note in ready.notes if note.startswith(("weights:", "encoder:"))],
    }
    return Beginning(
        start.resolved.command,
        start.resolved,
        plan.spec.model,
        record,
        [ready.origin],
        facts,
        plan.training.epochs,
        goes_on=start.run is not None,
        extend=start.extend,
        data_changes=start.data_changes,
    )


def _finish(ready: Ready, run: RunDirectory, trained: Trained) -> DifferenceOutcome:
    """Take the best weights back from their file, and judge and draw what they make."""
    rows = [row for row in read_metrics(run) if "epoch" in row]
    draw_course(rows, ready.plan.monitor, run.plots / "curves.png")
    position = trained.position
    figures = _fill_in(ready, run) if ready.plan.masks is not None else _judge(ready, run)
    return DifferenceOutcome(run, position.best, position.epoch, trained.early, position.seconds, figures)


def _judge(ready: Ready, run: RunDirectory) -> dict[str, dict[str, float]]:
    """Figures of validation and test pairs, at the threshold that the validation pairs choose, beside subtraction's."""
    plan, signed = ready.plan, ready.plan.spec.map == "signed"
    loaded = load_difference(run.model_file, ready.device)
    figures: dict[str, dict[str, float]] = {}
    threshold = baseline = None
    for split in ("val", "test"):
        if split not in ready.batches:
            continue
        batches = ready.batches[split]
        found = judge(loaded.network, plan.spec, batches, device=ready.device, precision=ready.precision)
        own = figures_of(found, signed=signed, threshold=threshold)
        plain = figures_of(subtracted(batches, plan.spec), signed=signed, threshold=baseline)
        threshold, baseline = own["threshold"], plain["threshold"]
        figures[split] = own | {
            "subtraction_auprc": plain["auprc"],
            "subtraction_nuisance_area": plain["nuisance_area"],
        }
        if split == "val":
            _sheet(ready, found, run)
    document = {split: to_json(own, len(ready.batches[split].samples)) for split, own in figures.items()}
    replace_text(run.evaluation_file, json.dumps(document, indent=1, allow_nan=False) + "\n")
    if threshold is not None:
        save_difference(run.model_file, loaded.network, loaded.spec, {**loaded.extra, "threshold": threshold})
    return figures


def _sheet(ready: Ready, found: Judged, run: RunDirectory) -> None:
    """The pairs with most change, one without any where there is one."""
    batches = ready.batches["val"]
    amount = np.nansum(np.abs(found.truths), axis=(1, 2))
    order = np.argsort(-amount, kind="stable")[: SHOWN - 1].tolist()
    order += [row for row in np.argsort(amount, kind="stable")[:1].tolist() if row not in order]
    planes = torch.cat([batch.images for batch in batches.epoch(0)]).cpu().numpy()
    pairs = planes[order].copy()
    pairs[:, 2] = found.truths[order]
    names = [str(batches.samples.ids[row]) for row in order]
    signed = ready.plan.spec.map == "signed"
    draw_maps(pairs, found.maps[order], names, run.plots / "examples.png", signed=signed)


def _fill_in(ready: Ready, run: RunDirectory) -> dict[str, dict[str, float]]:
    """Draw some validation pictures with hidden parts and what the best weights fill in; there are no figures."""
    lesson, masks = ready.course.lesson, ready.plan.masks
    assert isinstance(lesson, MaskLesson)
    assert masks is not None
    loaded = load_difference(run.model_file, ready.device)
    batch = next(iter(ready.batches["val"].epoch(0)))
    pictures, rows = batch.images[:SHOWN].to(ready.device), batch.index[:SHOWN]
    hide = replace(lesson.masking, seed=lesson.masking.seed + HELD_OUT)
    hidden = hide(rows, 0, masks.mask_ratio, pictures.shape[-1]).to(ready.device)
    with torch.inference_mode():
        answer = lesson.ask(loaded.network, pictures, hidden)
    shown = [one[:, 0].float().cpu().numpy() for one in (pictures, answer.beside, answer.found)]
    names = [str(ready.batches["val"].samples.ids[row]) for row in rows.tolist()]
    draw_pictures(shown[0], shown[1], shown[2], names, run.plots / "examples.png")
    return {}
