"""What `evaluate` is given: predictions that exist already, or cases of a data set that a run has yet to predict.

Nothing here imports torch, so stored predictions are evaluated without it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from medcli.data.dataset import DataSet, ImageSource, Picture, Samples
from medcli.data.medmnist import known_set
from medcli.data.splits import draw
from medcli.data.subset import take
from medcli.data.target import Target
from medcli.errors import UsageProblem, listed
from medcli.evaluation.predictions import Predictions, load_predictions
from medcli.runs.directory import RunDirectory
from medcli.settings.groups import DataSettings

__all__ = ["Chosen", "Judgement", "choose_cases", "judged_cases", "refuse_other_classes", "stored_predictions"]


@dataclass(frozen=True)
class Chosen:
    """The cases of a data set on which a run is to be judged.

    Args:
        samples: the cases.
        split: their split, `""` for the whole set.
        note: a sentence on the choice, or empty.
    """

    samples: Samples
    split: str
    note: str = ""


@dataclass(frozen=True)
class Judgement:
    """Predictions that are to be judged.

    Args:
        internal: on the test cases the model was made with, what the others are compared with; or None.
        others: on every other set.
    """

    internal: Predictions | None
    others: tuple[Predictions, ...]

    def all(self) -> list[Predictions]:
        """The internal ones first."""
        return [one for one in (self.internal, *self.others) if one is not None]


def stored_predictions(run: RunDirectory, on: str | None = None) -> Predictions:
    """The predictions of a split that a run stored: of test, or of val where it has no test.

    Args:
        run: the run.
        on: the split, where just that one will do.

    Raises:
        UsageProblem: neither is there (code `no-predictions`), or the file is damaged.
    """
    for split in ("test", "val") if on is None else (on,):
        path = run.predictions(split)
        if path.is_file():
            return load_predictions(path)
    raise UsageProblem(
        f"run `{run.path}` has no stored predictions: its training did not finish",
        hint=f"`medcli train --resume {run.path}` finishes it; `--data PATH` predicts now",
        code="no-predictions",
    )


def choose_cases(dataset: DataSet, internal: Predictions | None, on: str | None = None) -> Chosen:
    """The cases that this model has not learned from, as far as the data says.

    The test split that the set itself has, or its val split. A set without any is external and taken whole, unless it
    holds test cases of the run under the same names with the same labels: then it is the run's own data, and just
    those cases are taken.

    Args:
        dataset: loaded for the run's target, so that nothing was drawn.
        internal: the run's stored predictions of test, or of `on`; or None.
        on: the split that is wanted; None for the above.

    Raises:
        UsageProblem: the set has splits, or the run's own cases cannot be told, and `on` is not among them (code
            `no-split`).
    """
    if dataset.extra.get("own_splits", True):
        for split in ("test", "val") if on is None else (on,):
            if split in dataset.splits:
                return Chosen(dataset.splits[split], split)
    name = dataset.name
    whole = _whole(tuple(dataset.splits.values()))
    own = _shared_rows(whole, internal)
    if len(own):
        note = f"`{name}` holds the run's own {on or 'test'} cases: only those {len(own)} are judged"
        return Chosen(take(whole, own), on or "test", note)
    if on is not None:
        raise UsageProblem(
            f"`{name}` has no `{on}` cases that could be told",
            where="--on",
            hint="leave `--on` out to judge it as a whole",
            code="no-split",
        )
    return Chosen(whole, "", f"`{name}` has no test cases of its own: all {len(whole)} cases are judged")


def judged_cases(
    dataset: DataSet, internal: Predictions | None, settings: DataSettings, on: str | None
) -> tuple[Chosen, tuple[str, ...]]:
    """What `choose_cases` chooses, within `--limit`, and what the user should read about the choice.

    Raises:
        UsageProblem: as `choose_cases`.
    """
    chosen = choose_cases(dataset, internal, on)
    notes = [chosen.note] if chosen.note else []
    if settings.limit is None:
        return chosen, tuple(notes)
    samples = take(chosen.samples, draw(chosen.samples.labels, settings.limit, settings.split_seed))
    notes.append(f"{dataset.name}: limited to {len(samples)} of {len(chosen.samples)}")
    return replace(chosen, samples=samples), tuple(notes)


def _shared_rows(whole: Samples, internal: Predictions | None) -> npt.NDArray[np.int64]:
    """Rows of the cases that the run stored too; none where a name is shared but its labels differ.

    Names such as `0001.png` occur everywhere; only with the labels do they say that two sets are one.
    """
    nothing = np.zeros(0, dtype=np.int64)
    if internal is None:
        return nothing
    _, rows, theirs = np.intersect1d(whole.ids, internal.ids, return_indices=True)
    ours, labels = whole.labels[rows], internal.labels[theirs]
    same = np.array_equal(ours, labels, equal_nan=ours.dtype.kind == "f")
    return np.sort(rows).astype(np.int64) if same else nothing


def refuse_other_classes(dataset: DataSet, target: Target, class_names: tuple[str, ...]) -> None:
    """Refuse data whose numbered labels mean something else than the run's.

    Labels that are text are matched by name and need no such check. Numbers would fit any target with as many classes,
    so where the data is a set whose classes are known, they must be the run's.

    Args:
        dataset: the data to be judged on.
        target: the run's.
        class_names: as the user typed them: the run's own names say that the numbers mean the same.

    Raises:
        UsageProblem: code `other-classes`.
    """
    if class_names and class_names != target.class_names:
        raise UsageProblem(
            f"the run's classes are {listed(target.class_names, 8)}, not {listed(class_names, 8)}",
            where="--class-names",
            code="other-classes",
        )
    facts = known_set(dataset.origin) if dataset.origin.lower().endswith(".npz") else None
    if facts is None or class_names or _same_words(facts.classes, target.class_names):
        return
    ours = listed(target.class_names, 8)
    raise UsageProblem(
        f"`{dataset.name}` has the classes {listed(facts.classes, 8)}; the run was trained on {ours}",
        where="--data",
        hint="`--class-names` with the run's names says that they mean the same, in that order",
        code="other-classes",
    )


def _same_words(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two lists of classes differ in capitals and blanks at most: `NORMAL` is `normal`."""

    def plain(names: tuple[str, ...]) -> list[str]:
        return [" ".join(name.replace("_", " ").split()).casefold() for name in names]

    return plain(one) == plain(other)


@dataclass(frozen=True)
class _Images:
    """The images of several splits, one after another."""

    parts: tuple[ImageSource, ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def _find(self, index: int) -> tuple[ImageSource, int]:
        for part in self.parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise IndexError(index)

    def read(self, index: int) -> Picture:
        part, row = self._find(index)
        return part.read(row)

    def describe(self, index: int) -> str:
        part, row = self._find(index)
        return part.describe(row)

    def fingerprint(self, index: int) -> bytes:
        part, row = self._find(index)
        return part.fingerprint(row)


def _whole(splits: tuple[Samples, ...]) -> Samples:
    patients = [samples.patients for samples in splits if samples.patients is not None]
    return Samples(
        np.concatenate([samples.ids for samples in splits]),
        _Images(tuple(samples.images for samples in splits)),
        np.concatenate([samples.labels for samples in splits]),
        np.concatenate(patients) if len(patients) == len(splits) else None,
    )
