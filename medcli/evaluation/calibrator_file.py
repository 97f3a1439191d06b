"""A calibrator as JSON: readable by people, checked on reading, incapable of running code."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from medcli.data.target import Target, target_from_dict, target_to_dict
from medcli.errors import UsageProblem
from medcli.evaluation.calibrator import METHODS, Calibrator, Fit, Method, Origin

__all__ = ["SCHEMA", "calibrator_from_dict", "calibrator_to_dict", "read_calibrator"]

SCHEMA = "medcli-calibrator/1"

_DATA_TYPES: Mapping[str, tuple[type, ...]] = {
    "split": (str,),
    "data_name": (str,),
    "file": (str,),
    "sha256": (str,),
    "cases": (int,),
    "patients": (int, type(None)),
    "members": (int,),
    "test_allowed": (bool,),
}


def calibrator_to_dict(calibrator: Calibrator) -> dict[str, Any]:
    """JSON values (schema `medcli-calibrator/1`); `calibrator_from_dict` reads them back."""
    return {
        "schema": SCHEMA,
        "method": calibrator.method,
        "target": target_to_dict(calibrator.target),
        "fitted_on": asdict(calibrator.origin),
        "fits": [
            {
                "name": fit.name,
                "parameters": {name: list(values) for name, values in fit.parameters.items()},
                "cases": fit.cases,
                "counts": list(fit.counts),
                "note": fit.note,
            }
            for fit in calibrator.fits
        ],
    }


def calibrator_from_dict(values: Mapping[str, Any]) -> Calibrator:
    """The calibrator written by `calibrator_to_dict`.

    Raises:
        ValueError: with what is wrong.
    """
    if values.get("schema") != SCHEMA:
        raise ValueError(f"it has schema `{values.get('schema')}`, this medcli reads `{SCHEMA}`")
    method = next((name for name in METHODS if name == values.get("method")), None)
    if method is None:
        raise ValueError(f"its method is `{values.get('method')}`, not one of {', '.join(METHODS)}")
    described = values.get("target")
    if not isinstance(described, Mapping):
        raise ValueError("its target is no table")
    target = target_from_dict(described)
    fits, names = values.get("fits"), _names(target)
    if not isinstance(fits, list) or len(fits) != len(names):
        raise ValueError(f"it has not one fit for each of {len(names)} questions")
    parsed = tuple(
        _fit(one, name, target, index, method) for index, (one, name) in enumerate(zip(fits, names, strict=True))
    )
    return Calibrator(method, target, parsed, _origin(values.get("fitted_on")))


def read_calibrator(path: Path) -> Calibrator:
    """Read and check a `calibrator.json`.

    Raises:
        UsageProblem: code `bad-calibrator`, saying which file and what is wrong with it.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError("it is no JSON object")
        return calibrator_from_dict(document)
    except (OSError, ValueError) as problem:
        raise UsageProblem(
            f"this calibrator cannot be used: {problem}",
            where=str(path),
            hint=f"`medcli calibrate {path.parent}` fits a new one; `--raw` does without",
            code="bad-calibrator",
        ) from problem


def _names(target: Target) -> list[str]:
    if target.task == "multilabel":
        return list(target.class_names)
    return [output.name for output in target.outputs] or [""]


def _fit(one: Any, name: str, target: Target, index: int, method: Method) -> Fit:
    if not isinstance(one, dict) or one.get("name") != name:
        raise ValueError(f"its fit {index + 1} is not that of `{name}`")
    where = f"the fit of `{name}`" if name else "its fit"
    parameters, counts = one.get("parameters"), one.get("counts")
    if (
        not isinstance(parameters, dict)
        or not isinstance(counts, list)
        or not all(type(count) is int for count in counts)
    ):
        raise ValueError(f"{where} lacks parameters or counts")
    if parameters and set(parameters) != set(METHODS[method]):
        raise ValueError(f"{where} has the parameters {', '.join(sorted(parameters))}")
    table = {key: _numbers(values, where) for key, values in parameters.items()}
    if table:
        _check(method, table, _classes(target, index), where)
    if type(one.get("cases")) is not int or not isinstance(one.get("note", ""), str):
        raise ValueError(f"{where} lacks its number of cases")
    return Fit(name, table, one["cases"], tuple(counts), one.get("note", ""))


def _classes(target: Target, index: int) -> int:
    return len(target.outputs[index].classes) if target.outputs else target.num_classes


def _numbers(values: Any, where: str) -> tuple[float, ...]:
    if not isinstance(values, list) or not all(
        type(value) in {int, float} and math.isfinite(value) for value in values
    ):
        raise ValueError(f"{where} holds something else than numbers")
    return tuple(float(value) for value in values)


def _check(method: Method, table: Mapping[str, tuple[float, ...]], classes: int, where: str) -> None:
    """Values that no fit can have made are a damaged file, not a strange model."""
    sizes = {name: len(values) for name, values in table.items()}
    if method == "isotonic":
        logits, chances = table["logits"], table["probabilities"]
        rising = all(one < other for one, other in pairwise(logits))
        climbing = all(one <= other for one, other in pairwise(chances))
        if not logits or len(logits) != len(chances) or not rising or not climbing:
            raise ValueError(f"{where} is no rising map")
        if not all(0 < chance < 1 for chance in chances):
            raise ValueError(f"{where} holds something else than probabilities")
        return
    expected = classes if method == "vector" else 1
    if set(sizes.values()) != {expected}:
        raise ValueError(f"{where} has not {expected} of each parameter")
    positive = {"temperature": "temperature", "vector": "weights"}.get(method)
    if positive and min(table[positive]) <= 0:
        raise ValueError(f"{where} has a {positive} that is not above zero")
    if method == "beta" and (table["a"][0] < 0 or table["b"][0] < 0):
        raise ValueError(f"{where} would turn the order of the scores round")


def _origin(values: Any) -> Origin:
    if not isinstance(values, dict) or set(values) != {item.name for item in fields(Origin)}:
        raise ValueError("it does not say what it was fitted on")
    for name, kinds in _DATA_TYPES.items():
        if type(values[name]) not in kinds:
            raise ValueError(f"its `{name}` is `{values[name]}`")
    return Origin(**values)
