"""How far an export is from the run, and whether that is near enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.errors import ExitCode, RunFailure
from medcli.export.reference import Expected

__all__ = ["TOLERANCE", "Comparison", "Mismatch", "compare"]

TOLERANCE = 1e-5
"""Of a probability. Features, which are larger numbers, may differ by ten times as much of their largest one."""

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


def _answers(run: Run, images: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    try:
        return run(images)
    except Exception as problem:
        # A program of torch guards what it assumed, and ONNX Runtime its shapes: each with an error of its own.
        first = str(problem).splitlines()[0][:200] if str(problem) else type(problem).__name__
        shape = " x ".join(map(str, images.shape))
        raise _mismatch(f"it cannot take pictures of {shape} ({first})") from problem


def _distance(theirs: npt.NDArray[Any], ours: npt.NDArray[Any], *, relative: bool) -> float:
    wide, other = np.asarray(theirs, dtype=np.float64), np.asarray(ours, dtype=np.float64)
    same = np.isneginf(wide) & np.isneginf(other)
    if same.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        gap = float(np.abs(wide - other)[~same].max())
    return gap / max(1.0, float(np.abs(other[~same]).max())) if relative else gap


def _mismatch(what: str) -> Mismatch:
    return Mismatch(
        f"the export does not agree with the run on its own pictures: {what}",
        where="--tolerance",
        hint="nothing was kept; a larger `--tolerance` accepts the difference, another `--opset` may remove it",
        code="mismatch",
    )
