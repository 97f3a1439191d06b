"""What a finished training leaves for evaluation: its predictions, and one file with every figure of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medcli.errors import RunFailure, UsageProblem
from medcli.evaluation.figures import Evaluation
from medcli.evaluation.predictions import Predictions, save_predictions
from medcli.evaluation.report import evaluate
from medcli.settings.groups import EvaluationSettings

__all__ = ["EVALUATION_FILE", "read_evaluations", "write_predictions"]

EVALUATION_FILE = "evaluation.json"


def write_predictions(
    run: Path | str,
    predictions: Sequence[Predictions],
    settings: EvaluationSettings | None = None,
    *,
    seed: int = 0,
) -> dict[str, Evaluation]:
    """Write `predictions/SPLIT.npz` for every split and `evaluation.json` = {split: figures} into a run directory.

    A split whose labels are all missing is stored, but has no entry in `evaluation.json`.

    Args:
        run: the run directory.
        predictions: one per split, each with its `split` named.
        settings: which figures; None for the defaults.
        seed: of the resampling.

    Returns:
        split -> evaluation, in the order given.

    Raises:
        RunFailure: a file cannot be written.
    """
    directory = Path(run)
    evaluations: dict[str, Evaluation] = {}
    for one in predictions:
        save_predictions(directory / "predictions" / f"{one.split}.npz", one)
        try:
            evaluations[one.split] = evaluate(one, settings, seed=seed)
        except UsageProblem as problem:
            if problem.code != "no-labels":
                raise
    document = {split: evaluation.to_dict() for split, evaluation in evaluations.items()}
    destination = directory / EVALUATION_FILE
    temporary = directory / f".{EVALUATION_FILE}.part"
    try:
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(destination)
    except OSError as problem:
        raise RunFailure(f"cannot write the evaluation: {problem.strerror}", where=str(destination)) from problem
    return evaluations


def read_evaluations(run: Path | str) -> Mapping[str, Any]:
    """The stored figures of a run, split -> document; empty when the run has none yet.

    Raises:
        UsageProblem: the file is no such document.
    """
    source = Path(run) / EVALUATION_FILE
    if not source.is_file():
        return {}
    try:
        document = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise UsageProblem("the evaluation cannot be read", where=str(source), code="bad-evaluation") from problem
    splits = document.values() if isinstance(document, dict) else [None]
    if not all(isinstance(one, dict) and "figures" in one for one in splits):
        raise UsageProblem("this is no evaluation of medcli", where=str(source), code="bad-evaluation")
    result: Mapping[str, Any] = document
    return result
