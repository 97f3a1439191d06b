"""`medcli diffmap train`: from pairs with true maps to a network that shows what changed."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from medcli.cli.commands.train import say_rehearsal, say_settings
from medcli.cli.options import Flags
from medcli.cli.output import Output
from medcli.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medcli.diffmap.plan import DifferenceStart
    from medcli.diffmap.session import DifferenceOutcome
    from medcli.training.start import Finished

__all__ = ["after_pretraining", "carry_out", "train"]


def train(flags: Flags) -> ExitCode | None:
    """Train a network that maps what changed between two radiographs of one patient.

    Learns from pairs whose true map is known (`medcli diffmap synth` makes them), each earlier image laid over the
    later one first. Everything about the training goes into one run directory, like that of any other training. Its
    figures count changed pairs for what was found, and pairs where nothing changed for what was found wrongly, beside
    those of plain subtraction, which a network has to beat.

    Examples:
        medcli diffmap train --data synthetic/chest-pairs --limit 60 --image-size 64 --epochs 5
        medcli diffmap train --data pairs/ --arch-opt encoder=resnet50 --image-size 256 --scheduler onecycle
        medcli diffmap train --data pairs/ --gradient-weight 1 --ssim-weight 0.5 --adversarial --accumulate 4
        medcli diffmap train --data pairs/ --encoder-from runs/20261121T101500Z-diffmap-pretrain-siamese-unet-1a2b
        medcli diffmap train --resume runs/20261121T101500Z-diffmap-train-siamese-unet-1a2b
    """
    from medcli.diffmap.plan import TRAIN

    return carry_out(TRAIN, flags)


def carry_out(command: str, flags: Flags) -> ExitCode | None:
    """Train what was asked for, or say that it has ended: what both commands that train have in common."""
    from medcli.diffmap.plan import continued, fresh
    from medcli.diffmap.session import conduct, rehearse
    from medcli.training.session import Watch
    from medcli.training.start import Finished

    output = Output(flags.output(), command)
    start: DifferenceStart | Finished
    start = continued(command, flags.given) if flags.given.get("resume") else fresh(command, flags.given)
    if isinstance(start, Finished):
        _finished(output, start)
        return None
    counters: dict[str, Any] = {}

    def reading(split: str, done: int, total: int) -> None:
        if split not in counters:
            counters[split] = output.progress(f"{split} pictures prepared", total)
        counters[split](done)

    watch = Watch(output.training_progress(), output.note, reading, output.confirm)
    say_settings(output, start.resolved)
    if output.settings.dry_run:
        say_rehearsal(output, rehearse(start, watch))
        return None
    _trained(output, start, conduct(start, watch, out=output.settings.out, overwrite=output.settings.overwrite))
    return None


def after_pretraining(model: str | None, values: Mapping[str, Any], run: str) -> str:
    """How maps are learnt from a pretraining: its encoder fits the same model, size and options alone.

    Args:
        model: difference model, as typed.
        values: settings of the pretraining.
        run: its directory.
    """
    words = ["medcli", "diffmap", "train", "--data", "PAIRS"]
    if model is not None:
        words += ["--model", model]
    for flag, name in (("--image-size", "image_size"), ("--in-channels", "in_channels")):
        if values.get(name) is not None:
            words += [flag, str(values[name])]
    for option in values.get("arch_opt", ()):
        words += ["--arch-opt", option]
    return f"`{shlex.join([*words, '--encoder-from', run])}` goes on from this encoder"


def _trained(output: Output, start: DifferenceStart, outcome: DifferenceOutcome) -> None:
    run, best = str(outcome.run.path), outcome.best
    result = {
        "best_epoch": best.epoch + 1,
        "monitor": best.monitor,
        "value": best.value,
        "epochs": outcome.epochs,
        "stopped_early": outcome.early,
        "seconds": outcome.seconds,
        "figures": outcome.figures,
    }

    def text() -> str:
        early = ", stopped early" if outcome.early else ""
        lines = [f"best epoch {best.epoch + 1} of {outcome.epochs}{early}: val {best.monitor} {best.value:.4f}"]
        rows = [
            (split, name, own, plain)
            for split, figures in outcome.figures.items()
            for name, own, plain in (
                ("change AUPRC", figures["auprc"], figures["subtraction_auprc"]),
                ("false area, %", 100 * figures["nuisance_area"], 100 * figures["subtraction_nuisance_area"]),
            )
        ]
        if rows:
            lines.append(output.table(("split", "figure", "model", "subtraction"), rows))
        return "\n".join([*lines, f"run: {run}"])

    output.answer(result, text, identifier=run, run_dir=run)
    if outcome.figures:
        output.hint(f"`{outcome.run.plots / 'examples.png'}` shows maps of validation pairs beside the truth")
    else:
        output.hint(after_pretraining(start.resolved.architecture, start.resolved.values, run))


def _finished(output: Output, start: Finished) -> None:
    run, status = start.run, start.status
    output.answer(
        {"state": status.state, "epochs": status.epoch, "best": dict(status.best)},
        f"{run.path} has already finished its {status.epoch} epochs",
        identifier=str(run.path),
        run_dir=str(run.path),
    )
    output.hint(f"`medcli {status.command} --resume {run.path} --extend 10` trains 10 epochs longer")
