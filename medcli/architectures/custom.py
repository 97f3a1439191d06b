"""A small network for first trials: five convolutions, about a million parameters, fast on a CPU."""

from __future__ import annotations

import torch
from torch import nn

from medcli.errors import UsageProblem
from medcli.plugin import LayerGroup

__all__ = ["Custom1", "custom1"]

_WIDTHS = (32, 64, 128, 192, 384)


class Custom1(nn.Module):
    """Five blocks of 3 × 3 convolution, batch norm, ReLU and 2 × 2 max-pool; then the mean over the map.

    Args:
        in_channels: channels of the images, 1 or more.
    """

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.feature_dim = _WIDTHS[-1]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                    # The last map of a small picture may be one pixel wide: `ceil_mode` keeps it.
                    nn.MaxPool2d(2, ceil_mode=True),
                )
                for before, width in zip((in_channels, *_WIDTHS), _WIDTHS, strict=False)
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, 384, ceil(H / 32), ceil(W / 32)]."""
        final: torch.Tensor = self.blocks(images)
        return final

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, 384]."""
        return self.feature_map(images).mean((2, 3))

    def layer_groups(self) -> tuple[LayerGroup, ...]:
        """Each block is a stage."""
        groups = []
        for stage, block in enumerate(self.blocks):
            name = f"blocks.{stage}"
            parameters = tuple(f"{name}.{parameter}" for parameter, _ in block.named_parameters())
            modules = (name, *(f"{name}.{module}" for module, _ in block.named_children()))
            groups.append(LayerGroup(name, stage, parameters, modules))
        return tuple(groups)


def custom1(
    *,
    in_channels: int = 3,
    image_size: int | None = None,  # noqa: ARG001 (it takes any size)
    pretrained: bool = False,
    weights: str | None = None,
    drop_path: float = 0.0,
) -> Custom1:
    """See `medcli models show custom1`."""
    if pretrained or weights:
        raise UsageProblem(
            "there are no weights for `custom1`",
            code="no-weights",
            where="--pretrained" if pretrained else "--weights",
            hint="train it from scratch, or start from a run with `--init-from RUN`",
        )
    if drop_path > 0:
        raise UsageProblem(
            "`custom1` has no stochastic depth, so a drop path has nothing to act on",
            code="no-drop-path",
            where="--drop-path",
            hint="leave it at 0 and use `--dropout`",
        )
    return Custom1(in_channels)
