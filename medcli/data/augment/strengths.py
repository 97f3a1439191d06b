"""How far images may be changed, as plain numbers: the general levels, and what a set of ranges consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

__all__ = ["LEVELS", "Fill", "Flip", "Level", "Strength"]

Level = Literal["none", "light", "medium", "heavy"]
Flip = Literal["none", "horizontal", "vertical", "both"]
Fill = Literal["border", "reflection", "zeros"]


@dataclass(frozen=True)
class Strength:
    """Ranges of one level or of one kind of picture; every value is drawn uniformly from its range.

    Args:
        shift: largest shift as a share of the side, each direction.
        rotate: largest rotation in degrees.
        scale: largest change of size as a share.
        shear: largest shear in degrees.
        contrast: largest change of the factor about mid-grey (0.5).
        brightness: largest shift of the values, in [0, 1] units.
        noise: largest standard deviation of Gaussian-like noise, in [0, 1] units.
        erase: probability that a rectangle is replaced by mid-grey.
        erase_area: smallest and largest share of the image that is erased.
        turns: whether the picture is also turned by 0, 90, 180 or 270 degrees, exactly.
        gamma: largest change of the exponent.
        gain: largest change of the factor about black, which stays black.
        hue: largest rotation of the colours in degrees.
        saturation: largest change of the factor of the colours' distance from grey.
        stain: largest change of each stain's factor, and largest shift of its optical density.
        speckle: largest standard deviation of noise in proportion to the value, as coherent imaging has it.
        fill: what lies outside the picture: its edge continued, the picture mirrored, or black.
        flip: how it is mirrored where the user does not say.
    """

    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    noise: float = 0.0
    erase: float = 0.0
    erase_area: tuple[float, float] = (0.02, 0.15)
    turns: bool = False
    gamma: float = 0.0
    gain: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0
    stain: float = 0.0
    speckle: float = 0.0
    fill: Fill = "border"
    flip: Flip = "none"


# light: what is safe on a chest radiograph (rotation, shift and scale that positioning alone explains; contrast as
# exposure varies). medium: half as much again, with shear and faint noise. heavy: rotation and scale beyond positioning
# but below the 45 degrees of torchxrayvision's training, erasing as often as RETFound's recipe does (0.25).
LEVELS: Mapping[Level, Strength] = MappingProxyType(
    {
        "none": Strength(),
        "light": Strength(shift=0.05, rotate=10, scale=0.10, contrast=0.15, brightness=0.05),
        "medium": Strength(shift=0.08, rotate=15, scale=0.15, shear=5, contrast=0.25, brightness=0.10, noise=0.01),
        "heavy": Strength(
            shift=0.10, rotate=25, scale=0.20, shear=8, contrast=0.35, brightness=0.15, noise=0.03, erase=0.25
        ),
    }
)
