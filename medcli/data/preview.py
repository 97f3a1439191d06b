"""A picture small enough for a terminal or a look in a viewer."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from medcli.data.dataset import Picture

__all__ = ["ASCII", "BLOCKS", "as_png", "as_text", "grey8"]

BLOCKS = " ░▒▓█"
ASCII = " .:-=+*#%@"
MAX_SIDE = 1024


def grey8(picture: Picture) -> npt.NDArray[np.uint8]:
    """uint8 [H, W] or [H, W, 3]: the declared range brought to 0..255, nothing stretched."""
    values = (np.asarray(picture.pixels, dtype=np.float32) - picture.low) / (picture.high - picture.low)
    return np.asarray(np.rint(np.clip(values, 0.0, 1.0) * 255), dtype=np.uint8)


def as_text(picture: Picture, width: int = 56, shades: str = BLOCKS) -> str:
    """Lines of characters, dark to light; a character is taken to be twice as high as wide.

    Args:
        picture: what to show.
        width: characters per line, at most.
        shades: characters from dark to light.
    """
    height, across = picture.pixels.shape[:2]
    columns = max(1, min(width, across))
    rows = max(1, min(round(height / across * columns / 2), width))
    image = Image.fromarray(grey8(picture)).convert("L").resize((columns, rows), Image.Resampling.BOX)
    level = np.asarray(image).astype(np.int64) * len(shades) // 256
    return "\n".join("".join(shades[value] for value in row) for row in level.tolist())


def as_png(picture: Picture) -> bytes:
    """An 8-bit PNG, the long side at most 1024 pixels."""
    image = Image.fromarray(grey8(picture))
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
