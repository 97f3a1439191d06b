"""Settings of fine-tuning: which parameters learn, how fast, and when; or which adapters learn beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from medcli.settings.option import STRATEGY, Option

__all__ = ["LoraSettings", "StrategyName", "StrategySettings", "VariantName"]

VariantName = Literal["lora", "dora", "rslora", "pissa"]
StrategyName = Literal["frozen", "layerwise", "gradual", "full", "lp-ft", "knn"]


@dataclass(frozen=True, kw_only=True)
class StrategySettings:
    """How a pretrained backbone is adapted."""

    strategy: Annotated[
        Literal[StrategyName, "scratch", "lora"] | None,
        Option(
            "`frozen`: the head alone, on features computed once; `layerwise`: every block at its own rate; `gradual`: "
            "stages join in one after another; `full`: everything at once; `lp-ft`: the head to convergence, then "
            "everything at a tenth; `knn`: no training, a sanity floor; `scratch`, `lora`: as `train` and `lora` do",
            STRATEGY,
        ),
    ] = None
    layer_decay: Annotated[
        float,
        Option(
            "for `layerwise`: the rate of a block is that of the next one times this",
            STRATEGY,
            minimum=0,
            maximum=1,
            exclusive=True,
            from_recipe=True,
        ),
    ] = 0.75
    decay_by: Annotated[
        Literal["block", "stage"],
        Option("for `layerwise`: what that factor is applied to", STRATEGY, from_recipe=True),
    ] = "block"
    stage_lr: Annotated[
        tuple[float, ...],
        Option(
            "for `layerwise`: rates of the stages, the last stage first; earlier ones have the last rate named",
            STRATEGY,
            "LR,…",
            minimum=0,
        ),
    ] = ()
    unfreeze_at: Annotated[
        tuple[int, ...],
        Option(
            "for `gradual`: epochs, counted from 0, at which stages join in",
            STRATEGY,
            "E,…",
            minimum=0,
            from_recipe=True,
        ),
    ] = (1, 10, 20)
    unfreeze_groups: Annotated[
        int, Option("for `gradual`: stages that join in each time", STRATEGY, "N", minimum=1, from_recipe=True)
    ] = 2
    head_lr: Annotated[
        float | None,
        Option(
            "peak learning rate of the head (default: that of the rest)",
            STRATEGY,
            minimum=0,
            exclusive=True,
            from_recipe=True,
        ),
    ] = None
    feature_views: Annotated[
        int | None,
        Option(
            "for `frozen`: augmented views of every image whose features are computed (default: the images as they "
            "are, one pass)",
            STRATEGY,
            "N",
            minimum=1,
        ),
    ] = None
    nearest: Annotated[
        int, Option("for `knn`: how many of the nearest training images vote", STRATEGY, "K", minimum=1)
    ] = 11
    probe_epochs: Annotated[
        int,
        Option(
            "for `lp-ft`: train the head alone for N epochs at `--head-lr`, instead of to convergence",
            STRATEGY,
            "N",
            minimum=0,
        ),
    ] = 0


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Which low-rank adapters learn beside a pretrained backbone that stays as it is."""

    rank: Annotated[
        int,
        Option("rank r of the adapters: 4 for a few hundred images, 8, 16 or 32 for more", STRATEGY, from_recipe=True),
    ] = 8
    lora_alpha: Annotated[
        float | None,
        Option(
            "what they add is scaled by alpha / r (default: 4 r)",
            STRATEGY,
            minimum=0,
            exclusive=True,
            from_recipe=True,
        ),
    ] = None
    lora_dropout: Annotated[
        float, Option("dropout before the adapters", STRATEGY, minimum=0, maximum=0.95, from_recipe=True)
    ] = 0.1
    targets: Annotated[
        str | None,
        Option(
            "modules that are adapted: `qkv`, `attn`, `mlp`, `conv`, `all-linear`, or a pattern of their names "
            "(default: qkv where the network attends, conv where it is convolutional)",
            STRATEGY,
            "ROLE|PATTERN",
            from_recipe=True,
        ),
    ] = None
    variant: Annotated[
        VariantName,
        Option(
            "`lora`; `dora`: the length of every row learns by itself; `rslora`: scaled by alpha / √r; `pissa`: "
            "started from the largest singular directions",
            STRATEGY,
        ),
    ] = "lora"
    loraplus_ratio: Annotated[
        float,
        Option(
            "the second factor learns at this multiple of `--lr`, as in LoRA+ (1 for plain LoRA; its authors use 16)",
            STRATEGY,
            minimum=0,
            exclusive=True,
        ),
    ] = 1.0
    adapter: Annotated[
        str | None,
        Option("start from a copy of this adapter, in PEFT's layout", STRATEGY, "PATH", completes="path"),
    ] = None
    random_weights: Annotated[
        bool, Option("adapt random weights, to try a set-up out; nothing worth having comes of it", STRATEGY)
    ] = False
