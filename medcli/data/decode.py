"""One picture from one file: which decoder reads it, and how every failure becomes a file and a reason.

A file is read once, whole, and recognised by its first bytes rather than by its name. Decoders say what they do, so
that `data inspect` shows the very steps that training takes.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medcli.data.dataset import Picture

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "Explanation",
    "UnreadableImage",
    "check_size",
    "decode_bytes",
    "explain",
    "image_suffix",
    "parse_window",
    "peek_channels",
    "quiet",
    "read_picture",
]

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".gif", ".webp",
    ".dcm", ".dicom", ".nii", ".nii.gz",
)  # fmt: skip
MAX_PIXELS = 2**28  # 268 million: a 16,000 x 16,000 radiograph passes, a decompression bomb does not
DICOM_MAGIC_AT = 128

Say = Callable[[str], None]
Facts = dict[str, Any]


class UnreadableImage(Exception):
    """An image that cannot be decoded.

    Args:
        path: the file, or file and row.
        reason: a sentence part without the file's name, lower-case start.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Explanation:
    """How one file becomes a picture.

    Args:
        steps: what was done, in order.
        facts: format, size, spacing and the like; never anything that identifies a patient.
        picture: the result.
    """

    steps: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    picture: Picture | None = None


def image_suffix(name: str) -> str:
    """The image suffix of a file name in lower case (`.nii.gz` counts as one), or an empty string."""
    lower = name.lower()
    if lower.endswith(".nii.gz"):
        return ".nii.gz"
    dot = lower.rfind(".")
    suffix = lower[dot:] if dot > 0 else ""
    return suffix if suffix in IMAGE_SUFFIXES else ""


def parse_window(window: str) -> str | tuple[float, float]:
    """`auto`, `full`, or (centre, width) from `CENTRE,WIDTH`. Raises ValueError with a reason."""
    if window in {"auto", "full"}:
        return window
    parts = window.split(",")
    try:
        centre, width = (float(part) for part in parts)
    except ValueError:
        raise ValueError(f"`{window}` is neither `auto`, `full` nor CENTRE,WIDTH") from None
    if not width >= 1:
        raise ValueError(f"a window's width must be at least 1, not {width:g}")
    return centre, width


def read_picture(path: str | Path, window: str = "auto", say: Say | None = None, facts: Facts | None = None) -> Picture:
    """Decode one file.

    Args:
        path: PNG, JPEG, TIFF, BMP, GIF, WebP, DICOM or 2-D NIfTI.
        window: DICOM and NIfTI display window, see `DataSettings.window`.
        say: receives each decoding step as a sentence.
        facts: receives format, size and spacing.

    Raises:
        UnreadableImage: whatever goes wrong, with the reason.
    """
    return decode_bytes(_contents(Path(path)), str(path), window, say, facts)


def decode_bytes(
    data: bytes, name: str, window: str = "auto", say: Say | None = None, facts: Facts | None = None
) -> Picture:
    """Decode the contents of a file called `name`; see `read_picture`."""
    say = say or _silent
    facts = {} if facts is None else facts
    if not data:
        raise UnreadableImage(name, "the file is empty (0 bytes)")
    try:
        with quiet():
            return _decoder(data, name)(data, name, parse_window(window), say, facts)
    except UnreadableImage:
        raise
    except MemoryError:
        raise UnreadableImage(name, "too large for the memory of this machine") from None
    except Exception as error:
        # Decoders of foreign bytes fail in every way there is; each is the file's fault, not the program's.
        raise UnreadableImage(name, _reason(error)) from error


def explain(path: str | Path, window: str = "auto") -> Explanation:
    """Decode one file and tell how. Raises UnreadableImage."""
    steps: list[str] = []
    facts: Facts = {}
    picture = read_picture(path, window, steps.append, facts)
    return Explanation(tuple(steps), facts, picture)


def peek_channels(path: str | Path) -> int | None:
    """1 or 3 from the header alone, or None where the header does not say (or the file is broken)."""
    try:
        with quiet(), Path(path).open("rb") as file:
            head = file.read(DICOM_MAGIC_AT + 4)
            file.seek(0)
            if _is_dicom(head, str(path)):
                from medcli.data.dicom import header_channels

                return header_channels(file)
            if image_suffix(str(path)) in {".nii", ".nii.gz"}:
                return 1
            from medcli.data.raster import header_channels as raster_channels

            return raster_channels(file)
    except Exception:
        return None  # the pass that decodes the file will say what is wrong with it


def check_size(name: str, width: int, height: int) -> None:
    """Raise UnreadableImage for pictures too small to show anything or too large to be decoded safely."""
    if min(width, height) < 2:
        raise UnreadableImage(name, f"{width}×{height} pixels are too few for a picture")
    if width * height > MAX_PIXELS:
        millions = round(width * height / 1e6)
        raise UnreadableImage(
            name, f"{width}×{height} pixels ({millions} million) are above the limit of {MAX_PIXELS // 10**6} million"
        )


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_saved: Any = None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep third-party decoders from writing warnings to the terminal.

    `warnings.catch_warnings` restores a global list, so overlapping threads would restore each other's; here the first
    thread in saves and the last one out restores.
    """
    global _quiet_depth, _quiet_saved
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_saved = warnings.catch_warnings()
            _quiet_saved.__enter__()
            warnings.simplefilter("ignore")
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _quiet_saved.__exit__(None, None, None)


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UnreadableImage(str(path), "no such file") from None
    except IsADirectoryError:
        raise UnreadableImage(str(path), "this is a folder") from None
    except OSError as error:
        raise UnreadableImage(str(path), (error.strerror or str(error)).lower()) from None


def _decoder(data: bytes, name: str) -> Callable[..., Picture]:
    if _is_dicom(data, name):
        from medcli.data.dicom import decode_dicom

        return decode_dicom
    if image_suffix(name) in {".nii", ".nii.gz"}:
        from medcli.data.nifti import decode_nifti

        return decode_nifti
    from medcli.data.raster import decode_raster

    return decode_raster


def _is_dicom(head: bytes, name: str) -> bool:
    # Old archives leave the preamble out, so the suffix counts too.
    return head[DICOM_MAGIC_AT : DICOM_MAGIC_AT + 4] == b"DICM" or image_suffix(name) in {".dcm", ".dicom"}


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    first = text[0].rstrip(".: ") if text else ""
    return first[:1].lower() + first[1:] if first else f"the decoder failed ({type(error).__name__})"


def _silent(_: str) -> None:
    return None
