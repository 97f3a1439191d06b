"""From maps and pairs to everything `diffmap evaluate` says, with subtraction always beside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from medcli.diffmap.components import components
from medcli.diffmap.map_sources import Consistency, ReadPairs
from medcli.diffmap.readers import Agreement, Finding, Reading, agreement, of_components
from medcli.diffmap.scores import DATA_RANGE, MapSet, Scores, figures_with_intervals
from medcli.diffmap.strata import Stratum, strata
from medcli.errors import UsageProblem
from medcli.evaluation.figures import Figure

__all__ = ["Judgement", "Side", "Threshold", "judge_maps"]


@dataclass(frozen=True)
class Threshold:
    """Of |map|.

    Args:
        value: at or above it a pixel is found.
        origin: where it comes from, in words.
    """

    value: float
    origin: str


@dataclass(frozen=True)
class Side:
    """One of the two that are compared.

    Args:
        name: as shown.
        threshold: its own.
        figures: by name.
        scores: what they were made from.
    """

    name: str
    threshold: Threshold
    figures: Mapping[str, Figure]
    scores: Scores


@dataclass(frozen=True)
class Judgement:
    """Everything that is said about a set of maps.

    Args:
        source: the run or the folder of maps.
        data: name of the pairs.
        split: of them, empty for all.
        size: side of the grid in pixels.
        register: how the earlier images were laid over the later ones.
        patients: how many, counting pairs without a patient as one each.
        model: the maps that are judged.
        plain: subtraction.
        differences: model minus subtraction, on the same resamples.
        strata: by kind and course; empty where the pairs do not say.
        agreement: with readers, or None.
        consistency: of the network, or None for maps from files.
        resamples: of the bootstrap.
    """

    source: str
    data: str
    split: str
    size: int
    register: str
    patients: int
    model: Side
    plain: Side
    differences: Mapping[str, Figure]
    strata: tuple[Stratum, ...]
    agreement: Agreement | None
    consistency: Consistency | None
    resamples: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        scores = self.model.scores

        def side(one: Side) -> dict[str, Any]:
            return {
                "name": one.name,
                "threshold": asdict(one.threshold),
                "figures": {name: figure.to_dict() for name, figure in one.figures.items()},
            }

        return {
            "source": self.source,
            "data": self.data,
            "split": self.split or None,
            "pairs": len(scores.maps),
            "changed": int(scores.changed.sum()),
            "unchanged": int(scores.quiet.sum()),
            "without_truth": int((~scores.known).sum()),
            "patients": self.patients,
            "true_findings": scores.froc.findings,
            "image_size": self.size,
            "register": self.register,
            "map": "signed" if scores.maps.signed else "magnitude",
            "changed_above": scores.above,
            "min_area": scores.min_area,
            "data_range": DATA_RANGE,
            "interval": f"95 % percentile interval of {self.resamples} resamples of patients; for AUPRC and AUROC of "
            "pixels the estimate is exact and its spread comes from pixels counted into bins",
            "model": side(self.model),
            "subtraction": side(self.plain),
            "differences": {name: figure.to_dict() for name, figure in self.differences.items()},
            "strata": [_plain(asdict(one)) for one in self.strata],
            "consistency": None if self.consistency is None else _plain(asdict(self.consistency)),
            "readers": None if self.agreement is None else self.agreement.to_dict(),
        }


def judge_maps(
    source: str,
    data: str,
    split: str,
    read: ReadPairs,
    sets: tuple[MapSet, MapSet],
    thresholds: tuple[Threshold, Threshold],
    *,
    register: str,
    min_area: int,
    resamples: int,
    seed: int,
    readings: Sequence[Reading] = (),
    consistent: Consistency | None = None,
) -> Judgement:
    """Score maps and subtraction on the same pairs.

    Args:
        source: the run or the folder of maps.
        data: name of the pairs.
        split: of them.
        read: the pairs.
        sets: maps of the model and of subtraction.
        thresholds: of both.
        register: how the pairs were laid over each other.
        min_area: of a finding, in pixels.
        resamples: of patients.
        seed: of the resamples.
        readings: what readers marked.
        consistent: of the network.

    Raises:
        UsageProblem: no pair has a true map and no reader read one; readings of other pairs alone.
    """
    scores = [Scores(maps, threshold=one.value, min_area=min_area) for maps, one in zip(sets, thresholds, strict=True)]
    agreed = _agreement(readings, read, scores[0]) if readings else None
    if not scores[0].known.any() and agreed is None:
        raise UsageProblem(
            f"none of {len(read)} pairs has a true map",
            where="--data",
            hint="`medcli diffmap synth` makes pairs with maps; `--readers FOLDER` compares with what readers marked",
            code="no-maps",
        )
    figures, (differences,) = figures_with_intervals(scores, resamples=resamples, seed=seed)
    names = ("maps" if consistent is None else "model", "subtraction")
    model, plain = (
        Side(name, threshold, own, one)
        for name, threshold, own, one in zip(names, thresholds, figures, scores, strict=True)
    )
    named = {pair.patient for pair in read.pairs if pair.patient}
    patients = len(named) + sum(not pair.patient for pair in read.pairs)
    return Judgement(
        source,
        data,
        split,
        read.followups.shape[-1],
        register,
        patients,
        model,
        plain,
        differences,
        strata(read.pairs, scores[0], scores[1]),
        agreed,
        consistent,
        resamples,
    )


def _agreement(readings: Sequence[Reading], read: ReadPairs, scores: Scores) -> Agreement:
    if not scores.maps.signed:
        raise UsageProblem(
            "readers mark what is new and what is gone, and a map of magnitudes does not tell",
            where="--readers",
            code="no-signs",
        )
    place = {pair.identifier: number for number, pair in enumerate(read.pairs)}
    size = read.followups.shape[-1]
    marked: dict[str, dict[str, list[Finding]]] = defaultdict(dict)
    for reading in readings:
        if reading.pair not in place:
            continue
        file_size = read.file_sizes[place[reading.pair]]
        found = []
        for one in reading.ellipses:
            mask = one.mask(size, file_size)
            rows, columns = np.nonzero(mask)
            found.append(Finding(one.sign, mask, (round(float(rows.mean())), round(float(columns.mean())))))
        marked[reading.pair][reading.reader] = found
    if not marked:
        raise UsageProblem(
            f"no reading is of one of the {len(read)} pairs; the first is of `{readings[0].pair}`",
            where="--readers",
            hint=f"a pair here is called `{read.pairs[0].identifier}`",
            code="other-pairs",
        )
    model = {}
    for pair in marked:
        number = place[pair]
        values = np.where(read.valid[number], scores.maps.maps[number], np.nan)
        model[pair] = of_components(components(values, scores.threshold, scores.min_area))
    return agreement(marked, model)


def _plain(value: Any) -> Any:
    """The same without NaN."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and np.isnan(value) else value
