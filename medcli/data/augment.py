"""Random changes of training images, a whole batch at a time.

What happens to an image follows from (seed, epoch, position of the image) through a counter-based hash, never from a
random state: a resumed run, another batch size or another device sees the very same changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LEVELS", "Augmentation", "Flip", "Level", "Strength"]

Level = Literal["none", "light", "medium", "heavy"]
Flip = Literal["none", "horizontal", "vertical", "both"]
Numbers = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Strength:
    """Ranges of one level; every value is drawn uniformly from its range.

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

# One stream of random numbers per decision, so that switching one off leaves the others as they were.
SHIFT_X, SHIFT_Y, ROTATE, SCALE, SHEAR, CONTRAST, BRIGHTNESS, NOISE, MIRROR, UPEND, ERASE, AREA, RATIO, TOP, LEFT = (
    range(15)
)
STREAMS = 15


@dataclass(frozen=True)
class Augmentation:
    """Changes a batch of images in [0, 1] units; values are not clamped.

    Args:
        level: a key of `LEVELS`.
        flip: mirror left-right, top-bottom or both, each with probability one half.
        seed: of the run.
    """

    level: Level
    flip: Flip
    seed: int

    def __call__(self, images: Tensor, index: Tensor, epoch: int) -> Tensor:
        """Change every image in its own way.

        Args:
            images: float32 [B, C, H, W] on any device; not written to.
            index: int64 [B], position of each image in its data set.
            epoch: images change differently in every epoch.

        Returns:
            a tensor of the same shape and device. Channels that were views of one plane still are.
        """
        channels = images.shape[1]
        grey = channels > 1 and images.stride(1) == 0
        planes = images[:, :1] if grey else images
        strength = LEVELS[self.level]
        counters = _counters(self.seed, epoch, index)
        draws = _uniform(counters)
        planes = self._flip(planes, draws)
        if self.level != "none":
            planes = _move(planes, draws, strength)
            planes = _expose(planes, draws, strength)
            if strength.noise:
                planes = _add_noise(planes, counters, draws, strength)
            if strength.erase:
                planes = _erase(planes, draws, strength)
        return planes.expand(-1, channels, -1, -1) if grey else planes

    def _flip(self, planes: Tensor, draws: Numbers) -> Tensor:
        # Mirroring by index keeps every value exact; as part of the affine map it would be interpolated.
        for stream, axis, names in ((MIRROR, -1, ("horizontal", "both")), (UPEND, -2, ("vertical", "both"))):
            if self.flip in names:
                chosen = _on(planes, draws[:, stream] < 0.5)
                planes = torch.where(chosen, planes.flip(axis), planes)
        return planes


def _counters(seed: int, epoch: int, index: Tensor) -> npt.NDArray[np.uint64]:
    """One 64-bit counter base per image [B], far apart for neighbouring seeds, epochs and positions."""
    key = _mix(np.array([seed % 2**64], dtype=np.uint64) + _GOLDEN)
    key = _mix(key ^ np.array([epoch % 2**64], dtype=np.uint64) * _GOLDEN)
    return _mix(key + index.cpu().numpy().astype(np.uint64) * _GOLDEN)


def _uniform(counters: npt.NDArray[np.uint64]) -> Numbers:
    """float32 [B, STREAMS] in [0, 1)."""
    streams = np.arange(1, STREAMS + 1, dtype=np.uint64) * _GOLDEN
    bits = _mix(counters[:, None] + streams)
    return ((bits >> np.uint64(40)).astype(np.float64) / 2**24).astype(np.float32)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _move(planes: Tensor, draws: Numbers, strength: Strength) -> Tensor:
    """Shift, rotate, scale and shear in one interpolation; the border is continued outwards."""
    height, width = planes.shape[-2:]
    angle = np.radians(strength.rotate) * _signed(draws, ROTATE)
    shear = np.tan(math.radians(strength.shear) * _signed(draws, SHEAR))
    # Reading positions grow when the image shrinks, hence the inverse.
    zoom = 1 / (1 + strength.scale * _signed(draws, SCALE))
    cosine, sine = np.cos(angle) * zoom, np.sin(angle) * zoom
    aspect = height / width
    rows = (
        # x and y in [-1, 1]; the aspect keeps a rotation a rotation on images that are not square
        (cosine, (cosine * shear - sine) * aspect, 2 * strength.shift * _signed(draws, SHIFT_X)),
        (sine / aspect, sine * shear + cosine, 2 * strength.shift * _signed(draws, SHIFT_Y)),
    )
    x = _centres(width, planes.device).view(1, 1, -1)
    y = _centres(height, planes.device).view(1, -1, 1)
    # Element by element rather than by affine_grid: its matrix product may round differently with the batch size.
    grid = torch.empty(len(planes), height, width, 2, device=planes.device)
    for axis, coefficients in enumerate(rows):
        a, b, c = (_column(planes, values) for values in coefficients)
        grid[..., axis] = a * x + (b * y + c)
    return F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _expose(planes: Tensor, draws: Numbers, strength: Strength) -> Tensor:
    # About mid-grey and not the image's mean: a mean over the batch's memory may round differently with its size.
    factor = 1 + strength.contrast * _signed(draws, CONTRAST)
    offset = 0.5 * (1 - factor) + strength.brightness * _signed(draws, BRIGHTNESS)
    return planes.mul(_on(planes, factor.astype(np.float32))).add_(_on(planes, offset.astype(np.float32)))


