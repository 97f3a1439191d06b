"""A weight file into the network, with its own classifier; whatever is not proven or said is refused."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from medcli.plugin import PretrainedHead, TimmBackbone, UsageProblem, load_weights, read_weights
from medcli_chexnet.layouts import LABELS, Layout, recognise

__all__ = ["load"]

_HEAD = ("classifier.weight", "classifier.bias")
_PICKLE_BYTES = 8 * 2**20
_XRV_PIXELS = "`--arch-opt pixels=xrv`"
_CONVERT_XRV = (
    'write a state dict once, where TorchXRayVision is installed: python -c "import torch, torchxrayvision as xrv; '
    "torch.save(xrv.models.DenseNet(weights='densenet121-res224-all').state_dict(), 'xrv-all.pth')\""
)
_CONVERT = (
    'if you trust it, write a state dict once, where the package it was trained with is installed: python -c "import '
    "torch; torch.save(torch.load('{name}', map_location='cpu', weights_only=False).state_dict(), 'state.pth')\""
)


def load(backbone: TimmBackbone, path: str, *, labels: str, pixels: str) -> None:
    """Set every weight of the backbone from a file, and keep the file's classifier as `pretrained_head`.

    Args:
        backbone: DenseNet-121.
        path: the file.
        labels: `auto`, `none` or a key of `medcli_chexnet.layouts.LABELS`.
        pixels: `imagenet` or `xrv`.

    Raises:
        UsageProblem: not a file medcli reads, tensors missing or too many, or options that contradict the file.
    """
    tensors = _read(path)
    layout = recognise(tensors)
    name = Path(path).name
    _check_pixels(layout, pixels, name)
    backbone.load_report, head = load_weights(
        backbone.net,
        tensors,
        name="chexnet",
        origin=path,
        rename=layout.rename,
        head_keys=_HEAD,
        first_convolutions=("features.conv0",),
    )
    backbone.pretrained_head = _classifier(head, backbone.feature_dim, layout, labels, name)


def _read(path: str) -> dict[str, torch.Tensor]:
    try:
        return read_weights(path)
    except UsageProblem as problem:
        if problem.code == "unsafe-weights" and (hint := _conversion(Path(path))):
            raise UsageProblem(
                f"`{path}` holds a whole pickled network, which could only be read by running code from it; medcli "
                "never does that and reads state dicts",
                where=problem.where,
                hint=hint,
                code=problem.code,
            ) from problem
        raise


def _conversion(path: Path) -> str:
    """How a pickled network becomes a state dict; empty where the file holds something else that is unsafe.

    The class names stand in a pickle as plain lines, so looking for them runs nothing.
    """
    with path.open("rb") as file:
        pickled = file.read(_PICKLE_BYTES)
    if not re.search(rb"ctorch\.nn\.modules\.\w+\n\w+\n", pickled):
        return ""
    return _CONVERT_XRV if b"torchxrayvision" in pickled else _CONVERT.format(name=path.name)


def _check_pixels(layout: Layout, pixels: str, name: str) -> None:
    """Refuse the wrong normalisation: a network fed with numbers of another size answers, but nothing of use."""
    if layout.kind == "torchxrayvision" and pixels != "xrv":
        raise UsageProblem(
            f"`{name}` is a TorchXRayVision network, made for pixels from -1024 to 1024",
            where=f"--arch-opt pixels={pixels}",
            hint=f"add {_XRV_PIXELS}",
            code="wrong-pixels",
        )
    if layout.kind == "arnoweng" and pixels == "xrv":
        raise UsageProblem(
            f"`{name}` is a CheXNet checkpoint, made for pixels normalised as for ImageNet",
            where=f"--arch-opt pixels={pixels}",
            hint=f"leave {_XRV_PIXELS} out",
            code="wrong-pixels",
        )


def _classifier(
    head: dict[str, torch.Tensor], width: int, layout: Layout, labels: str, name: str
) -> PretrainedHead | None:
    weight, bias = (head.get(key) for key in _HEAD)
    if weight is None and bias is None:
        if labels in LABELS:
            raise _labels_problem(f"`{name}` holds no classifier whose outputs could be named", labels, "none")
        return None
    if weight is None or bias is None or weight.shape[1:] != (width,) or bias.shape != weight.shape[:1]:
        found = ", ".join(f"{key} {list(tensor.shape)}" for key, tensor in head.items())
        raise UsageProblem(
            f"the classifier in `{name}` is not one linear layer of [K, {width}] and [K]: it has {found}",
            where="--weights",
            hint="a file without any classifier loads too",
            code="weights-do-not-fit",
        )
    if labels in LABELS and layout.labels not in {"", labels}:
        raise _labels_problem(f"the outputs of `{name}` are `{layout.labels}` by its own names", labels, layout.labels)
    chosen = layout.labels if labels == "auto" else labels
    if chosen not in LABELS:
        return PretrainedHead(weight, bias, task="" if layout.kind == "torchvision" else "multilabel")
    names = LABELS[chosen]
    if len(names) != len(weight):
        raise _labels_problem(f"`{name}` has {len(weight)} outputs, but `{chosen}` names {len(names)}", labels, "none")
    trained = tuple("" if row in layout.untrained else label for row, label in enumerate(names))
    return PretrainedHead(weight, bias, trained, "multilabel")


def _labels_problem(message: str, labels: str, better: str) -> UsageProblem:
    return UsageProblem(
        message, where=f"--arch-opt labels={labels}", hint=f"--arch-opt labels={better}", code="wrong-labels"
    )
