"""The difference models as the document describes them: encoder with a transformer, concatenation, compression."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from medcli.plugin import LayerGroup
from medcli_longitudinal.auxiliary import Discriminator, MaskedReconstructionModel
from medcli_longitudinal.bottleneck import BottleneckEncoder, Compression, ConvBlockBranch
from medcli_longitudinal.constants import PUBLISHED, Sizes
from medcli_longitudinal.decoders import PlainDecoder, UNetDecoder, activate, start_of
from medcli_longitudinal.groups import cut, encoder_parts
from medcli_longitudinal.memory import Checkpointing

__all__ = ["LongitudinalMIMModel", "LongitudinalMIMModelBig"]

Map = Literal["signed", "magnitude"]


class LongitudinalMIMModel(Checkpointing):
    """Two pictures [B, C, H, W] of one patient -> a map of what changed, [B, 1, H, W]; 122 million parameters.

    The shared encoder's two maps are put side by side, compressed by one 3 × 3 convolution, refined by one
    `ConvBlockBranch`, and brought back to the picture's size without skips.

    Args:
        in_channels: channels of the pictures.
        map: `magnitude`, values in [0, 1] as in the document, or `signed`, in [-1, 1].
        sizes: size of the pictures, width, depth, and how weights start.
    """

    refinements = 1

    def __init__(self, in_channels: int = 1, *, map: Map = "magnitude", sizes: Sizes = PUBLISHED) -> None:  # noqa: A002
        super().__init__()
        width = sizes.feature_channels
        self.sizes = sizes
        self.map = map
        self.in_channels = in_channels
        self.encoder = BottleneckEncoder(in_channels, light=True, sizes=sizes)
        self.fusion = Compression(2 * width, width, ("standard",), sizes=sizes)
        self.refine = nn.Sequential(*(ConvBlockBranch(width, sizes=sizes) for _ in range(self.refinements)))
        self.decoder = PlainDecoder(sizes, start=start_of(map))

    def forward(self, baseline: torch.Tensor, followup: torch.Tensor) -> torch.Tensor:
        """Two times [B, C, H, W] -> [B, 1, H, W]."""
        before, after = self.encoder(baseline), self.encoder(followup)
        fused = self.run(self.fusion, torch.cat([before, after], 1))
        return activate(self.decoder(self.run(self.refine, fused)), self.map)

    def layer_groups(self) -> tuple[LayerGroup, ...]:
        """Encoder block by block, fusion, refinements, decoder step by step; each a stage."""
        steps = [(f"decoder.blocks.{index}",) for index in range(len(self.decoder.blocks))]
        refinements = [(f"refine.{index}",) for index in range(len(self.refine))]
        return cut(self, [*encoder_parts(self.encoder), ("fusion",), *refinements, *steps, ("decoder.out",)])

    def reconstruction(self) -> MaskedReconstructionModel:
        """A network around this one's own encoder that fills in what is masked, for pretraining."""
        return MaskedReconstructionModel(self.in_channels, encoder=self.encoder, sizes=self.sizes)

    def discriminator(self, in_channels: int = 1) -> Discriminator:
        """The judge of adversarial training."""
        return Discriminator(in_channels, width=self.sizes.scaled(64))


class LongitudinalMIMModelBig(Checkpointing):
    """Two pictures [B, C, H, W] of one patient -> a map of what changed, [B, 1, H, W]; 178 million parameters.

    The shared encoder's maps are refined by four `ConvBlockBranch`es, put side by side, compressed by three paths
    (1 × 1, 3 × 3, depth-wise 7 × 7), refined by four more, and brought back to the picture's size in a U-Net: at 64²,
    128² and 256² it adds the encoder's maps of both pictures, compressed in the same way.

    Args:
        in_channels: channels of the pictures.
        map: `magnitude`, values in [0, 1] as in the document, or `signed`, in [-1, 1].
        sizes: size of the pictures, width, depth, and how weights start.
    """

    refinements = 4

    def __init__(self, in_channels: int = 1, *, map: Map = "magnitude", sizes: Sizes = PUBLISHED) -> None:  # noqa: A002
        super().__init__()
        width = sizes.feature_channels
        self.sizes = sizes
        self.map = map
        self.in_channels = in_channels
        self.encoder = BottleneckEncoder(in_channels, light=True, sizes=sizes)
        self.features = nn.Sequential(*(ConvBlockBranch(width, sizes=sizes) for _ in range(self.refinements)))
        self.fusion = Compression(2 * width, width, sizes=sizes)
        self.refine = nn.Sequential(*(ConvBlockBranch(width, sizes=sizes) for _ in range(self.refinements)))
        self.decoder = UNetDecoder(self.encoder.map_channels[:-1], sizes, start=start_of(map))

    def forward(self, baseline: torch.Tensor, followup: torch.Tensor) -> torch.Tensor:
        """Two times [B, C, H, W] -> [B, 1, H, W]."""
        before, maps_before = self.encoder(baseline, return_maps=True)
        after, maps_after = self.encoder(followup, return_maps=True)
        both = [self.run(self.features, one) for one in (before, after)]
        fused = self.run(self.refine, self.run(self.fusion, torch.cat(both, 1)))
        finer = [torch.cat(pair, 1) for pair in zip(maps_before[:-1], maps_after[:-1], strict=True)]
        return activate(self.decoder(fused, finer), self.map)

    def layer_groups(self) -> tuple[LayerGroup, ...]:
        """Encoder, refinements, fusion, refinements, decoder steps with their skips, block by block; each a stage."""
        skips = len(self.decoder.skips)
        steps = [
            (f"decoder.blocks.{index}", *([f"decoder.skips.{index}"] if index < skips else []))
            for index in range(len(self.decoder.blocks))
        ]
        return cut(
            self,
            [
                *encoder_parts(self.encoder),
                *((f"features.{index}",) for index in range(len(self.features))),
                ("fusion",),
                *((f"refine.{index}",) for index in range(len(self.refine))),
                *steps,
                ("decoder.out",),
            ],
        )

    def reconstruction(self) -> MaskedReconstructionModel:
        """A network around this one's own encoder that fills in what is masked, for pretraining."""
        return MaskedReconstructionModel(self.in_channels, encoder=self.encoder, sizes=self.sizes)

    def discriminator(self, in_channels: int = 1) -> Discriminator:
        """The judge of adversarial training."""
        return Discriminator(in_channels, width=self.sizes.scaled(64))
