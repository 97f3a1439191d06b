"""A search from its plan to its best settings: trials one after another, none of which sees a test image."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import Trial, TrialState

import medcli
from medcli.data.record import data_record
from medcli.errors import MedcliError, RunFailure
from medcli.models.build import build_classifier
from medcli.registry.discovery import discover, find
from medcli.runs.directory import RunDirectory, claim_run, plan_run, refuse_occupied, replace_text
from medcli.runs.records import append_log, write_config, write_data, write_environment
from medcli.runs.status import Status, held, now, read_status, refuse_busy, write_status
from medcli.search.library import quiet_library
from medcli.search.plan import SearchPlan, settings_of
from medcli.search.plots import draw_search
from medcli.search.sampling import make_pruner, make_sampler, suggest
from medcli.search.space import render_space
from medcli.search.study import counted, explain_storage, join_study, place_of
from medcli.search.table import TrialRow, best_row, rows_of, settings_text, write_tables
from medcli.search.trial import Pruned, TrialResult, drop_weights, plan_trial, run_trial
from medcli.settings.layers import Origin
from medcli.settings.saved import render_saved
from medcli.training.interruption import Interrupted, Interruption
from medcli.training.progress import TrainingProgress

__all__ = ["SearchResult", "SearchWatch", "conduct_search"]

STUDY_FILE, SHARED_FILE, SPACE_FILE, BEST_FILE = "study.db", "trial.toml", "space.toml", "best.toml"
HOPELESS = 5
"""Failures in a row, with no trial completed or pruned, after which a search gives up: it is not the settings then."""
ENDS_ALL = frozenset({"no-space", "cannot-write"})
"""Failures that no other trial would escape."""


class TrialFailed(Exception):
    """Tells the study that a trial failed and the search goes on; the reason is kept in the trial."""


@dataclass(frozen=True)
class SearchWatch:
    """Who is told what happens.

    Args:
        progress: makes a watcher for each trial.
        say: receives sentences the user should read.
        detail: receives what only the curious want: the notes of every trial.
        reading: told (split, images read, images in all) while images are decoded.
        confirm: asked before a run is replaced.
    """

    progress: Callable[[], TrainingProgress]
    say: Callable[[str], None]
    detail: Callable[[str], None]
    reading: Callable[[str, int, int], None]
    confirm: Callable[[str], bool]


@dataclass(frozen=True)
class SearchResult:
    """A search that came to its end.

    Args:
        run: its directory.
        rows: every trial of the study, those of other processes included.
        best: the best of them.
        settings_file: what `--config` takes to train with the best settings.
        ended: why no further trial was begun: `trials`, `timeout` or `grid`.
    """

    run: RunDirectory
    rows: tuple[TrialRow, ...]
    best: TrialRow
    settings_file: Path
    ended: str


def conduct_search(
    plan: SearchPlan,
    watch: SearchWatch,
    *,
    out: str | None = None,
    overwrite: bool = False,
    run: RunDirectory | None = None,
) -> SearchResult:
    """Carry out a search, or go on with one.

    Args:
        plan: what is searched.
        out: the directory of a new search; None for one below `runs`.
        overwrite: whether a run that is there may be replaced.
        run: the search to go on with.

    Raises:
        UsageProblem: found before anything was written: an occupied place, a study that is another one or locked.
        RunFailure: no trial came to its end, or the study cannot be written any more.
        Interrupted: by a signal; the study keeps what was learnt.
    """
    quiet_library()
    new = run is None
    if run is None:
        run = plan_run("search", plan.identity.architecture, out=out)
        refuse_occupied(run, overwrite=overwrite)
        refuse_busy(run)
        _try_weights(plan)
    place = place_of(plan.settings.storage, run.path / STUDY_FILE)
    sampler = make_sampler(plan.settings.search_sampler, plan.seed, plan.space)
    # A study that is kept elsewhere is asked before this directory is made; one of its own can only be made in it.
    study = None if new and plan.settings.storage is None else join_study(place, plan.study_name, plan.identity)
    if new:
        claim_run(run, command="search", overwrite=overwrite, confirm=watch.confirm)
    with held(run), Interruption() as interruption:
        if new:
            _record(plan, run, place.shown)
        write_status(run, _status(run, plan, "running"))
        study = study or join_study(place, plan.study_name, plan.identity)
        study.sampler, study.pruner = sampler, make_pruner(plan.settings.pruner, plan.epochs)
        session = _Session(plan, run, study, watch, interruption)
        try:
            with explain_storage(place):
                ended = session.go_on()
                return session.finish(ended)
        except Interrupted as stopped:
            number = stopped.exit_code - 128
            session.write("interrupted")
            session.keep_best()
            raise Interrupted(
                number,
                f"stopped; {len(session.rows)} trials are kept in `{run.path}`",
                f"continue with `medcli search --resume {run.path}`",
            ) from None
        except BaseException as error:
            sentence = error.message if isinstance(error, MedcliError) else f"{type(error).__name__}: {error}"
            session.write("failed", sentence)
            raise


def _try_weights(plan: SearchPlan) -> None:
    """Weights that are absent or do not fit would fail every trial: better none is begun."""
    model = plan.start.plan.model
    searched = {one.name for one in plan.space} & {"weights", "pretrained"}
    if (model.weights or model.pretrained) and not searched:
        build_classifier(plan.start.plan.spec, weights=model.weights, pretrained=model.pretrained)


def _record(plan: SearchPlan, run: RunDirectory, storage: str) -> None:
    """What this search is: enough to go on with it from anywhere."""
    values = plan.resolved.values
    if plan.settings.storage is not None:
        # A file is written whole, so that the search goes on from any folder; a password is never written.
        shown = storage if "://" in storage else str(Path(storage).expanduser().absolute())
        values = {**values, "storage": shown}
    write_config(run, replace(plan.resolved, values=values))
    replace_text(run.path / SPACE_FILE, render_space(plan.space))
    replace_text(run.path / SHARED_FILE, render_saved(plan.start.resolved, version=medcli.__version__))
    write_data(run, data_record(plan.start.plan.data))
    entry = find(discover(), plan.identity.architecture)
    facts = {"optuna": optuna.__version__, "study": plan.study_name, "storage": storage, "seed": plan.seed}
    write_environment(run, plugins=[entry.origin], facts=facts)


def _status(
    run: RunDirectory, plan: SearchPlan, state: Any, best: TrialRow | None = None, done: int = 0, error: str = ""
) -> Status:
    began = read_status(run).started if run.status_file.is_file() else now()
    figure = {} if best is None else {"epoch": best.trial, "monitor": plan.identity.monitor, "value": best.value}
    return Status(state, "search", began, now(), done, plan.settings.trials, figure, error)


class _Session:
    """One process's part in a study, while it holds its run directory."""

    def __init__(
        self, plan: SearchPlan, run: RunDirectory, study: Study, watch: SearchWatch, interruption: Interruption
    ) -> None:
        self.plan, self.run, self.study = plan, run, study
        self.watch, self.interruption = watch, interruption
        self.rows: tuple[TrialRow, ...] = ()
        self.failures = 0

    def go_on(self) -> str:
        """Begin trials until there are enough, the time is up, or the grid is exhausted; returns which."""
        self._release_orphans()
        began, wanted = time.monotonic(), self.plan.settings.trials
        while True:
            if self.interruption.signal:
                raise Interrupted(self.interruption.signal, "stopped between trials", "")
            if len(counted(self.study.get_trials(deepcopy=False))) >= wanted:
                return "trials"
            if self.plan.timeout is not None and time.monotonic() - began >= self.plan.timeout:
                return "timeout"
            if isinstance(self.study.sampler, optuna.samplers.GridSampler) and self.study.sampler.is_exhausted(
                self.study
            ):
                return "grid"
            self.study.optimize(self._objective, n_trials=1, catch=(TrialFailed,))
            self.write("running")
            self.keep_best()
            if self.failures >= HOPELESS and not any(row.state in ("completed", "pruned") for row in self.rows):
                raise RunFailure(
                    f"the first {self.failures} trials failed, the last one because {self.rows[-1].reason}",
                    hint=f"try one of them: `medcli {self.plan.identity.command} --config {self.run.path / SHARED_FILE}"
                    " --epochs 1`",
                    code="no-trial",
                )

    def finish(self, ended: str) -> SearchResult:
        """Choose the best settings, write them, draw, and say that it is done."""
        self.keep_best()
        self.write("running")
        best = best_row(self.rows, self.plan.identity.monitor)
        if best is None:
            raise RunFailure(
                f"none of {len(self.rows)} trials was completed, so there are no best settings",
                hint=f"`{self.run.path / 'trials.txt'}` says why; go on with `medcli search --resume {self.run.path} "
                f"--trials {self.plan.settings.trials * 2}`",
                code="no-trial",
            )
        file = self.write_best(best)
        self.write("completed")
        return SearchResult(self.run, self.rows, best, file, ended)

    def write(self, state: str, error: str = "") -> None:
        """Tables, pictures and status as things stand."""
        try:
            self.rows = rows_of(self.study)
        except Exception:  # the study is what failed: what is known of it is written all the same
            if not error:
                raise
        names = [one.name for one in self.plan.space]
        monitor = self.plan.identity.monitor
        best = best_row(self.rows, monitor)
        write_tables(self.run, self.rows, names, monitor)
        if state != "running":
            draw_search(self.study, self.rows, self.plan, self.run.plots)
            if best is not None and state == "interrupted":
                self.write_best(best)
        done = sum(row.state in ("completed", "pruned", "failed") for row in self.rows)
        write_status(self.run, _status(self.run, self.plan, state, best, done, error))

    def write_best(self, best: TrialRow) -> Path:
        """Write `best.toml`: the settings every trial shared, and those of the best one."""
        resolved = settings_of(self.plan, self.run.path / SHARED_FILE, best.settings)
        chosen = dict.fromkeys(best.settings, Origin("config file", f"trial {best.trial} of {self.run.path}"))
        shared = self.plan.start.resolved.origins
        resolved = replace(resolved, origins={**shared, **chosen})
        head = (
            f"# The best of {len(self.rows)} trials of a search: val {self.plan.identity.monitor} {best.value:.5g} "
            f"in epoch {best.epoch}.\n"
            "# That figure chose these settings, so it flatters them; judge by images the search never saw.\n"
        )
        file = self.run.path / BEST_FILE
        replace_text(file, head + render_saved(resolved, version=medcli.__version__))
        return file

    def keep_best(self) -> None:
        """Weights are large: only the best trial of the study keeps its own."""
        best = best_row(self.rows, self.plan.identity.monitor)
        for row in self.rows:
            ours = row.state != "running" and row.run and Path(row.run).parent.parent == self.run.path.absolute()
            if ours and (best is None or row.trial != best.trial):
                drop_weights(RunDirectory(Path(row.run)))

    def _objective(self, trial: Trial) -> float:
        wanted = self.plan.settings.trials
        earlier = [one for one in counted(self.study.get_trials(deepcopy=False)) if one.number < trial.number]
        values = suggest(trial, self.plan.space)
        if len(earlier) >= wanted:
            # Another process began the last trial in the same moment.
            trial.set_user_attr("interrupted", True)
            trial.set_user_attr("surplus", True)
            raise TrialFailed
        folder = self.run.path.absolute() / "trials" / f"{trial.number + 1:04d}"
        for name, value in (("host", socket.gethostname()), ("search", str(self.run.path.absolute()))):
            trial.set_user_attr(name, value)
        self._say(f"{_title(trial.number + 1, len(earlier) + 1, wanted)}: {settings_text(values)}")
        twin = next((one for one in earlier if one.state == TrialState.COMPLETE and one.params == values), None)
        if twin is not None and twin.value is not None:
            # Trials share their seed, so training again would give the same figure again.
            for name in ("epoch", "epochs"):
                trial.set_user_attr(name, twin.user_attrs.get(name, 0))
            return self._repeated(trial, twin.number + 1, twin.value)
        trial.set_user_attr("run", str(folder))
        try:
            result = self._train(trial, values, RunDirectory(folder))
        except Pruned as pruned:
            trial.set_user_attr("reason", pruned.message)
            self._say(f"trial {trial.number + 1}: {pruned.message}")
            raise optuna.TrialPruned from None
        except (Interrupted, KeyboardInterrupt) as stopped:
            number = signal.SIGINT if isinstance(stopped, KeyboardInterrupt) else stopped.exit_code - 128
            self._give_back(trial, values)
            raise Interrupted(number, "stopped", "") from None
        except MedcliError as error:
            if error.code in ENDS_ALL:
                raise
            self._failed(trial, str(error.message))
        except OSError as error:
            subject = f" `{error.filename}`" if error.filename else ""
            raise RunFailure(f"{(error.strerror or str(error)).lower()}{subject}", code="system") from error
        except Exception as error:
            # A combination of settings that a network or library refuses in its own words is a bad trial, no more.
            self._failed(trial, f"{type(error).__name__}: {' '.join(str(error).split())}")
        return self._completed(trial, result)

    def _train(self, trial: Trial, values: Mapping[str, Any], run: RunDirectory) -> TrialResult:
        plan = self.plan
        given = {"config": str(self.run.path.absolute() / SHARED_FILE), **values}
        start = plan_trial(plan.identity.command, plan.source, given)
        return run_trial(
            start,
            run,
            trial,
            command=plan.identity.command,
            progress=self.watch.progress(),
            interruption=self.interruption,
            say=self.watch.detail,
            reading=self.watch.reading,
        )

    def _completed(self, trial: Trial, result: TrialResult) -> float:
        trial.set_user_attr("epoch", result.epoch)
        trial.set_user_attr("epochs", result.epochs)
        self.failures = 0
        best = best_row(rows_of(self.study), self.plan.identity.monitor)
        sign = -1 if self.plan.identity.monitor == "loss" else 1
        leads = best is None or sign * result.value > sign * best.value
        standing = "the best so far" if leads or best is None else f"trial {best.trial} leads with {best.value:.4f}"
        self._say(
            f"trial {trial.number + 1}: val {self.plan.identity.monitor} {result.value:.4f} in epoch {result.epoch} of "
            f"{result.epochs}, {standing}"
        )
        return result.value

    def _repeated(self, trial: Trial, twin: int, value: float) -> float:
        reason = f"the same settings as trial {twin}, whose figure it has"
        trial.set_user_attr("reason", reason)
        self._say(f"trial {trial.number + 1}: {reason}: {value:.4f}")
        return value

    def _failed(self, trial: Trial, reason: str) -> None:
        trial.set_user_attr("reason", reason)
        self.failures += 1
        self._say(f"trial {trial.number + 1} failed: {reason}")
        raise TrialFailed from None

    def _give_back(self, trial: Trial, values: Mapping[str, Any]) -> None:
        """An interrupted trial is begun again by whoever goes on with the study."""
        trial.set_user_attr("interrupted", True)
        trial.set_user_attr("reason", "interrupted; begun again by whoever goes on")
        self.study.enqueue_trial(dict(values))

    def _release_orphans(self) -> None:
        """Trials whose process is gone without a word are begun again."""
        here = str(self.run.path.absolute())
        for one in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = str(one.user_attrs.get("search", ""))
            if one.user_attrs.get("host") != socket.gethostname() or (owner != here and _alive(owner)):
                continue
            trial = Trial(self.study, one._trial_id)
            trial.set_user_attr("interrupted", True)
            trial.set_user_attr("reason", "its process ended unexpectedly")
            self.study.tell(one.number, state=TrialState.FAIL)
            if len(one.params) == len(self.plan.space):
                self.study.enqueue_trial(dict(one.params))

    def _say(self, text: str) -> None:
        self.watch.say(text)
        append_log(self.run, text)


def _title(number: int, turn: int, wanted: int) -> str:
    """Numbers run ahead where a trial was interrupted and begun again."""
    return f"trial {number} of {wanted}" if number == turn else f"trial {number} (the {turn}. of {wanted})"


def _alive(search: str) -> bool:
    try:
        return read_status(RunDirectory(Path(search))).state == "running"
    except MedcliError:
        return False
