"""From what the user typed to a plan: a fresh training, or the continuation of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from medcli.data.dataset import DataSet
from medcli.data.load import load_data
from medcli.data.record import compare_records, data_record
from medcli.errors import UsageProblem
from medcli.models.adapted import is_adapted
from medcli.models.build import describe_run
from medcli.registry.cards import parse_options, read_card
from medcli.registry.discovery import Registry, discover, find
from medcli.registry.recipes import recipe_source
from medcli.runs.directory import RunDirectory, open_run
from medcli.runs.records import read_config, read_data
from medcli.runs.status import Status, read_status
from medcli.settings.adaptation_groups import LoraSettings, StrategyName, StrategySettings
from medcli.settings.commands import COMMANDS
from medcli.settings.fields import all_fields
from medcli.settings.groups import ComputeSettings, DataSettings, ModelSettings, OutputSettings, TrainingSettings
from medcli.settings.resolve import Resolved, resolve, survey
from medcli.training.adapting import settings_of_adapter
from medcli.training.nearest import refuse_continuing
from medcli.training.plan import Plan, plan_training

__all__ = ["MAY_CHANGE", "Finished", "Start", "adapted", "continued", "fresh", "refuse_changes"]

MAY_CHANGE = frozenset(name for name, field in all_fields().items() if field.option.safe_on_resume)
"""Settings that a continued run may change: they decide where it runs and what is kept, not what is learnt."""

OF_RUN = frozenset({"weights", "pretrained", "init_from", "arch_opt", "in_channels", "mean", "std", "fit"})
"""What a run settles for those who adapt its weights."""

SPEECH = frozenset(OutputSettings.__dataclass_fields__) | {"resume", "extend", "accept_data_change"}


@dataclass(frozen=True)
class Start:
    """A training that can begin.

    Args:
        plan: what will be done.
        resolved: the settings with their origins.
        run: the run to continue, or None for a new one.
        extend: epochs beyond the planned ones.
        data_changes: what differs from the data the run began with, accepted by the user.
    """

    plan: Plan
    resolved: Resolved
    run: RunDirectory | None = None
    extend: int = 0
    data_changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finished:
    """A run that has nothing left to do."""

    run: RunDirectory
    status: Status


def fresh(command: str, architecture: str | None, given: Mapping[str, Any]) -> Start:
    """Plan a new training.

    Raises:
        UsageProblem: whatever is wrong with settings, architecture, options or data.
    """
    registry = discover()
    strategy = _strategy(command, given, architecture)
    resolved = resolve(command, given, architecture=architecture, recipe_for=recipe_source(strategy, registry))
    if resolved.architecture is None:
        raise UsageProblem(
            "no architecture was named",
            hint=f"`medcli {command} resnet18 --data …`; `medcli models list` shows them all",
            code="no-architecture",
        )
    return Start(_plan(resolved, registry), resolved)


def _strategy(command: str, given: Mapping[str, Any], architecture: str | None) -> str:
    """Which recipe of the card applies: asked before there is one, because a file may name the strategy."""
    if "strategy" not in COMMANDS[command].fields:
        return "lora" if command == "lora" else "train"
    named = survey(command, given, architecture=architecture)[0].values["strategy"]
    if named is None:
        raise UsageProblem(
            "no strategy was named",
            where="--strategy",
            hint=f"one of {', '.join(get_args(StrategyName))}; `--strategy lp-ft` suits most small sets",
            code="no-strategy",
        )
    return str(named)


def adapted(command: str, source: str | None, given: Mapping[str, Any]) -> Start:
    """Plan the adaptation of a pretrained architecture, or of a run.

    Weights come from the flags, from the run, or else are the card's default ones; never random.

    Args:
        command: `finetune` or `lora`.
        source: architecture or run directory, as typed; None where a file names the architecture.
        given: the flags that were typed.

    Raises:
        UsageProblem: whatever is wrong with settings, architecture, weights or data.
    """
    if source is not None and Path(source).is_dir():
        fixed = {name: value for name, value in given.items() if name in OF_RUN}
        if fixed:
            flag = f"--{next(iter(fixed)).replace('_', '-')}"
            raise UsageProblem(
                f"`{flag}` is settled by the run `{source}`, whose weights were trained so",
                where=flag,
                hint=f"leave it out, or start from an architecture: `medcli {command} ARCH {flag} …`",
                code="fixed-by-run",
            )
        spec, how = describe_run(open_run(source))
        # Whole settings, so that the run says again what its weights were made for.
        of_run = {
            "init_from": source,
            "arch_opt": tuple(f"{key}={value}" for key, value in spec.options.items()),
            "head_norm": given.get("head_norm", spec.head_norm),
            "image_size": given.get("image_size", how.image_size),
            "in_channels": how.channels,
            "mean": how.mean,
            "std": how.std,
            "fit": how.fit,
        }
        if command == "lora" and is_adapted(Path(source)):
            of_run |= settings_of_adapter(Path(source), given)
        return fresh(command, spec.architecture, {**given, **of_run})
    named = survey(command, given, architecture=source)[0].values
    if not (named["weights"] or named["pretrained"] or named["init_from"] or named.get("random_weights")):
        given = {**given, "pretrained": True}
    return fresh(command, source, given)


def continued(architecture: str | None, given: Mapping[str, Any]) -> Start | Finished:
    """Plan the continuation of a run, or say that it has finished and is not to be extended.

    The run's own settings apply; files and variables do not leak in. Flags may only change what `MAY_CHANGE` lists.

    Raises:
        UsageProblem: no such run, a flag that would change what is learnt, another architecture, changed data.
    """
    run = open_run(given["resume"])
    status, saved = read_status(run), read_config(run)
    resolved = saved.resolved()
    registry = discover()
    if architecture is not None and find(registry, architecture) != find(registry, str(resolved.architecture)):
        raise UsageProblem(
            f"`{run.path}` trains `{resolved.architecture}`, not `{architecture}`",
            where=str(run.config_file),
            hint=f"leave the architecture out: `medcli {status.command} --resume {run.path}`",
            code="other-architecture",
        )
    refuse_continuing(resolved.values.get("strategy"), str(run.path))
    refuse_changes(run, resolved, given)
    extend = int(given.get("extend") or 0)
    if status.state == "completed" and not extend:
        return Finished(run, status)
    values = {**resolved.values, **{name: given[name] for name in given if name in MAY_CHANGE}}
    resolved = replace(resolved, values=values)
    plan = _plan(resolved, registry)
    changes = tuple(compare_records(read_data(run), data_record(plan.data)))
    if changes and not given.get("accept_data_change"):
        raise UsageProblem(
            "the data is not what this run began with: " + "; ".join(changes),
            where=str(run.data_file),
            hint="put the data back, or go on with `--accept-data-change` (recorded in the run)",
            code="data-changed",
        )
    return Start(plan, resolved, run, extend, changes)


def _plan(resolved: Resolved, registry: Registry) -> Plan:
    entry = find(registry, str(resolved.architecture))
    card = read_card(entry)
    model, data_settings = resolved.group(ModelSettings), resolved.group(DataSettings)
    return plan_training(
        _one_set(data_settings, resolved),
        entry.qualified,
        card,
        parse_options(entry, card, model.arch_opt),
        data_settings=data_settings,
        model=model,
        training=resolved.group(TrainingSettings),
        compute=resolved.group(ComputeSettings),
        strategy=resolved.group(StrategySettings) if "strategy" in resolved.values else None,
        lora=_lora(resolved) if "lora_alpha" in resolved.values else None,
    )


def _lora(resolved: Resolved) -> LoraSettings:
    """The settings of adapters; a recipe's alpha belongs to its rank, and another rank has its own."""
    settings = resolved.group(LoraSettings)
    own = resolved.origin("rank").rank > resolved.origin("lora_alpha").rank
    return replace(settings, lora_alpha=None) if own and resolved.origin("lora_alpha").layer == "recipe" else settings


