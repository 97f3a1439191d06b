"""Small data sets on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Draw = Callable[..., Path]


@pytest.fixture
def draw_image() -> Draw:
    """A callable that writes a small grey image of noise, the same for the same seed."""

    def draw(path: Path, seed: int = 0, size: int = 16) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return draw
