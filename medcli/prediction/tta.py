"""Test-time augmentation: a picture looked at in several ways that its kind bears, each a fixed change, none drawn.

Which changes are safe is said once, by kind of picture, in `medcli.data.augment.modalities`; here they are taken at
fixed places of those ranges, so that the same picture always gives the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from medcli.data.augment.geometry import read_at
from medcli.data.augment.modalities import MODALITIES, modality_named
from medcli.data.augment.strengths import Strength
from medcli.data.target import Target, side_names
from medcli.errors import UsageProblem
from medcli.models.build import LoadedModel

__all__ = ["Look", "LookedAt", "looks_for", "with_tta"]

ENOUGH = 4
"""Exact views (mirrored, turned) beside which no interpolated ones are needed."""


@dataclass(frozen=True)
class Look:
    """One way to look at a picture.

    Args:
        name: for the user.
        change: normalised pictures [B, C, S, S] -> the same shape.
    """

    name: str
    change: Callable[[Tensor], Tensor]


def looks_for(modality: str, target: Target) -> tuple[Look, ...]:
    """The picture as it is, then the fixed changes that this kind of picture and this target bear.

    Mirroring and quarter turns, exact to the pixel, where the kind allows them and no label names a side or place of
    the body; where these are few, also slight rotations and changes of size, at half of the kind's range.

    Raises:
        UsageProblem: an unknown kind of picture.
    """
    strength = modality_named(modality).safe
    looks = [Look("as it is", lambda images: images)]
    if not side_names(target):
        looks += _exact(strength)
    if len(looks) < ENOUGH:
        looks += _moved(strength)
    return tuple(looks)


def with_tta(loaded: LoadedModel, modality: str | None) -> LoadedModel:
    """The same model, asked for every look at a picture; its predictor gives logits [B, looks, ...].

    Raises:
        UsageProblem: the kind of picture is not known (code `no-modality`), or allows no change (`no-views`).
    """
    if loaded.views is not None:
        raise UsageProblem(
            "a model is asked in one way at a time: by dropout, by views or by crops",
            where="--tta",
            code="one-way-of-asking",
        )
    if modality is None:
        raise UsageProblem(
            "which changes are safe depends on the kind of picture, and neither the run nor the command line names it",
            where="--tta",
            hint=f"`--modality NAME`: {', '.join(MODALITIES)}",
            code="no-modality",
        )
    looks = looks_for(modality, loaded.spec.target)
    if len(looks) == 1:
        raise UsageProblem(
            f"no change of a `{modality}` picture is safe for these labels", where="--tta", code="no-views"
        )
    asked = LookedAt(loaded.classifier, loaded.classifier.decode, looks)
    return replace(loaded, views=asked.eval(), spec=replace(loaded.spec, head_kind="linear"))


class LookedAt(nn.Module):
    """One network, several looks: images [B, C, S, S] -> logits [B, looks, ...].

    Args:
        network: images -> raw outputs.
        decode: raw outputs -> logits.
        looks: the first is the picture as it is.
    """

    def __init__(self, network: nn.Module, decode: Callable[[Tensor], Tensor], looks: tuple[Look, ...]) -> None:
        super().__init__()
        self.network = network
        self.decode = decode
        self.looks = looks

    def forward(self, images: Tensor) -> Tensor:
        """The answers, in the order of the looks."""
        return torch.stack([self.decode(self.network(look.change(images))).float() for look in self.looks], dim=1)


def _exact(strength: Strength) -> list[Look]:
    flips: list[tuple[str, tuple[int, ...]]] = []
    if strength.flip in ("horizontal", "both"):
        flips.append(("mirrored left-right", (-1,)))
    if strength.flip in ("vertical", "both"):
        flips.append(("mirrored top-bottom", (-2,)))
    # A picture that may be held at any angle may be held at these.
    if strength.turns or strength.rotate >= 180:
        found = [Look(f"turned {90 * quarter}°", _turned(quarter, ())) for quarter in (1, 2, 3)]
        if flips:
            found.append(Look("mirrored", _turned(0, (-1,))))
            found += [Look(f"mirrored, turned {90 * quarter}°", _turned(quarter, (-1,))) for quarter in (1, 2, 3)]
        return found
    found = [Look(name, _turned(0, axes)) for name, axes in flips]
    if len(flips) == 2:
        found.append(Look("mirrored both ways", _turned(0, (-2, -1))))
    return found


def _turned(quarters: int, flip: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    def change(images: Tensor) -> Tensor:
        changed = images.flip(flip) if flip else images
        return changed.rot90(quarters, (-2, -1)) if quarters else changed

    return change


def _moved(strength: Strength) -> list[Look]:
    looks = []
    angle = min(strength.rotate, 15.0) / 2
    if angle:
        looks += [Look(f"rotated {degrees:+g}°", _affine(strength, degrees, 1.0)) for degrees in (angle, -angle)]
    if strength.scale:
        looks += [
            Look(f"{'larger' if step > 0 else 'smaller'} by {abs(step):.0%}", _affine(strength, 0.0, 1 + step))
            for step in (strength.scale / 2, -strength.scale / 2)
        ]
    return looks


def _affine(strength: Strength, degrees: float, zoom: float) -> Callable[[Tensor], Tensor]:
    # Normalised pictures have no black to fill with: outside lies what is at the edge, or the picture mirrored.
    fill = "border" if strength.fill == "zeros" else strength.fill
    cosine, sine = math.cos(math.radians(degrees)) / zoom, math.sin(math.radians(degrees)) / zoom

    def change(images: Tensor) -> Tensor:
        one = np.ones(len(images))
        rows = ((cosine * one, -sine * one, 0 * one), (sine * one, cosine * one, 0 * one))
        return read_at(images, rows, fill).to(images.dtype)

    return change
