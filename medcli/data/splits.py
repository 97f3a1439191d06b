"""Dividing cases into train, val and test: never through a patient, with every class in its share, always the same."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medcli.data.target import Target
from medcli.errors import UsageProblem

__all__ = ["SPLITS", "assign", "draw", "make_splits", "split_hash", "strata", "val_from_train"]

SPLITS = ("train", "val", "test")


def strata(labels: npt.NDArray[np.generic], target: Target) -> npt.NDArray[np.bool_]:
    """Which traits a case has, bool [n, T]: its class, each positive label, or its class in each output."""
    if target.task == "multilabel":
        return np.asarray(labels == 1)
    if target.task == "multioutput":
        columns = [
            np.asarray(labels[:, position] == value)
            for position, output in enumerate(target.outputs)
            for value in range(-1, len(output.classes))
        ]
        return np.stack(columns, axis=1)
    return np.asarray(labels[:, None] == np.arange(len(target.class_names)))


def assign(
    traits: npt.NDArray[np.bool_], groups: npt.NDArray[np.generic] | None, shares: Sequence[float], seed: int
) -> npt.NDArray[np.int64]:
    """Part of each case, int64 [n] in 0..len(shares)-1; the cases of a group stay together.

    Iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011) over groups instead of cases: the trait with the
    fewest cases left is dealt out first, its largest group first, each group to the part that lacks this trait most,
    then to the part that lacks cases most.
    """
    n, kinds = traits.shape
    members = _members(groups, n)
    order = np.random.default_rng(seed).permutation(len(members))
    ranked = sorted((int(position) for position in order), key=lambda position: -len(members[position]))
    counts = [np.asarray(traits[members[position]].sum(axis=0)).tolist() for position in range(len(members))]
    live = [part for part, share in enumerate(shares) if share > 0]
    want_cases = [share * n for share in shares]
    totals = traits.sum(axis=0).tolist()
    want = [[share * total for total in totals] for share in shares]
    holders: list[list[int]] = [[position for position in ranked if counts[position][kind]] for kind in range(kinds)]
    left = list(totals)
    part_of = [-1] * len(members)

    def place(position: int, part: int) -> None:
        part_of[position] = part
        want_cases[part] -= len(members[position])
        for kind, count in enumerate(counts[position]):
            if count:
                want[part][kind] -= count
                left[kind] -= count

    pending = {kind for kind in range(kinds) if left[kind] > 0}
    while pending:
        kind = min(pending, key=lambda item: (left[item], item))
        pending.discard(kind)
        for position in holders[kind]:
            if part_of[position] < 0:
                place(position, max(live, key=lambda part: (want[part][kind], want_cases[part], -part)))
        pending = {item for item in pending if left[item] > 0}
    for position in ranked:
        if part_of[position] < 0:
            place(position, max(live, key=lambda part: (want_cases[part], -part)))
    parts = np.empty(n, dtype=np.int64)
    for position, rows in enumerate(members):
        parts[rows] = part_of[position]
    return parts


def make_splits(
    labels: npt.NDArray[np.generic],
    target: Target,
    patients: npt.NDArray[np.str_] | None,
    shares: Sequence[float],
    seed: int,
) -> npt.NDArray[np.str_]:
    """Draw train, val and test.

    Args:
        labels: see `Target`.
        target: what is predicted; its classes are kept in their shares.
        patients: str [n], never divided, or None.
        shares: of train, val and test; a share of 0 leaves that split out.
        seed: the same seed gives the same splits.

    Returns:
        `train`, `val` or `test` per case.

    Raises:
        UsageProblem: shares that are not three numbers of sum 1, or too few cases (or patients) to fill a split.
    """
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise UsageProblem(
            f"`--split {','.join(f'{share:g}' for share in shares)}`: three shares (train, val, test) that add up to 1",
            code="bad-split",
        )
    parts = assign(strata(labels, target), patients, shares, seed)
    for part, share in enumerate(shares):
        if share > 0 and not (parts == part).any():
            what = "cases" if patients is None else f"cases of {len(set(patients.tolist()))} patients"
            raise UsageProblem(
                f"{len(labels)} {what} are too few to fill {SPLITS[part]} with a share of {share:g}",
                hint="`--split A,B,C` sets the shares",
                code="too-few-cases",
            )
    return np.array(SPLITS)[parts]


def val_from_train(
    labels: npt.NDArray[np.generic],
    target: Target,
    patients: npt.NDArray[np.str_] | None,
    shares: Sequence[float],
    seed: int,
) -> npt.NDArray[np.str_]:
    """Divide training cases into train and val, in the proportion of their two shares; see `make_splits`."""
    both = shares[0] + shares[1]
    if len(shares) != 3 or both <= 0 or shares[1] <= 0:
        raise UsageProblem("the data has no val split, and `--split` gives val no share", code="bad-split")
    return make_splits(labels, target, patients, (shares[0] / both, shares[1] / both, 0.0), seed)


def draw(labels: npt.NDArray[np.generic], count: int, seed: int) -> npt.NDArray[np.int64]:
    """Positions of `count` cases in ascending order, every combination of labels in its share.

    Cases are shuffled, sorted by label, and taken at even distances.
    """
    n = len(labels)
    if count >= n:
        return np.arange(n)
    shuffled = np.random.default_rng(seed).permutation(n)
    rows = np.nan_to_num(np.asarray(labels, dtype=np.float64).reshape(n, -1), nan=-1.0)[shuffled]
    by_label = shuffled[np.lexsort(rows.T[::-1])]
    return np.sort(by_label[((np.arange(count) + 0.5) * n / count).astype(np.int64)])


def split_hash(ids: Sequence[str], splits: Sequence[str]) -> str:
    """SHA-256 over which case is in which split, independent of their order."""
    lines = sorted(f"{split}\t{name}\n" for name, split in zip(ids, splits, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _members(groups: npt.NDArray[np.generic] | None, n: int) -> list[list[int]]:
    if groups is None:
        return [[row] for row in range(n)]
    rows: defaultdict[object, list[int]] = defaultdict(list)
    for row, group in enumerate(groups.tolist()):
        rows[group].append(row)
    return list(rows.values())
