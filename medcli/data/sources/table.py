"""Tables of image names and labels, and the rule by which a name finds its file."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from medcli.data.decode import IMAGE_SUFFIXES, image_suffix
from medcli.data.sources.cases import Cases, LabelColumn, split_word
from medcli.data.sources.files import FileImages, images_below, sampled_channels
from medcli.data.tables import Table, read_table
from medcli.errors import UsageProblem

__all__ = ["ImageFinder", "TableColumns", "table_cases"]

SHOWN = 8
DEDUCED_FROM = 20


@dataclass(frozen=True)
class TableColumns:
    """Which columns mean what; see `DataSettings`. Empty strings and tuples are unset.

    `expected` are the columns whose labels a trained model predicts: taken where `labels` is unset and the table has
    them all.
    """

    image: str = ""
    labels: tuple[str, ...] = ()
    patient: str = ""
    split: str = ""
    image_dir: str = ""
    expected: tuple[str, ...] = ()


class ImageFinder:
    """Finds the file that a table means by a name.

    In this order: the text as a path below the folder (or an absolute one); with an image suffix added; the only file
    anywhere below the folder with that name, then with that name and any image suffix. `12.0` is tried as `12` last.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._names: dict[str, list[str]] | None = None
        self._stems: dict[str, list[str]] = {}

    def find(self, text: str) -> str | None:
        """The file, or None. Raises UsageProblem where several files fit."""
        if not text:
            return None
        whole = text.removesuffix(".0")
        return self._find(text) or (self._find(whole) if whole != text and whole.isdecimal() else None)

    def _find(self, text: str) -> str | None:
        path = os.path.join(self.folder, text)  # noqa: PTH118 - a table has many rows, Path is ten times slower
        if os.path.isfile(path):  # noqa: PTH113
            return path
        self._index()
        name = text.replace("\\", "/").rsplit("/", 1)[-1]
        beside = [path + suffix for suffix in IMAGE_SUFFIXES if os.path.isfile(path + suffix)]  # noqa: PTH113
        for found in (
            beside,
            (self._names or {}).get(name, []),
            self._stems.get(name, []),
            self._stems.get(_stem(name), []),
        ):
            if len(found) > 1:
                raise UsageProblem(
                    f"`{text}` fits {len(found)} files: " + ", ".join(f"`{file}`" for file in found[:SHOWN]),
                    hint="give the path below `--image-dir` in the table",
                    code="ambiguous-image",
                )
            if found:
                return found[0]
        return None

    def _index(self) -> None:
        if self._names is not None:
            return
        names: defaultdict[str, list[str]] = defaultdict(list)
        stems: defaultdict[str, list[str]] = defaultdict(list)
        for file in images_below(self.folder)[0]:
            name = os.path.basename(file)  # noqa: PTH119
            names[name].append(file)
            stems[_stem(name)].append(file)
        self._names, self._stems = dict(names), dict(stems)


def table_cases(path: str, wanted: TableColumns, window: str = "auto", *, skip_missing: bool = False) -> Cases:
    """The cases of a table.

    Columns that no flag names are deduced only where one single reading is possible.

    Args:
        path: the table.
        wanted: the columns the user named.
        window: DICOM window.
        skip_missing: leave rows out whose image does not exist, and record them.

    Raises:
        UsageProblem: unknown or ambiguous columns (all are listed), images that do not exist, unknown split names.
    """
    table = read_table(path)
    wanted = replace(wanted, labels=table.named(wanted.labels))
    if not wanted.labels and wanted.expected and set(wanted.expected) <= set(table.columns):
        wanted = replace(wanted, labels=wanted.expected)
    folder = wanted.image_dir or os.path.dirname(path) or "."  # noqa: PTH120
    if not os.path.isdir(folder):  # noqa: PTH112
        raise UsageProblem(f"folder `{folder}` does not exist", where="--image-dir", code="missing-path")
    finder = ImageFinder(folder)
    notes: list[str] = []
    image = wanted.image or _deduced_image(table, finder, wanted, notes)
    labels = wanted.labels or (_deduced_label(table, image, wanted, notes),)
    columns = [LabelColumn(name, table.column(name, "--label-column")) for name in labels]
    patients = table.column(wanted.patient, "--patient-column") if wanted.patient else None
    splits = _splits(table, wanted.split) if wanted.split else None
    if not wanted.split:
        notes += _unused_split(table, labels)
    names = table.column(image, "--image-column")
    files = [finder.find(name) for name in names]
    missing = [row for row, file in enumerate(files) if file is None]
    if missing and not skip_missing:
        raise _missing_images(table, names, missing, folder, image)
    rows = [row for row, file in enumerate(files) if file is not None]
    found = [file for file in files if file is not None]
    if not found:
        raise _missing_images(table, names, missing, folder, image)
    notes += _other_suffix(names, files)
    return Cases(
        ids=_unique([names[row] for row in rows], notes),
        images=FileImages(tuple(found), window),
        columns=tuple(LabelColumn(column.name, [column.cells[row] for row in rows]) for column in columns),
        where=lambda index: table.where(rows[index]),
        channels=sampled_channels(found),
        splits=None if splits is None else splits[rows],
        patients=None if patients is None else _patients([patients[row] for row in rows], notes),
        notes=tuple(notes),
        skipped=tuple((f"{table.where(row)}: {names[row]}", "no such image") for row in missing),
    )