def _add_noise(planes: Tensor, counters: npt.NDArray[np.uint64], draws: Numbers, strength: Strength) -> Tensor:
    """The same noise in every channel: the sum of four uniform numbers, which is close to a Gaussian."""
    height, width = planes.shape[-2:]
    first = torch.from_numpy(counters.view(np.int64).copy()).to(planes.device)
    step = int(_GOLDEN.view(np.int64))
    bits = torch.arange(STREAMS + 1, STREAMS + 1 + height * width, device=planes.device).mul_(step) + first[:, None]
    # SplitMix64 as above; masking makes the arithmetic shift a logical one.
    bits.bitwise_xor_((bits >> 30).bitwise_and_(2**34 - 1)).mul_(0xBF58476D1CE4E5B9 - 2**64)
    bits.bitwise_xor_((bits >> 27).bitwise_and_(2**37 - 1)).mul_(0x94D049BB133111EB - 2**64)
    bits.bitwise_xor_((bits >> 31).bitwise_and_(2**33 - 1))
    total = (bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48 & 0xFFFF)
    # Four uniforms on 0..65535: mean 2 * 65535, variance 4 / 12 * 65536^2.
    noise = total.to(torch.float32).sub_(2 * 65535.0).mul_(math.sqrt(3) / 65536)
    level = _column(planes, strength.noise * draws[:, NOISE])
    return planes + noise.view(-1, 1, height, width) * level[..., None]


def _erase(planes: Tensor, draws: Numbers, strength: Strength) -> Tensor:
    height, width = planes.shape[-2:]
    smallest, largest = strength.erase_area
    area = smallest + (largest - smallest) * draws[:, AREA]
    # Sides between 1:3 and 3:1, evenly in the logarithm.
    ratio = np.exp((2 * draws[:, RATIO] - 1) * math.log(3) / 2)
    tall, wide = np.sqrt(area) * ratio, np.sqrt(area) / ratio
    top, left = draws[:, TOP] * (1 - tall), draws[:, LEFT] * (1 - wide)
    chosen = draws[:, ERASE] < strength.erase
    y = ((torch.arange(height, device=planes.device) + 0.5) / height).view(1, -1, 1)
    x = ((torch.arange(width, device=planes.device) + 0.5) / width).view(1, 1, -1)
    y0, y1 = _column(planes, top), _column(planes, np.where(chosen, top + tall, top - 1))
    x0, x1 = _column(planes, left), _column(planes, left + wide)
    inside = (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
    return planes.masked_fill(inside[:, None], 0.5)


def _signed(draws: Numbers, stream: int) -> npt.NDArray[np.float64]:
    return 2 * draws[:, stream].astype(np.float64) - 1


def _centres(count: int, device: torch.device) -> Tensor:
    """Pixel centres in grid_sample's units (align_corners=False), float32 [count]."""
    return ((torch.arange(count, dtype=torch.float64) * 2 + 1) / count - 1).to(torch.float32).to(device)


def _column(planes: Tensor, values: npt.NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(planes.device).view(-1, 1, 1)


def _on(planes: Tensor, values: npt.NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(values).to(planes.device).view(-1, 1, 1, 1)
