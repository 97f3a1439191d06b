"""A set of synthetic pairs as files: a folder per pair, the parameters beside each, one table over all."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from medcli.data.load import patients_by_pattern
from medcli.data.sources.files import images_below
from medcli.data.splits import SPLITS
from medcli.diffmap.pairs import PATTERN, SYNTHETIC_PAIRS, Drawn
from medcli.diffmap.phantom import DrawnPair, draw_phantom_pair, patient_name
from medcli.diffmap.radiographs import draw_radiograph_pair, fit_phantom
from medcli.diffmap.reading import MAP_MIDDLE, MAP_SCALE
from medcli.diffmap.sources import MANIFEST, TABLE
from medcli.errors import RunFailure, UsageProblem
from medcli.registry.layout import install_line
from medcli.runs.directory import writing

__all__ = ["PairRecipe", "PlannedPairs", "WrittenPairs", "plan_pairs", "remove_pairs", "write_pairs"]

COLUMNS = ("pair", "patient", "split", "baseline", "followup", "map", "mask", "nuisance_only", "changes")
GENERATOR = 1  # in every manifest: raise it when the same seed draws other pairs
TOO_MANY = 20  # films in a row that no phantom fits, before the folder is taken for something else

Format = Literal["png", "nifti"]


@dataclass(frozen=True)
class PairRecipe:
    """Everything that decides about a set; the same recipe writes the same pixels.

    Args:
        pairs: how many.
        size: side in pixels.
        seed: of patients, changes, poses, exposures and devices.
        source: `phantom`, or a folder of radiographs.
        nuisance: factor on everything that is no change; of two, each pair draws its own between them.
        nuisance_only: share of pairs without any change.
        patient_pattern: regular expression for the patient in a radiograph's name; without, each file is a patient.
        formats: what is written of each pair.
    """

    pairs: int
    size: int
    seed: int
    source: str = "phantom"
    nuisance: float | tuple[float, float] = 1.0
    nuisance_only: float = 0.2
    patient_pattern: str | None = None
    formats: tuple[Format, ...] = ("png",)

    def drawn(self, number: int) -> Drawn:
        """What decides about one pair of the set."""
        nuisance = self.nuisance
        if isinstance(nuisance, tuple):
            # A stream of its own, so that patient, change and everything else stay those of a single factor.
            nuisance = float(np.random.default_rng([self.seed, number, 12]).uniform(*nuisance))
        return Drawn(self.seed, number, self.size, nuisance, self.nuisance_only)


@dataclass(frozen=True)
class WrittenPairs:
    """What lies in the folder.

    Args:
        folder: the folder.
        table: a row per pair (`COLUMNS`).
        counts: pairs per split.
        patients: how many source patients.
        courses: findings per kind and course, such as `effusion, grow`.
        nuisance_only: pairs without any change.
        left_out: radiographs that no phantom fitted.
    """

    folder: str
    table: str
    counts: dict[str, int]
    patients: int
    courses: dict[str, int]
    nuisance_only: int
    left_out: tuple[str, ...] = ()


class _Films(Protocol):
    """Where pairs are drawn from."""

    def patient(self, number: int) -> str: ...

    def split(self, number: int) -> str: ...

    def draw(self, drawn: Drawn) -> tuple[DrawnPair, str, str]:
        """The pair, the file it was made from (empty for phantoms), and whose it is."""
        ...


@dataclass(frozen=True)
class _Phantoms:
    def patient(self, number: int) -> str:
        return patient_name(number)

    def split(self, number: int) -> str:
        return PATTERN[number % len(PATTERN)]

    def draw(self, drawn: Drawn) -> tuple[DrawnPair, str, str]:
        return draw_phantom_pair(drawn), "", self.patient(drawn.number)


@dataclass(frozen=True)
class _Radiographs:
    """Patients in an order drawn from the seed; pair n is of patient n modulo their number."""

    patients: tuple[str, ...]
    files: tuple[tuple[str, ...], ...]
    left_out: set[str]

    def patient(self, number: int) -> str:
        return self.patients[number % len(self.patients)]

    def split(self, number: int) -> str:
        return PATTERN[number % len(self.patients) % len(PATTERN)]

    def draw(self, drawn: Drawn) -> tuple[DrawnPair, str, str]:
        """From one of the patient's films; where no phantom fits any, from the next patient of the same split."""
        own = drawn.number % len(self.patients)
        like = [n for n in range(own, own + len(self.patients)) if self.split(n) == self.split(own)]
        tried = 0
        for patient in like:
            files = self.files[patient % len(self.patients)]
            first = int(np.random.default_rng([drawn.seed, drawn.number, 10]).integers(len(files)))
            for step in range(len(files)):
                path = files[(first + step) % len(files)]
                fitted = fit_phantom(path, drawn.size)
                if fitted is not None:
                    return draw_radiograph_pair(drawn, fitted), path, self.patient(patient)
                self.left_out.add(path)
                tried += 1
                if tried >= TOO_MANY:
                    break
            if tried >= TOO_MANY:
                break
        raise RunFailure(
            f"no phantom fits any of {tried} radiographs in a row, such as `{path}`",
            hint="frontal chest radiographs with bright bone are needed: lateral and inverted films are left out",
            code="no-chest",
        )