def _deduced_image(table: Table, finder: ImageFinder, wanted: TableColumns, notes: list[str]) -> str:
    taken = {wanted.patient, wanted.split, *wanted.labels}
    distinct = {name: len(set(table.column(name, "--image-column"))) for name in table.columns if name not in taken}
    # Grades 0 to 4 name files where images are called 0.png to 999.png: what repeats itself names no images.
    telling = [name for name, count in distinct.items() if 2 * count > len(table.rows)]
    fitting = {name: files for name in telling if (files := _named_images(table, name, finder))}
    if len(set(fitting.values())) == 1:
        # Columns that name the very same files (a path and a bare name) leave nothing to choose.
        first = next(iter(fitting))
        notes.append(f"images are named by column `{first}`, whose cells are files")
        return first
    reason = (
        f"columns {', '.join(f'`{name}`' for name in fitting)} name different images"
        if fitting
        else f"no column names images below `{finder.folder}`"
    )
    raise UsageProblem(
        f"which column of `{table.path}` names the images? {reason}; its columns are {table.listed()}",
        hint="`--image-column COLUMN`"
        + ("" if fitting or wanted.image_dir else ", and `--image-dir DIR` if the images lie elsewhere"),
        code="ambiguous-table",
    )


def _named_images(table: Table, name: str, finder: ImageFinder) -> tuple[str, ...]:
    """The files that some cells of a column name, or nothing where one of them names none."""
    cells = table.column(name, "--image-column")
    step = max(1, len(cells) // DEDUCED_FROM)
    try:
        found = [finder.find(cell) for cell in cells[::step][:DEDUCED_FROM]]
    except UsageProblem:
        return ()
    files = tuple(os.path.realpath(file) for file in found if file is not None)
    return files if len(files) == len(found) else ()


def _deduced_label(table: Table, image: str, wanted: TableColumns, notes: list[str]) -> str:
    if image not in table.columns:
        table.column(image, "--image-column")
    left = [name for name in table.columns if name and name not in {image, wanted.patient, wanted.split}]
    if len(left) == 1:
        notes.append(f"labels are in column `{left[0]}`, the only one left")
        return left[0]
    raise UsageProblem(
        f"which column of `{table.path}` holds the labels? its columns are {table.listed()}",
        hint="`--label-column COLUMN` (`A,B` for several targets)",
        code="ambiguous-table",
    )


def _splits(table: Table, column: str) -> npt.NDArray[np.str_]:
    cells = table.column(column, "--split-column")
    words = {cell: split_word(cell) for cell in set(cells)}
    for row, cell in enumerate(cells):
        if words[cell] is None:
            raise UsageProblem(
                f"`{cell}` in `{column}` is none of train, val, test", where=table.where(row), code="unknown-split"
            )
    return np.array([words[cell] for cell in cells], dtype=np.str_)


def _unused_split(table: Table, labels: Sequence[str]) -> list[str]:
    """Say when a column looks like a split and is not used as one."""
    for name in table.columns:
        if name in labels:
            continue
        values = set(table.column(name, "--split-column"))
        if len(values) > 1 and all(split_word(value) for value in values):
            return [f"column `{name}` looks like a split and is not used (`--split-column {name}` uses it)"]
    return []


def _patients(cells: list[str], notes: list[str]) -> npt.NDArray[np.str_]:
    empty = sum(not cell for cell in cells)
    if empty:
        notes.append(f"{empty} cases without a patient each count as a patient of their own")
    return np.array([cell or f"(row {row})" for row, cell in enumerate(cells)], dtype=np.str_)


def _missing_images(table: Table, names: Sequence[str], missing: list[int], folder: str, column: str) -> UsageProblem:
    listed = "\n".join(f"  {table.where(row)}: `{names[row]}`" for row in missing[:SHOWN])
    more = f"\n  and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    return UsageProblem(
        f"{len(missing)} of {len(names)} images named in `{column}` are not below `{folder}`:\n{listed}{more}",
        hint="`--image-dir DIR` names their folder; `--skip-unreadable` leaves these rows out",
        code="missing-images",
    )


def _other_suffix(names: Sequence[str], files: Sequence[str | None]) -> list[str]:
    for name, file in zip(names, files, strict=True):
        wanted = image_suffix(name)
        if file is not None and wanted and image_suffix(file) != wanted:
            return [f"image names end in `{wanted}` and files in `{image_suffix(file)}`: matched by the name before it"]
    return []


def _unique(names: list[str], notes: list[str]) -> tuple[str, ...]:
    """Names as identifiers; a repeated one gets `#2`, `#3`."""
    counts = Counter(names)
    repeated = sum(count - 1 for count in counts.values())
    if not repeated:
        return tuple(names)
    notes.append(f"{repeated} rows name an image that an earlier row names (`medcli data check` lists them)")
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(unique)


def _stem(name: str) -> str:
    suffix = image_suffix(name)
    return name[: -len(suffix)] if suffix else name
