"""`synthetic/chest` as a data set: which phantom patients there are, how often each was imaged, with what findings."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medcli.data.dataset import DataSet, Picture, Samples
from medcli.data.splits import SPLITS, make_splits
from medcli.data.subset import take
from medcli.data.synthetic.findings import FINDINGS
from medcli.data.target import Target
from medcli.errors import UsageProblem, nearest

if TYPE_CHECKING:
    from medcli.settings.groups import DataSettings

__all__ = [
    "DEFAULT_IMAGES",
    "SETS",
    "PhantomCases",
    "PhantomImages",
    "check_name",
    "draw_cases",
    "load_synthetic",
    "phantom_target",
]

SETS = ("synthetic/chest",)
DEFAULT_IMAGES = 1000
DEFAULT_SIZE = 128
SMALLEST_SIZE = 64  # below, ribs and vessels are thinner than a pixel; smaller inputs are resized from this
MOST_PER_PATIENT = 4
GENERATOR = 1  # part of every fingerprint: raise it when the same seed draws other images


@dataclass(frozen=True)
class PhantomCases:
    """The images of a set before any of them is drawn.

    Args:
        patient: int64 [n], ascending.
        study: int64 [n], counts a patient's images from 0.
        present: bool [n, 4], which of `FINDINGS` an image shows.
    """

    patient: npt.NDArray[np.int64]
    study: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.patient)

    @property
    def patients(self) -> npt.NDArray[np.str_]:
        """Names such as `p00012`."""
        return np.array([f"p{number:05d}" for number in self.patient.tolist()], dtype=np.str_)

    @property
    def ids(self) -> npt.NDArray[np.str_]:
        """Names such as `p00012-1`."""
        pairs = zip(self.patient.tolist(), self.study.tolist(), strict=True)
        return np.array([f"p{patient:05d}-{study + 1}" for patient, study in pairs], dtype=np.str_)

    def labels(self, task: str) -> npt.NDArray[Any]:
        """Labels for `multiclass` (0 none, 1.. `FINDINGS`), `binary` (any finding) or `multilabel`; see `Target`."""
        if task == "multilabel":
            return self.present.astype(np.float32)
        any_finding = np.asarray(self.present.any(axis=1))
        if task == "binary":
            return any_finding.astype(np.int64)
        return np.where(any_finding, 1 + self.present.argmax(axis=1), 0).astype(np.int64)


@dataclass(frozen=True)
class PhantomImages:
    """Draws an image when it is read; the same every time.

    Args:
        cases: what to draw.
        seed: of the set.
        size: side in pixels.
    """

    cases: PhantomCases
    seed: int
    size: int

    def __len__(self) -> int:
        return len(self.cases)

    def draw(self, index: int) -> npt.NDArray[np.float32]:
        """float32 [S, S] in [0, 1]."""
        # scipy costs a quarter of a second, which listing and checking a set need not pay
        from medcli.data.synthetic.anatomy import draw_anatomy
        from medcli.data.synthetic.findings import draw_findings
        from medcli.data.synthetic.frame import draw_pose, make_frame
        from medcli.data.synthetic.rendering import attenuation, develop, draw_exposure

        patient, study = int(self.cases.patient[index]), int(self.cases.study[index])
        anatomy = draw_anatomy(self.seed, patient)
        pose_rng, finding_rng, exposure_rng = np.random.default_rng([self.seed, patient, 2, study]).spawn(3)
        present = frozenset(name for name, shown in zip(FINDINGS, self.cases.present[index], strict=True) if shown)
        findings = draw_findings(finding_rng, present, anatomy)
        image = attenuation(make_frame(anatomy, draw_pose(pose_rng), self.size), findings)
        return develop(image, draw_exposure(exposure_rng, image, (self.seed, patient, 3, study)))

    def read(self, index: int) -> Picture:
        """uint8 [S, S]."""
        return Picture(np.rint(self.draw(index) * 255).astype(np.uint8), 0, 255)

    def describe(self, index: int) -> str:
        """The name of the case."""
        patient, study = int(self.cases.patient[index]), int(self.cases.study[index])
        return f"{SETS[0]}, image p{patient:05d}-{study + 1}"

    def fingerprint(self, index: int) -> bytes:
        """A digest of everything that decides about the image."""
        facts = (
            GENERATOR,
            self.seed,
            self.size,
            int(self.cases.patient[index]),
            int(self.cases.study[index]),
            self.cases.present[index].tolist(),
        )
        return hashlib.sha256(repr(facts).encode()).digest()


def draw_cases(count: int, seed: int, *, task: str) -> PhantomCases:
    """The first `count` images of the set with this seed; a longer set begins with the same ones.

    Args:
        count: images, not patients; a patient has one to four.
        seed: of the set.
        task: `multiclass` (five classes equally often), `binary` (a finding in every second image) or `multilabel`
            (each finding in three of ten images, independently).
    """
    sizes, classes = np.random.default_rng([seed, 4]).spawn(2)
    images_of = sizes.integers(1, MOST_PER_PATIENT + 1, count)
    patient = np.repeat(np.arange(count), images_of)[:count]
    study = (np.arange(images_of.sum()) - np.repeat(np.cumsum(images_of) - images_of, images_of))[:count]
    draws = classes.random((count, len(FINDINGS)))
    present = np.zeros(draws.shape, dtype=bool)
    if task == "multilabel":
        present = draws < 0.3
    else:
        healthy = 0.5 if task == "binary" else 1 / (1 + len(FINDINGS))
        which = (draws[:, 1] * len(FINDINGS)).astype(np.int64)
        present[np.arange(count), which] = draws[:, 0] >= healthy
    return PhantomCases(patient.astype(np.int64), study.astype(np.int64), present)


def phantom_target(task: str | None) -> Target:
    """What `synthetic/chest` predicts.

    Raises:
        UsageProblem: a task that it has no labels for.
    """
    if task in (None, "multiclass"):
        return Target("multiclass", ("none", *FINDINGS))
    if task == "binary":
        return Target("binary", ("none", "finding"))
    if task == "multilabel":
        return Target("multilabel", FINDINGS)
    raise UsageProblem(
        f"`{SETS[0]}` has no {task} labels",
        where="--task",
        hint="`--task multiclass`, `--task multilabel` or `--task binary`",
        code="no-such-task",
    )


def load_synthetic(name: str, settings: DataSettings, target: Target | None = None) -> DataSet:
    """A built-in set; nothing is drawn yet.

    There are 1,000 images, or as many as `limit` asks for in the largest split; they are drawn at `image_size` (128
    unless set, never below 64) and split by patient.

    Args:
        name: such as `synthetic/chest`.
        settings: `task`, `split`, `split_seed`, `limit` and `image_size` count.
        target: of a model that exists already; its task is the one to have labels for.

    Raises:
        UsageProblem: an unknown name, a task without labels, a flag that belongs to other data, or another target.
    """
    check_name(name)
    _refuse_foreign_flags(name, settings)
    own = phantom_target(settings.task or (target.task if target is not None else None))
    if target is not None and (target.task, target.class_names) != (own.task, own.class_names):
        raise UsageProblem(
            f"the model predicts {', '.join(target.class_names[:8]) or target.task}, and `{name}` has labels for "
            f"{', '.join(own.class_names)}",
            where="--data",
            code="other-target",
        )
    count = DEFAULT_IMAGES
    if settings.limit is not None:
        count = max(count, math.ceil(settings.limit / max(*settings.split, 0.01)))
    cases = draw_cases(count, 0, task=own.task)
    size = max(SMALLEST_SIZE, settings.image_size or DEFAULT_SIZE)
    everything = Samples(cases.ids, PhantomImages(cases, 0, size), cases.labels(own.task), cases.patients)
    parts = make_splits(everything.labels, own, cases.patients, settings.split, settings.split_seed)
    splits = {part: take(everything, np.flatnonzero(parts == part)) for part in SPLITS if (parts == part).any()}
    return DataSet(name, name, target or own, splits, channels=1, made_splits=True)


def check_name(name: str) -> None:
    """Raises UsageProblem: there is no built-in set of this name."""
    if name in SETS:
        return
    close = nearest(name, SETS, 1)
    raise UsageProblem(
        f"there is no built-in set `{name}`; there is {', '.join(f'`{known}`' for known in SETS)}",
        where="--data",
        hint=f"did you mean `{close[0]}`?" if close else None,
        code="unknown-data",
    )


def _refuse_foreign_flags(name: str, settings: DataSettings) -> None:
    for field in (
        "image_dir",
        "image_column",
        "label_column",
        "ordinal_column",
        "ignore_class",
        "patient_column",
        "patient_pattern",
        "split_column",
        "class_names",
        "positive_class",
        "leave_out",
    ):
        if getattr(settings, field):
            flag = "--" + field.replace("_", "-")
            raise UsageProblem(
                f"`{name}` has its own labels, patients and class names, so `{flag}` has nothing to act on",
                where=flag,
                code="foreign-flag",
            )
