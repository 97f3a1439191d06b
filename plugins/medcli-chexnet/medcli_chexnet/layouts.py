"""Which of the published layouts a DenseNet-121 file has; its keys decide, and what they do not prove stays open."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

__all__ = ["LABELS", "Layout", "recognise"]

LABELS: Mapping[str, tuple[str, ...]] = {
    "nih14": (
        "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
        "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
    ),
    "chexpert14": (
        "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
        "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
        "Support Devices",
    ),
    "xrv18": (
        "Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion",
        "Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture",
        "Lung Opacity", "Enlarged Cardiomediastinum",
    ),
}  # fmt: skip
"""Output names in the order of the rows: ChestX-ray14 as in arnoweng/CheXNet, CheXpert's table, TorchXRayVision."""

_STEM = "features.conv0.weight"
_DOTTED = re.compile(r"\.(norm|conv)\.([12])\.(?=[a-z_]+$)")
_THRESHOLDS = "op_threshs"


@dataclass(frozen=True)
class Layout:
    """What the keys and shapes of a file prove.

    Args:
        kind: `arnoweng`, `torchvision` (and everything named like it) or `torchxrayvision`.
        prefix: what stands before `features.` in the names, such as `module.densenet121.`.
        labels: a key of `LABELS`, or empty where the file does not prove it.
        untrained: rows of the classifier that the file marks as never trained.
    """

    kind: Literal["arnoweng", "torchvision", "torchxrayvision"]
    prefix: str
    labels: str = ""
    untrained: frozenset[int] = frozenset()

    def rename(self, key: str) -> str | None:
        """The name of a tensor in timm's DenseNet; None for TorchXRayVision's operating points."""
        name = key.removeprefix(self.prefix)
        if name == _THRESHOLDS:
            return None
        if name in {"classifier.0.weight", "classifier.0.bias"}:
            return name.replace(".0.", ".")
        return _DOTTED.sub(r".\1\2.", name)


def recognise(tensors: Mapping[str, torch.Tensor]) -> Layout:
    """The layout of a file's tensors.

    CheXNet's own names prove its labels: dots inside a layer's name, as in `norm.1`, are something PyTorch has refused
    to create since 0.4 of 2018, and CheXpert, the other set of 14 labels, is from 2019. The wrapper's name alone,
    `densenet121`, proves nothing; it has been copied for CheXpert. TorchXRayVision stores NaN as the operating point of
    an output that was not trained, so only a file with `op_threshs` says which ones were.

    Args:
        tensors: of the file, under its own names.
    """
    stems = [key for key in tensors if key == _STEM or key.endswith(f".{_STEM}")]
    # Two networks in one file: neither is chosen, and loading says which names are too many.
    prefix = stems[0].removesuffix(_STEM) if len(stems) == 1 else ""
    rows = {
        len(tensors[key]) for key in (f"{prefix}classifier.weight", f"{prefix}classifier.0.weight") if key in tensors
    }
    thresholds = tensors.get(f"{prefix}{_THRESHOLDS}")
    if thresholds is not None:
        named = rows == {len(LABELS["xrv18"])} and thresholds.shape == (len(LABELS["xrv18"]),)
        untrained = frozenset(torch.isnan(thresholds).nonzero().flatten().tolist()) if named else frozenset()
        return Layout("torchxrayvision", prefix, "xrv18" if named else "", untrained)
    if len(stems) == 1 and tensors[stems[0]].shape[1:2] == (1,) and rows == {len(LABELS["xrv18"])}:
        return Layout("torchxrayvision", prefix)
    dotted = any(_DOTTED.search(key) for key in tensors)
    if dotted and prefix.endswith("densenet121.") and f"{prefix}classifier.0.weight" in tensors:
        return Layout("arnoweng", prefix, "nih14" if rows == {len(LABELS["nih14"])} else "")
    return Layout("torchvision", prefix)
