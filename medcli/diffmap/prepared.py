"""Pairs as a data set of the core: each pair is one picture of three planes, so that everything that reads, keeps,
shuffles and streams images serves pairs too.

Planes: the baseline laid over the follow-up, the follow-up, the true map (NaN where nothing is known).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.cache import cache_directory
from medcli.data.dataset import DataSet, Picture, Samples
from medcli.data.decode import UnreadableImage
from medcli.data.record import data_record
from medcli.data.splits import SPLITS
from medcli.data.subset import take
from medcli.data.target import Target
from medcli.diffmap.checks import reasons
from medcli.diffmap.intensity import match
from medcli.diffmap.pairs import Pair, PairImages, PairSet
from medcli.diffmap.preparing import filled, prepare
from medcli.diffmap.reading import read_pair
from medcli.diffmap.registration import Alignment, How
from medcli.errors import MedcliError, UsageProblem

__all__ = [
    "PairPictures",
    "SinglePictures",
    "filled",
    "limited",
    "pair_set",
    "pairs_record",
    "picture_set",
    "prepared_pair",
]

VERSION = 1  # part of every fingerprint: raise it when the same files come to lie otherwise
UNCHANGED = Target("binary", ("unchanged", "changed"))
"""Stands for the target of a set whose truth is maps; no label of it is ever used."""

Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PairPictures:
    """Pairs as pictures of three planes; see `medcli.data.dataset.ImageSource`.

    Args:
        pairs: in order.
        size: side in pixels.
        how: registration.
        window: DICOM display window.
    """

    pairs: tuple[Pair, ...]
    size: int
    how: How
    window: str = "auto"

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> Picture:
        """Read, register and stack one pair, [S, S, 3]. Raises UnreadableImage."""
        pair = self.pairs[index]
        try:
            images = prepared_pair(pair, self.size, self.how, window=self.window, key=self.fingerprint(index))
        except MedcliError as problem:
            if problem.code == "missing-extra":
                raise
            raise UnreadableImage(pair.identifier, reasons(problem)) from problem
        if images.target is None:
            raise UnreadableImage(pair.identifier, "it has no true map")
        return Picture(np.stack([filled(images), images.followup, images.target], axis=-1), 0.0, 1.0)

    def describe(self, index: int) -> str:
        """The pair's identifier."""
        return self.pairs[index].identifier

    def fingerprint(self, index: int) -> bytes:
        """A digest of the pair's files, of how it is registered, and of the size."""
        return _digest(self.pairs[index], self.size, self.how, self.window)


