"""The convolutional encoder: a stem that widens at full size, then chosen blocks of EfficientNet-B7."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from medcli_longitudinal.constants import BLOCKS, PUBLISHED, Sizes
from medcli_longitudinal.memory import Checkpointing
from medcli_longitudinal.start import group_norm, kaiming, small

__all__ = ["ChannelExpansionBlock", "ChannelExpansionLayer", "EfficientNetMiniEncoder", "MBConv", "MBConvPlan", "plans"]

# EfficientNet's stages (Tan and Le 2019): kernel, stride, input, output, expansion, repeats; B7 widens them by 2.0 and
# repeats them 3.1 times. Its second published width is that of the stem.
_STAGES = (
    (3, 1, 32, 16, 1, 1),
    (3, 2, 16, 24, 6, 2),
    (5, 2, 24, 40, 6, 2),
    (3, 2, 40, 80, 6, 3),
    (5, 1, 80, 112, 6, 3),
    (5, 2, 112, 192, 6, 4),
    (3, 1, 192, 320, 6, 1),
)
_WIDTH, _DEPTH = 2.0, 3.1
_DROPOUT, _DROPPED = 0.2, (0, 3, 6)


@dataclass(frozen=True)
class MBConvPlan:
    """One block of EfficientNet-B7.

    Args:
        inputs, expanded, outputs: channels.
        kernel: of the depth-wise convolution.
        stride: of the depth-wise convolution.
        squeezed: channels within squeeze and excitation.
    """

    inputs: int
    expanded: int
    outputs: int
    kernel: int
    stride: int
    squeezed: int


def plans(sizes: Sizes = PUBLISHED) -> tuple[MBConvPlan, ...]:
    """The 55 blocks of EfficientNet-B7, scaled to a width."""
    found = []
    for kernel, stride, inputs, outputs, expansion, repeats in _STAGES:
        before, after = sizes.scaled(_rounded(inputs)), sizes.scaled(_rounded(outputs))
        for index in range(math.ceil(_DEPTH * repeats)):
            entering = after if index else before
            found.append(
                MBConvPlan(
                    entering,
                    entering * expansion,
                    after,
                    kernel,
                    1 if index else stride,
                    max(1, entering // 4),
                )
            )
    return tuple(found)


class ChannelExpansionLayer(nn.Module):
    """[B, C, H, W] -> [B, C · m, H, W]: convolution, group norm, SiLU.

    Args:
        in_channels: C.
        out_multiplier: m; the result is rounded down to whole channels.
        kernel_size: of the convolution.
        sizes: whose switch says how weights start.
    """

    def __init__(
        self, in_channels: int, out_multiplier: float, kernel_size: int = 3, *, sizes: Sizes = PUBLISHED
    ) -> None:
        super().__init__()
        self.out_channels = int(in_channels * out_multiplier + 1e-6)
        self.conv = small(
            nn.Conv2d(in_channels, self.out_channels, kernel_size, padding=kernel_size // 2, bias=False), sizes
        )
        self.norm = group_norm(self.out_channels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C · m, H, W]."""
        return functional.silu(self.norm(self.conv(images)))


