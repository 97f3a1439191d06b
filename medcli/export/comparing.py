"""How far an export is from the run, and whether that is near enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from medcli.errors import ExitCode, RunFailure
from medcli.export.reference import Expected

__all__ = [
    "MAP_TOLERANCE",
    "ROUNDED_TOLERANCE",
    "TOLERANCE",
    "Comparison",
    "ExpectedMaps",
    "MapComparison",
    "Mismatch",
    "compare",
    "compare_maps",
]

TOLERANCE = 1e-5
"""Of a probability. Features, which are larger numbers, may differ by ten times as much of their largest one."""

MAP_TOLERANCE = 1e-4
"""Of a value of a map."""

ROUNDED_TOLERANCE = 1e-2
"""The same, at most, where rounding to float32 moves the maps: behind more of it a wrong graph could hide."""

Answer = TypeVar("Answer")
Run = Callable[[npt.NDArray[Any]], tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]]


class Mismatch(RunFailure):
    """The exported model answers otherwise than the run; nothing was left behind."""

    exit_code = ExitCode.LIMIT


@dataclass(frozen=True)
class Comparison:
    """Largest differences to the run.

    Args:
        images: real pictures compared, each batch counted.
        batch_sizes: of those batches.
        probability: largest difference of a probability.
        logit: of a logit.
        feature: of a feature, as a share of the largest feature where that is above 1.
        tolerance: what was allowed for a probability.
    """

    images: int
    batch_sizes: tuple[int, ...]
    probability: float
    logit: float
    feature: float
    tolerance: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "batch_sizes": list(self.batch_sizes)}


@dataclass(frozen=True)
class MapComparison:
    """Largest difference to the run of a difference model.

    Args:
        pairs: compared, each batch counted.
        drawn: whether they are drawn ones, because the run's own are no longer there.
        batch_sizes: of their batches.
        map: largest difference of a value.
        tolerance: what was allowed.
        rounding: how far float32 alone moves the run's maps, where more than the usual tolerance had to be allowed
            because of that.
    """

    pairs: int
    drawn: bool
    batch_sizes: tuple[int, ...]
    map: float
    tolerance: float
    rounding: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "batch_sizes": list(self.batch_sizes)}


@dataclass(frozen=True)
class ExpectedMaps:
    """What a run says to one batch of pairs.

    Args:
        baselines: [n, h, w, 1 or 3], as a bundle takes them.
        followups: likewise.
        maps: float32 [n, S, S].
        rounding: computes the largest difference of a value to the same maps computed in float64.
    """

    baselines: npt.NDArray[Any]
    followups: npt.NDArray[Any]
    maps: npt.NDArray[np.float32]
    rounding: Callable[[], float]


def compare(run: Run, expected: Sequence[Expected], tolerance: float = TOLERANCE) -> Comparison:
    """Run the export on the same pictures.

    Args:
        run: images [n, h, w, c] -> (probabilities, logits, features) of the export.
        expected: what the run says.
        tolerance: most that a probability may differ.

    Raises:
        Mismatch: a larger difference, other shapes, or what is no number.
    """
    worst = [0.0, 0.0, 0.0]  # of probabilities, logits, features
    for one in expected:
        for place, (theirs, ours) in enumerate(
            zip(_answers(run, one.images), (one.probabilities, one.logits, one.features), strict=True)
        ):
            if theirs.shape != ours.shape:
                raise _mismatch(f"a batch of {len(one.images)} gives {list(theirs.shape)}, not {list(ours.shape)}")
            # Unlike `max`, this keeps what is no number.
            worst[place] = float(np.maximum(worst[place], _distance(theirs, ours, relative=place == 2)))
    found = Comparison(
        sum(len(one.images) for one in expected),
        tuple(sorted({len(one.images) for one in expected})),
        probability=worst[0],
        logit=worst[1],
        feature=worst[2],
        tolerance=tolerance,
    )
    # Written so that what is no number is a difference too.
    if not found.probability <= tolerance:
        raise _mismatch(f"a probability differs by {found.probability:.2g}, and {tolerance:.2g} is allowed")
    if not found.feature <= 10 * tolerance:
        raise _mismatch(f"a feature differs by {found.feature:.2g}, and {10 * tolerance:.2g} is allowed")
    return found


def compare_maps(
    run: Callable[[npt.NDArray[Any], npt.NDArray[Any]], npt.NDArray[Any]],
    expected: Sequence[ExpectedMaps],
    tolerance: float = MAP_TOLERANCE,
    *,
    drawn: bool = False,
) -> MapComparison:
    """Run an exported difference model on the same pairs.

    Args:
        run: baselines and follow-ups [n, h, w, c] -> maps [n, S, S] of the export.
        expected: what the run says.
        tolerance: most that a value may differ.
        drawn: whether the pairs are drawn ones.

    Raises:
        Mismatch: a larger difference, other shapes, or what is no number.
    """
    worst = 0.0
    for one in expected:
        theirs = _answers(run, one.baselines, one.followups)
        if theirs.shape != one.maps.shape:
            raise _mismatch(
                f"a batch of {len(one.maps)} gives {list(theirs.shape)}, not {list(one.maps.shape)}", "pairs"
            )
        worst = float(np.maximum(worst, _distance(theirs, one.maps, relative=False)))
    # Written so that what is no number is a difference too.
    if not worst <= tolerance:
        raise _mismatch(f"a value of a map differs by {worst:.2g}, and {tolerance:.2g} is allowed", "pairs")
    sizes = tuple(sorted({len(one.maps) for one in expected}))
    return MapComparison(sum(len(one.maps) for one in expected), drawn, sizes, worst, tolerance)


def _answers(run: Callable[..., Answer], *images: npt.NDArray[Any]) -> Answer:
    try:
        return run(*images)
    except Exception as problem:
        # A program of torch guards what it assumed, and ONNX Runtime its shapes: each with an error of its own.
        first = str(problem).splitlines()[0][:200] if str(problem) else type(problem).__name__
        shape = " and ".join(" x ".join(map(str, one.shape)) for one in images)
        raise _mismatch(f"it cannot take pictures of {shape} ({first})") from problem


def _distance(theirs: npt.NDArray[Any], ours: npt.NDArray[Any], *, relative: bool) -> float:
    wide, other = np.asarray(theirs, dtype=np.float64), np.asarray(ours, dtype=np.float64)
    same = np.isneginf(wide) & np.isneginf(other)
    if same.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        gap = float(np.abs(wide - other)[~same].max())
    return gap / max(1.0, float(np.abs(other[~same]).max())) if relative else gap


def _mismatch(what: str, cases: str = "pictures") -> Mismatch:
    return Mismatch(
        f"the export does not agree with the run on its own {cases}: {what}",
        where="--tolerance",
        hint="nothing was kept; a larger `--tolerance` accepts the difference, another `--opset` may remove it",
        code="mismatch",
    )
