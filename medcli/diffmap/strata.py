"""Figures by kind of finding and by its course, where the pairs say what happened in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medcli.diffmap.pairs import Pair
from medcli.diffmap.phantom import draw_phantom_pair
from medcli.diffmap.scores import Scores

__all__ = ["Stratum", "happenings", "strata"]

FIGURES = ("auprc", "dice", "nuisance_area")


@dataclass(frozen=True)
class Stratum:
    """Pairs that have something in common; a pair with several findings stands in several of them.

    Args:
        by: `kind` or `course`.
        name: such as `effusion`.
        pairs: how many.
        findings: true findings in them.
        hit: of these, found at the threshold, by model and by subtraction.
        figures: name -> (model, subtraction); NaN where undefined.
    """

    by: str
    name: str
    pairs: int
    findings: int
    hit: tuple[int, int]
    figures: Mapping[str, tuple[float, float]]


def happenings(pair: Pair) -> tuple[tuple[str, str], ...] | None:
    """(kind, course) of everything wrong in a pair: from `params.json` beside its images, or from its drawing.

    None where nothing is said.
    """
    if pair.drawn is not None:
        told = draw_phantom_pair(pair.drawn).parameters
    else:
        path = Path(pair.baseline).parent / "params.json"
        try:
            told = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            return None
    changes = told.get("changes") if isinstance(told, dict) else None
    if not isinstance(changes, list) or not all(isinstance(one, dict) for one in changes):
        return None
    return tuple((str(one.get("kind")), str(one.get("course"))) for one in changes)


def strata(pairs: Sequence[Pair], model: Scores, plain: Scores) -> tuple[Stratum, ...]:
    """Changed pairs by the kind and the course of what changed, unchanged ones by what stayed in them."""
    told = [happenings(pair) for pair in pairs]
    if all(one is None for one in told):
        return ()
    groups: dict[tuple[str, str], list[int]] = {}
    for number, (one, changed) in enumerate(zip(told, model.changed.tolist(), strict=True)):
        if one is None or not model.known[number]:
            continue
        if not changed:
            groups.setdefault(("unchanged", "with findings that persist" if one else "without findings"), []).append(
                number
            )
            continue
        moved = [(kind, course) for kind, course in one if course != "persist"]
        for kind in dict.fromkeys(kind for kind, _ in moved):
            groups.setdefault(("kind", kind), []).append(number)
        for course in dict.fromkeys(course for _, course in moved):
            groups.setdefault(("course", course), []).append(number)
    order = sorted(groups, key=lambda key: (("kind", "course", "unchanged").index(key[0]), key[1]))
    return tuple(_stratum(by, name, groups[by, name], model, plain) for by, name in order)


def _stratum(by: str, name: str, rows: list[int], model: Scores, plain: Scores) -> Stratum:
    chosen: npt.NDArray[np.bool_] = np.zeros(len(model.maps), dtype=np.bool_)
    chosen[rows] = True
    both = [_part(one, rows).values() for one in (model, plain)]
    figures = {figure: (both[0][figure], both[1][figure]) for figure in FIGURES}
    hits = [one.froc.of(chosen) for one in (model, plain)]
    return Stratum(by, name, len(rows), hits[0][1], (hits[0][0], hits[1][0]), figures)


def _part(scores: Scores, rows: list[int]) -> Scores:
    maps = scores.maps
    few = replace(
        maps,
        ids=tuple(maps.ids[row] for row in rows),
        patients=maps.patients[rows],
        maps=maps.maps[rows],
        truths=maps.truths[rows],
    )
    return Scores(few, threshold=scores.threshold, above=scores.above, min_area=scores.min_area)
