"""Mirroring an image whose label names a side makes the label wrong: refused, or labels change sides with images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medcli.data.augment import MODALITIES, Flip, Strength
from medcli.data.target import Target, side_names
from medcli.errors import UsageProblem, nearest
from medcli.settings.groups import TrainingSettings

__all__ = ["Swap", "flip_of", "plan_swap", "refuse_wrong_sides"]


@dataclass(frozen=True)
class Swap:
    """Which labels change places when an image is mirrored left-right.

    Args:
        order: for every label column (or class) the one whose place it takes; its own where nothing changes.
        classes: whether classes of one label change places, rather than columns.
    """

    order: tuple[int, ...]
    classes: bool

    def __call__(self, labels: Tensor, mirrored: Tensor) -> Tensor:
        """Labels [B] or [B, L] as they are after mirroring the images marked in `mirrored` [B]; a new tensor."""
        order = torch.tensor(self.order, device=labels.device)
        mirrored = mirrored.to(labels.device)
        if self.classes:
            return torch.where(mirrored, order[labels], labels)
        return torch.where(mirrored[:, None], labels[:, order], labels)


def flip_of(training: TrainingSettings) -> Flip:
    """How images are mirrored: as the user says, else as the kind of picture allows."""
    if training.flip is not None:
        return training.flip
    safe = _safe(training)
    return "none" if safe is None else safe.flip


def _safe(training: TrainingSettings) -> Strength | None:
    """The changes of `--augment modality`, where that is asked for."""
    return MODALITIES[training.modality].safe if training.augment == "modality" and training.modality else None


def plan_swap(target: Target, pairs: Sequence[str]) -> Swap | None:
    """What `--swap-on-flip LEFT:RIGHT` says, or None where nothing is said.

    Raises:
        UsageProblem: no pair of names, unknown names, a name twice, ordered grades, or outputs of different classes.
    """
    if not pairs:
        return None
    if target.task == "ordinal":
        raise _wrong(
            "ordered grades have no sides", "name label columns with `--label-column LEFT,RIGHT`, or leave it out"
        )
    names = [output.name for output in target.outputs] or list(target.class_names)
    order = list(range(len(names)))
    for text in pairs:
        one, other = _pair(text, names)
        if order[one] != one or order[other] != other or one == other:
            raise _wrong(f"`{text}` names a label that already has a partner", "name every label once")
        if target.outputs and target.outputs[one].classes != target.outputs[other].classes:
            raise _wrong(f"`{names[one]}` and `{names[other]}` do not have the same classes", "swap labels of one kind")
        order[one], order[other] = other, one
    return Swap(tuple(order), classes=target.task in ("binary", "multiclass"))


def _pair(text: str, names: Sequence[str]) -> tuple[int, int]:
    # A name may hold a colon itself, so the cut is where both parts are names.
    cuts = [(text[:at], text[at + 1 :]) for at, letter in enumerate(text) if letter == ":"]
    found = [(one, other) for one, other in cuts if one in names and other in names]
    if len(found) == 1:
        return names.index(found[0][0]), names.index(found[0][1])
    if not cuts:
        raise _wrong(f"`{text}` is no pair", "two labels with a colon between them, such as `left_upper:right_upper`")
    unknown = [part for part in text.split(":", 1) if part not in names] or [text]
    close = nearest(unknown[0], names, limit=1)
    known = ", ".join(f"`{name}`" for name in names[:12])
    raise _wrong(
        f"there is no label `{unknown[0]}`", (f"did you mean `{close[0]}`? " if close else "") + f"labels are {known}"
    )


def refuse_wrong_sides(target: Target, training: TrainingSettings, swap: Swap | None) -> None:
    """Refuse augmentation that would make labels wrong, and a swap that could never act.

    Raises:
        UsageProblem: mirroring, or a turn by a right angle or more, with labels that name a side.
    """
    flip = flip_of(training)
    mirrors = flip in ("horizontal", "both")
    if swap is not None and not mirrors:
        raise _wrong("acts only where images are mirrored left-right", "add `--flip horizontal`, or leave it out")
    named = side_names(target)
    safe = _safe(training)
    if named and safe is not None and (safe.turns or safe.rotate >= 90):
        raise UsageProblem(
            f"`--augment modality` turns pictures of {training.modality} upside down, which would make labels wrong: "
            f"{_listed(named)} name a side",
            where="--augment",
            hint="use `--augment light`",
            code="turn-breaks-labels",
        )
    left = _unswapped(target, named, swap)
    if left and mirrors:
        how = f"`--flip {flip}`"
        if training.flip is None:
            how = f"`--augment modality` mirrors pictures of {training.modality}, which"
        raise UsageProblem(
            f"{how} would make labels wrong: {_listed(left)} name a side",
            where="--flip" if training.flip else "--augment",
            hint="use `--flip none` (or `vertical`, if the anatomy allows it)" + _suggestion(target, left),
            code="flip-breaks-labels",
        )


def _unswapped(target: Target, named: Sequence[str], swap: Swap | None) -> list[str]:
    if swap is None:
        return list(named)
    names = [output.name for output in target.outputs] or list(target.class_names)
    swapped = {name for position, name in enumerate(names) if swap.order[position] != position}
    inner = {name for output in target.outputs for name in output.classes}
    return [name for name in named if name not in swapped or name in inner]


def _suggestion(target: Target, named: Sequence[str]) -> str:
    """The first pair of labels that differ in `left` and `right` alone, as the flag that would swap them."""
    if target.task == "ordinal":
        return ""
    for name in named:
        other = name.replace("left", "right")
        if other != name and other in named:
            return f", or let labels change sides with their images: `--swap-on-flip {name}:{other}`"
    return ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:4])


def _wrong(message: str, hint: str) -> UsageProblem:
    return UsageProblem(message, where="--swap-on-flip", hint=hint, code="bad-swap")
