"""The networks beside the difference models: for pretraining, for classification, for contrast, and the judge."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn import functional

from medcli.plugin import LayerGroup
from medcli_longitudinal.bottleneck import BottleneckEncoder, ContrastiveBottleneckBlock
from medcli_longitudinal.constants import PUBLISHED, Sizes
from medcli_longitudinal.decoders import PlainDecoder
from medcli_longitudinal.encoder import EfficientNetMiniEncoder
from medcli_longitudinal.groups import cut, encoder_parts
from medcli_longitudinal.memory import Checkpointing
from medcli_longitudinal.start import group_norm, truncated
from medcli_longitudinal.transformer import VisionTransformer

__all__ = [
    "ClassificationModel",
    "ContrastiveEncoder",
    "Discriminator",
    "LongitudinalEncoder",
    "MaskedReconstructionModel",
]


class MaskedReconstructionModel(Checkpointing):
    """A picture with holes [B, C, H, W] -> the whole picture, [B, 1, H, W] in [0, 1]; 108 million parameters.

    The decoder gets the sum of the bottleneck's map and the mini encoder's.

    Args:
        in_channels: channels of the pictures.
        encoder: to be trained, shared with another network; a new one where it is None.
        sizes: size of the pictures, width, depth, and how weights start.
    """

    def __init__(
        self,
        in_channels: int = 1,
        *,
        encoder: BottleneckEncoder | EfficientNetMiniEncoder | None = None,
        sizes: Sizes = PUBLISHED,
    ) -> None:
        super().__init__()
        self.encoder = encoder or BottleneckEncoder(in_channels, light=True, sizes=sizes)
        self.decoder = PlainDecoder(sizes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, 1, H, W]."""
        if isinstance(self.encoder, BottleneckEncoder):
            deep, maps = self.encoder(images, return_maps=True)
            return torch.sigmoid(self.decoder(deep + maps[-1]))
        return torch.sigmoid(self.decoder(self.encoder(images)))


class LongitudinalEncoder(Checkpointing):
    """Pictures [B, C, H, W] -> features [B, 640]: the encoder of the document's models, its map averaged.

    Args:
        in_channels: channels of the pictures.
        sizes: size of the pictures, width, depth, and how weights start.
    """

    def __init__(self, in_channels: int = 1, *, sizes: Sizes = PUBLISHED) -> None:
        super().__init__()
        self.encoder = BottleneckEncoder(in_channels, light=True, sizes=sizes)
        self.feature_dim = sizes.feature_channels

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, 640, H / 16, W / 16]."""
        final: torch.Tensor = self.encoder(images)
        return final

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, 640]."""
        return self.feature_map(images).mean((2, 3))

    def attention_maps(self, images: torch.Tensor, layer: int = -1) -> torch.Tensor:
        """The transformer's attention [B, heads, N, N]; a token for each 32 × 32 pixels, no class token."""
        branch = self.encoder.bottleneck.transformer
        tokens = branch.embeddings(branch.down(self.encoder.encoder(images)))
        encoder: VisionTransformer = branch.encoder  # type: ignore[assignment]
        return encoder.attention_maps(tokens, layer)

    def layer_groups(self) -> tuple[LayerGroup, ...]:
        """Stem, convolutional blocks, transformer layers, branches and compression; each a stage."""
        return cut(self, encoder_parts(self.encoder))

    def no_weight_decay(self) -> set[str]:
        """The learned positions."""
        return {name for name, _ in self.named_parameters() if name.endswith(".position")}


class ClassificationModel(Checkpointing):
    """Pictures [B, C, H, W] -> a logit for each label, [B, labels]: the encoder, its map averaged, dropout, linear.

    Args:
        in_channels: channels of the pictures.
        labels_num: labels; any number of them may hold for one picture.
        sizes: size of the pictures, width, depth, and how weights start.
    """

    def __init__(self, in_channels: int = 1, labels_num: int = 14, *, sizes: Sizes = PUBLISHED) -> None:
        super().__init__()
        self.encoder = BottleneckEncoder(in_channels, light=True, sizes=sizes)
        self.head = nn.Sequential(nn.Dropout(0.2), truncated(nn.Linear(sizes.feature_channels, labels_num), sizes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, labels]."""
        logits: torch.Tensor = self.head(self.encoder(images).mean((2, 3)))
        return logits


class ContrastiveEncoder(Checkpointing):
    """Pictures [B, C, H, W] -> unit vectors [B, latent], whose products say how alike two pictures are.

    The encoder, a `ContrastiveBottleneckBlock` with one transformer layer, the mean, and two linear layers.

    Args:
        in_channels: channels of the pictures.
        latent: length of the vectors.
        sizes: size of the pictures, width, depth, and how weights start.
    """

    def __init__(self, in_channels: int = 1, latent: int = 128, *, sizes: Sizes = PUBLISHED) -> None:
        super().__init__()
        width, middle = sizes.feature_channels, sizes.scaled(256)
        one_layer = Sizes(sizes.image_size, sizes.width, 1, sizes.init_weights)
        self.encoder = BottleneckEncoder(in_channels, light=True, sizes=sizes)
        self.contrast = ContrastiveBottleneckBlock(VisionTransformer(one_layer), sizes=sizes)
        self.projection = nn.Sequential(
            truncated(nn.Linear(width, middle), sizes),
            nn.LayerNorm(middle),
            nn.ReLU(),
            truncated(nn.Linear(middle, latent), sizes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, latent]."""
        return functional.normalize(self.projection(self.contrast(self.encoder(images)).mean((2, 3))), dim=1)


class Discriminator(nn.Module):
    """Maps or pictures [B, C, H, W] -> logits [B, 1, H / 8 - 2, W / 8 - 2], one per patch of 70 pixels: a PatchGAN.

    Args:
        in_channels: channels of what is judged.
        width: channels of the first convolution.
    """

    def __init__(self, in_channels: int = 1, *, width: int = 64) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width, 8 * width)
        layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for (before, after), stride in zip(itertools.pairwise(widths), (2, 2, 1), strict=True):
            layers += [nn.Conv2d(before, after, 4, stride, 1, bias=False), group_norm(after), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, 1, h, w]."""
        logits: torch.Tensor = self.layers(images)
        return logits
