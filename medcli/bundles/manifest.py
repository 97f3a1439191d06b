"""`bundle.json`: what an exported model is, what it was made from, and the hash of every file beside it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from medcli.data.dataset import Preprocessing
from medcli.data.target import Target, target_from_dict, target_to_dict
from medcli.errors import UsageProblem
from medcli.evaluation.calibrator import Calibrator
from medcli.evaluation.calibrator_file import calibrator_from_dict, calibrator_to_dict
from medcli.runs.directory import BUNDLE

__all__ = [
    "DIFFERENCE_SCHEMA",
    "FORMATS",
    "MANIFEST",
    "SCHEMA",
    "Format",
    "Manifest",
    "Threshold",
    "bad_bundle",
    "file_facts",
    "holds_pairs",
    "is_bundle",
    "listed_files",
    "manifest_to_json",
    "read_document",
    "read_manifest",
    "require_fields",
]

MANIFEST = BUNDLE
SCHEMA = "medcli-bundle/1"
DIFFERENCE_SCHEMA = "medcli-difference-bundle/1"
"""Of a bundle that compares two pictures, see `medcli.bundles.difference`."""

Format = Literal["onnx", "pt2", "safetensors", "adapter"]
FORMATS: tuple[Format, ...] = get_args(Format)

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Threshold:
    """A frozen operating point.

    Args:
        name: the label, or empty for a binary target.
        rule: how it was found, such as `sens=0.95`.
        value: a probability (or score) of at least this means yes.
        cases: labelled validation cases it was chosen on.
    """

    name: str
    rule: str
    value: float
    cases: int


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself.

    Args:
        format: of the model in it.
        name: of the run it was made from.
        created: UTC time.
        medcli: the version that wrote it.
        architecture: qualified name.
        target: what is predicted.
        preprocessing: from a decoded picture to the network's input; in an ONNX bundle it is part of the graph.
        outputs: what the graph gives: `probabilities` (or `scores` where nothing was calibrated), `logits`, `features`.
        calibrator: of the run, or None.
        conformal: thresholds of prediction sets, as `medcli.evaluation.conformal` writes them, or None.
        thresholds: operating points, chosen on the run's validation cases.
        verification: how far it was from the run on real images; None where nobody looked.
        facts: everything else: `model`, `card`, `data`, `figures`, `opset`, `quantized`.
        files: name -> {sha256, bytes}.
    """

    format: Format
    name: str
    created: str
    medcli: str
    architecture: str
    target: Target
    preprocessing: Preprocessing
    outputs: tuple[str, ...] = ()
    calibrator: Calibrator | None = None
    conformal: Mapping[str, Any] | None = None
    thresholds: tuple[Threshold, ...] = ()
    verification: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def calibrated(self) -> str:
        """How scores become probabilities; empty where they do not."""
        return "" if self.calibrator is None else self.calibrator.describe()


def is_bundle(path: str | Path) -> bool:
    """Whether a directory says of itself that it is a bundle."""
    return (Path(path) / MANIFEST).is_file()


def file_facts(path: Path) -> dict[str, Any]:
    """Hash and size of a file, as the manifest keeps them."""
    with path.open("rb") as handle:
        return {"sha256": hashlib.file_digest(handle, "sha256").hexdigest(), "bytes": path.stat().st_size}


