"""The transformer branch: the encoder's map as tokens, through a vision transformer, and back into a map."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from medcli_longitudinal.constants import PUBLISHED, Sizes
from medcli_longitudinal.memory import Checkpointing
from medcli_longitudinal.start import group_norm, kaiming, truncated

__all__ = ["FeatureEmbeddings", "SamplingConvBlock", "TransformerBranch", "TransformerLayer", "VisionTransformer"]

_EPSILON = 1e-12


class Attention(nn.Module):
    """[B, N, D] -> [B, N, D]: scaled dot products of all tokens with all tokens, in heads."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.hidden_channels
        self.heads = sizes.heads
        self.query = truncated(nn.Linear(width, width), sizes)
        self.key = truncated(nn.Linear(width, width), sizes)
        self.value = truncated(nn.Linear(width, width), sizes)
        self.out = truncated(nn.Linear(width, width), sizes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, N, D] -> [B, N, D]."""
        query, key, value = (self._split(layer(tokens)) for layer in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        merged: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return merged

    def weights(self, tokens: torch.Tensor) -> torch.Tensor:
        """How much each token looks at each: [B, heads, N, N], rows add up to 1."""
        query, key = self._split(self.query(tokens)), self._split(self.key(tokens))
        return torch.softmax(query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5, -1)

    def _split(self, tokens: torch.Tensor) -> torch.Tensor:
        split: torch.Tensor = torch.unflatten(tokens, 2, (self.heads, -1)).transpose(1, 2)
        return split


class TransformerLayer(nn.Module):
    """[B, N, D] -> [B, N, D]: attention, then a perceptron of four times the width, each normed first and added."""

    def __init__(self, sizes: Sizes = PUBLISHED) -> None:
        super().__init__()
        width = sizes.hidden_channels
        self.norm1 = nn.LayerNorm(width, eps=_EPSILON)
        self.attention = Attention(sizes)
        self.norm2 = nn.LayerNorm(width, eps=_EPSILON)
        self.up = truncated(nn.Linear(width, 4 * width), sizes)
        self.down = truncated(nn.Linear(4 * width, width), sizes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, N, D] -> [B, N, D]."""
        tokens = tokens + self.attention(self.norm1(tokens))
        mixed: torch.Tensor = tokens + self.down(functional.gelu(self.up(self.norm2(tokens))))
        return mixed


class VisionTransformer(Checkpointing):
    """[B, N, D] -> [B, N, D]: ViT-Base's layers at the defaults, without its embeddings and its last norm.

    Args:
        sizes: width and depth.
    """

    def __init__(self, sizes: Sizes = PUBLISHED) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(sizes) for _ in range(sizes.depth))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, N, D] -> [B, N, D]."""
        for layer in self.layers:
            tokens = self.run(layer, tokens)
        return tokens

    def attention_maps(self, tokens: torch.Tensor, layer: int = -1) -> torch.Tensor:
        """[B, N, D] -> the attention of one layer, [B, heads, N, N].

        Raises:
            IndexError: there is no such layer.
        """
        for one in list(self.layers)[: range(len(self.layers))[layer]]:
            tokens = one(tokens)
        asked: TransformerLayer = self.layers[layer]  # type: ignore[assignment]
        return asked.attention.weights(asked.norm1(tokens))


class FeatureEmbeddings(nn.Module):
    """[B, 704, h, w] -> tokens [B, h · w, 768]: a 1 × 1 convolution, and a learned position for each. No class token.

    Args:
        sizes: widths, and the number of positions.
    """

    def __init__(self, sizes: Sizes = PUBLISHED) -> None:
        super().__init__()
        self.project = truncated(nn.Conv2d(sizes.inter_channels, sizes.hidden_channels, 1), sizes)
        self.position = nn.Parameter(torch.zeros(1, sizes.patches, sizes.hidden_channels))
        if sizes.init_weights:
            nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[B, 704, h, w] -> [B, h · w, 768]."""
        tokens: torch.Tensor = self.project(maps)
        return tokens.flatten(2).transpose(1, 2) + self.position


class SamplingConvBlock(nn.Module):
    """[B, in, H, W] -> [B, out, H / k, W / k], or H · k and W · k upwards: convolution, group norm, ReLU.

    Args:
        kernel_size: k, of the convolution and of its stride.
        in_channels, out_channels: channels.
        up: with a transposed convolution, to a larger map.
        sizes: whose switch says how weights start.
    """

    def __init__(
        self, kernel_size: int, in_channels: int, out_channels: int, *, up: bool = False, sizes: Sizes = PUBLISHED
    ) -> None:
        super().__init__()
        kind = nn.ConvTranspose2d if up else nn.Conv2d
        self.conv = kaiming(kind(in_channels, out_channels, kernel_size, kernel_size, bias=False), sizes)
        self.norm = group_norm(out_channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[B, in, H, W] -> [B, out, H', W']."""
        return functional.relu(self.norm(self.conv(maps)))


class TransformerBranch(nn.Module):
    """[B, 640, 32, 32] -> [B, 640, 32, 32], through tokens of 2 × 2 positions.

    Args:
        vit_encoder: [B, N, D] -> [B, N, D].
        sizes: widths, and the number of positions.
    """

    def __init__(self, vit_encoder: nn.Module, sizes: Sizes = PUBLISHED) -> None:
        super().__init__()
        features, inter, hidden = sizes.feature_channels, sizes.inter_channels, sizes.hidden_channels
        self.down = SamplingConvBlock(2, features, inter, sizes=sizes)
        self.embeddings = FeatureEmbeddings(sizes)
        self.encoder = vit_encoder
        self.up = nn.Sequential(
            SamplingConvBlock(1, hidden, inter, up=True, sizes=sizes),
            SamplingConvBlock(2, inter, features, up=True, sizes=sizes),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[B, 640, h, w] -> [B, 640, h, w]."""
        small = self.down(maps)
        tokens = self.encoder(self.embeddings(small))
        spread = tokens.transpose(1, 2).unflatten(2, (small.shape[2], small.shape[3]))
        back: torch.Tensor = self.up(spread)
        return back
