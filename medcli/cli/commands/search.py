"""`medcli search`: many short trainings, judged on validation images, and the settings of the best one as a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medcli.cli.options import Flags, OptionalArchitectureOrRun
from medcli.cli.output import Output

if TYPE_CHECKING:
    from medcli.search.plan import SearchPlan
    from medcli.search.session import SearchResult

__all__ = ["search"]


def search(source: OptionalArchitectureOrRun, flags: Flags) -> None:
    """Look for good settings of a training, judged on its validation images.

    A trial is what `medcli train` does (`--strategy scratch`, the default), or `finetune` or `lora` by the strategy
    named, with the flags given here and with settings drawn from a space. The test split is neither read nor predicted:
    keep it for the one training that follows. Trials that fall behind are stopped early; one that fails is recorded,
    and the search goes on. Settings given as flags are fixed for every trial. The best ones are written to `best.toml`.

    Examples:
        medcli search resnet18 --data breastmnist.npz --trials 30 --epochs 20
        medcli search resnet18 --strategy layerwise --data xrays/ --pruner hyperband --timeout 7200
        medcli search resnet18 --data breastmnist.npz --space space.toml --dry-run
        medcli search resnet18 --data breastmnist.npz --storage study.log --trials 100
        medcli search --resume runs/20261121T101500Z-search-resnet18-1a2b --trials 60
    """
    from medcli.search.library import require_library

    require_library()
    from medcli.search.plan import continue_search, plan_search
    from medcli.search.session import SearchWatch, conduct_search

    settings = flags.output()
    output = Output(settings, "search")
    run = None
    if flags.given.get("resume"):
        plan, run, status = continue_search(source, flags.given)
        if status.state == "completed" and status.epoch >= plan.settings.trials:
            _finished(output, str(run.path), status.epoch, dict(status.best))
            return
    else:
        plan = plan_search(source, flags.given)
    _announce(output, plan)
    if settings.dry_run:
        _sampled(output, plan)
        return
    counters: dict[str, Any] = {}

    def reading(split: str, done: int, total: int) -> None:
        if done <= 1 or split not in counters:
            counters[split] = output.progress(f"{split} images read", total)
        counters[split](done)

    watch = SearchWatch(output.training_progress, output.note, output.detail, reading, output.confirm)
    result = conduct_search(plan, watch, out=settings.out, overwrite=settings.overwrite, run=run)
    _found(output, plan, result)


def _announce(output: Output, plan: SearchPlan) -> None:
    identity = plan.identity
    adapted = f" --strategy {identity.strategy}" if identity.command == "finetune" else ""
    output.note(f"each trial: medcli {identity.command} {plan.source}{adapted}, {plan.epochs} epochs")
    output.note(f"searched by val {identity.monitor}: {', '.join(one.name for one in plan.space)}")
    if plan.fixed:
        values = plan.start.resolved.values
        output.note(f"fixed, as you asked: {', '.join(f'{name} {values[name]}' for name in plan.fixed)}")
    data = plan.start.plan.data.name
    if plan.kept:
        output.note(f"the {plan.kept:,} test images of {data} are kept for afterwards: no trial reads or predicts them")
    else:
        output.note(f"{data} has no test images, by which the chosen settings could be judged afterwards")


def _space_lines(plan: SearchPlan) -> list[str]:
    width = max(len(one.name) for one in plan.space)
    return [f"{one.name:<{width}}  {one}" for one in plan.space]


def _sampled(output: Output, plan: SearchPlan) -> None:
    from medcli.search.plan import sample
    from medcli.search.space import space_to_json
    from medcli.search.table import settings_text

    values = sample(plan.space, plan.settings, plan.identity, plan.seed)
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in values.items())
    result = {
        "command": plan.identity.command,
        "strategy": plan.identity.strategy,
        "monitor": plan.identity.monitor,
        "space": space_to_json(plan.space),
        "sample": values,
        "trials": plan.settings.trials,
        "test_images_kept": plan.kept,
    }
    output.answer(
        result,
        lambda: "\n".join([*_space_lines(plan), "", f"a first trial: {settings_text(values)}", f"as flags: {flags}"]),
    )


def _finished(output: Output, run: str, trials: int, best: dict[str, Any]) -> None:
    output.answer(
        {"state": "completed", "trials": trials, "best": best, "settings": f"{run}/best.toml"},
        f"{run} has already finished its {trials} trials",
        identifier=run,
        run_dir=run,
    )
    output.hint(f"`medcli search --resume {run} --trials {trials * 2}` tries {trials} more")


def _found(output: Output, plan: SearchPlan, result: SearchResult) -> None:
    from medcli.search.table import count_states, row_to_json, settings_text, table_text

    run, best, monitor = str(result.run.path), result.best, plan.identity.monitor
    counts = count_states(result.rows)
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    document = {
        "study": plan.study_name,
        "monitor": monitor,
        "best": row_to_json(best),
        "states": counts,
        "ended_by": result.ended,
        "settings": str(result.settings_file),
        "optimistic": True,
        "test_images_kept": plan.kept,
        "trials": [row_to_json(row) for row in result.rows],
    }
    ended = {"timeout": "; the time was up", "grid": "; the grid is exhausted"}.get(result.ended, "")

    def text() -> str:
        lines = [
            table_text(result.rows, [one.name for one in plan.space], monitor),
            "",
            f"{len(result.rows)} trials: {told}{ended}",
            f"best: trial {best.trial}, val {monitor} {best.value:.4f} in epoch {best.epoch} of {best.epochs}",
            f"      {settings_text(best.settings)}",
            f"settings: {result.settings_file}",
            f"run: {run}",
        ]
        return "\n".join(lines)

    output.answer(document, text, identifier=run, run_dir=run)
    judged = counts.get("completed", 0)
    output.note(
        f"val {monitor} {best.value:.4f} is optimistic: it is the best of {judged} on the very images that chose it"
        + (f"; the {plan.kept:,} test images have not been looked at" if plan.kept else "")
    )
    output.hint(
        f"`medcli {plan.identity.command} --config {result.settings_file}` trains with these settings"
        + (" and judges them by the test images" if plan.kept else "")
    )