def holds_pairs(path: str | Path) -> bool:
    """Whether a bundle compares two pictures; what is wrong with it is said by whoever opens it."""
    try:
        return bool(json.loads((Path(path) / MANIFEST).read_text(encoding="utf-8"))["schema"] == DIFFERENCE_SCHEMA)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def manifest_to_json(manifest: Manifest) -> str:
    """The text of `bundle.json`."""
    plain = {entry.name: getattr(manifest, entry.name) for entry in fields(manifest)}
    document = {
        "schema": SCHEMA,
        **plain,
        "target": target_to_dict(manifest.target),
        "preprocessing": asdict(manifest.preprocessing),
        "calibrator": None if manifest.calibrator is None else calibrator_to_dict(manifest.calibrator),
        "thresholds": [asdict(one) for one in manifest.thresholds],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_manifest(path: Path) -> Manifest:
    """Read and check the `bundle.json` of a bundle.

    Raises:
        UsageProblem: none there (code `not-a-bundle`), written by a newer medcli (`newer-bundle`), of a model for
            something else (`other-kind`), or not as medcli writes it (`bad-bundle`).
    """
    return read_document(path, SCHEMA, _parsed)


def read_document(path: Path, schema: str, parse: Callable[[Mapping[str, Any]], Kept]) -> Kept:
    """Read the `bundle.json` of one kind of bundle; raises as `read_manifest`.

    Args:
        path: of the bundle.
        schema: of that kind.
        parse: checks the document; raises ValueError, TypeError, KeyError or AttributeError for what is wrong with it.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise UsageProblem(
            f"`{path}` is no bundle: it holds no `{MANIFEST}`",
            hint="`medcli export RUN` writes bundles",
            code="not-a-bundle",
        )
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise bad_bundle(file, f"it is no JSON: {problem}") from problem
    found = document.get("schema") if isinstance(document, dict) else None
    if found != schema:
        _refuse_schema(file, found, schema)
    try:
        return parse(document)
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        raise bad_bundle(file, str(problem)) from problem


def bad_bundle(file: Path, what: str) -> UsageProblem:
    """The refusal of a bundle that is not as medcli wrote it."""
    return UsageProblem(
        f"this bundle cannot be used: {what}",
        where=str(file),
        hint="export the run again with `medcli export RUN`",
        code="bad-bundle",
    )


_PURPOSES = {
    SCHEMA: ("says something about one picture", "medcli predict {folder} IMAGES"),
    DIFFERENCE_SCHEMA: (
        "compares two pictures of one patient",
        "medcli diffmap predict BASELINE FOLLOWUP --run {folder}",
    ),
}


def _refuse_schema(file: Path, found: Any, wanted: str) -> None:
    kind, _, version = str(found).partition("/")
    if kind == wanted.partition("/")[0] and version.isdigit():
        raise UsageProblem(
            f"this bundle has the format `{found}`, and this medcli reads `{wanted}`",
            where=str(file),
            hint="bring medcli up to date, or export the run again with this version",
            code="newer-bundle",
        )
    if found in _PURPOSES:
        does, command = _PURPOSES[found]
        raise UsageProblem(
            f"this bundle {does}", where=str(file), hint=f"`{command.format(folder=file.parent)}`", code="other-kind"
        )
    raise bad_bundle(file, f"its schema is {str(found)[:40]!r}")


def require_fields(
    document: Mapping[str, Any], kind: type[Any], texts: tuple[str, ...], tables: tuple[str, ...]
) -> None:
    """Check that a document has every field of a dataclass, and that some are texts and some tables.

    Raises:
        ValueError: naming the first that is wrong.
    """
    absent = sorted({entry.name for entry in fields(kind)} - set(document))
    if absent:
        raise ValueError(f"it lacks `{absent[0]}`")
    for name in texts:
        if not isinstance(document[name], str):
            raise ValueError(f"its `{name}` is no text")
    for name in tables:
        if not isinstance(document[name], dict):
            raise ValueError(f"its `{name}` is no table")


def listed_files(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The files of a document: name -> {sha256, bytes}. Raises ValueError for a name that leads out of the bundle."""
    return {_file_name(name): _file(facts) for name, facts in document["files"].items()}


def _parsed(document: Mapping[str, Any]) -> Manifest:
    require_fields(
        document, Manifest, ("name", "created", "medcli", "architecture"), ("facts", "files", "target", "preprocessing")
    )
    if document["format"] not in FORMATS:
        raise ValueError(f"its format is `{document['format']}`, not one of {', '.join(FORMATS)}")
    kept = document["calibrator"]
    target = target_from_dict(document["target"])
    calibrator = None if kept is None else calibrator_from_dict(kept)
    if calibrator is not None and calibrator.target != target:
        raise ValueError("its calibrator is for another target than its model")
    return Manifest(
        **{name: document[name] for name in ("format", "name", "created", "medcli", "architecture")},
        target=target,
        preprocessing=_preprocessing(document["preprocessing"]),
        outputs=tuple(str(name) for name in document["outputs"]),
        calibrator=calibrator,
        conformal=document["conformal"],
        thresholds=tuple(_threshold(one) for one in document["thresholds"]),
        verification=document["verification"],
        facts=document["facts"],
        files=listed_files(document),
    )


def _preprocessing(values: Mapping[str, Any]) -> Preprocessing:
    known = {entry.name for entry in fields(Preprocessing)}
    if set(values) != known:
        raise ValueError(f"its preprocessing has other fields: {', '.join(sorted(known.symmetric_difference(values)))}")
    numbers = {name: tuple(float(value) for value in values[name]) for name in ("mean", "std")}
    whole = {name: int(values[name]) for name in ("image_size", "channels")}
    if whole["channels"] not in {1, 3} or whole["image_size"] < 1 or any(value <= 0 for value in numbers["std"]):
        raise ValueError("its preprocessing holds impossible numbers")
    return Preprocessing(**whole, **numbers, **{name: str(values[name]) for name in ("interpolation", "fit", "window")})  # type: ignore[arg-type]


def _threshold(values: Mapping[str, Any]) -> Threshold:
    found = Threshold(str(values["name"]), str(values["rule"]), float(values["value"]), int(values["cases"]))
    if not math.isfinite(found.value):
        raise ValueError("it holds a threshold that is no number")
    return found


def _file_name(name: str) -> str:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"it names the file `{name}`, which would lie outside of it")
    return name


def _file(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"sha256": str(facts["sha256"]), "bytes": int(facts["bytes"])}
