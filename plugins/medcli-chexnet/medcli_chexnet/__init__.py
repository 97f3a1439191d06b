"""DenseNet-121 for chest X-rays; importing the package costs nothing, building the network imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from medcli.plugin import TimmBackbone

__all__ = ["chexnet"]


def chexnet(
    *,
    in_channels: int = 3,
    image_size: int = 224,
    pretrained: bool = False,
    weights: str | None = None,
    drop_path: float = 0.0,
    labels: Literal["auto", "none", "nih14", "chexpert14", "xrv18"] = "auto",
    pixels: Literal["imagenet", "xrv"] = "imagenet",
) -> TimmBackbone:
    """Build DenseNet-121, random or from a weight file of one of the layouts in `medcli_chexnet.layouts`.

    Args:
        in_channels: channels of the images.
        image_size: side in pixels, 29 or more.
        pretrained: only with `weights`; there are no default weights.
        weights: path of a weight file, or None for random weights.
        drop_path: must be 0.
        labels: what the outputs of the file's classifier stand for; `auto` names them only where the file proves it.
        pixels: how the images are normalised; checked against what the file was made for.

    Returns:
        The backbone; its `pretrained_head` is the file's own classifier.

    Raises:
        UsageProblem: no weights to start from, a file that does not fit, or options that contradict it.
    """
    from medcli.plugin import TimmBackbone, UsageProblem

    if pretrained and not weights:
        raise UsageProblem(
            "`chexnet` has no default weights: none can be downloaded from a place that is sure to last",
            where="--pretrained",
            hint="give a file with `--weights FILE`; `densenet121 --pretrained` starts from ImageNet",
            code="no-default-weights",
        )
    backbone = TimmBackbone("densenet121", in_channels=in_channels, image_size=image_size, drop_path=drop_path)
    if weights:
        from medcli_chexnet.loading import load

        load(backbone, weights, labels=labels, pixels=pixels)
    return backbone
