"""`medcli ensemble`: several members whose mean is more accurate, better calibrated and unsure where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.cli.options import Flags, JoinedOrTrained
from medcli.cli.output import Output
from medcli.errors import ExitCode, UsageProblem
from medcli.settings.commands import OF_TABLES

if TYPE_CHECKING:
    from medcli.ensemble.plan import EnsemblePlan
    from medcli.ensemble.record import Kept
    from medcli.runs.directory import RunDirectory
    from medcli.settings.resolve import Resolved

__all__ = ["ensemble"]


def ensemble(sources: JoinedOrTrained, flags: Flags) -> ExitCode | None:
    """Train members that differ by chance alone, or join runs or predictions that exist.

    With architectures, `--members` trainings follow one another, each with its own seed and thereby its own first
    weights, order of images, augmentation and dropout; several architectures take turns. What trains a member is what
    `medcli train` does (`--strategy scratch`, the default), or `finetune` or `lora` by the strategy named, and it takes
    their flags. `--share-backbone` trains heads on one frozen backbone. A member that fails does not lose the others
    (exit status 3); the same command with the same `--out`, or `--resume`, trains what is missing, and with a larger
    `--members` adds some.

    Runs and predictions are joined without training: members may differ in architecture, size and preprocessing, of
    which each applies its own, but must have one target, and stored predictions of the same cases with the same labels.

    The answer is a run: `evaluate`, `predict`, `calibrate`, `runs` and `report` take it like any other. Its scores are
    the mean of its members' probabilities; calibrate it rather than them, since calibrated members average to too
    little confidence. What its members disagree on is shown as uncertainty.

    Examples:
        medcli ensemble resnet18 --members 5 --data breastmnist.npz --preset medmnist-28
        medcli ensemble resnet18 densenet121 --members 4 --data xrays/ --out committee
        medcli ensemble deit_tiny_patch16_224 --weights deit.safetensors --share-backbone --members 10 --data xrays/
        medcli ensemble runs/A runs/B --weights-by val
        medcli ensemble predictions.npz other.npz --out pooled
        medcli ensemble --resume runs/20261121T101500Z-ensemble-resnet18-1a2b
    """
    settings = flags.output()
    output = Output(settings, "ensemble")
    kinds = {source: _kind(source) for source in sources}
    if len(set(kinds.values())) > 1:
        named = ", ".join(f"`{source}` is {kind}" for source, kind in kinds.items())
        raise UsageProblem(
            f"members are of one kind: {named}",
            hint="`medcli evaluate RUN --save-predictions FILE.npz` turns a run's answers into a file",
            code="mixed-members",
        )
    kind = next(iter(kinds.values()), "an architecture")
    if kind != "an architecture":
        return _join(sources, kind, flags, output)
    return _train(sources, flags, output)


def _kind(source: str) -> str:
    if Path(source).is_dir():
        return "a run"
    return "a file of predictions" if Path(source).is_file() else "an architecture"


def _train(architectures: Sequence[str], flags: Flags, output: Output) -> ExitCode:
    from medcli.ensemble.plan import continue_ensemble, plan_ensemble
    from medcli.ensemble.session import EnsembleWatch, conduct_ensemble, same_command
    from medcli.runs.directory import open_run
    from medcli.runs.members import is_ensemble

    settings = output.settings
    run: RunDirectory | None = None
    if flags.given.get("resume"):
        plan, run = continue_ensemble(architectures, flags.given)
    else:
        plan = plan_ensemble(architectures, flags.given)
        there = settings.out is not None and is_ensemble(Path(settings.out)) and not settings.overwrite
        if settings.out is not None and there and same_command(plan, open_run(settings.out)):
            output.note(f"note: {settings.out} was begun by this very command, which now goes on with it")
            plan, run = continue_ensemble((), {"resume": settings.out})
    if settings.dry_run:
        return _rehearsed(plan, output)
    counters: dict[str, Any] = {}

    def reading(split: str, done: int, total: int) -> None:
        if done <= 1 or split not in counters:
            counters[split] = output.progress(f"{split} images read", total)
        counters[split](done)

    watch = EnsembleWatch(output.training_progress, output.note, output.detail, reading, output.confirm)
    kept = conduct_ensemble(plan, watch, out=settings.out, overwrite=settings.overwrite, run=run)
    return _said(kept, output)


def _join(sources: Sequence[str], kind: str, flags: Flags, output: Output) -> ExitCode:
    from medcli.ensemble.record import join_files, join_runs
    from medcli.prediction.foreign import columns_from
    from medcli.settings.resolve import resolve

    settings = output.settings
    resolved = resolve("ensemble", flags.given)
    _refuse_training(resolved, kind)
    if settings.dry_run:
        output.answer({"members": list(sources)}, f"would be joined: {', '.join(sources)}")
        return ExitCode.DONE
    if kind == "a run":
        kept = join_runs(sources, resolved, out=settings.out, overwrite=settings.overwrite, confirm=output.confirm)
    else:
        kept = join_files(
            sources,
            columns_from(resolved.values),
            resolved,
            out=settings.out,
            overwrite=settings.overwrite,
            confirm=output.confirm,
        )
    for note in kept.notes:
        output.note(f"note: {note}")
    return _said(kept, output)


def _refuse_training(resolved: Resolved, kind: str) -> None:
    """Members that exist learn nothing more; files of other tools may need to be told how their columns are called."""
    from medcli.settings.groups import OutputSettings

    fitting = {"weights_by", "seed", *OutputSettings.__dataclass_fields__}
    if kind != "a run":
        fitting |= set(OF_TABLES)
    for name in resolved.values:
        if name not in fitting and resolved.origin(name).layer == "flag":
            flag = "--" + name.replace("_", "-")
            raise UsageProblem(
                f"`{flag}` does nothing here: members that exist are joined as they are",
                where=flag,
                hint="leave it out, or name architectures to train members",
                code="does-not-act",
            )


def _rehearsed(plan: EnsemblePlan, output: Output) -> ExitCode:
    from medcli.training.session import Watch, rehearse

    waiting = [one for one in plan.ensemble.members if one.state != "completed"]
    lines = [
        f"{len(waiting)} of {len(plan.ensemble.members)} members would be trained by medcli {plan.ensemble.command}"
    ]
    result: dict[str, Any] = {"members": len(plan.ensemble.members), "missing": len(waiting), "architectures": {}}
    for name, start in plan.starts.items():
        figures = rehearse(start, Watch(output.training_progress(), output.note, lambda *_: None, output.confirm))
        count = sum(one.architecture == name for one in waiting)
        hours = figures.hours * count
        lines.append(
            f"{name}: {count} members of {figures.parameters:,} parameters, {hours:.2f} hours for all of them, "
            f"{figures.peak_memory_gib:.2f} GiB at a time"
        )
        result["architectures"][name] = {"members": count, "hours": hours, "parameters": figures.parameters}
    output.answer(result, "\n".join(lines))
    return ExitCode.DONE


def _said(kept: Kept, output: Output) -> ExitCode:
    from medcli.evaluation.render import headline, render

    run = str(kept.run.path)
    failed = [row.member for row in kept.rows if row.member.state != "completed"]
    status = ExitCode.PARTIAL if failed else ExitCode.DONE
    result = {
        "kind": kept.ensemble.kind,
        "weights_by": kept.ensemble.weights_by,
        "members": [
            {
                "name": row.member.name,
                "place": row.member.place,
                "architecture": row.member.architecture or None,
                "seed": row.member.seed,
                "state": row.member.state,
                "error": row.member.error or None,
                "weight": row.member.weight,
                "figures": {name: _number(value) for name, value in row.figures.items()},
            }
            for row in kept.rows
        ],
        "split": kept.split,
        "evaluation": {split: one.to_dict() for split, one in kept.evaluations.items()},
    }

    def text() -> str:
        lines = [_table(kept, output), ""]
        lines += [f"{split}: {headline(one)}" for split, one in kept.evaluations.items()]
        if output.settings.verbose:
            lines += ["", *(f"{render(one, verbose=True)}\n" for one in kept.evaluations.values())]
        return "\n".join([*lines, f"run: {run}"])

    output.answer(result, text, identifier=run, run_dir=run, status=status)
    for member in failed:
        output.warn(f"member {member.name} {member.state}: {member.error or 'not trained'}")
    if failed:
        output.hint(f"`medcli ensemble --resume {run}` tries them again")
    output.hint(
        f"`medcli calibrate {run}` turns its scores into probabilities; `medcli evaluate {run}` shows all of it"
    )
    return status


def _table(kept: Kept, output: Output) -> str:
    """Every member and their mean, on the last split."""
    pooled = kept.evaluations.get(kept.split)
    names = [] if pooled is None else [name for name in _SHOWN if name in pooled.figures]
    weighted = kept.ensemble.weights_by != "equal"
    columns = ["member", "architecture", "seed", *(["weight"] if weighted else []), "state", *names]
    rows = []
    for row in kept.rows:
        one = row.member
        cells = [one.name, one.architecture.removeprefix("medcli/") or "-", "-" if one.seed is None else str(one.seed)]
        cells += [f"{one.weight:.3f}"] if weighted else []
        rows.append((*cells, one.state, *(_shown(row.figures.get(name)) for name in names)))
    if pooled is not None:
        blank = ["", "", *([""] if weighted else []), ""]
        rows.append((f"mean of {len(kept.ensemble.ready)}", *blank, *(_shown(pooled.value(name)) for name in names)))
    title = f"{kept.split}, each by itself and pooled" if names else ""
    return "\n".join(part for part in (title, output.table(tuple(columns), rows)) if part)


_SHOWN = ("qwk", "auc", "accuracy", "ece", "nll", "brier", "augrc")


def _shown(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4f}"


def _number(value: float) -> float | None:
    return None if value != value else value
