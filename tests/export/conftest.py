"""One small calibrated run on pictures of several sizes, and its bundle, made once for all tests of exports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.testing.command import RunCli, forget_user_settings


def draw(folder: Path, count: int, seed: int) -> None:
    """Noise of different sizes, brighter where the class is `opaque`; every fifth picture in colour, one 16-bit."""
    random = np.random.default_rng(seed)
    for label, name in enumerate(("clear", "opaque")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            height, width = random.integers(18, 40, 2)
            shape = (height, width, 3) if number % 5 == 4 else (height, width)
            pixels = random.integers(0, 156, shape, dtype=np.uint8) + np.uint8(60 * label)
            picture = Image.fromarray(pixels)
            if number == 3:
                picture = Image.fromarray((pixels.astype(np.uint16) * 257) + random.integers(0, 99, dtype=np.uint16))
            picture.save(folder / name / f"{name}{seed}-{number}.png")


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures in `data/`, the calibrated run `run` and its bundle `bundle`."""
    import torch

    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("exported")
    for seed, (split, count) in enumerate((("train", 8), ("val", 15), ("test", 6))):
        draw(place / "data" / split, count, seed)
    cli = RunCli(place)
    with pytest.MonkeyPatch.context() as patch:
        forget_user_settings(patch, place)
        small = ("--image-size", "16", "--epochs", "1", "--workers", "0", "--batch-size", "8", "--out", "run")
        for words in (
            ("train", "echo", "--data", "data", "--fit", "crop", *small),
            ("calibrate", "run", "--method", "platt"),
            ("export", "run", "--out", "bundle"),
        ):
            done = cli(*words, in_process=True)
            assert done.code == 0, done.stderr
    return place
