"""The numbers of the published configuration, and `Sizes`, which makes the same networks smaller.

Importing this needs no torch; `DEVICE` does, when it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = [
    "BLOCKS",
    "DEVICE",  # noqa: F822 (given when it is asked for)
    "FEATURE_CHANNELS",
    "FEATURE_SIZE",
    "GROUP_NORM_GROUPS",
    "HIDDEN_CHANNELS",
    "IMG_SIZE",
    "INIT_STD",
    "INIT_WEIGHTS",
    "INTER_CHANNELS",
    "PATCHES_NUM",
    "PUBLISHED",
    "Sizes",
]

IMG_SIZE = 512
FEATURE_SIZE = 32
FEATURE_CHANNELS = 640
INTER_CHANNELS = 704
HIDDEN_CHANNELS = 768
PATCHES_NUM = 256
GROUP_NORM_GROUPS = 32
INIT_STD = 0.02
INIT_WEIGHTS = True
BLOCKS = (0, 4, 11, 18, 28, 38, 51, 52)
"""Blocks of EfficientNet-B7 that the encoder is made of: the first of each of its seven stages, and one more."""

_HEADS = 12


@dataclass(frozen=True)
class Sizes:
    """How large a network is built; the defaults are the published configuration.

    Args:
        image_size: side of the pictures in pixels, a multiple of 32 where a transformer is part of the network, and of
            16 elsewhere.
        width: factor on all channels.
        depth: layers of the transformer.
        init_weights: Kaiming and truncated normal initial weights; otherwise torch's own.
    """

    image_size: int = IMG_SIZE
    width: float = 1.0
    depth: int = 12
    init_weights: bool = INIT_WEIGHTS

    def scaled(self, channels: int) -> int:
        """Channels at this width: a multiple of 8, at least 8."""
        return channels if self.width == 1 else max(8, round(channels * self.width / 8) * 8)

    @property
    def feature_size(self) -> int:
        """Side of the encoder's last map."""
        return self.image_size // 16

    @property
    def patches(self) -> int:
        """Tokens of the transformer, each for 32 × 32 pixels."""
        return (self.image_size // 32) ** 2

    @property
    def feature_channels(self) -> int:
        """Channels of the encoder's last map."""
        return self.scaled(FEATURE_CHANNELS)

    @property
    def inter_channels(self) -> int:
        """Channels between the map and the transformer."""
        return self.scaled(INTER_CHANNELS)

    @property
    def heads(self) -> int:
        """Attention heads of the transformer."""
        return _HEADS

    @property
    def hidden_channels(self) -> int:
        """Width of the transformer, a multiple of its heads."""
        return max(1, round(HIDDEN_CHANNELS * self.width / _HEADS)) * _HEADS

    def expansions(self, in_channels: int) -> tuple[float, float]:
        """Factors that lead from the channels of a picture to those of the first block: 8 and 8 for one channel."""
        first = max(2, round({4: 16}.get(in_channels, 8) * self.width))
        return first / in_channels, self.scaled(64) / first


PUBLISHED = Sizes()


def __getattr__(name: str) -> Any:
    if name == "DEVICE":
        import torch

        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
