"""Figures of a difference model on the pairs of a split, and of subtraction beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from medcli.data.batches import Batches
from medcli.diffmap.losses import MapLoss
from medcli.diffmap.metrics import CHANGED, best_threshold, change_precision, false_area
from medcli.diffmap.network import build_difference
from medcli.diffmap.run import DifferenceSpec, difference_map
from medcli.models.device import Precision, autocast

__all__ = ["Judged", "figures_of", "judge", "subtracted", "to_json"]

Maps = npt.NDArray[np.float32]
MOST_PIXELS = 4_000_000
"""Above this, figures after each epoch take every second, third, ... row and column; sorting would cost seconds."""

CONVENTIONS: Mapping[str, str] = {
    "auprc": "area under the precision-recall curve of the valid pixels of all changed pairs, mean of both signs",
    "auprc_positive": "the same for new or increased opacity alone",
    "auprc_negative": "the same for vanished or decreased opacity alone",
    "nuisance_area": "mean share of valid pixels above the threshold in pairs where nothing changed",
    "threshold": "of |map|, with the largest Dice on the changed validation pairs",
    "subtraction_auprc": "of registered subtraction, on the same pairs",
    "subtraction_nuisance_area": "of registered subtraction, at its own threshold chosen on the validation pairs",
}


@dataclass(frozen=True)
class Judged:
    """A model's maps of one split.

    Args:
        maps: float32 [n, H, W].
        truths: float32 [n, H, W], NaN where nothing is known.
        loss: the mean loss over the pairs; NaN where none was asked for.
    """

    maps: Maps
    truths: Maps
    loss: float = float("nan")

    def thinned(self) -> Judged:
        """The same with at most `MOST_PIXELS` pixels, evenly spread."""
        step = int(np.ceil(np.sqrt(max(1.0, self.maps.size / MOST_PIXELS))))
        return replace(self, maps=self.maps[:, ::step, ::step], truths=self.truths[:, ::step, ::step])


def judge(
    network: nn.Module,
    spec: DifferenceSpec,
    batches: Batches,
    *,
    device: torch.device,
    precision: Precision,
    criterion: MapLoss | None = None,
) -> Judged:
    """Maps of every pair of a split, in the order of its samples, made as for use: antisymmetric where they are signed.

    Args:
        network: left in eval mode.
        spec: how it was made.
        batches: of pairs as pictures of three planes.
        device: where the network is.
        precision: with what numbers.
        criterion: a loss to take as well.
    """
    network.eval()
    maps, truths = [], []
    total, count = 0.0, 0
    with torch.inference_mode():
        for batch in batches.epoch(0):
            planes = batch.images.to(device, non_blocking=True)
            truth = planes[:, 2:] if spec.map == "signed" else planes[:, 2:].abs()
            with autocast(device, precision):
                found = difference_map(network, spec, planes[:, :1], planes[:, 1:2])
            if criterion is not None:
                total += float(criterion(found, truth)[0]) * len(batch.index)
                count += len(batch.index)
            maps.append(found[:, 0].float().cpu().numpy())
            truths.append(truth[:, 0].float().cpu().numpy())
    return Judged(np.concatenate(maps), np.concatenate(truths), total / count if count else float("nan"))


def subtracted(batches: Batches, spec: DifferenceSpec) -> Judged:
    """What registered subtraction makes of the same pairs."""
    network = build_difference("medcli/subtraction", in_channels=1, image_size=spec.image_size, map=spec.map)
    plain = replace(spec, model="medcli/subtraction", in_channels=1, options={}, mean=(0.0,), std=(1.0,))
    return judge(network, plain, batches, device=torch.device("cpu"), precision="fp32")


def figures_of(judged: Judged, *, signed: bool, threshold: float | None = None) -> dict[str, float]:
    """Change-only precision by sign, and the area of false change in pairs where nothing changed.

    Args:
        judged: maps and truths.
        signed: whether they have signs.
        threshold: of |map|; None chooses the best one on these very pairs, as for validation.
    """
    maps, truths = list(judged.maps), list(judged.truths)
    chosen = best_threshold(maps, truths) if threshold is None else threshold
    precision = change_precision(maps, truths, signed=signed)
    figures = {"auprc": precision.mean, "nuisance_area": false_area(maps, truths, chosen), "threshold": chosen}
    if signed:
        figures |= {"auprc_positive": precision.positive, "auprc_negative": precision.negative}
    return figures


def to_json(figures: Mapping[str, float], pairs: int) -> dict[str, Any]:
    """Figures of one split as `evaluation.json` keeps them."""
    return {
        "n": pairs,
        "task": "difference map",
        "changed_above": CHANGED,
        "figures": {
            name: {
                "value": None if np.isnan(value) else value,
                "low": None,
                "high": None,
                "headline": name != "threshold",
                "convention": CONVENTIONS[name],
            }
            for name, value in figures.items()
        },
    }