@dataclass(frozen=True)
class PlannedPairs:
    """A set before anything is written; see `plan_pairs`."""

    recipe: PairRecipe
    films: _Films

    def draw(self, number: int) -> tuple[DrawnPair, str, str]:
        """One pair, the file it was made from, and its patient."""
        return self.films.draw(self.recipe.drawn(number))


def plan_pairs(recipe: PairRecipe) -> PlannedPairs:
    """Look for the radiographs and put their patients in order.

    Raises:
        UsageProblem: no such folder, no images in it, or too few patients for three splits.
    """
    if recipe.source == "phantom":
        if recipe.patient_pattern is not None:
            raise UsageProblem("phantoms have patients of their own", where="--patient-pattern", code="foreign-flag")
        return PlannedPairs(recipe, _Phantoms())
    root = Path(recipe.source).expanduser()
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise UsageProblem(
            f"`{recipe.source}` {what}",
            where="--source",
            hint="a folder of radiographs, or `phantom`",
            code="missing-path",
        )
    images, _ = images_below(str(root))
    if not images:
        raise UsageProblem(f"`{recipe.source}` holds no images", where="--source", code="no-images")
    names = [Path(path).relative_to(root).as_posix() for path in images]
    patients = names if recipe.patient_pattern is None else patients_by_pattern(names, recipe.patient_pattern).tolist()
    files: dict[str, list[str]] = {}
    for patient, path in zip(patients, images, strict=True):
        files.setdefault(patient, []).append(path)
    if len(files) < 6:
        raise UsageProblem(
            f"{len(files)} source patients are too few for train, val and test without sharing one; 6 are needed",
            where="--source",
            code="too-few-cases",
        )
    known = sorted(files)
    order = [known[n] for n in np.random.default_rng([recipe.seed, 11]).permutation(len(known))]
    return PlannedPairs(recipe, _Radiographs(tuple(order), tuple(tuple(files[name]) for name in order), set()))


