"""Folders of class folders, with or without train, val and test above them."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np

from medcli.data.sources.cases import Cases, LabelColumn, split_word
from medcli.data.sources.files import FileImages, images_below, is_image_file, sampled_channels
from medcli.errors import UsageProblem

__all__ = ["folder_cases"]


def folder_cases(path: str, window: str = "auto") -> Cases:
    """The cases of a class-folder tree; identifiers are paths below it.

    Raises:
        UsageProblem: no images, no class folders, class folders mixed with split folders, or images beside them.
    """
    folders = _folders(path)
    loose = [entry.name for entry in os.scandir(path) if entry.is_file() and is_image_file(entry.path)]
    words = {name: split_word(name) for name in folders}
    layout = {name: word for name, word in words.items() if word}
    notes: list[str] = []
    if layout and len(layout) < len(folders):
        strange = sorted(set(folders) - set(layout))
        raise UsageProblem(
            f"`{path}` mixes split folders ({_listed(layout)}) with others ({_listed(strange)})", code="mixed-folders"
        )
    if not folders or loose:
        what = f"holds {len(loose)} images beside its folders" if folders else "holds no class folders"
        if not folders and not loose:
            raise UsageProblem(f"folder `{path}` holds no images", code="empty-folder")
        raise UsageProblem(
            f"`{path}` {what}; labels come from class folders or from a table",
            hint=f"`--data TABLE.csv --image-dir {path}`",
            code="no-classes",
        )
    if layout:
        doubled = [word for word, count in Counter(layout.values()).items() if count > 1]
        if doubled:
            same = sorted(name for name, word in layout.items() if word == doubled[0])
            raise UsageProblem(f"`{path}` has two folders for {doubled[0]}: {_listed(same)}", code="mixed-folders")
        renamed = [f"`{name}` is read as {word}" for name, word in layout.items() if name != word]
        notes.extend(renamed)
        places = [(split, os.path.join(path, name)) for name, split in layout.items()]  # noqa: PTH118
    else:
        places = [("", path)]
    files: list[str] = []
    classes: list[str] = []
    splits: list[str] = []
    strangers = 0
    for split, place in sorted(places, key=lambda pair: ("train", "val", "test", "").index(pair[0])):
        class_folders = _folders(place)
        if not class_folders:
            raise UsageProblem(f"`{place}` holds no class folders", code="no-classes")
        for name in class_folders:
            images, others = images_below(os.path.join(place, name))  # noqa: PTH118
            files += images
            classes += [name] * len(images)
            splits += [split] * len(images)
            strangers += len(others)
    if not files:
        raise UsageProblem(f"folder `{path}` holds no images", code="empty-folder")
    _refuse_hidden_layout(path, classes, bool(layout))
    empty = sorted({name for _, place in places for name in _folders(place)} - set(classes))
    if empty:
        raise UsageProblem(f"the class folder {_listed(empty)} holds no images", where=path, code="empty-class")
    if strangers:
        notes.append(f"{strangers} files that are no images are passed over")
    return Cases(
        ids=tuple(os.path.relpath(file, path).replace(os.sep, "/") for file in files),
        images=FileImages(tuple(files), window),
        columns=(LabelColumn("class", tuple(classes)),),
        where=lambda index: files[index],
        channels=sampled_channels(files),
        splits=np.array(splits) if layout else None,
        notes=tuple(notes),
    )


def _folders(path: str) -> list[str]:
    try:
        names = [entry.name for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith((".", "__"))]
    except OSError as error:
        raise UsageProblem(f"`{path}` cannot be read: {error.strerror}", code="unreadable-folder") from None
    return sorted(names)


def _refuse_hidden_layout(path: str, classes: list[str], layout: bool) -> None:
    """A dataset one level further down looks like a single class; name it instead of learning nothing."""
    if layout or len(set(classes)) > 1:
        return
    inner = os.path.join(path, classes[0])  # noqa: PTH118
    if len(_folders(inner)) > 1:
        raise UsageProblem(
            f"`{path}` holds the single folder `{classes[0]}`, which would be the only class",
            hint=f"`--data {inner}`",
            code="one-class",
        )


def _listed(names: object) -> str:
    return ", ".join(f"`{name}`" for name in names)  # type: ignore[attr-defined]
