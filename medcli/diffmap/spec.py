"""What a difference model was made with: known to its run, to its bundle, and where there is no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from medcli.diffmap.registration import How

__all__ = ["SCHEMA", "DifferenceSpec", "Kind", "Map"]

SCHEMA = "medcli-difference/1"

Kind = Literal["difference", "reconstruction"]
Map = Literal["signed", "magnitude"]


@dataclass(frozen=True)
class DifferenceSpec:
    """How a network is built and what its images go through.

    Args:
        model: qualified name, such as `medcli/siamese-unet`.
        kind: the difference model, or the reconstruction around its encoder that masked pretraining makes.
        map: `signed` or `magnitude`.
        in_channels: channels of each image; grey ones are repeated.
        image_size: side in pixels.
        options: the model's own options.
        mean: of the normalisation, one value per channel.
        std: likewise.
        register: how the pairs lay over each other that it learnt from.
    """

    model: str
    kind: Kind
    map: Map
    in_channels: int
    image_size: int
    options: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    register: How = "affine"
