"""From the last map back to the picture's size: the decoders of the public code, and those of the document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from medcli_longitudinal.bottleneck import Compression
from medcli_longitudinal.constants import PUBLISHED, Sizes
from medcli_longitudinal.memory import Checkpointing
from medcli_longitudinal.start import group_norm, kaiming, small

__all__ = [
    "Decoder1",
    "Decoder2",
    "Decoder4",
    "Decoder5",
    "Decoder6",
    "DecoderBlock",
    "PatchDecoder6",
    "PlainDecoder",
    "UNetDecoder",
    "activate",
]

_GROUPS = 16
_TANH_GAIN = 5 / 3
_UNCHANGED = -4.0  # before the sigmoid: nearly all of a picture has not changed, so a magnitude starts near 0


class DecoderBlock(nn.Module):
    """[B, in, H, W] -> [B, out, s · H, s · W]: transposed convolution, then convolution, each with group norm.

    Args:
        in_channels, out_channels: channels; between the two convolutions their mean.
        deconv_kernel_size, deconv_stride: of the transposed convolution; the kernel is the stride, or the stride is 1.
        sigmoid: the last block: values in [0, 1] through a sigmoid instead of ReLU.
        conv_kernel_size: of the convolution.
        multiplier: on what enters the activation.
        sizes: whose switch says how weights start.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        deconv_kernel_size: int = 2,
        deconv_stride: int = 2,
        sigmoid: bool = False,
        *,
        conv_kernel_size: int = 3,
        multiplier: float = 1.0,
        sizes: Sizes = PUBLISHED,
    ) -> None:
        super().__init__()
        middle = (in_channels + out_channels) // 2
        self.sigmoid = sigmoid
        self.multiplier = multiplier
        self.deconv = kaiming(
            nn.ConvTranspose2d(in_channels, middle, deconv_kernel_size, deconv_stride, bias=False), sizes
        )
        self.norm1 = group_norm(middle, _GROUPS)
        start = small if sigmoid else kaiming
        conv = nn.Conv2d(middle, out_channels, conv_kernel_size, padding=conv_kernel_size // 2, bias=False)
        self.conv = start(conv, sizes)
        self.norm2 = group_norm(out_channels, _GROUPS)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[B, in, H, W] -> [B, out, s · H, s · W]."""
        larger = functional.relu(self.norm1(self.deconv(maps)))
        final = self.norm2(self.conv(larger)) * self.multiplier
        return torch.sigmoid(final) if self.sigmoid else functional.relu(final)


class _Chain(Checkpointing):
    """Blocks one after the other, with channel dropout between them where it is given."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[B, 640, h, w] -> the picture, [B, 1, H, W]."""
        for block in self.blocks:
            maps = self.run(block, maps)
        return maps


class Decoder6(_Chain):
    """[B, 640, 32, 32] -> signed map [B, 1, 512, 512] in [-1, 1]: five blocks, convolution, norm, tanh."""

    def __init__(self, sizes: Sizes = PUBLISHED) -> None:
        widths = [sizes.scaled(width) for width in (640, 512, 384, 256, 128, 64)]
        last = nn.Conv2d(widths[5], 1, 3, padding=1, bias=False)
        if sizes.init_weights:
            nn.init.xavier_uniform_(last.weight, gain=_TANH_GAIN)
        super().__init__(
            [
                DecoderBlock(widths[0], widths[1], sizes=sizes),
                DecoderBlock(widths[1], widths[2], sizes=sizes),
                DecoderBlock(widths[2], widths[3], 1, 1, conv_kernel_size=5, sizes=sizes),
                DecoderBlock(widths[3], widths[4], sizes=sizes),
                DecoderBlock(widths[4], widths[5], sizes=sizes),
                nn.Sequential(last, nn.GroupNorm(1, 1), nn.Tanh()),
            ]
        )


class Decoder5(_Chain):
    """[B, 640, 32, 32] -> [B, 1, 512, 512] in [0, 1]: as `Decoder6`, with channel dropout, and a sharpened sigmoid."""

    def __init__(self, sizes: Sizes = PUBLISHED) -> None:
        widths = [sizes.scaled(width) for width in (640, 512, 384, 256, 128)]
        super().__init__(
            [
                DecoderBlock(widths[0], widths[1], sizes=sizes),
                nn.Dropout2d(0.4),
                DecoderBlock(widths[1], widths[2], sizes=sizes),
                DecoderBlock(widths[2], widths[3], 1, 1, conv_kernel_size=5, sizes=sizes),
                nn.Dropout2d(0.3),
                DecoderBlock(widths[3], widths[4], sizes=sizes),
                DecoderBlock(widths[4], 1, sigmoid=True, multiplier=5, sizes=sizes),
            ]
        )


class Decoder4(_Chain):
    """[B, 640, 32, 32] -> [B, 1, 512, 512] in [0, 1]: four blocks, the last with a 5 × 5 convolution."""

    def __init__(self, sizes: Sizes = PUBLISHED) -> None:
        widths = [sizes.scaled(width) for width in (640, 480, 320, 160)]
        super().__init__(
            [
                DecoderBlock(widths[0], widths[1], sizes=sizes),
                nn.Dropout2d(0.1),
                DecoderBlock(widths[1], widths[2], sizes=sizes),
                nn.Dropout2d(0.1),
                DecoderBlock(widths[2], widths[3], sizes=sizes),
                nn.Dropout2d(0.1),
                DecoderBlock(widths[3], 1, sigmoid=True, conv_kernel_size=5, sizes=sizes),
            ]
        )


class Decoder2(_Chain):
    """[B, 640, 32, 32] -> [B, 1, 512, 512] in [0, 1]: two blocks of stride 4."""

    def __init__(self, sizes: Sizes = PUBLISHED) -> None:
        widths = [sizes.scaled(width) for width in (640, 320)]
        super().__init__(
            [
                DecoderBlock(widths[0], widths[1], 4, 4, sizes=sizes),
                DecoderBlock(widths[1], 1, 4, 4, sigmoid=True, sizes=sizes),
            ]
        )


class Decoder1(_Chain):
    """[B, 640, 32, 32] -> [B, 1, 512, 512] in [0, 1]: one transposed convolution of stride 16, and a sigmoid."""

    def __init__(self, sizes: Sizes = PUBLISHED) -> None:
        up = kaiming(nn.ConvTranspose2d(sizes.feature_channels, 1, 16, 16, bias=False), sizes)
        super().__init__([nn.Sequential(up, nn.Sigmoid())])


class PatchDecoder6(_Chain):
    """[B, 640, 32, 32] -> one patch of a quarter of the picture's side, [B, 1, 128, 128] in [0, 1]."""

    def __init__(self, sizes: Sizes = PUBLISHED) -> None:
        widths = [sizes.scaled(width) for width in (640, 512, 384, 256, 128)]
        super().__init__(
            [
                DecoderBlock(widths[0], widths[1], sizes=sizes),
                nn.Dropout2d(0.2),
                DecoderBlock(widths[1], widths[2], sizes=sizes),
                nn.Dropout2d(0.2),
                _conv_block(widths[2], widths[3], sizes),
                _conv_block(widths[3], widths[4], sizes),
                _conv_block(widths[4], 1, sizes),
                nn.Sequential(
                    small(nn.Conv2d(1, 1, 3, padding=1, bias=False), sizes), nn.GroupNorm(1, 1), _Sharpened(2)
                ),
            ]
        )


class _Sharpened(nn.Module):
    """Sigmoid of a multiple."""

    def __init__(self, multiplier: float) -> None:
        super().__init__()
        self.multiplier = multiplier

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(maps * self.multiplier)


class PlainDecoder(Checkpointing):
    """[B, 640, h, w] -> [B, 1, 16 h, 16 w], before any activation: 640, 320, 160, 80, 40, then 1 × 1.

    Args:
        sizes: widths.
        start: bias at the start.
    """

    def __init__(self, sizes: Sizes = PUBLISHED, *, start: float = 0.0) -> None:
        super().__init__()
        self.widths = tuple(sizes.scaled(width) for width in (640, 320, 160, 80, 40))
        self.blocks = nn.ModuleList(
            DecoderBlock(before, after, 2, 2, sizes=sizes)
            for before, after in zip(self.widths[:-1], self.widths[1:], strict=True)
        )
        self.out = small(nn.Conv2d(self.widths[-1], 1, 1), sizes)
        nn.init.constant_(self.out.bias, start)  # type: ignore[arg-type]

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[B, 640, h, w] -> [B, 1, 16 h, 16 w]."""
        for block in self.blocks:
            maps = self.run(block, maps)
        logits: torch.Tensor = self.out(maps)
        return logits


class UNetDecoder(PlainDecoder):
    """A `PlainDecoder` that adds, at 64², 128² and 256², what both images' encoder maps show there, compressed.

    Args:
        map_channels: of one image's maps at H / 2, H / 4 and H / 8, finest first.
        sizes: widths.
        start: bias at the start.
    """

    def __init__(self, map_channels: Sequence[int], sizes: Sizes = PUBLISHED, *, start: float = 0.0) -> None:
        super().__init__(sizes, start=start)
        self.skips = nn.ModuleList(
            Compression(2 * channels, width, sizes=sizes)
            for channels, width in zip(reversed(map_channels), self.widths[1:], strict=False)
        )

    def forward(self, maps: torch.Tensor, finer: Sequence[torch.Tensor] = ()) -> torch.Tensor:
        """[B, 640, h, w] and both images' maps side by side [B, 2 · c, ...], finest first -> [B, 1, 16 h, 16 w]."""
        for index, block in enumerate(self.blocks):
            maps = self.run(block, maps)
            if index < len(self.skips):
                maps = maps + self.run(self.skips[index], finer[-1 - index])
        logits: torch.Tensor = self.out(maps)
        return logits


def activate(logits: torch.Tensor, kind: Literal["signed", "magnitude"]) -> torch.Tensor:
    """tanh for a signed map, sigmoid for a map of magnitudes."""
    return torch.tanh(logits) if kind == "signed" else torch.sigmoid(logits)


def start_of(kind: Literal["signed", "magnitude"]) -> float:
    """The bias from which a map starts near "nothing has changed"."""
    return 0.0 if kind == "signed" else _UNCHANGED


def _conv_block(before: int, after: int, sizes: Sizes) -> nn.Module:
    conv = kaiming(nn.Conv2d(before, after, 3, padding=1, bias=False), sizes)
    return nn.Sequential(conv, group_norm(after, _GROUPS), nn.ReLU())
