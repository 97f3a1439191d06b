"""A synthetic set as files: one PNG per image and a table that any tool can read."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from medcli.data.splits import make_splits
from medcli.data.synthetic.source import PhantomImages, draw_cases, phantom_target
from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.runs.directory import writing

__all__ = ["MANIFEST", "PlannedSet", "Recipe", "WrittenSet", "claim_folder", "plan_set", "write_set"]

MANIFEST = "synthetic.json"
TABLE = "labels.csv"
IMAGES = "images"
SHARES = (0.7, 0.15, 0.15)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides about a set; the same recipe writes the same bytes of pixels.

    Args:
        name: such as `synthetic/chest`.
        images: how many.
        size: side in pixels.
        seed: of patients, findings, poses and exposures.
        task: `multiclass`, `multilabel` or `binary`.
    """

    name: str
    images: int
    size: int
    seed: int
    task: str


@dataclass(frozen=True)
class WrittenSet:
    """What lies in the folder.

    Args:
        folder: the folder.
        table: the file with a row per image: `image`, `label` (or a column per finding), `patient`, `split`.
        label_columns: the columns that are labels.
        counts: images per split.
        patients: how many.
        labels: images per class or finding.
    """

    folder: str
    table: str
    label_columns: tuple[str, ...]
    counts: dict[str, int]
    patients: int
    labels: dict[str, int]


def claim_folder(
    folder: Path,
    *,
    overwrite: bool,
    confirm: Callable[[str], bool],
    manifest: str = MANIFEST,
    remove: Callable[[Path], None] | None = None,
) -> None:
    """Make sure that the folder is empty.

    Args:
        folder: to be written; made if it does not exist.
        overwrite: whether a synthetic set that medcli wrote there may go; nothing else is ever removed.
        confirm: asked before anything is removed.
        manifest: the file that marks a folder as ours.
        remove: takes away what medcli wrote there, and nothing else.

    Raises:
        UsageProblem: it is a file, holds something else, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageProblem(f"`{folder}` is a file", where="--out", hint="name a directory", code="out-occupied")
    if folder.is_dir() and any(folder.iterdir()):
        ours = (folder / manifest).is_file()
        if not (ours and overwrite):
            raise UsageProblem(
                f"`{folder}` is not empty" + ("" if ours or not overwrite else ", and medcli did not write it"),
                where="--out",
                hint="replace this synthetic set with `--overwrite`" if ours else "name a new directory",
                code="out-occupied",
            )
        if not confirm(f"replace the synthetic set in `{folder}`?"):
            raise UsageProblem("not replaced, as you asked", where="--overwrite", code="not-confirmed")
        (remove or _remove)(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageProblem(
            f"`{folder}` cannot be written: {error.strerror or error}",
            where="--out",
            hint="choose another place with `--out DIR`",
            code="cannot-write",
        ) from error


@dataclass(frozen=True)
class PlannedSet:
    """A set before anything is written; see `plan_set`."""

    recipe: Recipe
    target: Target
    images: PhantomImages
    splits: npt.NDArray[np.str_]


def plan_set(recipe: Recipe) -> PlannedSet:
    """Decide about cases and splits.

    Raises:
        UsageProblem: a task without labels, or too few images to fill three splits.
    """
    target = phantom_target(recipe.task)
    cases = draw_cases(recipe.images, recipe.seed, task=target.task)
    try:
        splits = make_splits(cases.labels(target.task), target, cases.patients, SHARES, recipe.seed)
    except UsageProblem as problem:
        raise UsageProblem(
            f"{recipe.images} images are too few for train, val and test without sharing a patient",
            where="--images",
            hint="--images 50",
            code="too-few-cases",
        ) from problem
    return PlannedSet(recipe, target, PhantomImages(cases, recipe.seed, recipe.size), splits)


def write_set(
    folder: Path, plan: PlannedSet, *, threads: int = 1, progress: Callable[[int], None] = lambda done: None
) -> WrittenSet:
    """Draw a set and write it into an empty folder.

    The mark that makes the folder ours goes first and the table last, so that a set cut short is never taken for whole
    and can still be replaced.

    Args:
        folder: from `claim_folder`.
        plan: what to draw.
        threads: that draw at the same time.
        progress: called with the number of images written.

    Raises:
        RunFailure: the disk is full or refuses.
    """
    images, target, splits = plan.images, plan.target, plan.splits
    cases = images.cases
    labels, ids, patients = cases.labels(target.task), cases.ids, cases.patients
    with writing(folder):
        mark = {"schema": "medcli-synthetic/1", **asdict(plan.recipe)}
        (folder / MANIFEST).write_text(json.dumps(mark) + "\n", "utf-8")
        (folder / IMAGES).mkdir(exist_ok=True)

    def write(index: int) -> None:
        path = folder / IMAGES / f"{ids[index]}.png"
        with writing(path):
            Image.fromarray(images.read(index).pixels).save(path, compress_level=3)

    with ThreadPoolExecutor(threads) as pool:
        try:
            for done, _ in enumerate(pool.map(write, range(len(images))), 1):
                progress(done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    multilabel = target.task == "multilabel"
    columns = target.class_names if multilabel else ("label",)
    with writing(folder / TABLE), (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("image", *columns, "patient", "split"))
        for index in range(len(images)):
            values = labels[index].astype(int).tolist() if multilabel else [target.class_names[labels[index]]]
            table.writerow((f"{IMAGES}/{ids[index]}.png", *values, patients[index], splits[index]))
    present = labels.sum(axis=0) if multilabel else np.bincount(labels, minlength=len(target.class_names))
    return WrittenSet(
        str(folder),
        str(folder / TABLE),
        columns,
        {part: int((splits == part).sum()) for part in ("train", "val", "test")},
        len(set(patients.tolist())),
        {name: int(count) for name, count in zip(target.class_names, present, strict=True)},
    )


def _remove(folder: Path) -> None:
    """Only what `write_set` writes: a file that somebody added stays."""
    for path in [*(folder / IMAGES).glob("p[0-9]*-[1-4].png"), folder / TABLE, folder / MANIFEST]:
        path.unlink(missing_ok=True)
