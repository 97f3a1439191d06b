"""`--runtime onnx`: the backbones of a run through ONNX Runtime, everything else as always.

The head stays where it is: it costs nothing, and whatever is asked of it (crops, looks, members) goes on working.
"""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medcli.bundles.bundle import open_session
from medcli.errors import RunFailure
from medcli.export.graph import DEFAULT_OPSET, export_onnx, require_export
from medcli.models.build import LoadedModel
from medcli.models.classifier import Classifier
from medcli.prediction.members import Jury

__all__ = ["OnnxBackbone", "through_onnx"]

LIMIT = 1e-4
"""Most that a feature may differ, as a share of the largest where that is above 1."""


class OnnxBackbone(nn.Module):
    """Images [B, C, S, S], normalised, on the CPU -> features [B, D].

    Args:
        session: of a graph that `medcli.export.graph.export_onnx` wrote.
        feature_dim: D.
    """

    def __init__(self, session: Any, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self._session = session

    def forward(self, images: Tensor) -> Tensor:
        """The features."""
        (features,) = self._session.run(["features"], {"images": images.float().contiguous().numpy()})
        return torch.from_numpy(features)

    def layer_groups(self) -> tuple[()]:
        """None: nothing in a graph learns."""
        return ()


def through_onnx(jury: Jury) -> Jury:
    """The same models with their backbones in ONNX Runtime, on the CPU; one that several share is exported once.

    Raises:
        UsageProblem: a package of the extra is missing.
        RunFailure: a network that cannot be exported, or that answers otherwise there (code `mismatch`).
    """
    require_export("--runtime")
    done: dict[int, OnnxBackbone] = {}
    models = []
    for model in jury.models:
        classifier = model.classifier
        if classifier.adapters is not None:
            classifier.merge()
        key = id(classifier.backbone)
        if key not in done:
            done[key] = _exported(model)
        models.append(replace(model, classifier=_with_backbone(classifier, done[key])))
    return replace(jury, models=tuple(models))


def _with_backbone(classifier: Classifier, backbone: nn.Module) -> Classifier:
    other = copy.copy(classifier)
    other._modules = {**classifier._modules, "backbone": backbone}
    return other


def _exported(model: LoadedModel) -> OnnxBackbone:
    how, classifier = model.preprocessing, model.classifier
    side, channels = model.spec.image_size, how.channels
    with tempfile.TemporaryDirectory(prefix="medcli-onnx-") as folder:
        file = Path(folder) / "network.onnx"
        try:
            export_onnx(classifier, file, channels=channels, image_size=side, opset=DEFAULT_OPSET)
        except RunFailure as problem:
            if problem.code == "not-exportable":
                problem.where, problem.hint = "--runtime", "leave `--runtime onnx` out"
            raise
        backbone = OnnxBackbone(open_session(file, threads=torch.get_num_threads()), classifier.feature_dim)
    images = torch.randn(3, channels, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = classifier.backbone(images).float(), backbone(images)
    gap = float(np.abs((ours - theirs).numpy()).max()) / max(1.0, float(ours.abs().max()))
    if not gap <= LIMIT:
        raise RunFailure(
            f"ONNX Runtime computes other features than torch: they differ by {gap:.2g}",
            where="--runtime",
            hint="leave `--runtime onnx` out",
            code="mismatch",
        )
    return backbone
