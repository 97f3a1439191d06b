"""Where pairs come from: folders of pairs, tables of pairs, folders of DICOM files, and the built-in set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from medcli.data.decode import IMAGE_SUFFIXES, image_suffix
from medcli.data.splits import SPLITS, assign
from medcli.data.tables import Table, is_table, read_table
from medcli.diffmap.headers import Header, is_dicom, plane, read_header
from medcli.diffmap.pairs import SYNTHETIC_PAIRS, Pair, PairSet, synthetic_pairs
from medcli.errors import UsageProblem
from medcli.settings.diffmap_groups import PairTableSettings
from medcli.settings.groups import DataSettings

__all__ = ["MANIFEST", "TABLE", "PairColumns", "columns_of", "load_pairs", "pair_of_files", "with_splits"]

TABLE, MANIFEST = "pairs.csv", "pairs.json"
BASELINES, FOLLOWUPS = ("prior", "baseline"), ("current", "followup")
MAPS, MASKS = ("diff_map", "difference_map"), ("valid",)


@dataclass(frozen=True)
class PairColumns:
    """Which column of a table holds what; None takes the column of the default name if there is one.

    Args:
        baseline: path of the earlier image, relative to `image_dir`.
        followup: path of the later image.
        map: path of the true map (`map`).
        mask: path of the mask of valid pixels (`mask`).
        identifier: name of the pair (`pair`), else the row's number.
        patient: name of the patient (`patient`).
        split: `train`, `val` or `test` (`split`).
        dates: of the baseline and of the follow-up, as text that sorts by time or as numbers.
        view: of both images (`view`).
        image_dir: where relative paths start; the table's own folder if None.
    """

    baseline: str = "baseline"
    followup: str = "followup"
    map: str | None = None
    mask: str | None = None
    identifier: str | None = None
    patient: str | None = None
    split: str | None = None
    dates: tuple[str, str] | None = None
    view: str | None = None
    image_dir: str | None = None


FLAGS = {
    "baseline": "--baseline-column",
    "followup": "--followup-column",
    "map": "--map-column",
    "mask": "--mask-column",
    "identifier": "--pair-column",
    "patient": "--patient-column",
    "split": "--split-column",
    "view": "--view-column",
}


def columns_of(data: DataSettings, table: PairTableSettings) -> PairColumns:
    """The columns that were asked for.

    Args:
        data: of the one set that they are for.
        table: what tables of pairs alone have.

    Raises:
        UsageProblem: the dates do not stand in two columns.
    """
    dates = table.date_columns
    if len(dates) not in (0, 2):
        raise UsageProblem(
            f"a pair has two dates, and `{','.join(dates)}` is not two columns",
            where="--date-columns",
            hint="--date-columns baseline_date,followup_date",
            code="two-dates",
        )
    return PairColumns(
        table.baseline_column,
        table.followup_column,
        map=table.map_column,
        mask=table.mask_column,
        identifier=table.pair_column,
        patient=data.patient_column[0] if data.patient_column else None,
        split=data.split_column,
        dates=(dates[0], dates[1]) if dates else None,
        view=table.view_column,
        image_dir=data.image_dir[0] if data.image_dir else None,
    )


def load_pairs(
    source: str, columns: PairColumns | None = None, *, count: int | None = None, seed: int = 0, size: int = 128
) -> PairSet:
    """Pairs by name; no image is read yet.

    Args:
        source: a table, a folder of pairs (`prior`, `current` and perhaps `diff_map` in a folder each), a folder of
            DICOM files (each patient's images of one view in order of time), or `synthetic/chest-pairs`.
        columns: of a table.
        count: pairs of the built-in set.
        seed: of the built-in set.
        size: side of the built-in set's images.

    Raises:
        UsageProblem: nothing of the kind is there, or the table cannot be used.
    """
    if source == SYNTHETIC_PAIRS:
        return synthetic_pairs(count or 200, seed=seed, size=size)
    if source.startswith("synthetic/"):
        raise UsageProblem(
            f"`{source}` is no built-in set of pairs; there is `{SYNTHETIC_PAIRS}`",
            where="--data",
            hint=f"`--data {SYNTHETIC_PAIRS}`",
            code="unknown-data",
        )
    path = Path(source).expanduser()
    if is_table(source):
        return _from_table(read_table(str(path)), columns or PairColumns())
    if not path.is_dir():
        what = "is neither a table nor a folder" if path.exists() else "does not exist"
        raise UsageProblem(
            f"`{source}` {what}",
            where="--data",
            hint="`medcli diffmap synth --pairs 200 --out pairs` makes a set",
            code="not-pairs" if path.exists() else "missing-path",
        )
    if (path / TABLE).is_file():
        return _from_table(read_table(str(path / TABLE)), columns or PairColumns(), name=path.name)
    found = _from_folders(path) or _from_dicom(path)
    if not found:
        raise UsageProblem(
            f"`{source}` holds no pairs: no folder with `prior` and `current`, no `{TABLE}`, and no two DICOM images "
            "of one patient and view",
            where="--data",
            code="no-pairs",
        )
    return PairSet(path.name, tuple(found))


def pair_of_files(baseline: str, followup: str) -> Pair:
    """Two files as a pair, with what their headers say.

    Raises:
        UsageProblem: one of them does not exist.
    """
    for name, path in (("BASELINE", baseline), ("FOLLOWUP", followup)):
        if not Path(path).is_file():
            what = "is a folder" if Path(path).is_dir() else "does not exist"
            hint = "`--data FOLDER` compares the pairs in a folder" if Path(path).is_dir() else None
            raise UsageProblem(f"`{path}` {what}", where=name, hint=hint, code="missing-path")
    first, second = read_header(baseline), read_header(followup)
    patient = first.patient if first.patient == second.patient else ""
    return Pair(
        f"{_stem(baseline)}--{_stem(followup)}",
        baseline,
        followup,
        patient=patient,
        spacing=second.spacing,
        dates=(first.date, second.date),
        views=(first.view, second.view),
    )


def with_splits(pairs: PairSet, shares: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0) -> PairSet:
    """The same pairs with a split each, drawn by patient where the set has none.

    Raises:
        UsageProblem: some pairs have a split and others do not, a patient stands in two splits, or too few patients.
    """
    given = [pair for pair in pairs.pairs if pair.split]
    if given and len(given) < len(pairs):
        raise UsageProblem(
            f"{len(pairs) - len(given)} of {len(pairs)} pairs have no split", where="--data", code="split-incomplete"
        )
    if given:
        home: dict[str, str] = {}
        for pair in given:
            if pair.patient and home.setdefault(pair.patient, pair.split) != pair.split:
                raise UsageProblem(
                    f"patient `{pair.patient}` stands in {home[pair.patient]} and in {pair.split}",
                    where="--data",
                    hint="leave the split column out with `--split-column` naming another, or mend it",
                    code="patient-leak",
                )
        return pairs
    names = np.array([pair.patient or f"pair {pair.identifier}" for pair in pairs.pairs])
    parts = assign(np.ones((len(pairs), 1), dtype=np.bool_), names, shares, seed)
    for part, share in enumerate(shares):
        if share > 0 and not (parts == part).any():
            raise UsageProblem(
                f"{len(pairs)} pairs of {len(set(names.tolist()))} patients are too few to fill {SPLITS[part]}",
                where="--data",
                code="too-few-cases",
            )
    chosen = tuple(replace(pair, split=SPLITS[part]) for pair, part in zip(pairs.pairs, parts, strict=True))
    return replace(pairs, pairs=chosen)


def _from_table(table: Table, columns: PairColumns, name: str | None = None) -> PairSet:
    def cells(field: str, default: str | None) -> tuple[str, ...] | None:
        wanted = getattr(columns, field)
        if wanted is None:
            wanted = default if default in table.columns else None
        return None if wanted is None else table.column(wanted, FLAGS[field])

    root = Path(columns.image_dir) if columns.image_dir else Path(table.path).parent
    baselines, followups = (
        table.column(columns.baseline, FLAGS["baseline"]),
        table.column(columns.followup, FLAGS["followup"]),
    )
    rows = range(len(table.rows))
    empty = ("",) * len(rows)
    maps, masks = cells("map", "map") or empty, cells("mask", "mask") or empty
    patients, splits = cells("patient", "patient") or empty, cells("split", "split") or empty
    names = cells("identifier", "pair") or tuple(str(row + 1) for row in rows)
    views = cells("view", "view") or empty
    quiet = table.column("nuisance_only", "") if "nuisance_only" in table.columns else empty
    first, second = (
        (empty, empty)
        if columns.dates is None
        else (table.column(column, "--date-columns") for column in columns.dates)
    )
    seen: dict[str, int] = {}
    pairs = []
    for row in rows:
        for flag, cell in (("--baseline-column", baselines[row]), ("--followup-column", followups[row])):
            if not cell:
                raise UsageProblem("one image is missing", where=f"{table.where(row)} ({flag})", code="missing-image")
            if not (root / cell).is_file():
                raise UsageProblem(
                    f"`{cell}` does not exist in `{root}`",
                    where=table.where(row),
                    hint="`--image-dir DIR` says where the images lie",
                    code="missing-image",
                )
        if splits[row] and splits[row] not in SPLITS:
            raise UsageProblem(
                f"`{splits[row]}` is none of {', '.join(SPLITS)}", where=table.where(row), code="unknown-split"
            )
        if seen.setdefault(names[row], row) != row:
            raise UsageProblem(
                f"`{names[row]}` names two pairs (the other is {table.where(seen[names[row]])})",
                where=table.where(row),
                code="duplicate-pair",
            )
        pairs.append(
            Pair(
                names[row],
                str(root / baselines[row]),
                str(root / followups[row]),
                map=str(root / maps[row]) if maps[row] else None,
                mask=str(root / masks[row]) if masks[row] else None,
                patient=patients[row],
                split=splits[row],
                nuisance_only={"1": True, "true": True, "0": False, "false": False}.get(quiet[row].lower()),
                dates=(first[row], second[row]),
                views=(views[row], views[row]),
            )
        )
    return PairSet(name or Path(table.path).stem, tuple(pairs))


def _from_folders(root: Path) -> list[Pair]:
    """`case/pair_i/{prior,current}.*`: the case is the patient."""
    pairs = []
    for baseline in sorted(path for name in BASELINES for path in root.rglob(f"{name}.*") if image_suffix(path.name)):
        folder = baseline.parent
        followup = _named(folder, FOLLOWUPS)
        if followup is None:
            raise UsageProblem(
                f"one image is missing: `{folder}` has `{baseline.name}` and no `current`",
                where="--data",
                code="missing-image",
            )
        if _named(folder, BASELINES) != baseline:
            continue  # the same image in a second format
        where = folder.relative_to(root)
        found, mask = _named(folder, MAPS), _named(folder, MASKS)
        pairs.append(
            Pair(
                str(where) if str(where) != "." else folder.name,
                str(baseline),
                str(followup),
                map=None if found is None else str(found),
                mask=None if mask is None else str(mask),
                patient=where.parts[0] if len(where.parts) > 1 else "",
            )
        )
    return pairs


def _named(folder: Path, names: Sequence[str]) -> Path | None:
    """The file of one of these names; NIfTI before PNG, as it holds more."""
    order = (".nii.gz", ".nii", *(suffix for suffix in IMAGE_SUFFIXES if not suffix.startswith(".nii")))
    return next((folder / (name + end) for end in order for name in names if (folder / (name + end)).is_file()), None)


def _from_dicom(root: Path) -> list[Pair]:
    """Each patient's images of one plane, every one with the next in time."""
    series: dict[tuple[str, str], list[tuple[str, Path, Header]]] = defaultdict(list)
    for path in sorted(path for path in root.rglob("*") if path.is_file() and is_dicom(path)):
        header = read_header(path)
        if header.patient and header.date:
            series[header.patient, plane(header.view) or header.view].append((header.date, path, header))
    pairs = []
    for (patient, view), images in sorted(series.items()):
        ordered = sorted(images, key=lambda image: image[:2])
        for number, ((_, early, first), (_, late, second)) in enumerate(pairwise(ordered)):
            pairs.append(
                Pair(
                    f"{patient}-{view or 'unknown'}/pair_{number}",
                    str(early),
                    str(late),
                    patient=patient,
                    spacing=second.spacing,
                    dates=(first.date, second.date),
                    views=(first.view, second.view),
                )
            )
    return pairs


def _stem(path: str) -> str:
    name = Path(path).name
    return name[: len(name) - len(image_suffix(name))] or name
