"""What a training keeps while it learns: figures per epoch, the best weights, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from medcli.data.batches import Batch
from medcli.data.dataset import Samples
from medcli.evaluation.monitor import monitor_metrics
from medcli.models.build import save_model
from medcli.prediction.predict import as_predictions, raw_outputs
from medcli.runs.directory import RunDirectory
from medcli.runs.records import append_log, append_metrics
from medcli.training.adapting import checkpointed, keep_adapter
from medcli.training.checkpoint import Position, save_checkpoint
from medcli.training.following import unwrapped
from medcli.training.frozen import best_head, keep_head, learner
from medcli.training.progress import TrainingProgress

if TYPE_CHECKING:
    from medcli.training.engine import Prepared

__all__ = ["RunJournal", "raw_of", "record_epoch"]


def raw_of(prepared: Prepared, network: nn.Module, split: str) -> torch.Tensor:
    """Raw outputs [n, ...] of a network for one split, on the CPU."""
    if prepared.features is not None:
        return prepared.features.raw(network, split)

    def judge(batches: Iterable[Batch], samples: Samples) -> torch.Tensor:
        return raw_outputs(
            network,
            batches,
            samples,
            preprocessing=prepared.plan.preprocessing,
            device=prepared.device,
            precision=prepared.precision,
        )

    return prepared.parts.team.outputs(prepared.batches[split], judge)


class RunJournal:
    """Keeps a run's figures, best weights and checkpoints."""

    def __init__(self, prepared: Prepared, run: RunDirectory, progress: TrainingProgress) -> None:
        self.prepared = prepared
        self.run = run
        self.progress = progress

    def validate(self, network: nn.Module) -> dict[str, float]:
        prepared, plan = self.prepared, self.prepared.plan
        team = prepared.parts.team
        team.same_buffers(network)
        raw = raw_of(prepared, network, "val")
        samples = prepared.batches["val"].samples
        labels = torch.from_numpy(np.ascontiguousarray(samples.labels))
        loss = float(prepared.parts.criterion(raw.to(prepared.device), labels.to(prepared.device)))
        head = plan.spec.head_kind
        figures = monitor_metrics(as_predictions(raw, samples, target=plan.data.target, head_kind=head))
        return team.from_first({"loss": loss, **figures})

    def improved(self, position: Position) -> None:
        network, features = self.prepared.parts.network, self.prepared.features
        if features is None:
            self.write_model(network, position)
            return
        state = self.prepared.parts.team.state(learner(self.prepared.plan, network))
        if self.prepared.parts.team.first:
            keep_head(self.run, state, features.extractor)

    def ended(self, position: Position) -> None:
        """Write the whole network with the best head, where epochs have kept the head alone."""
        best = None if self.prepared.features is None else best_head(self.run, self.prepared.built.classifier)
        if best is not None:
            self.write_model(best, position)

    def write_model(self, network: nn.Module, position: Position) -> None:
        """Write the model file."""
        plan, team = self.prepared.plan, self.prepared.parts.team
        state = team.state(network)
        if not team.first:
            return
        best = {
            "epoch": position.best.epoch,
            "monitor": position.best.monitor,
            # A validation split without one of the classes has no AUC; JSON has no NaN.
            "value": None if math.isnan(position.best.value) else position.best.value,
        }
        if plan.lora is not None:
            keep_adapter(self.run, plan, self.prepared.parts.classifier, network, best, state)
            return
        save_model(self.run.model_file, network, plan.spec, plan.preprocessing, best, state=state)

    def epoch_done(self, row: dict[str, Any]) -> None:
        if not self.prepared.parts.team.first:
            return
        record_epoch(self.run, row, self.progress, monitor=self.prepared.plan.monitor)

    def save(self, position: Position) -> None:
        parts = self.prepared.parts
        scaler = parts.accelerator.scaler
        randomness = parts.team.randomness(self.prepared.device)
        save_checkpoint(
            self.run.checkpoint_file if parts.team.first else None,
            position=position,
            model=checkpointed(self.prepared.plan, parts.classifier),
            ema=None if parts.ema is None else checkpointed(self.prepared.plan, parts.ema.module),
            optimizer=unwrapped(parts.optimizer),
            scaler=scaler.state_dict() if scaler is not None else {},
            device=self.prepared.device,
            randomness=randomness,
        )


def record_epoch(run: RunDirectory, row: Mapping[str, Any], progress: TrainingProgress, *, monitor: str) -> None:
    """Keep an epoch's figures in the run and tell whoever watches."""
    append_metrics(run, row)
    shown = ", ".join(f"{name} {value:.5g}" for name, value in row.items() if isinstance(value, float))
    append_log(run, f"epoch {row['epoch'] + 1}: {shown}{' (best)' if row['best'] else ''}")
    progress.epoch(
        epoch=row["epoch"],
        metrics={name: value for name, value in row.items() if name.startswith(("train_", "val_")) or name == "lr"},
        monitor=monitor,
        best=row["best"],
        seconds=row["seconds"],
        images_per_second=row["images_per_second"],
    )
