"""The difference map without weights: what every learned map must beat, and what runs where there is none."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from medcli.errors import UsageProblem
from medcli.plugin import LayerGroup

__all__ = ["Subtraction", "subtraction"]

_EPSILON = 1e-6
_LOW, _HIGH = 0.01, 0.99


class Subtraction(nn.Module):
    """Two registered images [B, C, H, W] -> follow-up minus baseline, [B, 1, H, W], both brought to one scale first.

    An odd function of the exchange of the images: equal images give zeros. Nothing is trained.

    Args:
        normalise: `range` maps the 1st to 99th percentile of each image to [0, 1]; `moments` gives each image mean 0
            and the deviation of a uniform picture, sqrt(1/12), so that differences keep the scale of `range`; `none`
            subtracts as they are.
        smooth: side in pixels of the square mean over the difference; 1 for none.
        signed: values in [-1, 1]; otherwise their magnitude.
    """

    def __init__(self, normalise: str = "range", smooth: int = 5, *, signed: bool = True) -> None:
        super().__init__()
        self.fixed_weights = True  # there are none that a seed could change
        self.normalise = normalise
        self.signed = signed
        self.encoder = nn.Identity()
        self.mean = nn.AvgPool2d(smooth, stride=1, padding=smooth // 2, count_include_pad=False)

    def forward(self, baseline: torch.Tensor, followup: torch.Tensor) -> torch.Tensor:
        """Two times [B, C, H, W] -> [B, 1, H, W]."""
        before, after = (self._scaled(self.encoder(images).mean(1, keepdim=True)) for images in (baseline, followup))
        change: torch.Tensor = self.mean(after - before).clamp(-1, 1)
        return change if self.signed else change.abs()

    def layer_groups(self) -> tuple[LayerGroup, ...]:
        """None: there are no parameters."""
        return ()

    def _scaled(self, images: torch.Tensor) -> torch.Tensor:
        """[B, 1, H, W] -> the same on a scale of its own."""
        if self.normalise == "none":
            return images
        pixels = images.flatten(1)
        if self.normalise == "moments":
            mean, spread = pixels.mean(1), pixels.std(1, correction=0) * 12**0.5
        else:
            # Sorted rather than `torch.quantile`, which refuses large pictures and cannot be exported.
            ordered = pixels.sort(1).values
            last = pixels.shape[1] - 1
            mean = ordered[:, round(_LOW * last)]
            spread = ordered[:, round(_HIGH * last)] - mean
        # A blank picture has no scale of its own; it becomes zeros instead of noise blown up.
        spread = torch.where(spread > _EPSILON, spread, torch.full_like(spread, torch.inf))
        scaled = (images - mean[:, None, None, None]) / spread[:, None, None, None]
        return scaled if self.normalise == "moments" else scaled.clamp(0, 1)


def subtraction(
    *,
    in_channels: int,  # noqa: ARG001 (it takes any number)
    image_size: int,  # noqa: ARG001 (it takes any size)
    map: Literal["signed", "magnitude"] = "signed",  # noqa: A002 (the keyword's own name)
    weights: str | None = None,
    normalise: str = "range",
    smooth: int = 5,
) -> Subtraction:
    """See `medcli models show subtraction`.

    Raises:
        UsageProblem: weights, which it has none of, or an even `smooth`.
    """
    if weights is not None:
        raise UsageProblem(
            "`subtraction` has no weights", where="--weights", hint="leave `--weights` out", code="no-weights"
        )
    if smooth % 2 == 0:
        raise UsageProblem(
            f"`smooth` is {smooth}, but the square needs a middle",
            where="--arch-opt smooth",
            hint=f"--arch-opt smooth={smooth + 1}",
            code="bad-option",
        )
    return Subtraction(normalise, smooth, signed=map == "signed")
