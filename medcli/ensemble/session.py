"""An ensemble from its plan to its figures: members one after another, each a run of its own, so that none is lost."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from safetensors.torch import load_file, save_file

import medcli
from medcli.data.record import data_record
from medcli.ensemble.plan import EnsemblePlan, plan_member, settings_file
from medcli.ensemble.record import Kept, keep
from medcli.errors import MedcliError, RunFailure
from medcli.prediction.members import HEAD_FILE
from medcli.registry.discovery import discover, find
from medcli.runs.directory import (
    RunDirectory,
    claim_run,
    plan_run,
    refuse_occupied,
    replace_text,
    writing,
)
from medcli.runs.members import Ensemble, Member, write_ensemble
from medcli.runs.records import append_log, read_config, write_config, write_data, write_environment
from medcli.runs.status import Status, held, now, read_status, refuse_busy, write_status
from medcli.settings.saved import render_saved
from medcli.training.interruption import Interrupted, Interruption
from medcli.training.progress import TrainingProgress
from medcli.training.session import Watch, conduct
from medcli.training.start import Finished, Start, continued

__all__ = ["EnsembleWatch", "conduct_ensemble", "same_command"]

ENDS_ALL = frozenset({"no-space", "cannot-write"})
"""Failures that no other member would escape."""


@dataclass(frozen=True)
class EnsembleWatch:
    """Who is told what happens.

    Args:
        progress: makes a watcher for each member.
        say: receives sentences the user should read.
        detail: receives what only the curious want: the notes of every member but the first.
        reading: told (split, images read, images in all) while images are decoded.
        confirm: asked before a run is replaced.
    """

    progress: Callable[[], TrainingProgress]
    say: Callable[[str], None]
    detail: Callable[[str], None]
    reading: Callable[[str, int, int], None]
    confirm: Callable[[str], bool]


def same_command(plan: EnsemblePlan, run: RunDirectory) -> bool:
    """Whether an ensemble that is there was begun by the very same command, so that it can simply go on."""
    try:
        before = run.config_file.read_text(encoding="utf-8")
    except OSError:
        return False
    return before == render_saved(plan.resolved, version=medcli.__version__)


def conduct_ensemble(
    plan: EnsemblePlan,
    watch: EnsembleWatch,
    *,
    out: str | None = None,
    overwrite: bool = False,
    run: RunDirectory | None = None,
) -> Kept:
    """Train the members that are missing and pool what all of them say.

    Args:
        plan: from `plan_ensemble` or `continue_ensemble`.
        watch: told what happens.
        out: the directory of a new ensemble; None for one below `runs`.
        overwrite: whether a run that is there may be replaced.
        run: the ensemble to go on with.

    Raises:
        UsageProblem: found before anything was written.
        RunFailure: fewer than two members were completed, or nothing more can be written.
        Interrupted: by a signal; members that were completed are kept, the one in work can go on.
    """
    new = run is None
    if run is None:
        name = "-".join(one.removeprefix("medcli/").replace("/", "--") for one in plan.architectures[:3])
        run = plan_run("ensemble", name, out=out)
        refuse_occupied(run, overwrite=overwrite)
        if run.path.is_dir():
            refuse_busy(run)
        claim_run(run, command="ensemble", overwrite=overwrite, confirm=watch.confirm)
    with held(run), Interruption() as interruption:
        if new:
            _record(plan, run)
        elif plan.settings != read_config(run).resolved().group(type(plan.settings)):
            write_config(run, plan.resolved)
        session = _Session(plan, run, watch, interruption)
        try:
            return session.go_on()
        except Interrupted as stopped:
            session.write("interrupted")
            raise Interrupted(
                stopped.exit_code - 128,
                f"stopped; {len(session.ensemble.ready)} of {len(session.ensemble.members)} members are kept in "
                f"`{run.path}`",
                f"continue with `medcli ensemble --resume {run.path}`",
            ) from None
        except BaseException as error:
            session.write(
                "failed", error.message if isinstance(error, MedcliError) else f"{type(error).__name__}: {error}"
            )
            raise


def _record(plan: EnsemblePlan, run: RunDirectory) -> None:
    """What this ensemble is: enough to go on with it from anywhere."""
    write_config(run, plan.resolved)
    registry = discover()
    plugins = []
    for name, start in plan.starts.items():
        replace_text(settings_file(run, name), render_saved(start.resolved, version=medcli.__version__))
        plugins.append(find(registry, name).origin)
    write_data(run, data_record(next(iter(plan.starts.values())).plan.data))
    write_environment(run, plugins=list(dict.fromkeys(plugins)), facts={"seed": plan.resolved.values["seed"]})


class _Session:
    """One process's work on an ensemble, while it holds its directory."""

    def __init__(self, plan: EnsemblePlan, run: RunDirectory, watch: EnsembleWatch, interruption: Interruption) -> None:
        self.plan, self.run, self.watch, self.interruption = plan, run, watch, interruption
        self.ensemble: Ensemble = plan.ensemble
        self.began = read_status(run).started if run.status_file.is_file() else now()
        self._told = False

    def go_on(self) -> Kept:
        """Train what is missing, then pool."""
        self.write("running")
        members = self.ensemble.members
        for place, member in enumerate(members, start=1):
            if self.interruption.signal:
                raise Interrupted(self.interruption.signal, "stopped between members", "")
            if member.state == "completed":
                continue
            self._say(f"member {place} of {len(members)}: {_short(member.architecture)}, seed {member.seed}")
            self._note(self._trained(member))
        failed = [one for one in self.ensemble.members if one.state != "completed"]
        if len(self.ensemble.ready) < 2:
            reasons = "; ".join(dict.fromkeys(f"{one.name}: {one.error}" for one in failed))
            raise RunFailure(
                f"{len(self.ensemble.ready)} of {len(members)} members were completed, and an ensemble needs two: "
                f"{reasons}",
                hint=f"`medcli ensemble --resume {self.run.path}` tries the others again",
                code="no-members",
            )
        kept = keep(self.run, self.ensemble, seed=int(self.plan.resolved.values["seed"]))
        self.ensemble = kept.ensemble
        for note in kept.notes:
            self._say(f"note: {note}")
        error = f"{len(failed)} of {len(members)} members failed" if failed else ""
        self.write("completed", error, kept)
        return kept

    def write(self, state: str, error: str = "", kept: Kept | None = None) -> None:
        """Members and status as things stand."""
        write_ensemble(self.run, self.ensemble)
        done, planned = len(self.ensemble.ready), len(self.ensemble.members)
        best: Mapping[str, object] = {} if kept is None else kept.best()
        write_status(self.run, Status(state, "ensemble", self.began, now(), done, planned, best, error))  # type: ignore[arg-type]

    def _trained(self, member: Member) -> Member:
        """The member as it stands after its training; a failure is its own."""
        own = RunDirectory(self.run.path / member.place)
        try:
            start = self._start(member, own)
            if start is not None:
                conduct(start, self._watch(), command=self.plan.ensemble.command, out=str(own.path), overwrite=True)
            self._share(member, own)
        except Interrupted:
            self._note(replace(member, state="interrupted"))
            raise
        except MedcliError as error:
            if error.code in ENDS_ALL:
                raise
            return self._failed(member, error.message)
        except Exception as error:
            return self._failed(member, f"{type(error).__name__}: {' '.join(str(error).split())}")
        finally:
            # What a failed member held on the device must not starve the next one.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return replace(member, state="completed", error="")

    def _start(self, member: Member, own: RunDirectory) -> Start | None:
        """How the member is trained: on from its checkpoint where it has one, else anew; None where it is done."""
        if own.status_file.is_file():
            status = read_status(own)
            if status.state == "completed":
                return None
            if own.checkpoint_file.is_file():
                found = continued(None, {"resume": str(own.path), **self.plan.changed})
                return None if isinstance(found, Finished) else found
        if own.path.is_dir():
            shutil.rmtree(own.path)
        return plan_member(self.plan, self.run, member)

    def _share(self, member: Member, own: RunDirectory) -> None:
        """Of members on one backbone only the first keeps it; the others keep their heads."""
        if not self.plan.settings.share_backbone:
            return
        if not self.ensemble.backbone:
            self.ensemble = replace(self.ensemble, backbone=member.name)
            return
        if not own.model_file.is_file():
            return
        holder = RunDirectory(self.run.path / self._place(self.ensemble.backbone)).model_file
        tensors, theirs = load_file(own.model_file), load_file(holder)
        prefix = "medcli_head."
        for name, value in tensors.items():
            if not name.startswith(prefix) and not torch.equal(value, theirs[name]):
                raise RunFailure(
                    f"the backbone is not that of member {self.ensemble.backbone}: its weights have changed",
                    hint="put the weight file back",
                    code="weights-changed",
                )
        heads = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        path = own.path / HEAD_FILE
        with writing(path):
            save_file(heads, path)
            own.model_file.unlink()
            shutil.rmtree(own.path / "checkpoints", ignore_errors=True)

    def _place(self, name: str) -> str:
        return next(one.place for one in self.ensemble.members if one.name == name)

    def _failed(self, member: Member, reason: str) -> Member:
        self._say(f"member {member.name} failed: {reason}")
        return replace(member, state="failed", error=reason)

    def _note(self, member: Member) -> None:
        self.ensemble = self.ensemble.with_member(member)
        self.write("running")

    def _watch(self) -> Watch:
        say = self.watch.detail if self._told else self.watch.say
        self._told = True
        return Watch(self.watch.progress(), say, self.watch.reading, lambda question: True)

    def _say(self, text: str) -> None:
        self.watch.say(text)
        append_log(self.run, text)


def _short(architecture: str) -> str:
    return architecture.removeprefix("medcli/")
