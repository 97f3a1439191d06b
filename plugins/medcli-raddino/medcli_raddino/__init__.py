"""RAD-DINO for medcli: the factory that the entry point names; torch and transformers are imported when it builds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from medcli.plugin import TransformersBackbone

__all__ = ["raddino"]


def raddino(
    *,
    in_channels: int,
    image_size: int,
    pretrained: bool = False,
    weights: str | None = None,
    drop_path: float = 0.0,
    official_processor: bool = True,  # noqa: ARG001 (the card says what it does to the pictures)
    pool: Literal["cls", "mean"] = "cls",
) -> TransformersBackbone:
    """Build the network.

    Args:
        in_channels: channels of the images; for others than 3 the published patch convolution is adapted.
        image_size: side in pixels, a multiple of 14; the published positions are interpolated to it.
        pretrained: the published weights are meant; `weights` is then their file.
        weights: `model.safetensors`, a folder in the hub's layout, `backbone_compatible.safetensors`, or a repository
            of the hub in the local cache. None: random weights.
        drop_path: stochastic depth, the same in every block.
        official_processor: whether pictures are prepared as published; medcli's own preprocessing acts on it.
        pool: `cls`, the class token after the last norm; `mean`, the mean of the patch tokens.

    Raises:
        UsageProblem: an image size that is no multiple of 14, or weights that are missing or do not fit.
    """
    from medcli.plugin import UsageProblem

    if pretrained and weights is None:
        raise UsageProblem(
            "`raddino` has no weights without a file",
            code="no-weights",
            where="--pretrained",
            hint="give `--weights FILE` or `--weights FOLDER`",
        )
    from medcli_raddino.network import build, published_config

    return build(
        published_config(),
        in_channels=in_channels,
        image_size=image_size,
        weights=weights,
        drop_path=drop_path,
        pool=pool,
    )
