"""What `diffmap evaluate` was asked for, carried out: which pairs, which maps, which thresholds."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medcli.data.named_sets import named_sets
from medcli.diffmap.components import least_area
from medcli.diffmap.judgement import Judgement, Threshold, judge_maps
from medcli.diffmap.map_sources import (
    SUFFIXES,
    Asked,
    ReadPairs,
    beside,
    consistency,
    has_map,
    maps_of_folder,
    maps_of_network,
    maps_of_subtraction,
    read_any_map,
    read_pairs,
    save_maps,
)
from medcli.diffmap.metrics import best_threshold, is_changed
from medcli.diffmap.pairs import DEFAULT_PAIRS, PATTERN, SYNTHETIC_PAIRS, Pair, PairSet
from medcli.diffmap.readers import read_readings
from medcli.diffmap.reading import MAP_MIDDLE
from medcli.diffmap.registration import How
from medcli.diffmap.run import LoadedDifference, load_difference_run
from medcli.diffmap.scores import MapSet
from medcli.diffmap.sources import columns_of, load_pairs
from medcli.errors import UsageProblem
from medcli.models.device import choose_device, choose_precision
from medcli.settings.diffmap_groups import PairTableSettings
from medcli.settings.groups import ComputeSettings, DataSettings, FoundMapSettings, MapScoreSettings

__all__ = ["ScoreRequest", "Scored", "is_run", "score"]

MOST_THREADS = 4
LARGEST_GRID = 512  # of maps in a folder, where no `--image-size` is given
Progress = Callable[[str, int], Callable[[int], None]]


@dataclass(frozen=True)
class ScoreRequest:
    """What was asked for.

    Args:
        source: a run, or a folder of maps.
        data: what pairs.
        tables: `[data.NAME]` tables of configuration files.
        found: threshold and smallest finding.
        wanted: readers, what is written.
        compute: device, batches, threads, seed.
        on: split to judge; None takes test, else val, else everything.
        register: how; None takes the run's own way, and `affine` for maps from files.
        signed: of maps from files.
        resamples: of the bootstrap.
        table: which column of a table of pairs holds what.
    """

    source: str
    data: DataSettings
    tables: Mapping[str, Mapping[str, Any]]
    found: FoundMapSettings
    wanted: MapScoreSettings
    compute: ComputeSettings
    on: str | None = None
    register: How | None = None
    signed: bool = True
    resamples: int = 1000
    table: PairTableSettings = field(default_factory=PairTableSettings)


@dataclass(frozen=True)
class Scored:
    """What came of it.

    Args:
        judgement: all figures.
        maps: that were judged.
        notes: sentences the user should read.
    """

    judgement: Judgement
    maps: MapSet
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """A network or a folder, and how pairs are read for it."""

    folder: Path
    loaded: LoadedDifference | None
    size: int
    how: How
    signed: bool
    asked: Asked | None


def is_run(source: str) -> bool:
    """Whether a path is a run rather than a folder of maps."""
    return (Path(source) / "status.json").is_file()


def score(request: ScoreRequest, progress: Progress) -> Scored:
    """Judge maps beside subtraction.

    Raises:
        UsageProblem: no such source or pairs, no threshold, no truth.
        RunFailure: a file cannot be read.
    """
    source = _source(request)
    judged, chosen_by, split, name = _pairs(request, source)
    notes: list[str] = []
    read = _read(judged, request, source, progress("pairs read", len(judged)))
    if read.skipped:
        notes.append(f"{len(read.skipped)} of {len(judged)} pairs could not be used and are left out")
    val = None
    if chosen_by:
        val = _read(chosen_by, request, source, progress("val pairs read", len(chosen_by)))
        if not any(is_changed(truth) for truth in val.truths):
            val = None
    plain_maps = beside(read, maps_of_subtraction(read, signed=source.signed), signed=source.signed)
    maps = beside(read, _maps(source, read), signed=source.signed)
    own = _threshold(request, source, val)
    plain = _plain_threshold(val, own, source)
    readings = read_readings(request.wanted.readers) if request.wanted.readers else ()
    judgement = judge_maps(
        request.source,
        name,
        split,
        read,
        (maps, plain_maps),
        (own, plain),
        register=source.how,
        min_area=least_area(source.size) if request.found.min_area is None else request.found.min_area,
        resamples=request.resamples,
        seed=request.compute.seed,
        readings=readings,
        consistent=None
        if source.loaded is None or source.asked is None
        else consistency(source.loaded, read, source.asked),
    )
    frozen = _of_run(source)
    if frozen is not None and frozen != own.value:
        notes.append(
            f"the run's own threshold, which `predict` takes, is {frozen:g}: `--threshold {frozen:g}` judges it"
        )
    if request.wanted.save_maps:
        count = save_maps(Path(request.wanted.save_maps), maps)
        notes.append(f"{count} maps written to {request.wanted.save_maps}")
    unknown = sorted({one.pair for one in readings} - {pair.identifier for pair in read.pairs})
    if unknown:
        notes.append(f"readings of pairs that are not judged were left out: {len(unknown)} (such as `{unknown[0]}`)")
    return Scored(judgement, maps, tuple(notes))


def _source(request: ScoreRequest) -> _Source:
    folder = Path(request.source).expanduser()
    if is_run(request.source):
        device = choose_device(request.compute.device)
        loaded = load_difference_run(folder, device)
        asked = Asked(device, choose_precision(request.compute.precision, device), request.compute.batch_size)
        if request.data.image_size not in (None, loaded.spec.image_size):
            raise UsageProblem(
                f"`{request.source}` was trained with {loaded.spec.image_size} pixels",
                where="--image-size",
                hint="leave it out: the run says it",
                code="fixed-by-run",
            )
        how = request.register or loaded.spec.register
        return _Source(folder, loaded, loaded.spec.image_size, how, loaded.spec.map == "signed", asked)
    if not folder.is_dir():
        raise UsageProblem(
            f"`{request.source}` " + ("is no folder" if folder.exists() else "does not exist"),
            where="RUN|MAPS",
            hint="name a run of `medcli diffmap train`, or a folder of maps called as the pairs are",
            code="missing-path",
        )
    size = request.data.image_size or _grid(folder)
    return _Source(folder, None, size, request.register or "affine", request.signed, None)


def _grid(folder: Path) -> int:
    """The long side of the first map in a folder."""
    first = next((path for path in sorted(folder.rglob("*")) if path.name.endswith(SUFFIXES)), None)
    if first is None:
        raise UsageProblem(
            f"`{folder}` is no run and holds no maps",
            where="RUN|MAPS",
            hint=f"maps are called as their pairs: `PAIR.npy`, `.nii.gz`, or 16-bit `.png` ({MAP_MIDDLE} is 0)",
            code="no-maps",
        )
    return min(LARGEST_GRID, max(int(side) for side in read_any_map(first).shape))


def _pairs(request: ScoreRequest, source: _Source) -> tuple[tuple[Pair, ...], tuple[Pair, ...], str, str]:
    """Pairs to judge, pairs to choose thresholds on, the split's name (empty for all) and the set's."""
    if not request.data.data:
        raise UsageProblem(
            "no data was named",
            where="--data",
            hint=f"`--data {SYNTHETIC_PAIRS}` needs no files; `medcli diffmap synth` makes pairs of your radiographs",
            code="no-data",
        )
    sets = named_sets(request.data, request.tables)
    if len(sets) > 1:
        raise UsageProblem(
            f"one set of pairs is judged at a time, not {len(sets)}",
            where="--data",
            hint="name one",
            code="one-data-set",
        )
    named, limit = sets[0], request.data.limit
    share = PATTERN.count("test") / len(PATTERN)
    count = DEFAULT_PAIRS if limit is None else max(len(PATTERN), int(np.ceil((limit + 1) / share)))
    pairs = load_pairs(named.path, columns_of(named.settings, request.table), count=count, size=source.size)
    splits = {pair.split for pair in pairs.pairs}
    if splits == {""}:
        if request.on is not None:
            raise UsageProblem(
                f"`{named.path}` has no splits: all its pairs are judged", where="--on", code="no-splits"
            )
        return _some(pairs, request), (), "", named.name
    split = request.on or next((one for one in ("test", "val") if one in splits), "")
    judged = pairs.split(split) if split else pairs
    if not len(judged):
        raise UsageProblem(f"`{named.path}` has no pairs in `{split}`", where="--on", code="no-split")
    val = _some(pairs.split("val"), request) if split != "val" else ()
    return _some(judged, request), val, split, named.name


def _some(pairs: PairSet, request: ScoreRequest) -> tuple[Pair, ...]:
    limit = request.data.limit
    if limit is None or len(pairs) <= limit:
        return pairs.pairs
    order = np.random.default_rng([request.data.split_seed, 5]).permutation(len(pairs))[:limit]
    return tuple(pairs.pairs[row] for row in np.sort(order).tolist())


def _read(
    pairs: tuple[Pair, ...], request: ScoreRequest, source: _Source, progress: Callable[[int], None]
) -> ReadPairs:
    workers = request.compute.workers
    threads = min(MOST_THREADS, os.cpu_count() or 1) if workers is None else max(1, workers)
    return read_pairs(
        pairs,
        size=source.size,
        how=source.how,
        window=request.data.window,
        threads=threads,
        skip=request.data.skip_unreadable,
        progress=progress,
    )


def _maps(source: _Source, read: ReadPairs) -> Any:
    if source.loaded is not None and source.asked is not None:
        return maps_of_network(source.loaded, read, source.asked)
    return maps_of_folder(source.folder, read, signed=source.signed)


def _threshold(request: ScoreRequest, source: _Source, val: ReadPairs | None) -> Threshold:
    """What was typed, else what validation pairs of these data choose, as for subtraction, else what the run kept."""
    if request.found.threshold is not None:
        return Threshold(request.found.threshold, "given with `--threshold`")
    if val is not None and source.loaded is None:
        val = _with_maps(val, source.folder)
    if val is not None:
        return _best(beside(val, _maps(source, val), signed=source.signed))
    kept = _of_run(source)
    if kept is not None:
        return Threshold(kept, "chosen on the validation pairs of the run's own training (largest Dice)")
    raise UsageProblem(
        f"nothing says at which threshold the maps of `{request.source}` mean a change",
        where="--threshold",
        hint="`--threshold 0.05`, or pairs with a `val` split whose maps are in the folder too",
        code="no-threshold",
    )


def _of_run(source: _Source) -> float | None:
    kept = source.loaded.extra.get("threshold") if source.loaded is not None else None
    return float(kept) if isinstance(kept, int | float) and 0 < kept <= 1 else None


def _with_maps(val: ReadPairs, folder: Path) -> ReadPairs | None:
    """Those pairs of which the folder holds a map; None where none of them changed."""
    kept = [row for row, pair in enumerate(val.pairs) if has_map(folder, pair.identifier)]
    if not any(is_changed(val.truths[row]) for row in kept):
        return None
    return replace(
        val,
        pairs=tuple(val.pairs[row] for row in kept),
        baselines=val.baselines[kept],
        followups=val.followups[kept],
        truths=val.truths[kept],
        valid=val.valid[kept],
        file_sizes=tuple(val.file_sizes[row] for row in kept),
    )


def _plain_threshold(val: ReadPairs | None, own: Threshold, source: _Source) -> Threshold:
    if val is None:
        return Threshold(own.value, "that of the maps judged: there are no validation pairs to choose its own on")
    return _best(beside(val, maps_of_subtraction(val, signed=source.signed), signed=source.signed))


def _best(maps: MapSet) -> Threshold:
    changed = sum(is_changed(truth) for truth in maps.truths)
    value = best_threshold(list(maps.maps), list(maps.truths))
    return Threshold(value, f"chosen on {changed} changed validation pairs of these data (largest Dice)")
