"""What `--data` names, as a data set to learn from: pairs with true maps, or pictures of which parts are hidden."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medcli.data.dataset import DataSet, Samples
from medcli.data.load import load_data
from medcli.data.named_sets import Named, named_sets
from medcli.data.sources.files import FileImages, images_below
from medcli.data.splits import SPLITS, assign
from medcli.data.synthetic.source import SETS
from medcli.diffmap.pairs import DEFAULT_PAIRS, PATTERN, SYNTHETIC_PAIRS, PairSet
from medcli.diffmap.prepared import UNCHANGED, limited, pair_set, picture_set
from medcli.diffmap.registration import How
from medcli.diffmap.sources import columns_of, load_pairs, with_splits
from medcli.errors import UsageProblem
from medcli.settings.diffmap_groups import PairTableSettings
from medcli.settings.groups import DataSettings

__all__ = ["pairs_to_learn", "pictures_to_learn", "require_splits"]

Tables = Mapping[str, Mapping[str, Any]]
NAMED = PairTableSettings()  # columns by the names that need no flags


@dataclass(frozen=True)
class _Source:
    """One data set as it was asked for."""

    named: Named
    size: int
    table: PairTableSettings

    @property
    def path(self) -> str:
        return self.named.path

    @property
    def settings(self) -> DataSettings:
        return self.named.settings


def pairs_to_learn(
    settings: DataSettings, tables: Tables, *, size: int, how: How, table: PairTableSettings = NAMED
) -> DataSet:
    """Pairs with true maps; no image is read yet.

    Args:
        settings: what to read.
        tables: `[data.NAME]` tables of configuration files.
        size: side in pixels.
        how: registration.
        table: which column of a table of pairs holds what.

    Raises:
        UsageProblem: no pairs there, pairs without maps, or too few to fill a split.
    """
    source = _one(settings, tables, size, table)
    pairs = replace(_pairs(source, mapped=True), name=source.named.name)
    return pair_set(
        pairs, source.path, size=size, how=how, window=settings.window, limit=settings.limit, seed=settings.split_seed
    )


def pictures_to_learn(
    settings: DataSettings, tables: Tables, *, size: int, table: PairTableSettings = NAMED
) -> DataSet:
    """Pictures: a folder of them at any depth, a built-in set, or both images of every pair of a set of pairs.

    Raises:
        UsageProblem: nothing of the kind is there, or too few to fill a split.
    """
    source = _one(settings, tables, size, table)
    if source.path in SETS:
        own = source.settings
        drawn = DataSettings(
            data=settings.data, limit=own.limit, image_size=size, split=own.split, split_seed=own.split_seed
        )
        return load_data(drawn, data_tables=tables)[0]
    folder = Path(source.path).expanduser()
    try:
        pairs = _pairs(source, mapped=False)
    except UsageProblem as problem:
        if problem.code != "no-pairs":
            raise
        return limited(_folder(folder, source), settings.limit, settings.split_seed)
    pairs = replace(pairs, name=source.named.name)
    return picture_set(
        pairs, source.path, size=size, window=settings.window, limit=settings.limit, seed=settings.split_seed
    )


def require_splits(data: DataSet) -> None:
    """Training needs cases to learn from and cases to choose the best epoch by.

    Raises:
        UsageProblem: a split is missing.
    """
    for split in ("train", "val"):
        if split not in data.splits:
            raise UsageProblem(
                f"`{data.name}` has nothing in `{split}`",
                where=data.origin,
                hint="let medcli draw splits with `--split 0.7,0.15,0.15`, or mend the set's own",
                code="no-split",
            )


def _one(settings: DataSettings, tables: Tables, size: int, table: PairTableSettings) -> _Source:
    if not settings.data:
        raise UsageProblem(
            "no data was named",
            where="--data",
            hint=f"`--data {SYNTHETIC_PAIRS}` needs no files; `medcli diffmap synth` makes pairs of your radiographs",
            code="no-data",
        )
    sets = named_sets(settings, tables)
    if len(sets) > 1:
        raise UsageProblem(
            f"a training takes one data set, not {len(sets)}", where="--data", hint="name one", code="one-data-set"
        )
    return _Source(sets[0], size, table)


def _pairs(source: _Source, *, mapped: bool) -> PairSet:
    """Pairs with splits; `mapped` refuses those without a true map."""
    limit, share = source.settings.limit, PATTERN.count("train") / len(PATTERN)
    count = DEFAULT_PAIRS if limit is None else max(len(PATTERN), math.ceil(limit / share))
    pairs = load_pairs(source.path, columns_of(source.settings, source.table), count=count, size=source.size)
    without = [pair.identifier for pair in pairs.pairs if pair.map is None and pair.drawn is None]
    if mapped and without:
        raise UsageProblem(
            f"{len(without)} of {len(pairs)} pairs have no true map ({', '.join(without[:3])}"
            f"{', …' if len(without) > 3 else ''})",
            where="--data",
            hint="`medcli diffmap synth --source FOLDER` makes pairs with maps from radiographs",
            code="no-maps",
        )
    return with_splits(pairs, source.settings.split, source.settings.split_seed)


def _folder(folder: Path, source: _Source) -> DataSet:
    paths, _ = images_below(str(folder))
    if not paths:
        raise UsageProblem(f"`{source.path}` holds neither pairs nor images", where="--data", code="empty-folder")
    names = np.array([Path(path).relative_to(folder).as_posix() for path in paths])
    parts = assign(np.ones((len(paths), 1), dtype=np.bool_), None, source.settings.split, source.settings.split_seed)
    splits = {}
    for number, split in enumerate(SPLITS):
        rows = np.flatnonzero(parts == number)
        if len(rows):
            chosen = tuple(paths[row] for row in rows.tolist())
            labels = np.zeros(len(rows), dtype=np.int64)
            splits[split] = Samples(names[rows], FileImages(chosen, source.settings.window), labels)
    return DataSet(source.named.name, source.path, UNCHANGED, splits, channels=1, made_splits=True)
