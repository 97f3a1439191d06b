"""What is wrong with a data set before anyone trains on it: leaks between splits, duplicates, broken files, labels.

Every image is read once. Findings are values; which of them count as leakage is decided here and nowhere else.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from medcli.data.dataset import DataSet, Picture, Samples
from medcli.data.decode import UnreadableImage
from medcli.data.perceptual import near_pairs, perceptual_hash
from medcli.data.record import class_counts

__all__ = ["Audit", "Case", "Finding", "audit", "fix_rows", "verify_readable"]

NEARLY_BLANK = 0.01  # standard deviation as a share of the declared range
RARE = 10  # a class with fewer training cases than this is named
IMBALANCE = 20  # largest class over smallest at which it is named
# Of cases that must not be in two splits, those of the later split stay: a test set is worth more than its twins.
KEPT_FIRST = {"test": 0, "val": 1, "train": 2}

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Case:
    """One case as a finding names it."""

    id: str
    split: str
    file: str
    patient: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Args:
        kind: `patient-in-several-splits`, `duplicate`, `near-duplicate`, `unreadable`, `blank`, `nearly-blank`,
            `impossible-label`, `conflicting-labels`, `rare-class`, `imbalance`.
        leak: whether it lets knowledge of one split into another.
        cases: the cases concerned.
        text: a sentence.
        drop: those cases that should go.
    """

    kind: str
    leak: bool
    cases: tuple[Case, ...]
    text: str
    drop: tuple[Case, ...] = ()


@dataclass(frozen=True)
class Audit:
    """The findings of one data set.

    Args:
        name: of the data set.
        task: of its target.
        counts: split -> class -> cases (see `class_counts`).
        patients: split -> number of patients, or None where no patients are known.
        images: how many were read.
        findings: leaks first.
        notes: the data set's own.
    """

    name: str
    task: str
    counts: dict[str, dict[str, Any]]
    patients: dict[str, int] | None
    images: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """Findings that let knowledge of one split into another."""
        return tuple(finding for finding in self.findings if finding.leak)


@dataclass(frozen=True)
class _Look:
    """What one reading of an image leaves behind."""

    digest: bytes = b""
    look: int = 0
    spread: float = 1.0
    constant: bool = False
    reason: str = ""


def audit(
    dataset: DataSet, near_duplicates: bool = False, *, workers: int | None = None, progress: Progress | None = None
) -> Audit:
    """Read every image once and report.

    Args:
        dataset: loaded with `lenient=True`, so that impossible labels are findings and not errors.
        near_duplicates: also compare perceptual hashes (at most 4 of 64 bits apart).
        workers: threads that decode.
        progress: called with the number of images read so far.
    """
    cases, labels = [], []
    looks: list[_Look] = []
    for split, samples in dataset.splits.items():
        cases += list(_cases(samples, split))
        labels += [row.tobytes() for row in np.ascontiguousarray(samples.labels)]
        done = len(looks)
        tick = None if progress is None else _shifted(progress, done)
        looks += _looks(samples, near_duplicates, workers, tick)
    findings = [
        *_patients(cases),
        *_duplicates(cases, labels, looks),
        *(_near(cases, looks) if near_duplicates else ()),
        *_single(cases, looks),
        *_impossible(dataset),
        *_balance(dataset),
    ]
    return Audit(
        name=dataset.name,
        task=dataset.target.task,
        counts={split: class_counts(samples, dataset.target) for split, samples in dataset.splits.items()},
        patients=_patient_counts(dataset),
        images=len(cases),
        findings=tuple(sorted(findings, key=lambda finding: not finding.leak)),
        notes=dataset.notes,
    )


