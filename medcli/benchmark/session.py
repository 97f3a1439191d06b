"""A benchmark from its plan to its table: one fresh interpreter after another, every row on the disk at once."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medcli.benchmark.items import Item, item_to_json
from medcli.benchmark.load import busy_processors
from medcli.benchmark.plan import BenchmarkPlan, limits_of, write_plan
from medcli.benchmark.process import Ending, measure_apart
from medcli.benchmark.rows import (
    Facts,
    Learning,
    Row,
    State,
    Timing,
    append_row,
    failed,
    merge,
    read_rows,
    timing_from_json,
)
from medcli.errors import MedcliError
from medcli.runs.directory import RunDirectory, claim_run, plan_run
from medcli.runs.records import append_log, write_config, write_environment
from medcli.runs.status import Status, held, now, read_status, write_status
from medcli.settings.resolve import Resolved
from medcli.training.interruption import Interrupted, Interruption

__all__ = ["BenchmarkResult", "Watch", "carry_out", "is_done"]

RESULTS = "results.jsonl"
TRAININGS, GRAPHS = "trainings", "graphs"


@dataclass(frozen=True)
class Watch:
    """Who is told what happens.

    Args:
        begun: told (position from 1, items in all, item, seconds left of the whole job or None).
        stage: told what is done just now.
        finished: told (position, items in all, row, seconds left or None).
        confirm: asked before a run is replaced.
    """

    begun: Callable[[int, int, Item, float | None], None]
    stage: Callable[[str], None]
    finished: Callable[[int, int, Row, float | None], None]
    confirm: Callable[[str], bool]


@dataclass(frozen=True)
class BenchmarkResult:
    """A benchmark that came to its end.

    Args:
        run: its directory.
        plan: what was planned.
        rows: one per item, in the plan's order.
    """

    run: RunDirectory
    plan: BenchmarkPlan
    rows: tuple[Row, ...]

    @property
    def failed(self) -> tuple[Row, ...]:
        """Rows that lack something."""
        return tuple(row for row in self.rows if failed(row, self.plan.speed.batch_sizes))


def carry_out(
    plan: BenchmarkPlan,
    watch: Watch,
    *,
    resolved: Resolved | None = None,
    out: str | None = None,
    overwrite: bool = False,
    run: RunDirectory | None = None,
    finish: Callable[[BenchmarkResult], None] = lambda result: None,
) -> BenchmarkResult:
    """Measure everything that has not been measured yet.

    Args:
        plan: what.
        watch: who is told.
        resolved: the settings, kept with a new benchmark.
        out: the directory of a new one; None for one below `runs`.
        overwrite: whether one that is there may be replaced.
        run: the benchmark to go on with.
        finish: writes tables and pictures; called at the end, and with what there is when interrupted.

    Raises:
        UsageProblem: the place is occupied.
        RunFailure: the results cannot be written.
        Interrupted: by a signal; what was measured is kept.
    """
    if run is None:
        name = plan.items[0].label if len(plan.items) == 1 else f"{len(plan.items)}-models"
        run = plan_run("benchmark", _slug(name), out=out)
        claim_run(run, command="benchmark", overwrite=overwrite, confirm=watch.confirm)
        if resolved is not None:
            write_config(run, resolved)
        write_plan(run, plan)
        plugins = sorted({item.origin for item in plan.items if item.origin})
        write_environment(run, plugins=plugins, facts={"limits": asdict(limits_of(plan))})
    with held(run), Interruption() as interruption:
        job = _Job(plan, run, watch, interruption)
        try:
            job.write_status("running")
            job.go()
            result = job.result()
            finish(result)
        except Interrupted as stopped:
            with contextlib.suppress(MedcliError):
                finish(job.result())
            job.write_status("interrupted")
            done = sum(not failed(row, plan.speed.batch_sizes) for row in job.rows.values())
            raise Interrupted(
                stopped.exit_code - 128,
                f"stopped; {done} of {len(plan.items)} rows are kept in `{run.path}`",
                f"go on with `medcli benchmark --resume {run.path}`",
            ) from None
        except BaseException as error:
            sentence = error.message if isinstance(error, MedcliError) else f"{type(error).__name__}: {error}"
            with contextlib.suppress(MedcliError, OSError):
                job.write_status("failed", sentence)
            raise
        job.write_status("completed")
        return result


def is_done(plan: BenchmarkPlan, run: RunDirectory) -> bool:
    """Whether nothing is missing."""
    rows = read_rows(run.path / RESULTS)
    return all(not _todo(plan, item, rows.get(item.key)).any for item in plan.items)


@dataclass(frozen=True)
class _Todo:
    """What a row still lacks."""

    batch_sizes: tuple[int, ...]
    learning: bool

    @property
    def any(self) -> bool:
        return bool(self.batch_sizes) or self.learning


def _todo(plan: BenchmarkPlan, item: Item, row: Row | None) -> _Todo:
    sizes = plan.speed.batch_sizes
    learns = plan.course is not None and item.kind == "architecture"
    if row is None:
        return _Todo(sizes, learns)
    return _Todo(row.missing(sizes), learns and (row.learning is None or row.learning.state != "measured"))


class _Job:
    """One process's work on a benchmark, while it holds its directory."""

    def __init__(self, plan: BenchmarkPlan, run: RunDirectory, watch: Watch, interruption: Interruption) -> None:
        self.plan, self.run, self.watch, self.interruption = plan, run, watch, interruption
        self.rows = read_rows(run.path / RESULTS)
        self._began = now()
        if run.status_file.is_file():
            with contextlib.suppress(MedcliError):
                self._began = read_status(run).started

    def go(self) -> None:
        """Measure what is missing, item after item."""
        waiting = [item for item in self.plan.items if _todo(self.plan, item, self.rows.get(item.key)).any]
        total, done = len(self.plan.items), len(self.plan.items) - len(waiting)
        weights = [_weight(item) for item in waiting]
        begun = time.monotonic()
        for index, item in enumerate(waiting):
            spent = time.monotonic() - begun
            self.watch.begun(done + index + 1, total, item, _left(spent, weights, index))
            row = self._measure(item)
            if self.interruption.signal:
                raise Interrupted(self.interruption.signal, "stopped", "")
            append_row(self.run.path / RESULTS, row)
            self.rows[item.key] = merge(self.rows.get(item.key), row)
            self.write_status("running")
            left = _left(time.monotonic() - begun, weights, index + 1)
            self.watch.finished(done + index + 1, total, self.rows[item.key], left)
        shutil.rmtree(self.run.path / GRAPHS, ignore_errors=True)

    def result(self) -> BenchmarkResult:
        """The rows so far; an item that was not reached has one that says so."""
        sizes = self.plan.speed.batch_sizes
        rows = (
            self.rows.get(item.key) or Row(item, timings=tuple(Timing(size, "failed", "not reached") for size in sizes))
            for item in self.plan.items
        )
        return BenchmarkResult(self.run, self.plan, tuple(rows))

    def write_status(self, state: Any, error: str = "") -> None:
        done = sum(item.key in self.rows for item in self.plan.items)
        status = Status(state, "benchmark", self._began, now(), done, len(self.plan.items), {}, error)
        write_status(self.run, status)

    def _measure(self, item: Item) -> Row:
        todo = _todo(self.plan, item, self.rows.get(item.key))
        facts: Facts | None = None
        timings: tuple[Timing, ...] = ()
        if todo.batch_sizes:
            facts, timings = self._speed(item, todo.batch_sizes)
        learning = self._learn(item) if todo.learning and not self.interruption.signal else None
        return Row(item, facts, timings, learning, now())

    def _speed(self, item: Item, sizes: Sequence[int]) -> tuple[Facts | None, tuple[Timing, ...]]:
        if item.fault:
            return None, tuple(Timing(size, "failed", item.fault) for size in sizes)
        busy = busy_processors()
        request = {**asdict(self.plan.speed), "item": item_to_json(item), "batch_sizes": list(sizes)}
        told: dict[str, Any] = {}
        if self.plan.speed.runtime == "onnx" and item.kind != "bundle":
            graph = self.run.path / GRAPHS / f"{_slug(item.key)}.onnx"
            graph.parent.mkdir(exist_ok=True)
            ending, exported = self._child({**request, "task": "export", "graph": str(graph)}, learning=False)
            told |= exported
            if "failure" not in told and ending.state == "measured":
                ending, timed = self._child(
                    {**request, "task": "onnx", "graph": str(graph), "facts": told["facts"]}, learning=False
                )
                told |= timed
            for file in graph.parent.glob(f"{graph.name}*"):
                file.unlink()
        else:
            task = "onnx-bundle" if item.kind == "bundle" else "speed"
            ending, told = self._child({**request, "task": task}, learning=False)
        state, reason = _why(told, ending)
        found = {one["batch_size"]: timing_from_json(one) for one in told.get("timings", ())}
        facts = Facts(**told["facts"]) if "facts" in told else None
        timings = tuple(found.get(size) or Timing(size, state, reason) for size in sizes)
        if any(one.state != "measured" for one in timings):
            append_log(self.run, f"{item.label}: {state} {reason}")
        return None if facts is None else replace(facts, busy=busy), timings

    def _learn(self, item: Item) -> Learning:
        course = self.plan.course
        assert course is not None
        if item.fault:
            return Learning("failed", item.fault)
        folder = self.run.path / TRAININGS / _slug(item.name)
        request = {
            "task": "learning",
            "item": item_to_json(item),
            "out": str(folder),
            "strategy": course.strategy,
            "given": dict(course.given),
            "random_weights": course.random_weights,
            "bootstrap": course.bootstrap,
            "threads": self.plan.speed.threads,
        }
        ending, told = self._child(request, learning=True)
        if "learning" in told:
            learnt = Learning(**told["learning"])
            other = {
                row.learning.split_hash
                for row in self.rows.values()
                if row.learning is not None and row.learning.state == "measured"
            } - {learnt.split_hash}
            if other:
                return Learning("failed", "the data are no longer those that the rows before were trained on")
            return learnt
        state, reason = _why(told, ending)
        append_log(self.run, f"{item.label}, training: {state} {reason}")
        return Learning(state, reason)

    def _child(self, request: Mapping[str, Any], *, learning: bool) -> tuple[Ending, dict[str, Any]]:
        told: dict[str, Any] = {}

        def hear(event: Mapping[str, Any]) -> None:
            if "stage" in event:
                self.watch.stage(event["stage"])
            elif "timing" in event:
                told.setdefault("timings", []).append(event["timing"])
            else:
                told.update(event)

        limits = limits_of(self.plan, learning=learning)
        ending = measure_apart(request, limits, hear, asked=lambda: bool(self.interruption.signal))
        return ending, told


def _why(told: Mapping[str, Any], ending: Ending) -> tuple[State, str]:
    """What to write where a measurement is missing."""
    if "failure" in told:
        return told["failure"]["state"], told["failure"]["reason"]
    if ending.state != "measured":
        return ending.state, ending.reason
    return "failed", "its process ended without a figure"


def _weight(item: Item) -> float:
    """How long it may take, in units of a small network: most of it is start-up and time boxes."""
    cost = item.gmacs if item.gmacs is not None else (item.params or 25e6) / 5e6
    return 1 + cost / 20


def _left(spent: float, weights: Sequence[float], done: int) -> float | None:
    """Seconds left of the whole job; None before anything is known."""
    finished = sum(weights[:done])
    return spent / finished * sum(weights[done:]) if finished else None


def _slug(name: str) -> str:
    """A name as one part of a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "--", Path(name).as_posix()).strip("-")
