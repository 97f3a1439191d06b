"""The networks, with their weights in them; only a build imports this module, and with it torch and timm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.plugin import LayerGroup, PretrainedHead, TimmBackbone, UsageProblem
from medcli_retfound.layouts import Layout, Pool

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["RetFoundBackbone", "build_network"]

_NEW_NORM = "fc_norm"
# DINOv2's dictionary is opened for every layout, so that a file of the wrong one is refused with counts and names.
_INSIDE = ("teacher",)


class RetFoundBackbone(TimmBackbone):
    """Images [B, C, H, W] -> features [B, D], pooled as asked for."""

    def layer_groups(self) -> tuple[LayerGroup, ...]:
        """Blocks from input to output; a norm after the mean belongs to the last of them, as the last norm does."""
        groups = super().layer_groups()
        if not groups[-1].parameters[0].startswith(f"net.{_NEW_NORM}."):
            return groups
        *before, block, norm = groups
        parameters, modules = block.parameters + norm.parameters, block.modules + norm.modules
        return (*before, replace(block, parameters=parameters, modules=modules))


def build_network(
    layout: Layout,
    *,
    name: str,
    page: str,
    in_channels: int,
    image_size: int,
    pretrained: bool = False,
    weights: str | None = None,
    drop_path: float = 0.0,
    pool: Pool,
    **timm_options: Any,
) -> RetFoundBackbone:
    """Build the network of a layout.

    Args:
        layout: the network and its weight files.
        name: of the architecture, for messages.
        page: where its weights can be asked for.
        in_channels: channels of the images.
        image_size: side in pixels; position embeddings of the file are interpolated to it.
        pretrained: whether weights are meant at all; they come from `weights`.
        weights: a file as published, or fine-tuned by the authors' code; None for random weights.
        drop_path: stochastic depth.
        pool: `cls` or `mean`; see `Layout`.
        **timm_options: passed to timm's network (`depth`, `embed_dim`, ...).

    Raises:
        UsageProblem: an unknown pooling, a size it cannot take, no such file, or one that does not fit.
    """
    if pool not in {"cls", "mean"}:
        raise UsageProblem(f"`{pool}` is not a pooling: cls, mean", code="bad-option", where="--arch-opt pool")
    if (pretrained or weights) and not (weights and Path(weights).exists()):
        raise UsageProblem(
            f"there is no weight file `{weights}`" if weights else f"the weights of `{name}` are not on this machine",
            code="no-weights",
            where="--weights",
            hint=f"get them at {page}, then give `--weights FILE`",
        )
    new_norm = pool == "mean" and layout.norm_after_mean
    pooling = {"global_pool": "token"} if pool == "cls" else {"global_pool": "avg", "fc_norm": new_norm}
    return RetFoundBackbone(
        _maker(layout.network, name),
        in_channels=in_channels,
        image_size=image_size,
        weights=weights,
        drop_path=drop_path,
        inside=_INSIDE,
        # The weights' own last norm has no place in the authors' mean: they delete it.
        ignore=(*layout.ignore, "norm.*") if new_norm else layout.ignore,
        fresh=(f"{_NEW_NORM}.*",) if new_norm else (),
        rename=_renamed(layout, new_norm),
        head=_old_head(pool, new_norm),
        **pooling,
        **timm_options,
    )


def _maker(network: str, name: str) -> Callable[..., nn.Module]:
    """What makes timm's network, under the name that messages shall use."""

    def make(**options: Any) -> nn.Module:
        import timm

        made: nn.Module = timm.create_model(network, **options)
        return made

    make.__name__ = name
    return make


def _renamed(layout: Layout, new_norm: bool) -> Callable[[str], str]:
    """The layout's renaming, refusing files that were fine-tuned on the mean of the patches where CLS is asked for."""

    def name_of(key: str) -> str:
        if key.startswith(f"{_NEW_NORM}.") and not new_norm:
            raise _other_pooling("mean", "cls")
        return key if layout.rename is None else layout.rename(key)

    return name_of


def _old_head(pool: Pool, new_norm: bool) -> Callable[[Mapping[str, torch.Tensor]], PretrainedHead | None]:
    """The classifier of a checkpoint of the authors' fine-tuning: a softmax, since their code trains no other.

    The file does not say what its classes are.
    """

    def head(tensors: Mapping[str, torch.Tensor]) -> PretrainedHead | None:
        if "head.weight" not in tensors or "head.bias" not in tensors:
            return None
        # Without its own norm after the mean, the authors' code classified the class token.
        if pool == "mean" and not (new_norm and f"{_NEW_NORM}.weight" in tensors):
            raise _other_pooling("cls", "mean")
        weight = tensors["head.weight"]
        return PretrainedHead(weight, tensors["head.bias"], task="binary" if len(weight) == 2 else "multiclass")

    return head


def _other_pooling(theirs: Pool, ours: Pool) -> UsageProblem:
    return UsageProblem(
        f"this checkpoint was fine-tuned with `pool={theirs}`, its features mean nothing with `pool={ours}`",
        code="weights-do-not-fit",
        where="--weights",
        hint=f"--arch-opt pool={theirs}",
    )
