"""What stands between encoder and decoder: a transformer and a convolutional branch side by side, and compressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from medcli_longitudinal.constants import BLOCKS, PUBLISHED, Sizes
from medcli_longitudinal.encoder import EfficientNetMiniEncoder
from medcli_longitudinal.memory import Checkpointing
from medcli_longitudinal.start import group_norm, kaiming, small
from medcli_longitudinal.transformer import TransformerBranch, VisionTransformer

__all__ = [
    "BottleneckBlock",
    "BottleneckEncoder",
    "Compression",
    "ContrastiveBottleneckBlock",
    "ConvBlockBranch",
    "FeatureCompression",
    "SeparableBranch",
    "TechnicalBottleneck",
]


class ConvBlockBranch(nn.Module):
    """[B, C, H, W] -> the same: two 3 × 3 convolutions with group norm, added to what came in, ReLU."""

    def __init__(self, channels: int, *, sizes: Sizes = PUBLISHED) -> None:
        super().__init__()
        self.conv1 = kaiming(nn.Conv2d(channels, channels, 3, padding=1, bias=False), sizes)
        self.norm1 = group_norm(channels)
        self.conv2 = kaiming(nn.Conv2d(channels, channels, 3, padding=1, bias=False), sizes)
        self.norm2 = group_norm(channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        change = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(maps)))))
        return functional.relu(change + maps)


class SeparableBranch(nn.Module):
    """A `ConvBlockBranch` of depth-wise and point-wise convolutions, a tenth of its size."""

    def __init__(self, channels: int, *, sizes: Sizes = PUBLISHED) -> None:
        super().__init__()
        self.conv1 = _separable(channels, channels, 3, sizes)
        self.norm1 = group_norm(channels)
        self.conv2 = _separable(channels, channels, 3, sizes)
        self.norm2 = group_norm(channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        change = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(maps)))))
        return functional.relu(change + maps)


class Compression(nn.Module):
    """[B, C, H, W] -> [B, D, H, W]: convolutions side by side, each with group norm, summed; SiLU.

    Args:
        in_channels: C.
        out_channels: D.
        paths: of `point` (1 × 1), `standard` (3 × 3), `spatial` (depth-wise 7 × 7, then 1 × 1).
        sizes: whose switch says how weights start.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        paths: Sequence[str] = ("point", "standard", "spatial"),
        *,
        sizes: Sizes = PUBLISHED,
    ) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            nn.Sequential(_path(path, in_channels, out_channels, sizes), group_norm(out_channels)) for path in paths
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, D, H, W]."""
        first, *others = [path(maps) for path in self.paths]
        for other in others:
            first = first + other
        return functional.silu(first)


class FeatureCompression(nn.Module):
    """[B, 1920, H, W] -> [B, 640, H, W], as in the public code: 1 × 1, two 3 × 3, and two 7 × 7, the last one full."""

    def __init__(self, sizes: Sizes = PUBLISHED) -> None:
        super().__init__()
        width = sizes.feature_channels
        given, middle = 3 * width, 2 * width
        self.point = nn.Sequential(small(nn.Conv2d(given, width, 1, bias=False), sizes), group_norm(width))
        self.standard = nn.Sequential(
            kaiming(nn.Conv2d(given, middle, 3, padding=1, bias=False), sizes),
            group_norm(middle),
            nn.ReLU(),
            small(nn.Conv2d(middle, width, 3, padding=1, bias=False), sizes),
            group_norm(width),
        )
        self.spatial = nn.Sequential(
            kaiming(nn.Conv2d(given, given, 7, padding=3, groups=given, bias=False), sizes),
            group_norm(given),
            nn.ReLU(),
            small(nn.Conv2d(given, width, 7, padding=3, bias=False), sizes),
            group_norm(width),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[B, 1920, H, W] -> [B, 640, H, W]."""
        return functional.silu(self.point(maps) + self.standard(maps) + self.spatial(maps))


