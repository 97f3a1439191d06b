"""From what was typed to the members of an ensemble, with everything refused that can be before anything is made.

Every member is what `train`, `finetune` or `lora` would make with the same flags and its own seed, which decides the
weights drawn for the head (and, from scratch, for everything), the order of the images, their augmentation and dropout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medcli.errors import UsageProblem
from medcli.runs.directory import RunDirectory, open_run
from medcli.runs.members import Ensemble, Member, read_ensemble
from medcli.runs.records import read_config
from medcli.settings.chosen import chosen_settings
from medcli.settings.commands import COMMANDS
from medcli.settings.fields import all_fields
from medcli.settings.groups import EnsembleSettings, OutputSettings
from medcli.settings.resolve import Resolved, resolve
from medcli.training.start import MAY_CHANGE, Start, adapted, fresh

__all__ = ["EnsemblePlan", "continue_ensemble", "plan_ensemble", "plan_member", "settings_file"]

COMMAND_OF = {"scratch": "train", "lora": "lora"}
"""What trains a member of a strategy; the others are strategies of `finetune`."""

ON_RESUME = frozenset({"members", "weights_by", "resume"})
SPEECH = frozenset(OutputSettings.__dataclass_fields__)
OWN = frozenset(EnsembleSettings.__dataclass_fields__)


@dataclass(frozen=True)
class EnsemblePlan:
    """An ensemble that is to be trained.

    Args:
        ensemble: its members, none of which may exist yet.
        settings: how many, and what they count.
        architectures: qualified name of each, in the order typed.
        starts: architecture -> a training with its settings and the first seed; empty where the settings lie in files.
        resolved: the settings of the ensemble, with their origins.
        changed: settings of members that were changed when the ensemble was taken up again.
    """

    ensemble: Ensemble
    settings: EnsembleSettings
    architectures: tuple[str, ...]
    starts: Mapping[str, Start]
    resolved: Resolved
    changed: Mapping[str, Any]


def plan_ensemble(architectures: Sequence[str], given: Mapping[str, Any]) -> EnsemblePlan:
    """Plan new members.

    Args:
        architectures: as typed; empty where a file names them.
        given: the flags that were typed.

    Raises:
        UsageProblem: whatever is wrong with settings, architectures or data.
        Problems: several such things.
    """
    resolved = resolve("ensemble", given, architecture=", ".join(architectures) or None)
    settings = resolved.group(EnsembleSettings)
    named = [name.strip() for name in (resolved.architecture or "").split(",") if name.strip()]
    if not named:
        raise UsageProblem(
            "neither architectures to train nor runs or predictions to join were named",
            hint="`medcli ensemble resnet18 --members 5 --data …`, or `medcli ensemble RUN RUN`",
            code="no-architecture",
        )
    strategy = str(resolved.values["strategy"] or ("frozen" if settings.share_backbone else "scratch"))
    command = COMMAND_OF.get(strategy, "finetune")
    if settings.share_backbone:
        _refuse_sharing(strategy, named)
    chosen = chosen_settings(resolved, given)
    _refuse_foreign(chosen, resolved, command, strategy)
    shared = {
        name: value
        for name, value in chosen.items()
        if name in COMMANDS[command].fields and resolved.origin(name).layer != "preset"
    }
    shared |= {name: given[name] for name in ("config", "preset") if name in given}
    if command == "finetune":
        shared["strategy"] = strategy
    starts: dict[str, Start] = {}
    for name in named:
        start = (fresh if command == "train" else adapted)(command, name, shared)
        qualified = start.plan.spec.architecture
        if qualified in starts:
            raise UsageProblem(
                f"`{name}` is named twice",
                hint=f"members of one architecture differ by their seed: `--members {settings.members}`",
                code="named-twice",
            )
        starts[qualified] = start
    if settings.members < len(starts):
        raise UsageProblem(
            f"{settings.members} members cannot be shared out among {len(starts)} architectures",
            where=str(resolved.origin("members")),
            hint=f"`--members {len(starts)}` or more",
            code="too-few-members",
        )
    first = next(iter(starts.values()))
    members = _members(tuple(starts), first.plan.compute.seed, 0, settings.members)
    ensemble = Ensemble("trained", members, settings.weights_by, command=command)
    recorded = replace(resolved, architecture=", ".join(starts))
    return EnsemblePlan(ensemble, settings, tuple(starts), starts, recorded, {})


def continue_ensemble(architectures: Sequence[str], given: Mapping[str, Any]) -> tuple[EnsemblePlan, RunDirectory]:
    """Plan to finish an ensemble, or to add members to it; its own settings apply.

    Raises:
        UsageProblem: no such run, none that trains members, or a flag that would change what they learn.
    """
    run = open_run(given["resume"])
    ensemble = read_ensemble(run)
    if ensemble.kind != "trained":
        raise UsageProblem(
            f"`{run.path}` joins members that exist, so there is nothing to go on with",
            where="--resume",
            hint="join them anew: `medcli ensemble RUN RUN …`",
            code="nothing-to-resume",
        )
    resolved = read_config(run).resolved()
    _refuse_changes(run, resolved, given, architectures)
    values = {**resolved.values, **{name: given[name] for name in given if name in ON_RESUME | MAY_CHANGE}}
    resolved = replace(resolved, values=values)
    settings = resolved.group(EnsembleSettings)
    have = len(ensemble.members)
    if settings.members < have:
        raise UsageProblem(
            f"`{run.path}` has {have} members already",
            where="--members",
            hint=f"`--members {have + 1}` or more adds some",
            code="too-few-members",
        )
    names = tuple(name.strip() for name in str(resolved.architecture).split(","))
    seed = int(resolved.values["seed"])
    added = _members(names, seed, have, settings.members)
    ensemble = replace(ensemble, members=(*ensemble.members, *added), weights_by=settings.weights_by)
    changed = {name: given[name] for name in given if name in MAY_CHANGE and name in COMMANDS[ensemble.command].fields}
    return EnsemblePlan(ensemble, settings, names, {}, resolved, changed), run


def plan_member(plan: EnsemblePlan, run: RunDirectory, member: Member) -> Start:
    """The training of one member, from the settings that the ensemble wrote down.

    Raises:
        UsageProblem: whatever is wrong with them by now.
    """
    command = plan.ensemble.command
    given = {"config": str(settings_file(run, member.architecture)), "seed": member.seed, **plan.changed}
    return (fresh if command == "train" else adapted)(command, member.architecture, given)


def settings_file(run: RunDirectory, architecture: str) -> Path:
    """Where an ensemble keeps the settings that its members of one architecture share."""
    return run.path.absolute() / "members" / f"{architecture.removeprefix('medcli/').replace('/', '--')}.toml"


def _members(architectures: tuple[str, ...], seed: int, have: int, wanted: int) -> tuple[Member, ...]:
    return tuple(
        Member(f"{place + 1:02d}", f"members/{place + 1:02d}", architectures[place % len(architectures)], seed + place)
        for place in range(have, wanted)
    )


def _refuse_sharing(strategy: str, named: Sequence[str]) -> None:
    if strategy != "frozen":
        raise UsageProblem(
            f"members share a backbone that none of them changes, and `--strategy {strategy}` changes it",
            where="--share-backbone",
            hint="leave `--strategy` out, or name `frozen`",
            code="contradiction",
        )
    if len(named) > 1:
        raise UsageProblem(
            f"members share one backbone, and {len(named)} architectures are named",
            where="--share-backbone",
            hint="name one architecture",
            code="contradiction",
        )


def _refuse_foreign(chosen: Mapping[str, Any], resolved: Resolved, command: str, strategy: str) -> None:
    for name in chosen:
        if name not in COMMANDS[command].fields and name not in OWN | SPEECH | {"strategy"}:
            raise UsageProblem(
                f"`{all_fields()[name].flag}` does nothing with `--strategy {strategy}`, whose members are trained by "
                f"`medcli {command}`",
                where=str(resolved.origin(name)),
                hint="leave it out",
                code="does-not-act",
            )


def _refuse_changes(
    run: RunDirectory, resolved: Resolved, given: Mapping[str, Any], architectures: Sequence[str]
) -> None:
    changed = [
        f"`{all_fields()[name].flag}` was `{resolved.values.get(name)}`, given `{value}`"
        for name, value in given.items()
        if name not in ON_RESUME | MAY_CHANGE | SPEECH and resolved.values.get(name) != value
    ]
    known = {name.strip().removeprefix("medcli/") for name in str(resolved.architecture).split(",")}
    strange = [name for name in architectures if name.removeprefix("medcli/") not in known]
    if strange:
        changed.append(f"the architecture was `{resolved.architecture}`, given `{', '.join(architectures)}`")
    if changed:
        raise UsageProblem(
            f"`--resume` finishes an ensemble as it is: {'; '.join(changed)}",
            where=f"{run.config_file} and the command line",
            hint=f"leave them out (`medcli ensemble --resume {run.path}`), or begin a new ensemble",
            code="resume-changes-settings",
        )
