"""Pictures of a run's own splits as its network takes them: for calibrating a smaller network, and for judging it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from medcli.data.dataset import DataSet, Preprocessing, Samples
from medcli.data.decode import UnreadableImage
from medcli.data.load import load_data
from medcli.data.record import labels_hash
from medcli.data.resize import normalise, to_tensor
from medcli.data.subset import take
from medcli.errors import MedcliError, UsageProblem
from medcli.evaluation.predictions import Predictions
from medcli.export.source import Source
from medcli.runs.records import read_config, read_data
from medcli.settings.groups import DataSettings

__all__ = ["RunCases", "read_run_cases"]

CALIBRATING, JUDGING = 128, 2000
"""Most pictures of the training and of the validation split; 1.2 GB of memory for 2,000 of 224 pixels."""

THREADS = 4
Images = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RunCases:
    """Pictures with their labels.

    Args:
        training: float32 [m, C, S, S], normalised, spread evenly over the training split; empty where not asked for.
        validation: float32 [n, C, S, S], normalised.
        samples: the n cases of the validation split.
        data_name: of the data set.
        left_out: pictures that cannot be read.
    """

    training: Images
    validation: Images
    samples: Samples
    data_name: str
    left_out: int

    def answered(self, logits: npt.NDArray[np.float32], source: Source) -> Predictions:
        """What somebody says to the validation cases."""
        samples = self.samples
        return Predictions(
            ids=np.asarray(samples.ids, dtype=np.str_),
            labels=samples.labels,
            logits=logits,
            target=source.loaded.spec.target,
            split="val",
            data_name=self.data_name,
            patients=None if samples.patients is None else np.asarray(samples.patients, dtype=np.str_),
        )


def read_run_cases(source: Source, data: Sequence[str], *, calibrating: bool) -> RunCases:
    """Read pictures of a run's splits again.

    Args:
        source: the run.
        data: where its data set lies now; empty for where it lay.
        calibrating: whether training pictures are needed too.

    Raises:
        UsageProblem: they are no longer there or are split otherwise (code `no-images`), or are of another target
            (`other-target`).
    """
    where = "--data" if data else str(source.run.config_file)
    dataset = _dataset(source, data, where)
    how = source.loaded.preprocessing
    found = {}
    for split, most in (("train", CALIBRATING if calibrating else 0), ("val", JUDGING)):
        if not most:
            continue
        samples = dataset.splits.get(split)
        if samples is None or not len(samples):
            raise _gone(f"`{dataset.name}` has no {_SPLITS[split]} split", where)
        rows = np.unique(np.linspace(0, len(samples) - 1, num=min(most, len(samples))).astype(int))
        found[split] = _read(take(samples, rows), how)
        if not len(found[split][0]):
            raise _gone(f"no picture of the {_SPLITS[split]} split of `{dataset.name}` can be read", where)
    validation, samples, left_out = found["val"]
    training, _, others = found.get("train", (validation[:0], None, 0))
    return RunCases(training, validation, samples, dataset.name, left_out + others)


_SPLITS = {"train": "training", "val": "validation"}


def _dataset(source: Source, data: Sequence[str], where: str) -> DataSet:
    target = source.loaded.spec.target
    try:
        resolved = read_config(source.run).resolved()
        settings = replace(resolved.group(DataSettings), window=source.loaded.preprocessing.window)
        settings = replace(settings, data=tuple(data)) if data else settings
        # Without the target: where the run drew its splits, they are drawn again, and are the same ones.
        dataset, *_ = load_data(settings, data_tables=resolved.data_tables)
    except MedcliError as problem:
        raise _gone(problem.message, where) from problem
    if dataset.target != target:
        raise UsageProblem(
            f"`{dataset.name}` has other classes than the run",
            where=where,
            hint="name the data set that the run was trained on",
            code="other-target",
        )
    if dataset.made_splits and not _drawn_alike(dataset, source):
        raise _gone(
            f"`{dataset.name}` has other splits than it had, and those that would be drawn now mix training with "
            "validation images",
            where,
        )
    return dataset


def _drawn_alike(dataset: DataSet, source: Source) -> bool:
    """Whether drawing the splits again gave those of the run; they may lie under other names by now."""
    if not source.run.data_file.is_file():
        return True
    before = read_data(source.run).get("splits", {})
    return all(
        split in before and before[split].get("labels_hash") == labels_hash(samples)
        for split, samples in dataset.splits.items()
        if split in _SPLITS
    )


def _gone(what: str, where: str) -> UsageProblem:
    return UsageProblem(
        f"a quantised network is measured on the run's validation images, and made from its training images: {what}",
        where=where,
        hint="`--data PATH` names where the run's data set lies now; `--quantize none` needs none of it",
        code="no-images",
    )


def _read(samples: Samples, how: Preprocessing) -> tuple[Images, Samples, int]:
    def one(row: int) -> Images | None:
        try:
            picture = samples.images.read(row)
        except UnreadableImage:
            return None
        image: Images = normalise(to_tensor(picture, how)[None], how)[0].numpy()
        return image

    with ThreadPoolExecutor(THREADS, thread_name_prefix="decode") as pool:
        found = list(pool.map(one, range(len(samples))))
    rows = np.array([row for row, image in enumerate(found) if image is not None], dtype=np.int64)
    kept = [image for image in found if image is not None]
    if not kept:
        return np.zeros((0, 0), dtype=np.float32), samples, len(samples)
    return np.stack(kept), samples if len(kept) == len(samples) else take(samples, rows), len(samples) - len(kept)