def _one_set(settings: DataSettings, resolved: Resolved) -> DataSet:
    sets = load_data(settings, data_tables=resolved.data_tables)
    if len(sets) > 1:
        names = ", ".join(f"`{one.name}`" for one in sets)
        raise UsageProblem(
            f"a training takes one data set, not {len(sets)} ({names})",
            where=resolved.origin("data").where,
            hint="train on one and compare with `medcli evaluate RUN --data NAME=PATH --data NAME=PATH`",
            code="one-data-set",
        )
    return sets[0]


def refuse_changes(run: RunDirectory, resolved: Resolved, given: Mapping[str, Any]) -> None:
    """Check that flags beside `--resume` change nothing that is learnt.

    Raises:
        UsageProblem: some do; saved and given values are listed.
    """
    rows = [
        (f"--{name.replace('_', '-')}", resolved.values.get(name), value)
        for name, value in given.items()
        if name not in MAY_CHANGE | SPEECH and resolved.values.get(name) != value
    ]
    if not rows:
        return
    width = max(len(flag) for flag, _, _ in rows)
    table = "\n".join(f"  {flag:<{width}}  saved: {_shown(old)}  given: {_shown(new)}" for flag, old, new in rows)
    raise UsageProblem(
        f"`--resume` continues a run with its own settings; these differ:\n{table}",
        where=f"{run.config_file} and the command line",
        hint=f"leave them out (`medcli {resolved.command} --resume {run.path}`), or start from its weights: "
        + (
            f"`medcli {resolved.command} --init-from {run.path} …`"
            if resolved.command.startswith("diffmap")
            else f"`medcli train {resolved.architecture} --init-from {run.path} …`"
        ),
        code="resume-changes-settings",
    )


def _shown(value: Any) -> str:
    return ",".join(str(part) for part in value) if isinstance(value, tuple) else str(value)
