"""The difference models of the public code, layer by layer: no transformer, no skips; maps are subtracted, tanh."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from medcli.plugin import LayerGroup
from medcli_longitudinal.auxiliary import Discriminator, MaskedReconstructionModel
from medcli_longitudinal.bottleneck import ConvBlockBranch
from medcli_longitudinal.constants import BLOCKS, PUBLISHED, Sizes
from medcli_longitudinal.decoders import Decoder6
from medcli_longitudinal.encoder import EfficientNetMiniEncoder
from medcli_longitudinal.groups import cut, encoder_parts
from medcli_longitudinal.memory import Checkpointing
from medcli_longitudinal.transformer import SamplingConvBlock

__all__ = ["SubtractModel", "SubtractModelBig"]

Map = Literal["signed", "magnitude"]
_DROPOUT = 0.1
_BLOCKS = 3


class _Subtract(Checkpointing):
    """What both have in common: encoder, decoder, and how they start and are seen."""

    def __init__(self, in_channels: int, map: Map, sizes: Sizes) -> None:  # noqa: A002 (the keyword's own name)
        super().__init__()
        self.sizes = sizes
        self.map = map
        self.in_channels = in_channels
        self.encoder = EfficientNetMiniEncoder(BLOCKS, in_channels, *sizes.expansions(in_channels), sizes=sizes)
        self.drop = nn.Dropout2d(_DROPOUT)

    def reconstruction(self) -> MaskedReconstructionModel:
        """A network around this one's own encoder that fills in what is masked, for pretraining."""
        return MaskedReconstructionModel(self.in_channels, encoder=self.encoder, sizes=self.sizes)

    def discriminator(self, in_channels: int = 1) -> Discriminator:
        """The judge of adversarial training."""
        return Discriminator(in_channels, width=self.sizes.scaled(64))

    def _finished(self, change: torch.Tensor) -> torch.Tensor:
        return change if self.map == "signed" else change.abs()

    def _cut(self, *chains: str) -> tuple[LayerGroup, ...]:
        blocks = [
            (f"{chain}.{index}",)
            for chain in chains
            for index in range(len(self.get_submodule(chain)))  # type: ignore[arg-type]
        ]
        return cut(self, [*encoder_parts(self.encoder), *blocks])


class SubtractModel(_Subtract):
    """Two pictures [B, C, H, W] of one patient -> a map of what changed, [B, 1, H, W]; 64,289,778 parameters.

    Args:
        in_channels: channels of the pictures.
        map: `signed`, values in [-1, 1], or `magnitude`, their absolute values.
        sizes: size of the pictures, width, and how weights start.
    """

    def __init__(self, in_channels: int = 1, *, map: Map = "signed", sizes: Sizes = PUBLISHED) -> None:  # noqa: A002
        super().__init__(in_channels, map, sizes)
        self.features = _chain(sizes)
        self.difference = _chain(sizes)
        self.decoder = Decoder6(sizes)

    def forward(self, baseline: torch.Tensor, followup: torch.Tensor) -> torch.Tensor:
        """Two times [B, C, H, W] -> [B, 1, H, W]."""
        before, after = (self.run(self.features, self.encoder(one)) for one in (baseline, followup))
        return self._finished(self.decoder(self.drop(self.run(self.difference, after - before))))

    def layer_groups(self) -> tuple[LayerGroup, ...]:
        """Encoder, residual blocks and decoder, block by block; each a stage."""
        return self._cut("features", "difference", "decoder.blocks")


class SubtractModelBig(_Subtract):
    """Two pictures [B, C, H, W] of one patient -> a map of what changed, [B, 1, H, W]; 110,887,538 parameters.

    2,345,600 of them (`features_upsampling`) stand in the public code and are never run: here they are kept, so that
    counts agree, and frozen.

    Args:
        in_channels: channels of the pictures.
        map: `signed`, values in [-1, 1], or `magnitude`, their absolute values.
        sizes: size of the pictures, width, and how weights start.
    """

    def __init__(self, in_channels: int = 1, *, map: Map = "signed", sizes: Sizes = PUBLISHED) -> None:  # noqa: A002
        super().__init__(in_channels, map, sizes)
        self.features = _chain(sizes)
        self.features2 = _chain(sizes)
        self.difference = _chain(sizes)
        self.merged = _chain(sizes)
        self.decoder = Decoder6(sizes)
        inter = sizes.inter_channels
        self.features_upsampling = nn.Sequential(
            SamplingConvBlock(1, sizes.hidden_channels, inter, up=True, sizes=sizes),
            SamplingConvBlock(2, inter, sizes.feature_channels, up=True, sizes=sizes),
        ).requires_grad_(False)

    def forward(self, baseline: torch.Tensor, followup: torch.Tensor) -> torch.Tensor:
        """Two times [B, C, H, W] -> [B, 1, H, W]."""
        before, after = (self.run(self.features, self.encoder(one)) for one in (baseline, followup))
        before2, after2 = (self.run(self.features2, one) for one in (before, after))
        first = self.drop(self.run(self.difference, after - before))
        merged = self.run(self.merged, first + self.drop(after2 - before2))
        return self._finished(self.decoder(self.drop(merged)))

    def layer_groups(self) -> tuple[LayerGroup, ...]:
        """Encoder, residual blocks and decoder, block by block, and what is never run last; each a stage."""
        return self._cut("features", "features2", "difference", "merged", "decoder.blocks", "features_upsampling")


def _chain(sizes: Sizes) -> nn.Sequential:
    return nn.Sequential(*(ConvBlockBranch(sizes.feature_channels, sizes=sizes) for _ in range(_BLOCKS)))
