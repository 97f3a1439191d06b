"""What a data set says about itself: how many images, which classes, what kind. What it does not say is unknown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medcli.data.dataset import DataSet, Samples
from medcli.data.decode import UnreadableImage, peek_channels, read_picture
from medcli.data.load import load_data
from medcli.data.medmnist import known_set
from medcli.data.record import class_counts
from medcli.data.sources.files import images_below
from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.recommend.rules import KnownSet, Rules
from medcli.recommend.situation import Situation
from medcli.settings.groups import DataSettings

__all__ = ["survey"]

HEADERS = 64  # DICOM headers read, evenly spread
SIDES = frozenset({"left", "right", "laterality", "od", "os"})
BUILT_IN = "synthetic/"


def survey(settings: DataSettings, rules: Rules, now: Situation) -> Situation:
    """A situation with everything that the data says. No more than a few pictures are decoded.

    Args:
        settings: which data, with the columns of a table.
        rules: what MedMNIST names and DICOM modalities mean.
        now: goal and machine.

    Raises:
        UsageProblem: no such data, several data sets, or a table whose columns have to be named.
    """
    if len(settings.data) > 1:
        raise UsageProblem(
            "a recommendation is for one data set at a time", where="--data", hint="name one", code="several-data"
        )
    (text,) = settings.data
    typed = _typed(settings)
    named = _known(text)
    path = Path(text)
    known = rules.sets.get(named or "")
    if named and known and known.train and not path.exists():
        return _by_name(named, known, typed, now)
    try:
        (dataset,) = load_data(settings)
    except UsageProblem as problem:
        if problem.code != "no-classes" or not path.is_dir():
            raise
        return _loose(text, rules, now)
    return _loaded(dataset, named, text, rules, replace(now, typed=typed))


def _known(text: str) -> str | None:
    """The MedMNIST name of a file, or of a bare word."""
    stem = re.sub(r"_(?:28|64|128|224)$", "", Path(text.rpartition("=")[2]).stem.lower())
    return stem if known_set(f"{stem}.npz") else None


def _by_name(name: str, known: KnownSet, typed: dict[str, Any], now: Situation) -> Situation:
    file = f"{name}.npz"
    return replace(
        now,
        images=known.train,
        modality=known.modality,
        task=known.task,
        classes=known.classes,
        imbalance=known.imbalance,
        known_set=name,
        typed={**typed, "data": (file,)},
        notes=(*now.notes, f"there is no such file here: the figures of the published `{file}` are used"),
    )


def _loaded(dataset: DataSet, named: str | None, text: str, rules: Rules, now: Situation) -> Situation:
    train = dataset.splits.get("train") or next(iter(dataset.splits.values()))
    modality, notes = _modality(train, named, text, rules)
    if named and modality:
        notes = [f"{modality}: `{named}` is a set of MedMNIST", *notes]
    imbalance, empty = _imbalance(train, dataset.target)
    if empty:
        notes.append(f"no training case of {', '.join(f'`{name}`' for name in empty)}")
    target = dataset.target
    if target.task == "multiclass" and target.class_names == tuple(map(str, range(target.num_classes))):
        last = target.class_names[-1]
        notes.append(f"the classes are called 0 to {last}: if they are ordered grades, add `--task ordinal`")
    return replace(
        now,
        images=len(train),
        modality=modality,
        task=dataset.target.task,
        classes=len(dataset.target.outputs) or dataset.target.num_classes,
        imbalance=imbalance,
        channels=dataset.channels,
        side=_side(train),
        sided=_sided(dataset.target),
        known_set=named,
        notes=(*now.notes, *notes),
    )


def _loose(text: str, rules: Rules, now: Situation) -> Situation:
    """A folder of images without labels."""
    files = tuple(images_below(text)[0])
    modality, notes = _dicom(files, rules)
    channels = {peek_channels(file) for file in files[:HEADERS]}
    notes.append("the images have no labels here: `--data TABLE.csv --image-dir` names both (classes are not known)")
    return replace(
        now,
        images=len(files),
        modality=modality,
        channels=3 if 3 in channels else 1 if channels == {1} else None,
        side=_side_of(files),
        typed={"data": ("TABLE.csv",), "image_dir": (text,)},
        notes=(*now.notes, *notes),
    )


def _typed(settings: DataSettings) -> dict[str, Any]:
    defaults = DataSettings()
    names = DataSettings.__dataclass_fields__
    return {name: getattr(settings, name) for name in names if getattr(settings, name) != getattr(defaults, name)}


def _modality(samples: Samples, named: str | None, text: str, rules: Rules) -> tuple[str | None, list[str]]:
    if named and named in rules.sets:
        return rules.sets[named].modality, []
    if text.startswith(BUILT_IN):
        return None, ["the pictures are drawn, and of no kind that a network was trained on"]
    return _dicom(_files(samples), rules)


def _files(samples: Samples) -> tuple[str, ...]:
    """Some files of a split, evenly spread: an image that lies in a file of its own is described by it."""
    step = max(1, len(samples) // HEADERS)
    return tuple(samples.images.describe(index) for index in range(0, len(samples), step))


def _dicom(files: Sequence[str], rules: Rules) -> tuple[str | None, list[str]]:
    """The kind of picture by DICOM headers; other files do not say."""
    seen: Counter[tuple[str, str]] = Counter()
    step = max(1, len(files) // HEADERS)
    for file in files[::step]:
        header = _header(file)
        if header is not None:
            seen[header] += 1
    if not seen:
        return None, []
    kinds = {rules.dicom.get(modality) for modality, _ in seen}
    tags = ", ".join(sorted({modality or "(none)" for modality, _ in seen}))
    if len(kinds) > 1:
        return None, [f"DICOM files of several modalities ({tags})"]
    (kind,) = kinds
    if kind != "xray":
        return kind, [f"{kind or 'unknown kind'}: DICOM Modality {tags}"]
    parts = {part.upper() for _, part in seen}
    if parts == {"CHEST"}:
        return "chest-xray", [f"chest-xray: DICOM Modality {tags}, BodyPartExamined CHEST"]
    stated = ", ".join(sorted(part for part in parts if part)) or "no body part"
    return "xray", [f"radiographs (DICOM Modality {tags}; {stated} stated): `--modality chest-xray` if of the chest"]


def _header(file: str) -> tuple[str, str] | None:
    """Modality and body part of a DICOM file, None for any other file."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        header = pydicom.dcmread(
            file, stop_before_pixels=True, specific_tags=["Modality", "BodyPartExamined"], force=file.endswith(".dcm")
        )
    except (InvalidDicomError, OSError):
        return None
    return str(header.get("Modality") or ""), str(header.get("BodyPartExamined") or "")


def _imbalance(samples: Samples, target: Target) -> tuple[float | None, list[str]]:
    """Cases of the largest class over the smallest that has any, and the classes without a case.

    For several outputs the most uneven one counts.
    """
    counts = class_counts(samples, target)
    tables = counts.values() if target.task == "multioutput" else [counts]
    ratios, empty = [], []
    for table in tables:
        cases = {name: number for name, number in table.items() if not name.startswith("(")}
        present = [number for number in cases.values() if number]
        empty += [name for name, number in cases.items() if not number]
        if len(present) > 1:
            ratios.append(max(present) / min(present))
    return max(ratios, default=None), empty


def _sided(target: Target) -> bool:
    names = [*target.class_names]
    for output in target.outputs:
        names += [output.name, *output.classes]
    return any(SIDES & set(re.split(r"[\W_]+", name.lower())) for name in names)


def _side(samples: Samples) -> int | None:
    try:
        return int(min(samples.images.read(0).pixels.shape[:2]))
    except UnreadableImage:
        return None


def _side_of(files: Sequence[str]) -> int | None:
    try:
        return int(min(read_picture(files[0]).pixels.shape[:2])) if files else None
    except UnreadableImage:
        return None
