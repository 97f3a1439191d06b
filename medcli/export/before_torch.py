"""From a picture to the network's input as a program that `torch.export` can capture for every size.

`medcli.data.resize` decides about Python numbers; here the same arithmetic is done on sizes that are not known yet.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcli.data.dataset import Preprocessing
from medcli.data.resize import LUMA

__all__ = ["Before"]


class Before(nn.Module):
    """uint8 [n, h, w, 3], or float32 in [0, 1], to float32 [n, C, S, S], normalised.

    Args:
        preprocessing: of the run.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.side = preprocessing.image_size
        self.fit = preprocessing.fit
        self.mode = preprocessing.interpolation
        self.channels = preprocessing.channels
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """[n, h, w, 3] -> [n, C, S, S]."""
        planes = images.permute(0, 3, 1, 2)
        units = planes.float() / 255 if images.dtype == torch.uint8 else planes
        if self.channels == 1:
            red, green, blue = torch.split(units, 1, dim=1)
            units = red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]
        return (self._square(units.contiguous()) - self.mean) / self.std

    def _square(self, planes: Tensor) -> Tensor:
        height, width, side = planes.shape[2], planes.shape[3], self.side
        if self.fit == "squash":
            return self._interpolate(planes, side, side)
        if self.fit == "crop":
            short = torch.sym_min(height, width)
            new_height, new_width = side * height // short, side * width // short
            outer = self._interpolate(planes, new_height, new_width)
            top, left = (new_height - side) // 2, (new_width - side) // 2
            # Picked row by row: a slice would tie the program to the shape, tall or wide, it was captured with.
            places = torch.arange(side)
            return outer.index_select(2, places + top).index_select(3, places + left)
        scale = side / torch.sym_float(torch.sym_max(height, width))
        new_height, new_width = (torch.sym_max(1, torch.sym_int(round(length * scale))) for length in (height, width))
        inner = self._interpolate(planes, new_height, new_width)
        top, left = (side - new_height) // 2, (side - new_width) // 2
        edges: Any = (left, side - new_width - left, top, side - new_height - top)
        return F.pad(inner, edges)

    def _interpolate(self, planes: Tensor, height: int | torch.SymInt, width: int | torch.SymInt) -> Tensor:
        size: Any = (height, width)
        return F.interpolate(planes, size=size, mode=self.mode, align_corners=False, antialias=True)
