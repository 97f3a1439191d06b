"""Pairs, and what a run of a difference model says to them: what its export is compared with.

Some are asked as the network is used, aligned and in units; others as their files are, bytes of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medcli.bundles.pictures import as_input
from medcli.data.dataset import Picture, Preprocessing
from medcli.data.named_sets import named_sets
from medcli.data.resize import to_planes
from medcli.diffmap.pairs import Drawn, Pair, synthetic_pairs
from medcli.diffmap.phantom import draw_phantom_pair
from medcli.diffmap.prepared import prepared_pair
from medcli.diffmap.preparing import filled
from medcli.diffmap.reading import read_image
from medcli.diffmap.run import LoadedDifference, MapNetwork
from medcli.diffmap.sources import columns_of, load_pairs
from medcli.errors import MedcliError, UsageProblem
from medcli.export.comparing import ExpectedMaps
from medcli.runs.directory import RunDirectory
from medcli.runs.records import read_config
from medcli.settings.diffmap_groups import PairTableSettings
from medcli.settings.groups import DataSettings

__all__ = ["drawn_batches", "real_batches"]

TRIED = 12
"""Most pairs that are looked at: registering one takes seconds."""

SEED = 7
Images = npt.NDArray[Any]


def drawn_batches(loaded: LoadedDifference, how: Preprocessing) -> tuple[ExpectedMaps, ...]:
    """Two drawn pairs for the self-test, one of bytes and one above eight bits, neither of the network's size."""
    found = []
    for number, deep in enumerate((False, True)):
        drawn = draw_phantom_pair(Drawn(SEED, number, 96))
        pictures = [_cut(image, deep=deep) for image in (drawn.prior, drawn.current)]
        found.append(_asked(loaded, how, [pictures[0]], [pictures[1]]))
    return tuple(found)


def real_batches(
    run: RunDirectory, loaded: LoadedDifference, how: Preprocessing, data: Sequence[str], sizes: Sequence[int]
) -> tuple[tuple[ExpectedMaps, ...], str]:
    """Pairs of the run's own data, or of `data`, one by one and in batches.

    Args:
        run: the run.
        loaded: its network.
        how: from a picture to what the network is given.
        data: other pairs than the run's own; empty for those.
        sizes: of batches beside single pairs.

    Returns:
        what the run says, and why the pairs are drawn ones, or nothing.

    Raises:
        UsageProblem: no pair of `data` can be used (code `no-images`).
    """
    spec, why = loaded.spec, ""
    try:
        pairs, window = _pairs(run, spec.image_size, data)
        ready = _ready(pairs, loaded, window)
    except MedcliError as problem:
        if data:
            raise UsageProblem(
                f"there are no pairs to compare the export with: {problem.message}",
                where="--data",
                hint="`--data PATH` names others, `--no-verify` does without a comparison",
                code="no-images",
            ) from problem
        why, window = problem.message, "auto"
        pairs = list(synthetic_pairs(3, seed=SEED, size=spec.image_size).pairs)
        ready = _ready(pairs, loaded, window)
    batches = [_asked(loaded, how, [ready[0][1]], [ready[0][2]])]
    as_files = _as_file(ready[0][0], window)
    batches.append(_asked(loaded, how, [as_files[0]], [as_files[1]]))
    for size in sizes:
        chosen = [ready[row % len(ready)] for row in range(size)]
        batches.append(_asked(loaded, how, [one[1] for one in chosen], [one[2] for one in chosen]))
    return tuple(batches), why


def _pairs(run: RunDirectory, size: int, data: Sequence[str]) -> tuple[list[Pair], str]:
    resolved = read_config(run).resolved()
    settings = resolved.group(DataSettings)
    wanted = replace(settings, data=tuple(data)) if data else settings
    named = named_sets(wanted, resolved.data_tables)[0]
    columns = columns_of(named.settings, resolved.group(PairTableSettings))
    pairs = load_pairs(named.path, columns, count=TRIED, size=size).pairs
    if not pairs:
        raise UsageProblem("it holds no pairs")
    rows = np.unique(np.linspace(0, len(pairs) - 1, num=min(TRIED, len(pairs))).astype(int))
    return [pairs[row] for row in rows.tolist()], settings.window


def _ready(pairs: Sequence[Pair], loaded: LoadedDifference, window: str) -> list[tuple[Pair, Picture, Picture]]:
    """The first three that can be used, as the network sees them."""
    found: list[tuple[Pair, Picture, Picture]] = []
    for pair in pairs:
        try:
            images = prepared_pair(pair, loaded.spec.image_size, loaded.spec.register, window=window)
        except MedcliError as problem:
            if problem.code == "missing-extra":
                raise
            continue
        found.append((pair, Picture(filled(images), 0.0, 1.0), Picture(images.followup, 0.0, 1.0)))
        if len(found) == 3:
            break
    if not found:
        raise UsageProblem(f"none of the {len(pairs)} pairs that were looked at can be used")
    return found


def _as_file(pair: Pair, window: str) -> tuple[Picture, Picture]:
    if pair.drawn is not None:
        drawn = draw_phantom_pair(pair.drawn)
        return _cut(drawn.prior), _cut(drawn.current, top=3)
    return read_image(pair.baseline, window), read_image(pair.followup, window)


def _cut(image: npt.NDArray[np.float32], *, top: int = 0, deep: bool = False) -> Picture:
    """A drawn picture that is no square."""
    shown = image[top:, : max(1, image.shape[1] - image.shape[1] // 7)]
    if not deep:
        return Picture(np.rint(shown * 255).astype(np.uint8), 0, 255)
    return Picture(np.ascontiguousarray(shown, dtype=np.float32), 0.0, 1.0)


def _asked(
    loaded: LoadedDifference, how: Preprocessing, baselines: Sequence[Picture], followups: Sequence[Picture]
) -> ExpectedMaps:
    """What the run's own network says, through the definition of resizing that everything is trained with."""
    sides = []
    for pictures in (baselines, followups):
        planes = torch.stack([to_planes(one, how) for one in pictures])
        sides.append(planes.clamp(0, 1))
    maps = loaded.map(sides[0], sides[1])
    before, after = (np.stack([as_input(one) for one in side]) for side in (baselines, followups))
    return ExpectedMaps(before, after, maps[:, 0].float().numpy(), partial(_rounding, loaded, sides, maps))


@torch.inference_mode()
def _rounding(loaded: LoadedDifference, sides: Sequence[torch.Tensor], maps: torch.Tensor) -> float:
    """How far float32 alone moves the maps: a network that divides by next to nothing magnifies its last bits."""
    exact = MapNetwork(replace(loaded, network=deepcopy(loaded.network))).double()
    return float((exact(sides[0].double(), sides[1].double()) - maps).abs().max())
