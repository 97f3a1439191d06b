"""From what the user typed to a plan: a fresh training, or the continuation of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from medcli.data.dataset import DataSet
from medcli.data.load import load_data
from medcli.data.record import compare_records, data_record
from medcli.errors import UsageProblem
from medcli.registry.cards import parse_options, read_card
from medcli.registry.discovery import Registry, discover, find
from medcli.registry.recipes import recipe_source
from medcli.runs.directory import RunDirectory, open_run
from medcli.runs.records import read_config, read_data
from medcli.runs.status import Status, read_status
from medcli.settings.fields import all_fields
from medcli.settings.groups import ComputeSettings, DataSettings, ModelSettings, OutputSettings, TrainingSettings
from medcli.settings.resolve import Resolved, resolve
from medcli.training.plan import Plan, plan_training

__all__ = ["MAY_CHANGE", "Start", "continued", "fresh"]

MAY_CHANGE = frozenset(name for name, field in all_fields().items() if field.option.safe_on_resume)
"""Settings that a continued run may change: they decide where it runs and what is kept, not what is learnt."""

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


def fresh(command: str, architecture: str | None, given: Mapping[str, Any]) -> Start:
    """Plan a new training.

    Raises:
        UsageProblem: whatever is wrong with settings, architecture, options or data.
    """
    registry = discover()
    resolved = resolve(command, given, architecture=architecture, recipe_for=recipe_source("train", registry))
    if resolved.architecture is None:
        raise UsageProblem(
            "no architecture was named",
            hint=f"`medcli {command} resnet18 --data …`; `medcli models list` shows them all",
            code="no-architecture",
        )
    return Start(_plan(resolved, registry), resolved)


def continued(architecture: str | None, given: Mapping[str, Any]) -> tuple[Start | None, RunDirectory, Status]:
    """Plan the continuation of a run, or None when it has finished and is not to be extended.

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
            hint=f"leave the architecture out: `medcli train --resume {run.path}`",
            code="other-architecture",
        )
    _refuse_changes(run, resolved, given)
    extend = int(given.get("extend") or 0)
    if status.state == "completed" and not extend:
        return None, run, status
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
    return Start(plan, resolved, run, extend, changes), run, status


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
    )


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


def _refuse_changes(run: RunDirectory, resolved: Resolved, given: Mapping[str, Any]) -> None:
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
        hint=f"leave them out (`medcli train --resume {run.path}`), or start from its weights: "
        f"`medcli train {resolved.architecture} --init-from {run.path} …`",
        code="resume-changes-settings",
    )


def _shown(value: Any) -> str:
    return ",".join(str(part) for part in value) if isinstance(value, tuple) else str(value)
