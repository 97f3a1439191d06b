"""Random numbers without a state: each follows from (seed, epoch, image, what it decides), through a hash.

The finaliser of SplitMix64 (Steele, Lea and Flood, 2014) spreads a counter over 64 bits.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["STREAMS", "Counters", "Numbers", "counters_of", "normal", "on", "signed", "uniform"]

Numbers = npt.NDArray[np.float32]
Counters = npt.NDArray[np.uint64]

# One stream of random numbers per decision, so that switching one off leaves the others as they were.
SHIFT_X, SHIFT_Y, ROTATE, SCALE, SHEAR, CONTRAST, BRIGHTNESS, NOISE, MIRROR, UPEND, ERASE, AREA, RATIO, TOP, LEFT = (
    range(15)
)
STREAMS = 15

# The numbers from STREAMS + 1 on are the pixels of noise; later decisions begin behind the largest image.
FIRST_EXTRA = 2**40
TURN, GAMMA, HUE, SATURATION, SPECKLE, GAIN, STAIN, POLICY, SLOTS = 0, 1, 2, 3, 4, 5, 6, 12, 13
EXTRAS = SLOTS + 8
FIRST_SPECKLE = 2**41

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def counters_of(seed: int, epoch: int, index: Tensor) -> Counters:
    """One 64-bit counter base per image [B], far apart for neighbouring seeds, epochs and positions."""
    key = _mix(np.array([seed % 2**64], dtype=np.uint64) + _GOLDEN)
    key = _mix(key ^ np.array([epoch % 2**64], dtype=np.uint64) * _GOLDEN)
    return _mix(key + index.cpu().numpy().astype(np.uint64) * _GOLDEN)


def uniform(counters: Counters, count: int = STREAMS, first: int = 1) -> Numbers:
    """float32 [B, count] in [0, 1): the numbers `first`, `first` + 1, ... of each image."""
    streams = np.arange(first, first + count, dtype=np.uint64) * _GOLDEN
    bits = _mix(counters[:, None] + streams)
    return ((bits >> np.uint64(40)).astype(np.float64) / 2**24).astype(np.float32)


def normal(planes: Tensor, counters: Counters, first: int = STREAMS + 1) -> Tensor:
    """[B, 1, H, W] of mean 0 and variance 1: the sum of four uniform numbers, which is close to a Gaussian."""
    height, width = planes.shape[-2:]
    start = torch.from_numpy(counters.view(np.int64).copy()).to(planes.device)
    step = int(_GOLDEN.view(np.int64))
    bits = torch.arange(first, first + height * width, device=planes.device).mul_(step) + start[:, None]
    # SplitMix64 as below; masking makes the arithmetic shift a logical one.
    bits.bitwise_xor_((bits >> 30).bitwise_and_(2**34 - 1)).mul_(0xBF58476D1CE4E5B9 - 2**64)
    bits.bitwise_xor_((bits >> 27).bitwise_and_(2**37 - 1)).mul_(0x94D049BB133111EB - 2**64)
    bits.bitwise_xor_((bits >> 31).bitwise_and_(2**33 - 1))
    total = (bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48 & 0xFFFF)
    # Four uniforms on 0..65535: mean 2 * 65535, variance 4 / 12 * 65536^2.
    return total.to(torch.float32).sub_(2 * 65535.0).mul_(math.sqrt(3) / 65536).view(-1, 1, height, width)


def signed(draws: Numbers, stream: int) -> npt.NDArray[np.float64]:
    """[B] in [-1, 1)."""
    return 2 * draws[:, stream].astype(np.float64) - 1


def on(planes: Tensor, values: npt.NDArray[np.generic]) -> Tensor:
    """One number per image, [B, 1, 1, 1], where the images are."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(planes.device).view(-1, 1, 1, 1)


def _mix(values: Counters) -> Counters:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