class BottleneckBlock(Checkpointing):
    """[B, 640, h, w] -> the same: transformer and convolutions side by side, compressed together with what came in.

    Args:
        transformer_encoder: [B, N, 768] -> [B, N, 768].
        light: with separable convolutions in the branch, and two paths in the compression (1 × 1 and depth-wise 7 × 7):
            93 million parameters with ViT-Base instead of the public code's 188.
        sizes: widths.
    """

    def __init__(self, transformer_encoder: nn.Module, *, light: bool = False, sizes: Sizes = PUBLISHED) -> None:
        super().__init__()
        width = sizes.feature_channels
        self.transformer = TransformerBranch(transformer_encoder, sizes)
        self.conv = (SeparableBranch if light else ConvBlockBranch)(width, sizes=sizes)
        self.compression = (
            Compression(3 * width, width, ("point", "spatial"), sizes=sizes) if light else FeatureCompression(sizes)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[B, 640, h, w] -> [B, 640, h, w]."""
        both = [self.transformer(maps), self.run(self.conv, maps), maps]
        compressed: torch.Tensor = self.run(self.compression, torch.cat(both, 1))
        return compressed


class ContrastiveBottleneckBlock(Checkpointing):
    """A `BottleneckBlock` with a compression of two 3 × 3 convolutions.

    Args:
        transformer_encoder: [B, N, 768] -> [B, N, 768]; one layer in the public code.
        sizes: widths.
    """

    def __init__(self, transformer_encoder: nn.Module, *, sizes: Sizes = PUBLISHED) -> None:
        super().__init__()
        width = sizes.feature_channels
        self.transformer = TransformerBranch(transformer_encoder, sizes)
        self.conv = ConvBlockBranch(width, sizes=sizes)
        self.compression = nn.Sequential(
            kaiming(nn.Conv2d(3 * width, width, 3, padding=1, bias=False), sizes),
            group_norm(width),
            nn.ReLU(),
            kaiming(nn.Conv2d(width, width, 3, padding=1, bias=False), sizes),
            group_norm(width),
            nn.SiLU(),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[B, 640, h, w] -> [B, 640, h, w]."""
        both = [self.transformer(maps), self.run(self.conv, maps), maps]
        compressed: torch.Tensor = self.run(self.compression, torch.cat(both, 1))
        return compressed


class BottleneckEncoder(Checkpointing):
    """[B, C, H, W] -> [B, 640, H / 16, W / 16]: the mini encoder, then the bottleneck.

    Args:
        in_channels: channels of the pictures.
        light: the encoder of the document's models: mini encoder and light bottleneck, 104 million parameters. Without
            it the public code's, with channel dropout and a `ConvBlockBranch` before and after: 214 million.
        sizes: size of the pictures, width, depth.
    """

    def __init__(self, in_channels: int = 1, *, light: bool = False, sizes: Sizes = PUBLISHED) -> None:
        super().__init__()
        width = sizes.feature_channels
        self.encoder = EfficientNetMiniEncoder(BLOCKS, in_channels, *sizes.expansions(in_channels), sizes=sizes)
        self.before: nn.Module = nn.Identity() if light else _dropped(0.3, ConvBlockBranch(width, sizes=sizes), 0.4)
        self.bottleneck = BottleneckBlock(VisionTransformer(sizes), light=light, sizes=sizes)
        self.after: nn.Module = nn.Identity() if light else _dropped(0.4, ConvBlockBranch(width, sizes=sizes))
        self.out_channels = width
        self.map_channels = self.encoder.map_channels

    def forward(self, images: torch.Tensor, return_maps: bool = False) -> Any:
        """[B, C, H, W] -> [B, 640, h, w]; with `return_maps` also the mini encoder's maps, finest first."""
        maps = self.encoder.maps(images)
        out = self.after(self.bottleneck(self.before(maps[-1])))
        return (out, maps) if return_maps else out


class TechnicalBottleneck(nn.Module):
    """[B, 640, 32, 32] -> the same through 512 numbers, which `latent` gives.

    Args:
        sizes: widths and the side of the map.
    """

    def __init__(self, sizes: Sizes = PUBLISHED) -> None:
        super().__init__()
        width, side, middle, planes = sizes.feature_channels, sizes.feature_size, sizes.scaled(64), 2
        pixels, latent = planes * side**2, sizes.scaled(512)
        self.shape = (planes, side, side)
        self.squeeze = nn.Sequential(*_reversed_norm(width, middle, sizes), *_reversed_norm(middle, planes, sizes))
        self.to_latent = nn.Sequential(nn.Linear(pixels, latent), nn.ReLU(), nn.BatchNorm1d(latent))
        self.from_latent = nn.Sequential(nn.Linear(latent, pixels), nn.ReLU(), nn.BatchNorm1d(pixels))
        self.widen = nn.Sequential(*_reversed_norm(planes, middle, sizes), *_reversed_norm(middle, width, sizes))

    def latent(self, maps: torch.Tensor) -> torch.Tensor:
        """[B, 640, 32, 32] -> [B, 512]."""
        numbers: torch.Tensor = self.to_latent(self.squeeze(maps).flatten(1))
        return numbers

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[B, 640, 32, 32] -> [B, 640, 32, 32]."""
        restored: torch.Tensor = self.widen(self.from_latent(self.latent(maps)).unflatten(1, self.shape))
        return restored


def _path(kind: str, in_channels: int, out_channels: int, sizes: Sizes) -> nn.Module:
    if kind == "spatial":
        return _separable(in_channels, out_channels, 7, sizes)
    kernel = {"point": 1, "standard": 3}[kind]
    return kaiming(nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False), sizes)


def _separable(in_channels: int, out_channels: int, kernel: int, sizes: Sizes) -> nn.Sequential:
    """Depth-wise, then point-wise."""
    return nn.Sequential(
        kaiming(
            nn.Conv2d(in_channels, in_channels, kernel, padding=kernel // 2, groups=in_channels, bias=False), sizes
        ),
        kaiming(nn.Conv2d(in_channels, out_channels, 1, bias=False), sizes),
    )


def _dropped(before: float, block: nn.Module, after: float = 0.0) -> nn.Sequential:
    return nn.Sequential(nn.Dropout2d(before), block, *([nn.Dropout2d(after)] if after else []))


def _reversed_norm(before: int, after: int, sizes: Sizes) -> list[nn.Module]:
    conv = kaiming(nn.Conv2d(before, after, 3, padding=1, bias=False), sizes)
    return [conv, nn.ReLU(), group_norm(after)]
