"""Real pictures, and what the run itself says to them: what an export is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medcli.bundles.pictures import as_input
from medcli.data.dataset import ImageSource, Picture, Preprocessing
from medcli.data.decode import UnreadableImage
from medcli.data.load import load_data
from medcli.data.named_sets import BUILT_IN
from medcli.data.resize import normalise, to_tensor
from medcli.data.sources.files import FileImages, find_images
from medcli.data.target import Target
from medcli.errors import MedcliError, UsageProblem
from medcli.evaluation.calibrator import Calibrator, calibrate_logits
from medcli.evaluation.scores import sigmoid, softmax
from medcli.export.graph import MeanNetwork, Network
from medcli.runs.directory import RunDirectory
from medcli.runs.records import read_config
from medcli.settings.groups import DataSettings

__all__ = ["Expected", "expect", "phantoms", "real_pictures", "stacks"]

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Expected:
    """What the run says to one batch of pictures of one size.

    Args:
        images: [n, h, w, 1 or 3], as a bundle takes them.
        probabilities: float64 [n, ...], calibrated where the run is.
        logits: float32 [n, ...].
        features: float32 [n, D].
    """

    images: npt.NDArray[Any]
    probabilities: Floats
    logits: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]


def real_pictures(run: RunDirectory, target: Target, window: str, count: int, data: Sequence[str]) -> list[Picture]:
    """Pictures of the run's own data (test, else val, else train), or of `data`, spread evenly.

    Raises:
        UsageProblem: they are no longer there, or none can be read (code `no-images`).
    """
    try:
        images = _named(data[0], target, window) if data else _own(run, target, window)
        found: list[Picture] = []
        for index in np.unique(np.linspace(0, len(images) - 1, num=min(3 * count, len(images))).astype(int)).tolist():
            try:
                found.append(images.read(index))
            except UnreadableImage:
                continue
        if not found:
            raise UsageProblem("none of them can be read")
    except MedcliError as problem:
        raise UsageProblem(
            f"there are no pictures to compare the export with: {problem.message}",
            where="--data" if data else str(run.config_file),
            hint="`--data PATH` names others, `--no-verify` does without a comparison",
            code="no-images",
        ) from problem
    kept = np.unique(np.linspace(0, len(found) - 1, num=min(count, len(found))).astype(int))
    return [found[row] for row in kept.tolist()]


def _own(run: RunDirectory, target: Target, window: str) -> ImageSource:
    resolved = read_config(run).resolved()
    settings = replace(resolved.group(DataSettings), limit=None, window=window)
    (dataset, *_) = load_data(settings, data_tables=resolved.data_tables, target=target)
    return next(dataset.splits[split].images for split in ("test", "val", "train") if split in dataset.splits)


def _named(text: str, target: Target, window: str) -> ImageSource:
    if Path(text).is_dir():
        return FileImages(find_images([text]), window)
    if Path(text).is_file() and not text.lower().endswith((".npz", ".csv", ".tsv", ".gz", ".txt")):
        return FileImages((text,), window)
    if not Path(text).exists() and not text.startswith(BUILT_IN):
        raise UsageProblem(f"`{text}` does not exist")
    (dataset,) = load_data(DataSettings(data=(text,), window=window), target=target)
    return next(iter(dataset.splits.values())).images


def stacks(pictures: Sequence[Picture], batch_size: int) -> list[list[Picture]]:
    """Batches of 1 (as they are), of 3 and of `batch_size`, cut to a common size; the 3 are cut to an odd one."""
    first = as_input(pictures[0])
    alike = [one for one in pictures if _kind(as_input(one)) == _kind(first)]
    height, width = (min(one.pixels.shape[axis] for one in alike) for axis in (0, 1))

    def batch(count: int, rows: int, columns: int) -> list[Picture]:
        repeated = [alike[row % len(alike)] for row in range(count)]
        return [replace(one, pixels=one.pixels[:rows, :columns]) for one in repeated]

    odd = batch(3, max(2, height - height // 8), max(2, width - width // 5))
    return [*([one] for one in pictures[:4]), odd, batch(batch_size, height, width)]


def _kind(image: npt.NDArray[Any]) -> tuple[Any, int]:
    return image.dtype, image.shape[-1]


def expect(
    network: Network | MeanNetwork,
    preprocessing: Preprocessing,
    target: Target,
    calibrator: Calibrator | None,
    batches: Sequence[Sequence[Picture]],
    *,
    progress: Callable[[int], None] | None = None,
) -> list[Expected]:
    """Ask the run's own network, preprocessing and calibrator.

    Args:
        network: of the run, before anything was merged.
        preprocessing: of the run.
        target: of the run.
        calibrator: of the run, or None.
        batches: pictures, each batch of one size.
        progress: told the number of batches done.
    """
    found = []
    for done, batch in enumerate(batches, start=1):
        x = normalise(torch.stack([to_tensor(one, preprocessing) for one in batch]), preprocessing)
        with torch.inference_mode():
            logits, features = (one.float().numpy() for one in network(x))
        wide = logits if calibrator is None else calibrate_logits(calibrator, logits)
        probabilities = sigmoid(wide) if target.task == "multilabel" else softmax(wide)
        found.append(Expected(np.stack([as_input(one) for one in batch]), probabilities, logits, features))
        if progress is not None:
            progress(done)
    return found


def phantoms() -> list[Picture]:
    """Three drawn radiographs for the self-test: grey, colour, and of more than eight bits; no patient's picture."""
    from medcli.data.synthetic.source import PhantomImages, draw_cases

    drawn = PhantomImages(draw_cases(5, 7, task="multiclass"), 7, 112)
    one, *others = (drawn.draw(row) for row in range(5))
    grey = np.rint(one[:, :90] * 255).astype(np.uint8)
    colour = np.rint(np.stack(others[:3], axis=-1)[:80] * 255).astype(np.uint8)
    deep = np.rint(others[3] * 4095).astype(np.uint16)
    return [Picture(grey, 0, 255), Picture(colour, 0, 255), Picture(deep, 0, 4095)]
