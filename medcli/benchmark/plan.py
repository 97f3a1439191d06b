"""What a benchmark is going to do, as one value that lies in its directory, so that it can be gone on with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from medcli.benchmark.items import Item, choose_items, item_from_json, item_to_json
from medcli.benchmark.memory import free_memory, watchable
from medcli.benchmark.process import Limits
from medcli.bundles.extra import require_onnx
from medcli.errors import UsageProblem
from medcli.registry.discovery import Registry
from medcli.runs.directory import RunDirectory, replace_text
from medcli.settings.benchmark_group import BenchmarkSettings
from medcli.settings.fields import all_fields
from medcli.settings.groups import ComputeSettings, EvaluationSettings
from medcli.settings.output_group import OutputSettings
from medcli.settings.resolve import Resolved

__all__ = ["PLAN_FILE", "BenchmarkPlan", "Course", "Speed", "limits_of", "plan_benchmark", "read_plan", "write_plan"]

PLAN_FILE = "plan.json"
SCHEMA = "medcli-benchmark-plan/1"
SPEED_LIMIT, COURSE_LIMIT = 600.0, 3600.0
SHARE_OF_FREE = 0.9
EPOCHS = 5
"""Epochs of a short training where `--epochs` says nothing: a recipe's number is made for a long one."""

MAY_CHANGE = frozenset({"time_limit", "memory_limit", "compare_to", "max_slowdown", "resume"})
"""What may be said anew when a benchmark is gone on with: it decides what is ended and compared, nothing else."""

_OWN = frozenset(BenchmarkSettings.__dataclass_fields__) | frozenset(OutputSettings.__dataclass_fields__)
_OF_SPEED = frozenset({"device", "precision", "compile", "runtime", "classes", "resume"})
_OF_COURSE = frozenset({"strategy", "random_weights", "bootstrap"})


@dataclass(frozen=True)
class Speed:
    """How speed is measured. See the flags of the same names."""

    batch_sizes: tuple[int, ...]
    seconds: float
    repeats: int | None
    device: str
    precision: str
    memory_format: str
    compile: bool
    threads: int | None
    runtime: str
    classes: int
    image_size: int | None
    in_channels: int | None


@dataclass(frozen=True)
class Course:
    """The short training that every architecture goes through.

    Args:
        strategy: `scratch`, `lora`, or one of `finetune`.
        given: settings of that command, the same for every architecture; what is not named is the card's recipe.
        random_weights: whether backbones start from random weights although the strategy adapts them.
        bootstrap: resamples behind the intervals.
    """

    strategy: str
    given: Mapping[str, Any]
    random_weights: bool
    bootstrap: int


@dataclass(frozen=True)
class BenchmarkPlan:
    """Everything that decides what a benchmark finds.

    Args:
        items: what is measured.
        speed: how.
        course: the short training, or None.
        time_limit: seconds of one process; None for the defaults.
        memory_limit: GiB of one process; None for a share of what is free.
    """

    items: tuple[Item, ...]
    speed: Speed
    course: Course | None
    time_limit: float | None
    memory_limit: float | None


def plan_benchmark(registry: Registry, words: Sequence[str], resolved: Resolved) -> BenchmarkPlan:
    """Decide what is measured and how.

    Raises:
        UsageProblem: nothing to measure, or settings that contradict one another.
    """
    own, compute = resolved.group(BenchmarkSettings), resolved.group(ComputeSettings)
    items = choose_items(registry, words, every=own.all, patterns=own.filter)
    sizes = tuple(sorted(set(own.batch_sizes)))
    values = resolved.values
    _refuse_contradictions(items, resolved)
    speed = Speed(
        sizes,
        own.seconds,
        own.repeats,
        compute.device,
        compute.precision,
        own.memory_format,
        values["compile"],
        own.threads,
        values["runtime"],
        values["classes"] or 2,
        values["image_size"],
        values["in_channels"],
    )
    plan = BenchmarkPlan(items, speed, _course(resolved), own.time_limit, own.memory_limit)
    limits_of(plan)
    return plan


def _course(resolved: Resolved) -> Course | None:
    if not resolved.values["data"]:
        return None
    chosen = {
        name: value
        for name, value in resolved.values.items()
        if name not in _OWN | _OF_SPEED | _OF_COURSE and resolved.origin(name).layer != "default"
    }
    given = {name: resolved.values[name] for name in ("batch_size", "seed", "device", "precision")}
    strategy = resolved.values["strategy"] or "scratch"
    if strategy != "knn":
        # Everybody learns for the same number of epochs, whoever improves early or late.
        given |= {"epochs": EPOCHS, "patience": 0}
    given |= chosen
    bootstrap = resolved.group(EvaluationSettings).bootstrap
    return Course(strategy, given, bool(resolved.values["random_weights"]), bootstrap)


def _refuse_contradictions(items: Sequence[Item], resolved: Resolved) -> None:
    trained = next((item for item in items if item.kind in {"run", "bundle"}), None)
    data = resolved.values["data"]
    if data:
        _refuse_untrainable(items, trained, data[0])
    else:
        _refuse_idle(resolved)
    if trained is not None:
        for name in ("image_size", "in_channels", "classes"):
            if resolved.values[name] is not None:
                flag = all_fields()[name].flag
                raise UsageProblem(
                    f"`{flag}` is settled by `{trained.label}`, whose weights were trained so",
                    where=flag,
                    hint="leave it out, or measure the run by itself",
                    code="fixed-by-run",
                )
    graphs = resolved.values["runtime"] == "onnx"
    if graphs or any(item.kind == "bundle" for item in items):
        _refuse_beside_graphs(resolved, next((item.label for item in items if item.kind == "bundle"), None))
        packages = ("onnx", "onnxscript", "onnxruntime") if graphs else ("onnxruntime",)
        require_onnx("`--runtime onnx`" if graphs else "measuring a bundle", *packages)