def verify_readable(dataset: DataSet, workers: int | None = None) -> dict[str, list[tuple[int, str]]]:
    """Decode everything and keep nothing: per split, (position, reason) of each image that cannot be read.

    `medcli.data.subset.skip` takes the result.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for split, samples in dataset.splits.items():
        looks = _looks(samples, False, workers, None)
        bad = [(index, look.reason) for index, look in enumerate(looks) if look.reason]
        if bad:
            found[split] = bad
    return found


def fix_rows(audits: Sequence[Audit]) -> list[tuple[str, str, str, str, str]]:
    """Rows (data, id, split, file, reason) of the cases to drop, each once, in the order of the findings."""
    rows: dict[tuple[str, str, str], tuple[str, str, str, str, str]] = {}
    for one in audits:
        for finding in one.findings:
            for case in finding.drop:
                row = (one.name, case.id, case.split, case.file, finding.kind)
                rows.setdefault((one.name, case.id, case.split), row)
    return list(rows.values())


def _cases(samples: Samples, split: str) -> Iterator[Case]:
    patients = [""] * len(samples) if samples.patients is None else samples.patients.tolist()
    for index, (name, patient) in enumerate(zip(samples.ids.tolist(), patients, strict=True)):
        yield Case(name, split, samples.images.describe(index), patient)


def _shifted(progress: Progress, done: int) -> Progress:
    return lambda count: progress(done + count)


def _looks(samples: Samples, perceptual: bool, workers: int | None, progress: Progress | None) -> list[_Look]:
    def look(index: int) -> _Look:
        try:
            return _look(samples.images.read(index), perceptual)
        except UnreadableImage as problem:
            return _Look(reason=problem.reason)

    looks: list[_Look] = []
    with ThreadPoolExecutor(workers or None) as pool:
        for result in pool.map(look, range(len(samples))):
            looks.append(result)
            if progress is not None:
                progress(len(looks))
    return looks


def _look(picture: Picture, perceptual: bool) -> _Look:
    pixels = np.ascontiguousarray(picture.pixels)
    if pixels.ndim == 3 and bool((pixels == pixels[..., :1]).all()):
        pixels = np.ascontiguousarray(pixels[..., 0])  # a grey picture stored in colour is the same picture
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((pixels.shape, picture.low, picture.high)).encode())
    digest.update(pixels.tobytes())
    low, high = float(pixels.min()), float(pixels.max())
    spread = float(pixels.std()) / (picture.high - picture.low)
    return _Look(digest.digest(), perceptual_hash(picture) if perceptual else 0, spread, low == high)


def _patients(cases: Sequence[Case]) -> Iterator[Finding]:
    by_patient: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.patient:
            by_patient[case.patient].append(case)
    for patient, own in by_patient.items():
        counts = Counter(case.split for case in own)
        if len(counts) > 1:
            listed = ", ".join(f"{count} in {split}" for split, count in counts.items())
            text = f"patient `{patient}` is in several splits: {listed}"
            yield Finding("patient-in-several-splits", True, tuple(own), text, _all_but_one_split(own))


def _duplicates(cases: Sequence[Case], labels: Sequence[bytes], looks: Sequence[_Look]) -> Iterator[Finding]:
    groups: defaultdict[bytes, list[int]] = defaultdict(list)
    for position, look in enumerate(looks):
        # All blank images are alike, which says nothing about leakage; they are findings of their own.
        if not look.reason and not look.constant:
            groups[look.digest].append(position)
    for group in groups.values():
        if len(group) < 2:
            continue
        own = tuple(cases[position] for position in group)
        splits = sorted({case.split for case in own}, key=lambda split: -KEPT_FIRST[split])
        where = f"across {' and '.join(splits)}" if len(splits) > 1 else f"within {splits[0]}"
        names = ", ".join(f"`{case.id}`" for case in own)
        if len({labels[position] for position in group}) > 1:
            text = f"the same picture has different labels, {where}: {names}"
            yield Finding("conflicting-labels", len(splits) > 1, own, text, own)
        else:
            yield Finding("duplicate", len(splits) > 1, own, f"the same picture {where}: {names}", _all_but_one(own))


def _near(cases: Sequence[Case], looks: Sequence[_Look]) -> Iterator[Finding]:
    usable = [position for position, look in enumerate(looks) if not look.reason and look.spread >= NEARLY_BLANK]
    hashes = np.array([looks[position].look for position in usable], dtype=np.uint64)
    for one, two, bits in near_pairs(hashes):
        first, second = usable[one], usable[two]
        if looks[first].digest == looks[second].digest:
            continue
        pair = (cases[first], cases[second])
        leak = pair[0].split != pair[1].split
        where = f"across {pair[0].split} and {pair[1].split}" if leak else f"within {pair[0].split}"
        text = f"two pictures look alike ({bits} of 64 bits apart) {where}: `{pair[0].id}`, `{pair[1].id}`"
        yield Finding("near-duplicate", leak, pair, text, _all_but_one(pair) if leak else ())


def _single(cases: Sequence[Case], looks: Sequence[_Look]) -> Iterator[Finding]:
    for case, look in zip(cases, looks, strict=True):
        if look.reason:
            yield Finding("unreadable", False, (case,), f"`{case.file}` cannot be read: {look.reason}", (case,))
        elif look.constant:
            yield Finding("blank", False, (case,), f"`{case.file}` holds one value only", (case,))
        elif look.spread < NEARLY_BLANK:
            text = f"`{case.file}` is nearly blank (standard deviation {look.spread:.2%} of its range)"
            yield Finding("nearly-blank", False, (case,), text)


def _impossible(dataset: DataSet) -> Iterator[Finding]:
    for name, where, reason in dataset.extra.get("impossible", ()):
        case = Case(name, "", where)
        yield Finding("impossible-label", False, (case,), f"{where}: {reason}", (case,))


def _balance(dataset: DataSet) -> Iterator[Finding]:
    """Classes of the training split that are rare, and the imbalance between largest and smallest."""
    train = dataset.splits.get("train")
    if train is None:
        return
    tables = class_counts(train, dataset.target)
    for output, table in (tables if dataset.target.task == "multioutput" else {"": tables}).items():
        counts = {name: count for name, count in table.items() if not name.startswith("(")}
        label = f" of `{output}`" if output else ""
        rare = [f"`{name}` ({count})" for name, count in counts.items() if count < RARE]
        if rare:
            yield Finding("rare-class", False, (), f"fewer than {RARE} training cases{label}: {', '.join(rare)}")
        most, least = max(counts.values()), min(counts.values())
        if dataset.target.task != "multilabel" and least and most / least >= IMBALANCE:
            text = f"the largest class{label} has {most / least:.0f} times as many training cases as the smallest"
            yield Finding("imbalance", False, (), text)


def _patient_counts(dataset: DataSet) -> dict[str, int] | None:
    if any(samples.patients is None for samples in dataset.splits.values()):
        return None
    return {
        split: len(set(samples.patients.tolist()))
        for split, samples in dataset.splits.items()
        if samples.patients is not None
    }


def _all_but_one(cases: Sequence[Case]) -> tuple[Case, ...]:
    kept = min(range(len(cases)), key=lambda position: (KEPT_FIRST[cases[position].split], position))
    return tuple(case for position, case in enumerate(cases) if position != kept)


def _all_but_one_split(cases: Sequence[Case]) -> tuple[Case, ...]:
    kept = min((case.split for case in cases), key=lambda split: KEPT_FIRST[split])
    return tuple(case for case in cases if case.split != kept)
