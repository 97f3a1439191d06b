"""Images that lie in files, one each, and how a name or a folder becomes a list of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medcli.data.dataset import Picture
from medcli.data.decode import DICOM_MAGIC_AT, image_suffix, peek_channels, read_picture
from medcli.errors import UsageProblem

__all__ = ["FileImages", "find_images", "images_below", "is_image_file", "sampled_channels"]

CHANNEL_SAMPLE = 256
JUNK = frozenset({"thumbs.db", "desktop.ini", "__macosx", "dicomdir"})


@dataclass(frozen=True)
class FileImages:
    """Images by file; see `medcli.data.dataset.ImageSource`.

    Args:
        paths: one file per image.
        window: DICOM window, see `DataSettings.window`.
    """

    paths: tuple[str, ...]
    window: str = "auto"

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Picture:
        """Decode one image. Raises UnreadableImage."""
        return read_picture(self.paths[index], self.window)

    def describe(self, index: int) -> str:
        """The file."""
        return self.paths[index]

    def fingerprint(self, index: int) -> bytes:
        """16 bytes over the file's contents, or over nothing where it cannot be read."""
        try:
            return hashlib.blake2b(Path(self.paths[index]).read_bytes(), digest_size=16).digest()
        except OSError:
            return bytes(16)


def is_image_file(path: str) -> bool:
    """Whether a file has an image suffix, or none at all and a DICOM's first bytes."""
    name = os.path.basename(path)  # noqa: PTH119 - called once per file of a data set; Path costs ten times as much
    if name.startswith(".") or name.lower() in JUNK:
        return False
    if image_suffix(name):
        return True
    suffix = os.path.splitext(name)[1]  # noqa: PTH122
    if suffix and not suffix[1:].isdigit():
        return False
    # Archives name DICOM files without a suffix, or by an identifier with dots in it.
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read(DICOM_MAGIC_AT + 4)[DICOM_MAGIC_AT:] == b"DICM"
    except OSError:
        return False


def images_below(folder: str) -> tuple[list[str], list[str]]:
    """All image files below a folder and all other files, both sorted; hidden ones are passed over."""
    images: list[str] = []
    others: list[str] = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name.lower() not in JUNK)
        for name in sorted(files):
            path = os.path.join(parent, name)  # noqa: PTH118
            if is_image_file(path):
                images.append(path)
            elif not name.startswith(".") and name.lower() not in JUNK:
                others.append(path)
    return images, others


def find_images(inputs: Iterable[str]) -> tuple[str, ...]:
    """Files as given and folders' images in sorted order, in the order of the inputs.

    A file that was named is kept whatever it is, so that the reader reports it.

    Raises:
        UsageProblem: an input that does not exist, or a folder without images.
    """
    found: list[str] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            images, _ = images_below(text)
            if not images:
                raise UsageProblem(f"folder `{text}` holds no images", code="empty-folder")
            found.extend(images)
        elif path.exists():
            found.append(text)
        else:
            raise UsageProblem(f"`{text}` does not exist", code="missing-path")
    return tuple(found)


def sampled_channels(paths: Sequence[str]) -> int:
    """1 if the headers of at most 256 evenly spread files all say grey, else 3."""
    step = max(1, len(paths) // CHANNEL_SAMPLE)
    return 3 if any(peek_channels(path) == 3 for path in paths[::step]) else 1