@dataclass(frozen=True)
class SinglePictures:
    """Both images of every pair by themselves, the baseline of the first pair, its follow-up, and so on.

    Args:
        pairs: in order.
        size: side in pixels.
        window: DICOM display window.
    """

    pairs: tuple[Pair, ...]
    size: int
    window: str = "auto"

    def __len__(self) -> int:
        return 2 * len(self.pairs)

    def read(self, index: int) -> Picture:
        """One image, [S, S]. Raises UnreadableImage."""
        pair = self.pairs[index // 2]
        try:
            images = read_pair(pair, self.size, window=self.window)
        except UsageProblem:
            raise
        except MedcliError as problem:
            raise UnreadableImage(self.describe(index), problem.message) from problem
        return Picture(images.followup if index % 2 else images.baseline, 0.0, 1.0)

    def describe(self, index: int) -> str:
        """The pair and which of its images."""
        return f"{self.pairs[index // 2].identifier} ({('baseline', 'follow-up')[index % 2]})"

    def fingerprint(self, index: int) -> bytes:
        """A digest of the pair's files and of which image it is."""
        return _digest(self.pairs[index // 2], self.size, "none", f"{self.window}, {index % 2}")


def prepared_pair(pair: Pair, size: int, how: How, *, window: str = "auto", key: bytes | None = None) -> PairImages:
    """A pair as `medcli.diffmap.preparing.prepare` makes it; an alignment that was found before is not sought again.

    Args:
        pair: two files, or a drawn pair.
        size: side in pixels.
        how: registration.
        window: DICOM display window.
        key: under which the alignment is kept for the next time; None keeps nothing.

    Raises:
        UsageProblem: the pair is refused, or SimpleITK is missing.
        RunFailure: a file cannot be read.
    """
    file = None if key is None or how == "none" else _alignments() / f"{key.hex()}.npz"
    known = None if file is None else _read_alignment(file, size)
    if known is None:
        found = prepare(pair, size, how, window=window, matched=how != "none")
        if file is not None:
            _keep_alignment(file, found.registered.transform)
        return found.images
    images = read_pair(pair, size, window=window)
    warped, seen = known.apply(images.baseline, images.baseline_valid)
    valid = seen & images.valid
    same = np.array_equal(images.baseline, images.followup)
    baseline = warped if same else np.where(valid, match(warped, images.followup, valid), np.float32(0))
    target = None if images.target is None else np.where(valid, images.target, np.float32("nan"))
    return replace(images, baseline=baseline, target=target, valid=valid, baseline_valid=valid)


def pair_set(pairs: PairSet, source: str, *, size: int, how: How, window: str, limit: int | None, seed: int) -> DataSet:
    """Pairs with splits as a data set of the core.

    Args:
        pairs: every one with a split.
        source: as typed.
        size: side in pixels.
        how: registration.
        window: DICOM display window.
        limit: most pairs of each split, drawn by `seed`; None for all.
        seed: of the splits.
    """

    def samples(chosen: tuple[Pair, ...]) -> Samples:
        return Samples(
            np.array([pair.identifier for pair in chosen]),
            PairPictures(chosen, size, how, window),
            np.zeros(len(chosen), dtype=np.int64),
            np.array([pair.patient or f"pair {pair.identifier}" for pair in chosen]),
        )

    return limited(_by_split(pairs, samples, source), limit, seed)


def picture_set(pairs: PairSet, source: str, *, size: int, window: str, limit: int | None, seed: int) -> DataSet:
    """Both images of every pair as a data set of single pictures; arguments as for `pair_set`."""

    def samples(chosen: tuple[Pair, ...]) -> Samples:
        twice = [(pair, side) for pair in chosen for side in ("baseline", "followup")]
        return Samples(
            np.array([f"{pair.identifier} {side}" for pair, side in twice]),
            SinglePictures(chosen, size, window),
            np.zeros(len(twice), dtype=np.int64),
            np.array([pair.patient or f"pair {pair.identifier}" for pair, _ in twice]),
        )

    return limited(_by_split(pairs, samples, source), limit, seed)


def pairs_record(dataset: DataSet, what: str) -> dict[str, Any]:
    """What `data.json` holds: hashes and counts as for any data set; `what` is learnt, in place of classes."""
    record = data_record(dataset)
    record["target"] = {**record["target"], "task": what, "class_names": [], "outputs": []}
    for part in record["splits"].values():
        part.pop("classes", None)
    return record


def _by_split(pairs: PairSet, samples: Any, source: str) -> DataSet:
    held: Mapping[str, tuple[Pair, ...]] = {name: pairs.split(name).pairs for name in SPLITS}
    splits = {name: samples(chosen) for name, chosen in held.items() if chosen}
    return DataSet(pairs.name, source, UNCHANGED, splits, channels=1, notes=pairs.notes)


def limited(dataset: DataSet, limit: int | None, seed: int) -> DataSet:
    """At most `limit` cases of each split, drawn by `seed`; all for None."""
    if limit is None or all(len(samples) <= limit for samples in dataset.splits.values()):
        return dataset
    splits, words = {}, []
    for name, samples in dataset.splits.items():
        rows: Sequence[int] = np.sort(np.random.default_rng([seed, 5]).permutation(len(samples))[:limit]).tolist()
        splits[name] = take(samples, rows)
        words.append(f"{name} {len(rows)} of {len(samples)}")
    return replace(dataset, splits=splits, notes=(*dataset.notes, f"limited to {', '.join(words)}"))


def _digest(pair: Pair, size: int, how: str, window: str) -> bytes:
    digest = hashlib.blake2b(repr((VERSION, size, how, window, pair.drawn)).encode(), digest_size=16)
    for path in (pair.baseline, pair.followup, pair.map, pair.mask):
        digest.update(b"-" if path is None else b"+")
        if path is not None and pair.drawn is None:
            with suppress(OSError):
                digest.update(Path(path).read_bytes())
    return digest.digest()


def _alignments() -> Path:
    return cache_directory().parent / "alignments"


def _read_alignment(file: Path, size: int) -> Alignment | None:
    """The alignment kept in a file; None where there is none, or anything about it does not add up."""
    try:
        with np.load(file, allow_pickle=False) as held:
            matrix, bend = held["matrix"], held["bend"]
    except (OSError, ValueError, KeyError):
        return None
    if matrix.shape != (2, 3) or bend.shape not in ((0,), (2, size, size)):
        return None
    return Alignment(matrix.astype(np.float64), bend if bend.size else None, (size, size))


def _keep_alignment(file: Path, alignment: Alignment) -> None:
    """Keep it for the next time; a cache that cannot be written costs time and nothing else."""
    draft = file.with_name(f".{secrets.token_hex(4)}.npz")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        bend = np.zeros(0, dtype=np.float32) if alignment.bend is None else alignment.bend
        np.savez(draft, matrix=alignment.matrix, bend=bend)
        draft.replace(file)
    with suppress(OSError):
        draft.unlink(missing_ok=True)
