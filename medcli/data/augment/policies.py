"""RandAugment and AutoAugment as published, with the operations that a kind of picture does not bear taken out.

Which operations an image gets follows from its own random numbers, never from a random state, so torchvision's classes
cannot be used whole; its operations on values, and the published table of AutoAugment, are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms import AutoAugment
from torchvision.transforms.v2 import functional as T

from medcli.data.augment.draws import POLICY, SLOTS, Numbers
from medcli.data.augment.geometry import read_at
from medcli.data.augment.modalities import MODALITIES
from medcli.data.augment.strengths import Fill

__all__ = ["RAND_LEVEL", "Policy", "Step", "apply_policy", "policy_of"]

Rows = npt.NDArray[np.int64]

RAND_OPERATIONS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
    "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip
RAND_LEVEL = 0.3
"""Magnitude of RandAugment as a share of the largest: 9 of 30, the default of its paper and of torchvision."""

_SLOT_NUMBERS = 4  # which operation, whether, which sign, and one to spare


@dataclass(frozen=True)
class Step:
    """One operation of a policy.

    Args:
        operation: its published name.
        probability: how often it is applied.
        level: its magnitude as a share of the largest, 0 to 1.
    """

    operation: str
    probability: float = 1.0
    level: float = 0.0


@dataclass(frozen=True)
class Policy:
    """What an image may get.

    Args:
        rows: for each slot the steps it chooses from; slots draw independently, or all follow one draw.
        together: whether one draw chooses the same row in every slot (AutoAugment) or each slot its own (RandAugment).
        rotate: largest rotation in degrees.
        shear: largest shear as a tangent.
        shift: largest shift as a share of the side.
        enhance: largest change of brightness, contrast, colour and sharpness as a share.
        fill: what lies outside the picture.
    """

    rows: tuple[tuple[Step, ...], ...]
    together: bool
    rotate: float = 30.0
    shear: float = 0.3
    shift: float = 150 / 331
    enhance: float = 0.9
    fill: Fill = "border"

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of all operations, sorted."""
        return tuple(sorted({step.operation for slot in self.rows for step in slot} - {"Identity"}))


@cache
def policy_of(name: Literal["randaugment", "autoaugment"], modality: str | None) -> Policy:
    """A published policy, reduced to what a kind of picture bears; whole where none is named.

    Rotation, shear and shift never exceed that kind's safe range; brightness, contrast, colour and sharpness never its
    `enhance`. A pair of AutoAugment's that loses one operation keeps the other, one that loses both is left out.
    """
    kind = MODALITIES[modality] if modality else None

    def borne(operation: str) -> bool:
        return kind is None or operation in kind.operations

    if name == "randaugment":
        slot = tuple(Step(operation, level=RAND_LEVEL) for operation in RAND_OPERATIONS if borne(operation))
        rows: tuple[tuple[Step, ...], ...] = (slot, slot)
    else:
        pairs = [
            [Step(one, chance, (level or 0) / 9) if borne(one) else Step("Identity") for one, chance, level in pair]
            for pair in AutoAugment().policies
        ]
        kept = [pair for pair in pairs if any(step.operation != "Identity" for step in pair)]
        rows = tuple(zip(*kept, strict=True))
    if kind is None:
        return Policy(rows, name == "autoaugment")
    safe = kind.safe
    return Policy(
        rows,
        name == "autoaugment",
        rotate=min(30.0, safe.rotate),
        shear=min(0.3, float(np.tan(np.radians(safe.shear)))),
        shift=safe.shift,
        enhance=kind.enhance,
        fill=safe.fill,
    )


