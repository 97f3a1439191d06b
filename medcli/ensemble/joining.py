"""The answers of members as one: they must be about the same cases with the same labels, else what differs is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.evaluation.members import equal_weights, fitted_weights, pooled
from medcli.evaluation.predictions import Predictions

__all__ = ["Answers", "Joined", "join"]

SPLITS = ("val", "test")


@dataclass(frozen=True)
class Answers:
    """The stored predictions of one member.

    Args:
        name: how it is called.
        by_split: `val`, `test` or both.
    """

    name: str
    by_split: Mapping[str, Predictions]


@dataclass(frozen=True)
class Joined:
    """The answers of all members as one.

    Args:
        by_split: predictions with members, for every split that all of them have.
        weights: [m] shares of the mean.
        notes: sentences the user should read.
    """

    by_split: Mapping[str, Predictions]
    weights: npt.NDArray[np.float64]
    notes: tuple[str, ...]


def join(members: Sequence[Answers], weights_by: str = "equal") -> Joined:
    """Pool the answers of members.

    Args:
        members: two or more.
        weights_by: `equal`, or `val` for those that make the labels of the validation cases likeliest.

    Raises:
        UsageProblem: members of other targets (code `other-target`), cases (`other-cases`) or labels (`other-labels`),
            none in common (`no-split`), or no labelled validation cases for `val` (`no-val`).
    """
    first = members[0]
    splits = [split for split in SPLITS if all(split in one.by_split for one in members)]
    if not splits:
        held = "; ".join(f"`{one.name}` has {', '.join(one.by_split) or 'none'}" for one in members)
        raise UsageProblem(f"the members have predictions of no split in common: {held}", code="no-split")
    notes = []
    for split in SPLITS:
        lacking = [one.name for one in members if split not in one.by_split]
        if lacking and len(lacking) < len(members):
            notes.append(f"{split} is left out: {', '.join(lacking)} has no predictions of it")
    stacked = {}
    for split in splits:
        alike = [_alike(first, one, split) for one in members]
        logits = np.stack([one.logits for one in alike]).astype(np.float32)
        base = alike[0]
        patients = next((one.patients for one in alike if one.patients is not None), None)
        stacked[split] = replace(
            base, member_logits=logits, patients=patients, features=None, member_weights=None, calibrated=""
        )
    notes += _notes(members, splits, stacked)
    weights = equal_weights(len(members))
    if weights_by == "val":
        if "val" not in stacked or not _labelled(stacked["val"]):
            raise UsageProblem(
                "weights are fitted on labelled validation cases, and the members have none in common",
                where="--weights-by",
                hint="`--weights-by equal`",
                code="no-val",
            )
        val = stacked["val"]
        assert val.member_logits is not None
        weights = fitted_weights(val.member_logits, val.labels, val.target)
    return Joined({split: pooled(one, weights) for split, one in stacked.items()}, weights, tuple(notes))


def _alike(first: Answers, other: Answers, split: str) -> Predictions:
    """The predictions of a member in the order of the first one's cases."""
    ours, theirs = first.by_split[split], other.by_split[split]
    if ours is theirs:
        return theirs
    if ours.target != theirs.target:
        raise UsageProblem(
            f"`{first.name}` and `{other.name}` do not predict the same: {_difference(ours.target, theirs.target)}",
            hint="members of an ensemble have one target, its classes in one order",
            code="other-target",
        )
    if not np.array_equal(ours.ids, theirs.ids):
        place = {name: row for row, name in enumerate(theirs.ids.tolist())}
        missing = [name for name in ours.ids.tolist() if name not in place]
        surplus = len(theirs) - (len(ours) - len(missing))
        if missing or surplus:
            example = missing[0] if missing else next(iter(set(place) - set(ours.ids.tolist())))
            raise UsageProblem(
                f"`{first.name}` and `{other.name}` were not judged on the same {split} cases: {len(missing)} of the "
                f"first are not among the second, {surplus} the other way round (such as `{example}`)",
                hint="train members on one split of the data (`--split-seed`), or predict one set with each: "
                "`medcli evaluate RUN --data PATH --save-predictions FILE.npz`",
                code="other-cases",
            )
        rows = np.array([place[name] for name in ours.ids.tolist()])
        theirs = replace(
            theirs,
            ids=ours.ids,
            labels=theirs.labels[rows],
            logits=theirs.logits[rows],
            patients=None if theirs.patients is None else theirs.patients[rows],
            member_logits=None,
            features=None,
        )
    if not np.array_equal(ours.labels, theirs.labels, equal_nan=ours.labels.dtype.kind == "f"):
        same = (ours.labels == theirs.labels) | (_missing(ours.labels) & _missing(theirs.labels))
        wrong = ~same.reshape(len(ours), -1).all(axis=1)
        raise UsageProblem(
            f"`{first.name}` and `{other.name}` have other labels for {int(wrong.sum())} of {len(ours)} {split} cases, "
            f"first for `{ours.ids[wrong.argmax()]}`",
            hint="judge them on one version of the data",
            code="other-labels",
        )
    return theirs


def _difference(one: Target, other: Target) -> str:
    if one.task != other.task:
        return f"{one.task} and {other.task}"
    if one.positive != other.positive and one.class_names == other.class_names:
        return f"`{one.class_names[one.positive]}` and `{other.class_names[other.positive]}` count as the finding"
    names, others = _names(one), _names(other)
    if sorted(names) == sorted(others):
        return f"the classes come in another order ({', '.join(names)}; {', '.join(others)})"
    return f"the classes are {', '.join(names)}; {', '.join(others)}"


def _names(target: Target) -> tuple[str, ...]:
    return target.class_names or tuple(f"{one.name} ({', '.join(one.classes)})" for one in target.outputs)


def _missing(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    result: npt.NDArray[np.bool_] = np.isnan(labels) if labels.dtype.kind == "f" else labels < 0
    return result


def _labelled(predictions: Predictions) -> bool:
    return bool((~_missing(predictions.labels)).any())


def _notes(members: Sequence[Answers], splits: Sequence[str], stacked: Mapping[str, Predictions]) -> list[str]:
    notes = []
    calibrated = [one.name for one in members if any(one.by_split[split].calibrated for split in splits)]
    if calibrated:
        notes.append(
            f"{', '.join(calibrated)}: calibrated already. The mean of calibrated members is under-confident; "
            "calibrate the ensemble instead"
        )
    several = [one.name for one in members if any(one.by_split[split].member_logits is not None for split in splits)]
    if several:
        notes.append(f"{', '.join(several)}: itself a mean of several answers, of which only the mean is taken")
    shown = stacked[splits[-1]].member_logits
    assert shown is not None
    for place in range(1, len(shown)):
        twin = next((other for other in range(place) if np.array_equal(shown[other], shown[place])), None)
        if twin is not None:
            notes.append(f"`{members[place].name}` answers exactly as `{members[twin].name}` does: it adds nothing")
    return notes
