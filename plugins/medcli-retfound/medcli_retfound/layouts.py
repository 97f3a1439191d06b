"""The three kinds of published weight files: whose network they are for, and what its tensors are called in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["DINOV2", "GREEN", "MAE", "Layout", "Pool", "dinov2_name"]

Pool = Literal["cls", "mean"]

_CHUNKED = re.compile(r"^blocks\.\d+\.(\d+)\.")
_SWIGLU = (("mlp.w12.", "mlp.fc1."), ("mlp.w3.", "mlp.fc2."))


@dataclass(frozen=True)
class Layout:
    """One kind of weight file.

    Args:
        network: timm's name of the network.
        image_size: side in pixels that the weights were trained at.
        pool: how the authors turn tokens into features.
        norm_after_mean: whether their mean of the patches is of raw tokens, with a norm of its own (`fc_norm`) after
            it; otherwise the tokens pass the weights' own last norm, and the mean is taken of those.
        ignore: patterns of tensors that pre-training needed and a backbone does not.
        rename: the file's name of a tensor to timm's; None where they are the same.
    """

    network: str
    image_size: int
    pool: Pool
    norm_after_mean: bool = False
    ignore: tuple[str, ...] = ()
    rename: Callable[[str], str] | None = None


def dinov2_name(key: str) -> str:
    """A name in DINOv2's training checkpoint -> timm's.

    The authors' loader (github.com/rmaphoh/RETFound) renames `mlp.w12` and `mlp.w3` although the ViT-L has a plain MLP,
    whose names are `fc1` and `fc2` already; both spellings are taken, and a true SwiGLU is refused by its shapes. With
    `block_chunks` DINOv2's training writes `blocks.CHUNK.NUMBER`, where NUMBER still counts through all blocks.
    """
    key = key.removeprefix("backbone.")
    for theirs, ours in _SWIGLU:
        key = key.replace(theirs, ours)
    return _CHUNKED.sub(r"blocks.\1.", key)


MAE = Layout(
    "vit_large_patch16_224",
    image_size=224,
    pool="mean",
    norm_after_mean=True,
    ignore=("mask_token", "decoder_*"),
)
DINOV2 = Layout(
    "vit_large_patch14_dinov2",
    image_size=224,
    pool="cls",
    ignore=("mask_token", "dino_head.*", "ibot_head.*"),
    rename=dinov2_name,
)
GREEN = Layout("vit_small_patch14_reg4_dinov2", image_size=392, pool="mean", ignore=("mask_token",))
