"""What is needed to build a network again: one value that goes into the model file and comes back checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from medcli.data.dataset import Preprocessing
from medcli.data.target import Target, target_from_dict, target_to_dict
from medcli.errors import UsageProblem
from medcli.models.heads import HEAD_KINDS, HeadKind

__all__ = [
    "ModelSpec",
    "preprocessing_from_json",
    "preprocessing_to_json",
    "spec_from_json",
    "spec_to_json",
]


@dataclass(frozen=True)
class ModelSpec:
    """How a classifier is made.

    Args:
        architecture: qualified name, such as `medcli/resnet18`.
        in_channels: channels of the images.
        image_size: side in pixels.
        options: the architecture's own options.
        drop_path: stochastic depth.
        dropout: before the last linear layer.
        head_norm: whether a LayerNorm comes before that.
        head_kind: `linear`, `corn`, `coral` or `knn`.
        target: what is predicted.
    """

    architecture: str
    in_channels: int
    image_size: int
    target: Target
    options: Mapping[str, Any] = field(default_factory=dict)
    drop_path: float = 0.0
    dropout: float = 0.0
    head_norm: bool = False
    head_kind: HeadKind = "linear"


def spec_to_json(spec: ModelSpec) -> dict[str, Any]:
    """Plain JSON types."""
    plain = {entry.name: getattr(spec, entry.name) for entry in fields(spec)}
    return {**plain, "options": dict(spec.options), "target": target_to_dict(spec.target)}


def spec_from_json(document: Any) -> ModelSpec:
    """The inverse of `spec_to_json`; raises `UsageProblem` naming the field that is wrong."""
    given = _fields(document, ModelSpec, "spec")
    spec = ModelSpec(
        architecture=_of(given, "architecture", str),
        in_channels=_of(given, "in_channels", int),
        image_size=_of(given, "image_size", int),
        target=_target(given.get("target")),
        options=_of(given, "options", dict),
        drop_path=float(_of(given, "drop_path", (int, float))),
        dropout=float(_of(given, "dropout", (int, float))),
        head_norm=_of(given, "head_norm", bool),
        head_kind=_of(given, "head_kind", str),
    )
    if spec.head_kind not in HEAD_KINDS:
        raise _wrong("head_kind", spec.head_kind)
    return spec


def preprocessing_to_json(preprocessing: Preprocessing) -> dict[str, Any]:
    """Plain JSON types."""
    return {**asdict(preprocessing), "mean": list(preprocessing.mean), "std": list(preprocessing.std)}


def preprocessing_from_json(document: Any) -> Preprocessing:
    """The inverse of `preprocessing_to_json`; raises `UsageProblem` naming the field that is wrong."""
    given = _fields(document, Preprocessing, "preprocessing")
    return Preprocessing(
        image_size=_of(given, "image_size", int),
        channels=_of(given, "channels", int),
        mean=_numbers(given, "mean"),
        std=_numbers(given, "std"),
        interpolation=_of(given, "interpolation", str),
        fit=_of(given, "fit", str),
        window=_of(given, "window", str),
    )


def _target(document: Any) -> Target:
    try:
        return target_from_dict(_fields(document, Target, "target"))
    except ValueError as problem:
        raise UsageProblem(f"its `target` is wrong: {problem}", code="bad-model-file") from problem


def _fields(document: Any, kind: type[Any], name: str) -> dict[str, Any]:
    """The document as a dictionary with exactly the fields of a dataclass."""
    known = {entry.name for entry in fields(kind)}
    if not isinstance(document, dict):
        raise _wrong(name, document)
    if set(document) != known:
        odd = sorted(known.symmetric_difference(document))
        raise UsageProblem(f"its `{name}` has missing or unknown fields: {', '.join(odd)}", code="bad-model-file")
    return document


def _of(given: Mapping[str, Any], name: str, kind: type[Any] | tuple[type[Any], ...]) -> Any:
    value = given.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(name, value)
    return value


def _numbers(given: Mapping[str, Any], name: str) -> tuple[float, ...]:
    values = _of(given, name, list)
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        raise _wrong(name, values)
    return tuple(float(value) for value in values)


def _wrong(name: str, value: Any) -> UsageProblem:
    return UsageProblem(f"its `{name}` is {str(value)[:60]!r}, which medcli never writes", code="bad-model-file")
