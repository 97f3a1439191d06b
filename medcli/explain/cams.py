"""Class activation maps: what a layer's map and its gradient together say about places.

With A the map [B, D, h, w] and G the gradient of the score by it, every method weights A by G and adds over channels:

- Grad-CAM (Selvaraju et al. 2017): weights are the means of G over the map;
- Grad-CAM++ (Chattopadhay et al. 2018): means of positive gradients, weighted so that every place counts once;
- LayerCAM (Jiang et al. 2021): positive G, place by place;
- HiResCAM (Draelos & Carin 2020): G itself, place by place; exact for a network that ends in pooling and one linear
  layer.

All keep what speaks for the class (the positive part).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

__all__ = ["CAMS", "gradcam", "gradcam_plus_plus", "hirescam", "layercam"]


def gradcam(activation: Tensor, gradient: Tensor) -> Tensor:
    """[B, D, h, w] twice -> [B, h, w], >= 0."""
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * activation).sum(1).clamp_min(0)


def gradcam_plus_plus(activation: Tensor, gradient: Tensor) -> Tensor:
    """[B, D, h, w] twice -> [B, h, w], >= 0."""
    # In double precision: cubes of small gradients vanish in single.
    a, g = activation.double(), gradient.double()
    bottom = 2 * g.square() + a.sum((2, 3), keepdim=True) * g.pow(3)
    share = torch.where(bottom != 0, g.square() / torch.where(bottom != 0, bottom, 1.0), 0.0)
    weights = (share * g.clamp_min(0)).sum((2, 3), keepdim=True)
    return (weights * a).sum(1).clamp_min(0).to(activation.dtype)


def layercam(activation: Tensor, gradient: Tensor) -> Tensor:
    """[B, D, h, w] twice -> [B, h, w], >= 0."""
    return (gradient.clamp_min(0) * activation).sum(1).clamp_min(0)


def hirescam(activation: Tensor, gradient: Tensor) -> Tensor:
    """[B, D, h, w] twice -> [B, h, w], >= 0."""
    return (gradient * activation).sum(1).clamp_min(0)


CAMS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "layercam": layercam,
    "hirescam": hirescam,
}