def apply_policy(planes: Tensor, extra: Numbers, policy: Policy) -> Tensor:
    """Give every image its operations.

    Operations on places take all images of a step at once; those on values go image by image, because their means and
    histograms are over one image: 2 to 3 ms each for a colour picture of 224 px on one core.

    Args:
        planes: [B, C, S, S] in [0, 1] units; not written to.
        extra: the random numbers of each image, [B, EXTRAS].
        policy: what they may get.
    """
    planes = planes.clone()
    for place, slot in enumerate(policy.rows):
        draw = extra[:, SLOTS + place * _SLOT_NUMBERS :][:, :_SLOT_NUMBERS]
        chooser = extra[:, POLICY] if policy.together else draw[:, 0]
        chosen = np.minimum((chooser * len(slot)).astype(np.int64), len(slot) - 1)
        sign = np.where(draw[:, 2] < 0.5, -1.0, 1.0)
        for number, step in enumerate(slot):
            rows = np.flatnonzero((chosen == number) & (draw[:, 1] < step.probability))
            if len(rows) and step.operation != "Identity":
                at = torch.from_numpy(rows).to(planes.device)
                planes[at] = _apply(planes[at], step, sign[rows], policy)
    return planes


def _apply(images: Tensor, step: Step, sign: npt.NDArray[np.float64], policy: Policy) -> Tensor:
    if step.operation in _PLACES:
        return read_at(images, _PLACES[step.operation](step.level, sign, policy), policy.fill)
    change = _VALUES[step.operation]
    # Contiguous, because a mean over strided memory may round differently.
    return torch.stack(
        [change(one.contiguous(), step.level, way, policy) for one, way in zip(images, sign, strict=True)]
    )


_Row = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]
Affine = tuple[_Row, _Row]


def _affine(sign: npt.NDArray[np.float64], ax: float, bx: float, cx: float, ay: float, by: float, cy: float) -> Affine:
    """Diagonal terms as they are, the others with the sign."""
    one = np.ones_like(sign)
    return (ax * one, bx * sign, cx * sign), (ay * sign, by * one, cy * sign)


def _rotate(level: float, sign: npt.NDArray[np.float64], policy: Policy) -> Affine:
    angle = np.radians(min(30 * level, policy.rotate))
    return _affine(sign, np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0)


# A shear turns about the centre, not about the corner as in torchvision: about the corner it is also a shift.
_PLACES: Mapping[str, Callable[[float, npt.NDArray[np.float64], Policy], Affine]] = MappingProxyType(
    {
        "Rotate": _rotate,
        "ShearX": lambda m, sign, policy: _affine(sign, 1, min(0.3 * m, policy.shear), 0, 0, 1, 0),
        "ShearY": lambda m, sign, policy: _affine(sign, 1, 0, 0, min(0.3 * m, policy.shear), 1, 0),
        # Twice, because reading positions are in half sides.
        "TranslateX": lambda m, sign, policy: _affine(sign, 1, 0, -2 * min(150 / 331 * m, policy.shift), 0, 1, 0),
        "TranslateY": lambda m, sign, policy: _affine(sign, 1, 0, 0, 0, 1, -2 * min(150 / 331 * m, policy.shift)),
    }
)


def _factor(level: float, way: float, policy: Policy) -> float:
    return 1 + way * min(0.9 * level, policy.enhance)


_VALUES: Mapping[str, Callable[[Tensor, float, float, Policy], Tensor]] = MappingProxyType(
    {
        "Brightness": lambda image, m, way, policy: T.adjust_brightness(image, _factor(m, way, policy)),
        "Contrast": lambda image, m, way, policy: T.adjust_contrast(image, _factor(m, way, policy)),
        "Color": lambda image, m, way, policy: T.adjust_saturation(image, _factor(m, way, policy)),
        "Sharpness": lambda image, m, way, policy: T.adjust_sharpness(image, _factor(m, way, policy)),
        "Posterize": lambda image, m, way, policy: T.posterize(image, 8 - round(4 * m)),
        "Solarize": lambda image, m, way, policy: T.solarize(image, 1 - m),
        "AutoContrast": lambda image, m, way, policy: T.autocontrast(image),
        "Equalize": lambda image, m, way, policy: T.equalize(image),
        "Invert": lambda image, m, way, policy: T.invert(image),
    }
)
