"""From what the user typed to what is searched, with everything refused that can be refused before a study is made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medcli.data.record import data_record
from medcli.errors import UsageProblem
from medcli.runs.directory import RunDirectory, open_run
from medcli.runs.records import read_config
from medcli.runs.status import Status, read_status
from medcli.search.library import quiet_library, require_library
from medcli.search.sampling import make_sampler, suggest
from medcli.search.space import Dimension, default_space, read_space, space_to_json
from medcli.search.study import Identity, memory_study
from medcli.search.trial import plan_whole, without_test
from medcli.settings.chosen import chosen_settings
from medcli.settings.commands import COMMANDS
from medcli.settings.fields import Field, all_fields
from medcli.settings.groups import OutputSettings, PluginSettings, SearchSettings
from medcli.settings.resolve import Resolved, resolve
from medcli.training.processes import place
from medcli.training.start import MAY_CHANGE, Start

__all__ = ["SearchPlan", "continue_search", "plan_search", "sample", "settings_of"]

COMMAND_OF = {"scratch": "train", "lora": "lora"}
"""What a trial of a strategy runs; the others are strategies of `finetune`."""

ON_RESUME = frozenset({"trials", "timeout", "storage", "pruner", "search_sampler", "resume"})
SPEECH = frozenset(OutputSettings.__dataclass_fields__)


@dataclass(frozen=True)
class SearchPlan:
    """What a search does.

    Args:
        source: architecture or run as typed or as a file names it.
        identity: what everybody who shares its study must agree on.
        space: what is searched.
        fixed: settings that the default space would search, had the user not given them.
        settings: how it is searched.
        timeout: seconds after which no further trial begins, or None.
        resolved: the settings of the search itself, with their origins.
        start: a training with the settings that all trials share, without test images.
        kept: test images kept for afterwards.
    """

    source: str | None
    identity: Identity
    space: tuple[Dimension, ...]
    fixed: tuple[str, ...]
    settings: SearchSettings
    timeout: float | None
    resolved: Resolved
    start: Start
    kept: int

    @property
    def study_name(self) -> str:
        """The study's name in its storage."""
        return self.settings.study or f"{self.identity.architecture.removeprefix('medcli/')}-{self.identity.strategy}"

    @property
    def epochs(self) -> int:
        """Epochs of a whole trial, where they are not searched."""
        return self.start.plan.training.epochs

    @property
    def seed(self) -> int:
        """Of every trial, and of the draws."""
        return self.start.plan.compute.seed


def plan_search(source: str | None, given: Mapping[str, Any]) -> SearchPlan:
    """Plan a new search.

    Args:
        source: architecture, or for fine-tuning a run; None where a file names it.
        given: the flags that were typed.

    Raises:
        UsageProblem: whatever is wrong with settings, space, data or what is installed.
        Problems: several such things.
    """
    if source is not None and Path(source).is_dir():
        source = str(Path(source).resolve())
    resolved = resolve("search", given, architecture=source)
    strategy = str(resolved.values["strategy"] or "scratch")
    command = COMMAND_OF.get(strategy, "finetune")
    chosen = chosen_settings(resolved, given)
    _refuse_foreign(chosen, resolved, command, strategy)
    file = resolved.values["space"]
    fixed: tuple[str, ...] = ()
    if file is None:
        space = default_space(strategy)
        fixed = tuple(one.name for one in space if one.name in chosen)
        space = tuple(one for one in space if one.name not in chosen)
        if not space:
            raise UsageProblem(
                "nothing is left to search: every setting of the default space was given",
                where=", ".join(dict.fromkeys(str(resolved.origin(name)) for name in fixed)),
                hint="leave one of them out, or write a space of your own for `--space`",
                code="nothing-to-search",
            )
    else:
        space = read_space(Path(file).expanduser(), command, file)
        _refuse_both(space, chosen, resolved, file)
    shared = {name: value for name, value in chosen.items() if name in COMMANDS[command].fields}
    shared |= {name: given[name] for name in ("config", "preset") if name in given}
    if command == "finetune":
        shared["strategy"] = strategy
    return _planned(resolved, resolved.architecture, command, strategy, space, fixed, shared)


def continue_search(source: str | None, given: Mapping[str, Any]) -> tuple[SearchPlan, RunDirectory, Status]:
    """Plan to go on with a search; its own settings apply.

    Raises:
        UsageProblem: no such run, not a search, or a flag that would change what is searched.
    """
    run = open_run(given["resume"])
    status = read_status(run)
    if status.command != "search":
        raise UsageProblem(
            f"`{run.path}` was made by `medcli {status.command}`, not by a search",
            where="--resume",
            hint=f"`medcli {status.command} --resume {run.path}`",
            code="not-a-search",
        )
    resolved = read_config(run).resolved()
    _refuse_changes(run, resolved, given, source)
    values = {**resolved.values, **{name: given[name] for name in given if name in ON_RESUME | MAY_CHANGE}}
    resolved = replace(resolved, values=values)
    strategy = str(values["strategy"] or "scratch")
    command = COMMAND_OF.get(strategy, "finetune")
    space = read_space(run.path / "space.toml", command)
    if values["storage"] and "***" in values["storage"]:
        raise UsageProblem(
            "the password of the study's database is not kept in the run",
            where=str(run.config_file),
            hint="give the URL again: `--storage URL`, or in the variable `MEDCLI_STORAGE`",
            code="no-password",
        )
    shared = {"config": str(run.path / "trial.toml")}
    shared |= {name: given[name] for name in given if name in MAY_CHANGE and name in COMMANDS[command].fields}
    return _planned(resolved, resolved.architecture, command, strategy, space, (), shared), run, status


