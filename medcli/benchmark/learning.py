"""The child that trains one network briefly, exactly as `train`, `finetune` or `lora` would, and judges it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.benchmark.items import item_from_json
from medcli.benchmark.memory import peak_resident, reset_peak
from medcli.benchmark.rows import Learning
from medcli.benchmark.worker import Tell

if TYPE_CHECKING:
    from medcli.evaluation.figures import Evaluation
    from medcli.runs.directory import RunDirectory
    from medcli.training.start import Start

__all__ = ["learn"]

_TOP = 5
_LARGE = ("model.safetensors", "adapter", "checkpoints")
"""What of a training is large and said by its figures already."""


def learn(request: Mapping[str, Any], tell: Tell) -> None:
    """Train and judge one architecture.

    Args:
        request: `item`, `strategy`, `given` (settings as if they were flags), `random_weights`, `out` (directory),
            `bootstrap`.
        tell: receives `stage` and `learning` events.
    """
    item = item_from_json(request["item"])
    import torch

    from medcli.runs.directory import RunDirectory
    from medcli.runs.records import read_data
    from medcli.training.session import Watch, conduct

    out = Path(request["out"])
    # What an earlier attempt left here is ours, and it is redone.
    shutil.rmtree(out, ignore_errors=True)
    tell({"stage": "reading data"})
    command, start = _plan(item.name, request)
    cuda = torch.cuda.is_available()
    fresh = reset_peak()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    watch = Watch(_Stages(tell), lambda text: None, lambda split, done, total: None, lambda question: True)
    outcome = conduct(start, watch, command=command, out=str(out), overwrite=False)
    peak = peak_resident()
    device = torch.cuda.max_memory_allocated() if cuda and start.plan.compute.device != "cpu" else None
    run = RunDirectory(out)
    tell({"stage": "judging"})
    evaluation = _judge(run, request["bootstrap"])
    figures = {
        name: {"value": _number(one.value), "low": _number(one.low), "high": _number(one.high)}
        for name, one in evaluation.figures.items()
        if one.headline or name in {"accuracy", "auc", f"top_{_TOP}_accuracy"}
    }
    rate = start.resolved.origin("lr")
    learning = Learning(
        split=evaluation.split,
        images=evaluation.n,
        figures=figures,
        seconds=outcome.seconds,
        trainable=_trainable(run, start),
        peak_bytes=peak if fresh else None,
        device_bytes=device,
        epochs=outcome.epochs,
        images_trained=len(start.plan.data.splits["train"]),
        lr=f"{start.plan.training.lr:g} ({rate.layer})",
        split_hash=str(read_data(run).get("split_hash", "")),
        weights=_weights(run),
        run=str(out),
    )
    for name in _LARGE:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    tell({"learning": asdict(learning)})


def _plan(architecture: str, request: Mapping[str, Any]) -> tuple[str, Start]:
    """The command that does what the strategy says, and its plan."""
    from medcli.training.start import adapted, fresh

    given = {name: tuple(value) if isinstance(value, list) else value for name, value in request["given"].items()}
    strategy = request["strategy"]
    if strategy == "scratch":
        return "train", fresh("train", architecture, given)
    if strategy == "lora":
        more = {"random_weights": True} if request["random_weights"] else {}
        return "lora", adapted("lora", architecture, {**given, **more})
    given["strategy"] = strategy
    return "finetune", (fresh if request["random_weights"] else adapted)("finetune", architecture, given)


def _judge(run: RunDirectory, bootstrap: int) -> Evaluation:
    from medcli.evaluation.predictions import load_predictions
    from medcli.evaluation.report import evaluate
    from medcli.settings.groups import EvaluationSettings

    split = next(name for name in ("test", "val") if run.predictions(name).is_file())
    return evaluate(load_predictions(run.predictions(split)), EvaluationSettings(top_k=(_TOP,), bootstrap=bootstrap))


def _trainable(run: RunDirectory, start: Start) -> int:
    """How many parameters learnt, as the run says."""
    from safetensors import safe_open

    adapter = run.adapter / "adapter_model.safetensors"
    if adapter.is_file():
        with safe_open(str(adapter), framework="pt") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (no mapping)
    groups = run.path / "groups.json"
    if groups.is_file():
        blocks = json.loads(groups.read_text(encoding="utf-8"))["blocks"]
        return sum(block["parameters"] for block in blocks if block["rates"])
    if start.plan.spec.head_kind == "knn":
        return 0
    from medcli.models.build import build_classifier

    return build_classifier(start.plan.spec).classifier.parameter_counts().total


def _weights(run: RunDirectory) -> str:
    found = json.loads(run.environment_file.read_text(encoding="utf-8")).get("weights")
    return str(found) if found else "random"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


class _Stages:
    """Tells the parent which epoch runs."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._epochs = 0

    def start(self, *, epochs: int, steps: int, images: int, first_epoch: int) -> None:  # noqa: ARG002 (protocol)
        self._epochs = epochs
        self._tell({"stage": f"epoch {first_epoch + 1} of {epochs}"})

    def step(self, *, epoch: int, step: int, loss: float, images: int) -> None:
        pass

    def epoch(
        self,
        *,
        epoch: int,
        metrics: Mapping[str, float],  # noqa: ARG002
        monitor: str,  # noqa: ARG002
        best: bool,  # noqa: ARG002
        seconds: float,  # noqa: ARG002
        images_per_second: float,  # noqa: ARG002
    ) -> None:
        if epoch + 1 < self._epochs:
            self._tell({"stage": f"epoch {epoch + 2} of {self._epochs}"})

    def finish(self) -> None:
        pass
