"""Where maps to be judged come from: a trained network, subtraction, or files that any tool wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from medcli.diffmap.checks import reasons
from medcli.diffmap.network import build_difference
from medcli.diffmap.pairs import Pair
from medcli.diffmap.prepared import PairPictures, filled, prepared_pair
from medcli.diffmap.reading import fit_map, read_map
from medcli.diffmap.registration import How
from medcli.diffmap.run import DifferenceSpec, LoadedDifference, difference_map
from medcli.diffmap.scores import MapSet
from medcli.errors import MedcliError, RunFailure, UsageProblem
from medcli.models.device import Precision, autocast

__all__ = [
    "SUFFIXES",
    "Asked",
    "Consistency",
    "ReadPairs",
    "beside",
    "consistency",
    "has_map",
    "maps_of_folder",
    "maps_of_network",
    "maps_of_subtraction",
    "read_any_map",
    "read_pairs",
    "save_maps",
]

SUFFIXES = (".npy", ".nii.gz", ".nii", ".png")
MOST_CHECKED = 32  # pairs that self-consistency is measured on: it costs up to five passes each
Images = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ReadPairs:
    """Pairs as pixels on one grid.

    Args:
        pairs: those that could be read.
        baselines: float32 [n, S, S], laid over the follow-up.
        followups: float32 [n, S, S].
        truths: float32 [n, S, S], NaN where nothing is known.
        valid: bool [n, S, S], where both images show something.
        file_sizes: (height, width) of each follow-up's file.
        skipped: identifiers and reasons.
    """

    pairs: tuple[Pair, ...]
    baselines: Images
    followups: Images
    truths: Images
    valid: npt.NDArray[np.bool_]
    file_sizes: tuple[tuple[int, int], ...]
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class Asked:
    """How a network is asked.

    Args:
        device: where it is.
        precision: with what numbers.
        batch_size: pairs at a time.
    """

    device: torch.device
    precision: Precision = "fp32"
    batch_size: int = 8


@dataclass(frozen=True)
class Consistency:
    """How far a network keeps to what a map of change must do, in units of the map.

    Args:
        pairs: measured on.
        antisymmetry: mean |f(p, c) + f(c, p)| of the maps as they are made.
        antisymmetry_raw: of a single pass of the network; NaN for maps of magnitudes, which have no opposite.
        same_image: largest |f(c, c)| of the maps as they are made.
        same_image_raw: of a single pass.
    """

    pairs: int
    antisymmetry: float
    antisymmetry_raw: float
    same_image: float
    same_image_raw: float


def read_pairs(
    pairs: Sequence[Pair],
    *,
    size: int,
    how: How,
    window: str = "auto",
    threads: int = 1,
    skip: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> ReadPairs:
    """Read and register pairs, with or without a true map.

    Args:
        pairs: from `load_pairs`.
        size: side of the grid.
        how: registration.
        window: DICOM display window.
        threads: that read at the same time.
        skip: whether pairs that cannot be used are left out.
        progress: called with the number of pairs read.

    Raises:
        RunFailure: a pair cannot be used and `skip` is off, or none can.
    """
    pictures = PairPictures(tuple(pairs), size, how, window)

    def read(index: int) -> tuple[Images, Images, Images, npt.NDArray[np.bool_], tuple[int, int]] | str:
        pair = pairs[index]
        try:
            images = prepared_pair(pair, size, how, window=window, key=pictures.fingerprint(index))
        except MedcliError as problem:
            if problem.code == "missing-extra":
                raise
            return reasons(problem)
        nothing = np.full((size, size), np.nan, dtype=np.float32)
        truth = nothing if images.target is None else images.target.astype(np.float32)
        return filled(images), images.followup, truth, images.valid, images.sizes[1]

    done = []
    with ThreadPoolExecutor(threads) as pool:
        for count, one in enumerate(pool.map(read, range(len(pairs))), 1):
            done.append(one)
            progress(count)
    skipped = tuple((pair.identifier, one) for pair, one in zip(pairs, done, strict=True) if isinstance(one, str))
    kept = [(pair, one) for pair, one in zip(pairs, done, strict=True) if not isinstance(one, str)]
    if skipped and (not skip or not kept):
        name, why = skipped[0]
        raise RunFailure(
            f"{len(skipped)} of {len(pairs)} pairs cannot be used; `{name}`: {why}",
            hint=None if skip else "`--skip-unreadable` leaves them out",
            code="unreadable-pairs",
        )
    columns = list(zip(*(one for _, one in kept), strict=True))
    return ReadPairs(
        tuple(pair for pair, _ in kept),
        np.stack(columns[0]),
        np.stack(columns[1]),
        np.stack(columns[2]),
        np.stack(columns[3]),
        tuple(columns[4]),
        skipped,
    )


def beside(read: ReadPairs, maps: Images, *, signed: bool) -> MapSet:
    """Maps with the truth of their pairs; of magnitudes the truth has none but sizes either."""
    return MapSet(
        tuple(pair.identifier for pair in read.pairs),
        np.array([pair.patient for pair in read.pairs], dtype=np.str_),
        maps,
        read.truths if signed else np.abs(read.truths),
        signed,
    )


def maps_of_network(loaded: LoadedDifference, read: ReadPairs, asked: Asked) -> Images:
    """What a trained network makes, float32 [n, S, S]; antisymmetric where it has signs, as in use."""
    made = []
    for before, after in _batches(read, asked):
        with autocast(asked.device, asked.precision):
            made.append(loaded.map(before, after)[:, 0].float().cpu().numpy())
    return np.concatenate(made)


def maps_of_subtraction(read: ReadPairs, *, signed: bool) -> Images:
    """What registered subtraction makes of the same pairs."""
    size = read.followups.shape[-1]
    spec = DifferenceSpec("medcli/subtraction", "difference", "signed" if signed else "magnitude", 1, size)
    network = build_difference("medcli/subtraction", in_channels=1, image_size=size, map=spec.map).eval()
    made = []
    with torch.inference_mode():
        for before, after in _batches(read, Asked(torch.device("cpu"))):
            made.append(difference_map(network, spec, before, after)[:, 0].numpy())
    return np.concatenate(made)


def consistency(loaded: LoadedDifference, read: ReadPairs, asked: Asked) -> Consistency:
    """Antisymmetry, and what a network makes of an image and itself, on the first pairs."""
    count = min(len(read), MOST_CHECKED)
    few = replace(
        read,
        pairs=read.pairs[:count],
        baselines=read.baselines[:count],
        followups=read.followups[:count],
    )
    signed = loaded.spec.map == "signed"
    opposite: dict[bool, list[float]] = {True: [], False: []}
    same: dict[bool, list[float]] = {True: [], False: []}
    for before, after in _batches(few, asked):
        for kept in (True, False):
            with autocast(asked.device, asked.precision):
                both = loaded.map(before, after, kept) + loaded.map(after, before, kept)
                itself = loaded.map(after, after, kept)
            opposite[kept] += both.float().abs().mean(dim=(1, 2, 3)).tolist()
            same[kept].append(float(itself.float().abs().max()))
    nothing = float("nan")
    return Consistency(
        count,
        float(np.mean(opposite[True])) if signed else nothing,
        float(np.mean(opposite[False])) if signed else nothing,
        max(same[True]),
        max(same[False]),
    )


def has_map(folder: Path, identifier: str) -> bool:
    """Whether a folder holds a map of this pair."""
    return _file(folder, identifier) is not None


def maps_of_folder(folder: Path, read: ReadPairs, *, signed: bool) -> Images:
    """Maps that any tool wrote, `FOLDER/PAIR.npy` (or .nii.gz, .nii, 16-bit .png), float32 [n, S, S].

    A map lies either on the follow-up's own pixels or on the square grid itself. NaN says that nothing was found.

    Raises:
        RunFailure: a map is missing, cannot be read, has another size, or is negative though it has no signs.
    """
    size = read.followups.shape[-1]
    out = np.zeros_like(read.followups)
    for number, (pair, file_size) in enumerate(zip(read.pairs, read.file_sizes, strict=True)):
        path = _file(folder, pair.identifier)
        if path is None:
            raise RunFailure(
                f"`{folder}` holds no map of pair `{pair.identifier}`",
                hint=f"`{folder / pair.identifier}.npy`, or .nii.gz or .png in its place",
                code="missing-map",
            )
        values = read_any_map(path)
        if values.shape not in ((size, size), tuple(file_size)):
            raise RunFailure(
                f"`{path}` has {values.shape[1]}×{values.shape[0]} pixels: a map lies on the follow-up's own "
                f"{file_size[1]}×{file_size[0]} pixels, or on the square grid of {size}",
                hint=f"`--image-size {max(values.shape)}` makes that the grid",
                code="size-mismatch",
            )
        if not signed and values.min() < 0:
            raise RunFailure(
                f"`{path}` has values below 0, and a map of magnitudes has none", hint="--map signed", code="map-range"
            )
        out[number] = values if values.shape == (size, size) else fit_map(values, size)
    return out


def save_maps(folder: Path, maps: MapSet) -> int:
    """Write each map as `FOLDER/PAIR.npy`; how many.

    Raises:
        UsageProblem: a pair's name leads out of the folder.
    """
    for name, values in zip(maps.ids, maps.maps, strict=True):
        path = _inside(folder, name).with_name(f"{Path(name).name}.npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values.astype(np.float32))
    return len(maps)


def _batches(read: ReadPairs, asked: Asked) -> Sequence[tuple[torch.Tensor, torch.Tensor]]:
    return [
        tuple(  # type: ignore[misc]
            torch.from_numpy(images[start : start + asked.batch_size, None]).to(asked.device)
            for images in (read.baselines, read.followups)
        )
        for start in range(0, len(read), asked.batch_size)
    ]


def read_any_map(path: Path) -> Images:
    """A map of any tool at its own size; NaN counts as nothing found.

    Raises:
        RunFailure: unreadable, no map, or outside [-1, 1].
    """
    if path.suffix != ".npy":
        return read_map(str(path))
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise RunFailure(f"`{path}` cannot be read: {error}", code="unreadable-image") from None
    values = np.squeeze(values)
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise RunFailure(f"`{path}` holds no map: {values.dtype} {list(values.shape)}", code="map-shape")
    known = np.nan_to_num(values.astype(np.float32), nan=0.0)
    if float(np.abs(known).max(initial=0)) > 1.001:
        raise RunFailure(f"`{path}` has values outside [-1, 1]", code="map-range")
    clipped: Images = np.clip(known, -1, 1)
    return clipped


def _file(folder: Path, identifier: str) -> Path | None:
    stem = _inside(folder, identifier)
    places = [stem.with_name(stem.name + suffix) for suffix in SUFFIXES]
    return next((path for path in places if path.is_file()), None)


def _inside(folder: Path, identifier: str) -> Path:
    path = folder / identifier
    if not path.resolve().is_relative_to(folder.resolve()) or not path.name:
        raise UsageProblem(f"pair `{identifier}` has a name that leads out of `{folder}`", code="bad-name")
    return path