def write_pairs(
    folder: Path, plan: PlannedPairs, *, threads: int = 1, progress: Callable[[int], None] = lambda done: None
) -> WrittenPairs:
    """Draw a set and write it into an empty folder; the mark that makes it ours goes first, the table last.

    Args:
        folder: from `claim_folder`.
        plan: what to draw.
        threads: that draw at the same time.
        progress: called with the number of pairs written.

    Raises:
        RunFailure: the disk is full or refuses, or no phantom fits the radiographs.
    """
    recipe, films = plan.recipe, plan.films
    with writing(folder):
        mark = {"schema": "medcli-pairs/1", "name": SYNTHETIC_PAIRS, "generator": GENERATOR, **asdict(recipe)}
        (folder / MANIFEST).write_text(json.dumps(mark) + "\n", "utf-8")
    folders = _folders(films, recipe.pairs)

    def write(number: int) -> tuple[dict[str, Any], str]:
        pair, path, patient = plan.draw(number)
        home = folder / folders[number]
        with writing(home):
            home.mkdir(parents=True, exist_ok=True)
            _write_pair(home, pair, recipe, path)
        return pair.parameters, patient

    done: list[tuple[dict[str, Any], str]] = []
    with ThreadPoolExecutor(threads) as pool:
        try:
            for count, one in enumerate(pool.map(write, range(recipe.pairs)), 1):
                done.append(one)
                progress(count)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    with writing(folder / TABLE), (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for number, (parameters, patient) in enumerate(done):
            home = folders[number]
            image = ".png" if "png" in recipe.formats else ".nii.gz"
            changes = "; ".join(f"{change['kind']} {change['course']}" for change in parameters["changes"])
            table.writerow(
                (
                    home,
                    patient,
                    films.split(number),
                    *(f"{home}/{name}{image}" for name in ("prior", "current", "diff_map")),
                    f"{home}/valid.png",
                    str(parameters["nuisance_only"]).lower(),
                    changes,
                )
            )
    splits = Counter(films.split(number) for number in range(recipe.pairs))
    courses = Counter(f"{change['kind']}, {change['course']}" for one, _ in done for change in one["changes"])
    left_out = tuple(sorted(films.left_out)) if isinstance(films, _Radiographs) else ()
    return WrittenPairs(
        str(folder),
        str(folder / TABLE),
        {part: splits[part] for part in SPLITS},
        len({patient for _, patient in done}),
        dict(sorted(courses.items())),
        sum(one["nuisance_only"] for one, _ in done),
        left_out,
    )


def remove_pairs(folder: Path) -> None:
    """Take away what `write_pairs` wrote, and nothing else."""
    for home in _written(folder):
        for name in ("prior", "current", "diff_map"):
            for suffix in (".png", ".nii.gz"):
                (home / (name + suffix)).unlink(missing_ok=True)
        for name in ("valid.png", "params.json"):
            (home / name).unlink(missing_ok=True)
        for place in (home, home.parent):
            if place != folder and place.is_dir() and not any(place.iterdir()):
                place.rmdir()
    for name in (TABLE, MANIFEST):
        (folder / name).unlink(missing_ok=True)


def _written(folder: Path) -> Iterator[Path]:
    return iter(sorted(path.parent for path in folder.glob("*/pair_*/params.json")))


def _folders(films: _Films, count: int) -> list[str]:
    """`case/pair_i` for every pair; a patient's name becomes a folder's."""
    seen: Counter[str] = Counter()
    out = []
    for number in range(count):
        patient = films.patient(number)
        case = (
            "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in patient).strip(".") or "case"
        )
        out.append(f"{case or 'case'}/pair_{seen[patient]}")
        seen[patient] += 1
    # Two patients whose names become one folder name keep apart by number.
    twice = {name for name, times in Counter(out).items() if times > 1}
    return [f"{name}_{number}" if name in twice else name for number, name in enumerate(out)]


def _write_pair(home: Path, pair: DrawnPair, recipe: PairRecipe, path: str) -> None:
    if "png" in recipe.formats:
        for name, image in (("prior", pair.prior), ("current", pair.current)):
            Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(home / f"{name}.png", compress_level=3)
        steps = np.rint(pair.target * MAP_SCALE + MAP_MIDDLE).astype(np.uint16)
        Image.fromarray(steps).save(home / "diff_map.png", compress_level=3)
    if "nifti" in recipe.formats:
        for name, image in (("prior", pair.prior), ("current", pair.current), ("diff_map", pair.target)):
            _write_nifti(home / f"{name}.nii.gz", image)
    Image.fromarray(pair.valid.astype(np.uint8) * 255).save(home / "valid.png", compress_level=3)
    facts = {
        **pair.parameters,
        "file": Path(path).name,
        "map": {"middle": MAP_MIDDLE, "per_unit": MAP_SCALE, "positive": "denser in current than in prior"},
    }
    (home / "params.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


def _write_nifti(path: Path, image: npt.NDArray[np.float32]) -> None:
    try:
        import nibabel as nib
    except ModuleNotFoundError:
        raise UsageProblem(
            "writing NIfTI needs nibabel",
            where="--format",
            hint=install_line(("medcli[diffmap]",)),
            code="missing-extra",
        ) from None
    volume = nib.Nifti1Image(np.ascontiguousarray(image.T), None)
    # No orientation is declared: the first axis runs along the columns, as everybody reads it then.
    volume.header.set_qform(None, 0)
    volume.header.set_sform(None, 0)
    nib.save(volume, path)