class ChannelExpansionBlock(nn.Module):
    """The stem, at the picture's own size: 7 × 7 by the first factor, 3 × 3 by the second.

    Args:
        inp: channels of the picture.
        exp, exp2: factors on the channels.
        sizes: whose switch says how weights start.
    """

    def __init__(self, inp: int = 1, exp: float = 8.0, exp2: float = 8.0, *, sizes: Sizes = PUBLISHED) -> None:
        super().__init__()
        self.first = ChannelExpansionLayer(inp, exp, 7, sizes=sizes)
        self.second = ChannelExpansionLayer(self.first.out_channels, exp2, 3, sizes=sizes)
        self.out_channels = self.second.out_channels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, 64, H, W] at the defaults."""
        widened: torch.Tensor = self.second(self.first(images))
        return widened


class SqueezeExcitation(nn.Module):
    """[B, C, H, W] -> the same, each channel weighed by what all of them show on average."""

    def __init__(self, channels: int, squeezed: int, sizes: Sizes) -> None:
        super().__init__()
        self.reduce = kaiming(nn.Conv2d(channels, squeezed, 1), sizes)
        self.expand = kaiming(nn.Conv2d(squeezed, channels, 1), sizes)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        weights = self.expand(functional.silu(self.reduce(maps.mean((2, 3), keepdim=True))))
        excited: torch.Tensor = maps * weights.sigmoid()
        return excited


class MBConv(nn.Module):
    """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]: expand, depth-wise, squeeze and excite, project.

    A stride of 2 pads right and below, as EfficientNet's published weights were trained.

    Args:
        plan: channels, kernel and stride.
        sizes: whose switch says how weights start.
    """

    def __init__(self, plan: MBConvPlan, *, sizes: Sizes = PUBLISHED) -> None:
        super().__init__()
        self.expands = plan.expanded != plan.inputs
        self.residual = plan.stride == 1 and plan.inputs == plan.outputs
        low = (plan.kernel - plan.stride) // 2
        high = plan.kernel - plan.stride - low
        self.padding = (low, high, low, high) if plan.stride > 1 else None
        if self.expands:
            self.expand = kaiming(nn.Conv2d(plan.inputs, plan.expanded, 1, bias=False), sizes)
            self.expand_norm = _batch_norm(plan.expanded)
        self.depthwise = kaiming(
            nn.Conv2d(
                plan.expanded,
                plan.expanded,
                plan.kernel,
                plan.stride,
                padding=plan.kernel // 2 if plan.stride == 1 else 0,
                groups=plan.expanded,
                bias=False,
            ),
            sizes,
        )
        self.depthwise_norm = _batch_norm(plan.expanded)
        self.excite = SqueezeExcitation(plan.expanded, plan.squeezed, sizes)
        self.project = kaiming(nn.Conv2d(plan.expanded, plan.outputs, 1, bias=False), sizes)
        self.project_norm = _batch_norm(plan.outputs)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        wide = functional.silu(self.expand_norm(self.expand(maps))) if self.expands else maps
        if self.padding is not None:
            wide = functional.pad(wide, self.padding)
        wide = functional.silu(self.depthwise_norm(self.depthwise(wide)))
        narrow: torch.Tensor = self.project_norm(self.project(self.excite(wide)))
        return narrow + maps if self.residual else narrow


class EfficientNetMiniEncoder(Checkpointing):
    """[B, C, H, W] -> [B, 640, H / 16, W / 16]: the stem, some blocks of EfficientNet-B7, SiLU.

    Args:
        block_idxs: numbers of the blocks, 0 to 54; each must take the channels that the one before gives.
        inp: channels of the pictures.
        exp, exp2: factors of the stem; their product leads from `inp` to the channels of the first block.
        dropout: channel dropout of 0.2 before the first, fourth and seventh block.
        sizes: factor on the channels, and how weights start.

    Raises:
        ValueError: blocks that do not follow one another, or a stem that does not lead to the first one.
    """

    def __init__(
        self,
        block_idxs: Sequence[int] = BLOCKS,
        inp: int = 1,
        exp: float = 8.0,
        exp2: float = 8.0,
        dropout: bool = False,
        *,
        sizes: Sizes = PUBLISHED,
    ) -> None:
        super().__init__()
        everything = plans(sizes)
        chosen = [everything[index] for index in block_idxs]
        for before, after in itertools.pairwise(chosen):
            if before.outputs != after.inputs:
                raise ValueError(f"a block gives {before.outputs} channels, and the next one takes {after.inputs}")
        self.stem = ChannelExpansionBlock(inp, exp, exp2, sizes=sizes)
        if self.stem.out_channels != chosen[0].inputs:
            raise ValueError(
                f"the stem gives {self.stem.out_channels} channels, and the first block takes {chosen[0].inputs}"
            )
        self.blocks = nn.ModuleList(MBConv(plan, sizes=sizes) for plan in chosen)
        self.drop = nn.Dropout2d(_DROPOUT if dropout else 0.0)
        self.out_channels = chosen[-1].outputs
        self.strides = tuple(plan.stride for plan in chosen)
        last = [index for index in range(len(chosen)) if index + 1 == len(chosen) or chosen[index + 1].stride > 1]
        self._last = tuple(index for index in last if self._reduction(index) > 1)
        self.map_channels = tuple(chosen[index].outputs for index in self._last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, 640, H / 16, W / 16]."""
        return self.maps(images)[-1]

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The last map of each size below the picture's own, finest first: 48, 80, 224 and 640 channels."""
        current = self.run(self.stem, images)
        kept = []
        for index, block in enumerate(self.blocks):
            if index in _DROPPED:
                current = self.drop(current)
            current = self.run(block, current)
            if index in self._last:
                kept.append(current)
        kept[-1] = functional.silu(kept[-1])
        return kept

    def _reduction(self, index: int) -> int:
        return math.prod(self.strides[: index + 1])


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.08)


def _rounded(channels: int) -> int:
    """EfficientNet's rule: to a multiple of 8, never more than a tenth below."""
    wanted = channels * _WIDTH
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded
