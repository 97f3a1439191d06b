"""Sets of classes for new images, where thresholds for them were found with the calibrator.

A set is read beside the scores it came from, so it is a few more columns of the same table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.runs.directory import RunDirectory

if TYPE_CHECKING:
    from medcli.evaluation.conformal import Conformal

__all__ = ["about_sets", "run_conformal", "set_columns", "set_rows", "thresholds_from"]

_ANSWERS = ("absent", "present")


def run_conformal(run: RunDirectory) -> Conformal | None:
    """The thresholds `calibrate --conformal` left in the run's calibrator; None where it left none.

    Raises:
        UsageProblem: they cannot be read (code `bad-calibrator`).
    """
    path = run.calibrator_file
    if not path.is_file():
        return None
    hint = f"`medcli calibrate {run.path} --conformal lac` finds new ones; `--raw` does without"
    try:
        held = json.loads(path.read_text(encoding="utf-8")).get("conformal")
    except (OSError, ValueError) as problem:
        raise _damaged(problem, str(path), hint) from problem
    return thresholds_from(held, str(path), hint)


def thresholds_from(held: Mapping[str, Any] | None, where: str, hint: str | None = None) -> Conformal | None:
    """Thresholds as they were written into a calibrator or a bundle; None for None.

    Raises:
        UsageProblem: they cannot be read (code `bad-calibrator`).
    """
    if held is None:
        return None
    # It needs scipy.stats, a third of a second that predictions without sets do without.
    from medcli.evaluation.conformal import conformal_from_dict

    try:
        return conformal_from_dict(held)
    except ValueError as problem:
        raise _damaged(problem, where, hint) from problem


def set_columns(target: Target) -> tuple[str, ...]:
    """`set` and `set_size`; for each label of a multilabel target `set_LABEL` and `set_size_LABEL`."""
    if target.task != "multilabel":
        return ("set", "set_size")
    return tuple(f"{what}_{name}" for name in target.class_names for what in ("set", "set_size"))


def set_rows(conformal: Conformal, names: Sequence[str], logits: npt.NDArray[Any]) -> list[tuple[str | int, ...]]:
    """The cells of `set_columns`, one row per image: classes joined by `|` in the target's order, and their number.

    Of a label the set holds `absent`, `present`, both or neither. Where sets are randomised at their edge (`aps`,
    `raps`) the name of the image decides, so that it gets the same set in any company.

    Args:
        conformal: of the run or bundle.
        names: [n].
        logits: [n, ...], calibrated as those the thresholds were found on.

    Raises:
        UsageProblem: the thresholds belong to another target (code `other-target`).
    """
    from medcli.evaluation.conformal import apply_conformal
    from medcli.evaluation.predictions import Predictions

    target, count = conformal.target, len(names)
    multilabel = target.task == "multilabel"
    labels = np.full((count, target.num_classes), np.nan) if multilabel else np.full(count, -1)
    members = apply_conformal(conformal, Predictions(np.asarray(names, np.str_), labels, logits, target)).members
    classes = _ANSWERS if multilabel else target.class_names
    rows: list[tuple[str | int, ...]] = []
    for sets in members.reshape(count, -1, len(classes)).tolist():
        cells: list[str | int] = []
        for one in sets:
            held = [name for name, inside in zip(classes, one, strict=True) if inside]
            cells += ["|".join(held), len(held)]
        rows.append(tuple(cells))
    return rows


def about_sets(conformal: Conformal) -> dict[str, Any]:
    """What the sets are, for the JSON document."""
    return {
        "method": conformal.method,
        "miscoverage": conformal.miscoverage,
        "by_class": conformal.by_class,
        "convention": conformal.convention,
    }


def _damaged(problem: Exception, where: str, hint: str | None) -> UsageProblem:
    return UsageProblem(
        f"the conformal thresholds cannot be read: {problem}", where=where, hint=hint, code="bad-calibrator"
    )