def settings_of(plan: SearchPlan, shared: Path, values: Mapping[str, Any]) -> Resolved:
    """The settings of a training with what was chosen for a trial, as its command resolves them."""
    return plan_whole(plan.identity.command, plan.source, {"config": str(shared), **values}).resolved


def sample(space: Sequence[Dimension], settings: SearchSettings, identity: Identity, seed: int) -> dict[str, Any]:
    """The settings of a first trial, drawn as a study would draw them; nothing is kept."""
    quiet_library()
    study = memory_study(identity)
    study.sampler = make_sampler(settings.search_sampler, seed, space)
    return suggest(study.ask(), space)


def _planned(
    resolved: Resolved,
    source: str | None,
    command: str,
    strategy: str,
    space: tuple[Dimension, ...],
    fixed: tuple[str, ...],
    shared: Mapping[str, Any],
) -> SearchPlan:
    settings = resolved.group(SearchSettings)
    require_library(cmaes=settings.search_sampler == "cmaes")
    if source is None:
        raise UsageProblem(
            "no architecture was named",
            hint="`medcli search resnet18 --data …`; `medcli models list` shows them all",
            code="no-architecture",
        )
    if place().of > 1:
        raise UsageProblem(
            "a trial runs in one process, and a launcher has started several",
            where="WORLD_SIZE",
            hint="start as many searches as you have GPUs, each with `--device cuda:N` and the same `--storage URL`",
            code="one-process",
        )
    whole = plan_whole(command, source, shared)
    if whole.resolved.values["processes"] > 1:
        whole = plan_whole(command, source, {**shared, "processes": 1})
    start = without_test(whole)
    names = {one.name for one in space}
    identity = Identity(
        architecture=start.plan.spec.architecture,
        command=command,
        strategy=strategy,
        monitor=start.plan.monitor,
        space=space_to_json(space),
        settings={
            name: _plain(start.resolved.values[name], field)
            for name, field in COMMANDS[command].fields.items()
            if name not in names and _shapes_result(field)
        },
        data=data_record(start.plan.data),
    )
    make_sampler(settings.search_sampler, start.plan.compute.seed, space)
    kept = len(whole.plan.data.splits["test"]) if "test" in whole.plan.data.splits else 0
    timeout = resolved.group(PluginSettings).timeout
    return SearchPlan(source, identity, space, fixed, settings, timeout, resolved, start, kept)


def _refuse_foreign(chosen: Mapping[str, Any], resolved: Resolved, command: str, strategy: str) -> None:
    own = {
        field.name for field in COMMANDS["search"].fields.values() if field.group in (SearchSettings, PluginSettings)
    }
    for name in chosen:
        if name not in COMMANDS[command].fields and name not in own | SPEECH | {"strategy"}:
            raise UsageProblem(
                f"`{all_fields()[name].flag}` does nothing with `--strategy {strategy}`, whose trials run "
                f"`medcli {command}`",
                where=str(resolved.origin(name)),
                hint="leave it out",
                code="does-not-act",
            )


def _refuse_both(space: Sequence[Dimension], chosen: Mapping[str, Any], resolved: Resolved, file: str) -> None:
    for one in space:
        if one.name in chosen:
            raise UsageProblem(
                f"`{one.name}` is searched by `{file}` and fixed at `{chosen[one.name]}`",
                where=str(resolved.origin(one.name)),
                hint=f"leave `{all_fields()[one.name].flag}` out, or take `{one.name}` out of the file",
                code="contradiction",
            )


def _refuse_changes(run: RunDirectory, resolved: Resolved, given: Mapping[str, Any], source: str | None) -> None:
    changed = [
        f"`{all_fields()[name].flag}` was `{resolved.values.get(name)}`, given `{value}`"
        for name, value in given.items()
        if name not in ON_RESUME | MAY_CHANGE | SPEECH and resolved.values.get(name) != value
    ]
    if source is not None and source != resolved.architecture:
        changed.append(f"the architecture was `{resolved.architecture}`, given `{source}`")
    if changed:
        raise UsageProblem(
            f"`--resume` goes on with a search as it is: {'; '.join(changed)}",
            where=f"{run.config_file} and the command line",
            hint=f"leave them out (`medcli search --resume {run.path}`), or begin a new search",
            code="resume-changes-settings",
        )


def _shapes_result(field: Field) -> bool:
    """Whether a setting decides what a trial learns; where files lie is compared by their contents."""
    option = field.option
    files = option.completes in ("data", "dir", "run") or (option.completes == "path" and field.name != "weights")
    return (
        not option.flag_only and option.in_file and not option.safe_on_resume and not files and field.name != "device"
    )


def _plain(value: Any, field: Field) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if field.name == "weights" and value and Path(value).expanduser().is_file():
        with Path(value).expanduser().open("rb") as file:
            return "sha256 " + hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return value
