"""`medcli train`: from a set of images to a trained, evaluated model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from medcli.cli.options import Flags, OptionalArchitecture
from medcli.cli.output import Output, write_line
from medcli.errors import ExitCode

if TYPE_CHECKING:
    from medcli.runs.directory import RunDirectory
    from medcli.runs.status import Status
    from medcli.settings.resolve import Resolved
    from medcli.training.dry_run import DryRun
    from medcli.training.overfit import Overfit
    from medcli.training.session import Outcome
    from medcli.training.start import Finished, Start

__all__ = ["carry_out", "say_rehearsal", "say_settings", "train"]


def train(architecture: OptionalArchitecture, flags: Flags) -> ExitCode | None:
    """Train an architecture on labelled images and evaluate it.

    Starts from random weights unless `--pretrained` or `--weights` is given, and never needs a network. Everything
    about the training goes into one run directory: settings with their origins, the best weights, figures per epoch,
    predictions and an evaluation with intervals.

    Examples:
        medcli train resnet18 --data synthetic/chest --limit 200 --image-size 64 --epochs 2
        medcli train resnet18 --data breastmnist.npz --preset medmnist-28
        medcli train resnet18 --data breastmnist.npz --augment modality --modality ultrasound --sampler balanced
        medcli train densenet121 --data xrays/ --patient-pattern '(person\\d+)_' --weights densenet121.safetensors
        medcli train resnet50 --data aptos/train.csv --image-dir aptos/images --image-column id_code
            --label-column diagnosis --task ordinal
        medcli train --resume runs/20261121T101500Z-train-resnet18-1a2b
    """
    from medcli.training.start import continued, fresh

    output = Output(flags.output(), "train")
    if flags.given.get("resume"):
        return carry_out(output, continued(architecture, flags.given))
    return carry_out(output, fresh("train", architecture, flags.given))


def carry_out(output: Output, start: Start | Finished) -> ExitCode | None:
    """Train what was planned, or say that it has ended: the part that every command that trains has in common."""
    from medcli.training.session import Watch, conduct, rehearse, try_one_batch
    from medcli.training.start import Finished

    if isinstance(start, Finished):
        _finished(output, start.run, start.status)
        return None
    from medcli.training.join import to_start
    from medcli.training.processes import place, run_processes

    if count := to_start(start.plan):
        # What has been read to plan it is read again by those who carry it out; here it would only take memory.
        del start
        ended = run_processes(count)
        if ended.words:
            write_line(output.stderr, ended.words)
        return ExitCode(ended.code)
    if place().rank > 0:
        output = output.muted()
    settings = output.settings
    counters: dict[str, Any] = {}

    def reading(split: str, done: int, total: int) -> None:
        if split not in counters:
            counters[split] = output.progress(f"{split} images read", total)
        counters[split](done)

    watch = Watch(output.training_progress(), output.note, reading, output.confirm)
    say_settings(output, start.resolved)
    if settings.dry_run:
        say_rehearsal(output, rehearse(start, watch))
        return None
    if start.plan.training.overfit_batch:
        return _one_batch(output, try_one_batch(start, watch))
    outcome = conduct(start, watch, command=start.resolved.command, out=settings.out, overwrite=settings.overwrite)
    _trained(output, outcome, start.resolved)
    return None


def say_settings(output: Output, resolved: Resolved) -> None:
    """For `-v`: every setting that somebody chose, and who."""
    from medcli.cli.commands.config import value_text

    for name, value in resolved.values.items():
        origin = resolved.origin(name)
        if origin.layer != "default":
            output.detail(f"{name} = {value_text(value)} ({origin})")


def _trained(output: Output, outcome: Outcome, resolved: Resolved) -> None:
    from medcli.evaluation.render import headline, render
    from medcli.runs.advice import advise
    from medcli.runs.records import read_metrics

    run, best = str(outcome.run.path), outcome.best
    advice = advise(
        read_metrics(outcome.run), resolved.values, command=resolved.command, run=run, stopped_early=outcome.early
    )
    result = {
        "best_epoch": best.epoch + 1,
        "monitor": best.monitor,
        "value": best.value,
        "epochs": outcome.epochs,
        "stopped_early": outcome.early,
        "seconds": outcome.seconds,
        "evaluation": {split: evaluation.to_dict() for split, evaluation in outcome.evaluations.items()},
        "advice": advice,
    }

    def text() -> str:
        early = ", stopped early" if outcome.early else ""
        lines = [f"best epoch {best.epoch + 1} of {outcome.epochs}{early}: val {best.monitor} {best.value:.4f}"]
        for split, evaluation in outcome.evaluations.items():
            lines.append(f"{split}: {headline(evaluation)}")
        if output.settings.verbose:
            lines += [
                "",
                *(
                    f"{render(one, verbose=True, width=output.answer_width())}\n"
                    for one in outcome.evaluations.values()
                ),
            ]
        return "\n".join([*lines, f"run: {run}"])

    output.answer(result, text, identifier=run, run_dir=run)
    for one in advice:
        output.hint(str(one))
    output.hint(f"`medcli evaluate {run}` shows every figure, `medcli report {run}` writes them up for people")
    output.hint(f"`medcli predict {run} IMAGES` uses the model")


def _finished(output: Output, run: RunDirectory, status: Status) -> None:
    from medcli.prediction.finish import read_evaluations

    result: Mapping[str, Any] = {"state": status.state, "epochs": status.epoch, "best": dict(status.best)}
    result = {**result, "evaluation": read_evaluations(run.path)}
    output.answer(
        result,
        f"{run.path} has already finished its {status.epoch} epochs",
        identifier=str(run.path),
        run_dir=str(run.path),
    )
    output.hint(f"`medcli {status.command} --resume {run.path} --extend 10` trains 10 epochs longer")


def say_rehearsal(output: Output, figures: DryRun) -> None:
    """The answer of `--dry-run`."""
    from dataclasses import asdict

    rows = [
        ("parameters", f"{figures.parameters:,}"),
        ("of which learn", f"{figures.trainable:,}"),
        ("device, precision", f"{figures.device}, {figures.precision}"),
        ("loss of the first step", "nothing is learnt" if figures.loss is None else f"{figures.loss:.4f}"),
        ("seconds per step", f"{figures.seconds_per_step:.3f}"),
        ("steps per epoch", f"{figures.steps_per_epoch:,}"),
        ("estimate", f"{figures.hours:.2f} hours for {figures.epochs} epochs, without validation"),
        ("peak memory", f"{figures.peak_memory_gib:.2f} GiB"),
    ]
    width = max(len(name) for name, _ in rows)
    output.answer(asdict(figures), "\n".join(f"{name:<{width}}  {value}" for name, value in rows))


def _one_batch(output: Output, figures: Overfit) -> ExitCode:
    from dataclasses import asdict

    status = ExitCode.DONE if figures.learnt else ExitCode.LIMIT
    verdict = "learnt by heart" if figures.learnt else "NOT learnt by heart: look at labels, rate and normalisation"
    output.answer(
        asdict(figures),
        f"one batch {verdict}: loss {figures.first:.4f} -> {figures.last:.4f} in {figures.steps} steps",
        status=status,
    )
    return status
