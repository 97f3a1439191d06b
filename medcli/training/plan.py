"""From settings, card and data to one value that says everything about a training before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from medcli.data.dataset import DataSet, Preprocessing
from medcli.errors import UsageProblem
from medcli.models.build import ModelSpec
from medcli.models.preprocessing import plan_preprocessing
from medcli.plugin import ArchitectureCard
from medcli.settings.groups import (
    ComputeSettings,
    DataSettings,
    LoraSettings,
    ModelSettings,
    StrategySettings,
    TrainingSettings,
)
from medcli.training.best import default_monitor
from medcli.training.imbalance import balance_notes, fit_balance
from medcli.training.label_guards import Swap
from medcli.training.losses import LossName, choose_loss, head_kind
from medcli.training.nearest import refuse_too_many

__all__ = ["Plan", "plan_training"]


@dataclass(frozen=True)
class Plan:
    """Everything about a training that is decided before the first step.

    Args:
        data: the data set.
        spec: the network.
        preprocessing: from picture to input.
        loss: the loss, chosen to fit the target.
        monitor: the validation figure that chooses the best epoch.
        notes: sentences the user should read.
        strategy: how a pretrained backbone is adapted; None for plain training.
        lora: which adapters learn in the backbone's stead; None where it learns itself.
        swap: which labels change places with a mirrored image, or None.
    """

    data: DataSet
    spec: ModelSpec
    preprocessing: Preprocessing
    loss: LossName
    monitor: str
    data_settings: DataSettings
    model: ModelSettings
    training: TrainingSettings
    compute: ComputeSettings
    notes: tuple[str, ...] = ()
    strategy: StrategySettings | None = None
    swap: Swap | None = None
    lora: LoraSettings | None = None

    @property
    def image_size(self) -> int:
        """Side of the input in pixels."""
        return self.preprocessing.image_size


def plan_training(
    data: DataSet,
    architecture: str,
    card: ArchitectureCard | None,
    options: Mapping[str, Any],
    *,
    data_settings: DataSettings,
    model: ModelSettings,
    training: TrainingSettings,
    compute: ComputeSettings,
    strategy: StrategySettings | None = None,
    lora: LoraSettings | None = None,
) -> Plan:
    """Decide what the settings leave to the card and the data.

    Args:
        data: the training data, with at least `train` and `val`.
        architecture: qualified name.
        card: its card, if it has one.
        options: parsed `--arch-opt` values.

    Raises:
        UsageProblem: settings that contradict the target or each other.
    """
    knn = strategy is not None and strategy.strategy == "knn"
    if strategy is not None and knn and "train" in data.splits:
        refuse_too_many(strategy.nearest, len(data.splits["train"]))
        training = replace(training, epochs=1)
    # Votes are shares of classes, also where the classes are grades.
    named = cast("LossName | None", training.loss)  # commands that train classes offer no other words
    loss = choose_loss(data.target, "ce" if knn and data.target.task == "ordinal" else named)
    if training.label_smoothing and loss in {"corn", "coral", "asl"}:
        raise UsageProblem(
            f"`--label-smoothing` does nothing with loss `{loss}`",
            hint="drop it, or use `--loss ce`" if loss != "asl" else "drop it, or use `--loss bce`",
            code="label-smoothing-does-not-fit",
        )
    monitor = training.monitor or default_monitor(data.target)
    if monitor == "qwk" and data.target.task in {"binary", "multilabel"}:
        raise UsageProblem(
            f"`--monitor qwk` needs ordered grades, the target is {data.target.task}",
            hint="use `--monitor auc`",
            code="monitor-does-not-fit",
        )
    labels = data.splits["train"].labels if "train" in data.splits else None
    swap = fit_balance(data.target, loss, training, labels)
    preprocessing = plan_preprocessing(card, data_settings, model, options)
    spec = ModelSpec(
        architecture=architecture,
        in_channels=preprocessing.channels,
        image_size=preprocessing.image_size,
        options=dict(options),
        drop_path=model.drop_path,
        dropout=model.dropout,
        head_norm=model.head_norm,
        head_kind="knn" if knn else head_kind(loss),
        target=data.target,
    )
    notes = [*data.notes]
    if not (model.pretrained or model.weights or training.init_from):
        notes.append("weights: random (`--pretrained` or `--weights FILE` start from trained ones)")
    notes += balance_notes(training, loss)
    return Plan(
        data,
        spec,
        preprocessing,
        loss,
        monitor,
        data_settings,
        model,
        training,
        compute,
        tuple(notes),
        strategy,
        swap,
        lora,
    )