def _refuse_untrainable(items: Sequence[Item], trained: Item | None, data: str) -> None:
    if trained is not None:
        raise UsageProblem(
            f"`--data` trains architectures, and `{trained.label}` is trained already",
            where="--data",
            hint=f"`medcli evaluate {trained.label} --data {data}` judges it; leave one of the two out",
            code="trained-already",
        )
    if all(item.kind == "difference" for item in items):
        raise UsageProblem(
            "`--data` trains classifiers, and only difference models were named",
            where="--data",
            hint="leave `--data` out; `medcli diffmap train` trains difference models",
            code="no-classifier",
        )


def _refuse_idle(resolved: Resolved) -> None:
    idle = sorted(
        name
        for name in resolved.values
        if resolved.origin(name).layer == "flag" and name not in _OWN | _OF_SPEED | {"image_size", "in_channels"}
    )
    if idle:
        flags = ", ".join(f"`{all_fields()[name].flag}`" for name in idle)
        raise UsageProblem(
            f"{flags} would act on a training, and without `--data` there is none",
            where=flags.replace("`", ""),
            hint="add `--data …` to train every architecture briefly, or leave it out",
            code="idle-flag",
        )


def _refuse_beside_graphs(resolved: Resolved, bundle: str | None) -> None:
    """ONNX Runtime runs graphs on the CPU, in the numbers they were written with."""
    allowed = {
        "compile": (False,),
        "precision": ("auto", "fp32"),
        "device": ("auto", "cpu"),
        "memory_format": ("auto",),
    }
    for name, words in allowed.items():
        if resolved.values[name] not in words:
            flag = all_fields()[name].flag
            what = f"the bundle `{bundle}` is run" if bundle is not None else "`--runtime onnx` runs a graph"
            raise UsageProblem(
                f"{what} by ONNX Runtime on the CPU as it was written, so `{flag}` does nothing",
                where=str(resolved.origin(name)),
                hint=f"leave `{flag}` out" + ("" if bundle is None else ", or measure the bundle by itself"),
                code="contradiction",
            )


def limits_of(plan: BenchmarkPlan, *, learning: bool = False) -> Limits:
    """What one process may take.

    Raises:
        UsageProblem: a memory limit was asked for where the system does not tell how much a process takes.
    """
    seconds = plan.time_limit or (COURSE_LIMIT if learning else SPEED_LIMIT)
    if plan.memory_limit is not None:
        if not watchable():
            raise UsageProblem(
                "`--memory-limit` needs a system that tells how much memory a process takes (Linux does)",
                where="--memory-limit",
                hint="leave it out",
                code="no-memory-limit",
            )
        return Limits(seconds, int(plan.memory_limit * 2**30))
    free = free_memory() if watchable() else None
    return Limits(seconds, None if free is None else int(free * SHARE_OF_FREE))


def write_plan(run: RunDirectory, plan: BenchmarkPlan) -> None:
    """Keep it in the directory of the benchmark."""
    document = {
        "schema": SCHEMA,
        "items": [item_to_json(item) for item in plan.items],
        "speed": asdict(plan.speed),
        "course": None if plan.course is None else asdict(plan.course),
        "time_limit": plan.time_limit,
        "memory_limit": plan.memory_limit,
    }
    replace_text(run.path / PLAN_FILE, json.dumps(document, indent=1) + "\n")


def read_plan(run: RunDirectory, words: Sequence[str], given: Mapping[str, Any]) -> BenchmarkPlan:
    """The plan of a benchmark that is gone on with; limits may be said anew.

    Raises:
        UsageProblem: the directory holds none, or something was said that would change what is measured.
    """
    file = run.path / PLAN_FILE
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"its format is {document['schema']!r}, not {SCHEMA!r}")
        speed, course = document["speed"], document["course"]
        plan = BenchmarkPlan(
            tuple(item_from_json(item) for item in document["items"]),
            Speed(**{**speed, "batch_sizes": tuple(speed["batch_sizes"])}),
            None if course is None else Course(**course),
            document["time_limit"],
            document["memory_limit"],
        )
    except FileNotFoundError:
        raise UsageProblem(
            f"`{run.path}` is no benchmark: it has no `{PLAN_FILE}`",
            where="--resume",
            hint="`medcli runs list` shows what each directory holds",
            code="not-a-benchmark",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageProblem(f"the plan cannot be read: {error}", where=str(file), code="bad-run-file") from error
    speech = frozenset(OutputSettings.__dataclass_fields__)
    fixed = [*words, *(all_fields()[name].flag for name in given if name not in MAY_CHANGE | speech)]
    if fixed:
        listed = ", ".join(f"`{one}`" for one in fixed)
        raise UsageProblem(
            f"`--resume` goes on with what was planned, and {listed} would change that",
            where="--resume",
            hint=f"leave it out: `medcli benchmark --resume {run.path}`",
            code="resume-changes-settings",
        )
    changed = {name: given[name] for name in ("time_limit", "memory_limit") if name in given}
    return replace(plan, **changed)
