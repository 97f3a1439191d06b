"""MedMNIST-style .npz files: arrays named `train_images`, `train_labels` and so on, read only when needed.

Object arrays are never unpickled. Headers are read first, so that shapes are known without touching a pixel.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.caches import cache_root
from medcli.data.dataset import Picture
from medcli.data.decode import UnreadableImage
from medcli.data.medmnist import known_set
from medcli.data.sources.cases import Cases, LabelColumn
from medcli.errors import UsageProblem

__all__ = ["ArrayImages", "npz_cases"]

SPLITS = ("train", "val", "test")
IN_MEMORY = 2**30  # bytes of one array; a larger one is unpacked to disk once and mapped


@dataclass(frozen=True)
class Member:
    """The header of one array of an archive."""

    path: str
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class LazyArray:
    """One array of an archive, read at first use; pickled without its contents, so worker processes map it again."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self._lock = threading.Lock()
        self._array: npt.NDArray[Any] | None = None

    def __getstate__(self) -> Member:
        return self.member

    def __setstate__(self, member: Member) -> None:
        self.__init__(member)  # type: ignore[misc]

    @property
    def array(self) -> npt.NDArray[Any]:
        """The values. Raises UnreadableImage if the archive is broken."""
        with self._lock:
            if self._array is None:
                try:
                    self._array = _load(self.member)
                except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError) as error:
                    raise UnreadableImage(
                        f"{self.member.path}: {self.member.key}", f"damaged array ({error})"
                    ) from error
            return self._array


@dataclass(frozen=True)
class ArrayImages:
    """Images in arrays [n, H, W] or [n, H, W, C], one array per split, one after another."""

    arrays: tuple[LazyArray, ...]
    starts: tuple[int, ...]
    high: float = field(default=255.0)

    def __len__(self) -> int:
        return self.starts[-1] + self.arrays[-1].member.shape[0]

    def read(self, index: int) -> Picture:
        """One image. Raises UnreadableImage."""
        pixels = self._row(index)
        if pixels.ndim == 3 and pixels.shape[2] == 1:
            pixels = pixels[..., 0]
        if pixels.dtype.kind == "f":
            pixels = pixels.astype(np.float32)
            if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
                raise UnreadableImage(self.describe(index), "numbers with decimals must lie in 0..1")
        return Picture(pixels, 0.0, self.high)

    def describe(self, index: int) -> str:
        """`file: key[row]`."""
        lazy, row = self._locate(index)
        return f"{lazy.member.path}: {lazy.member.key}[{row}]"

    def fingerprint(self, index: int) -> bytes:
        """16 bytes over the pixels."""
        return hashlib.blake2b(self._row(index).tobytes(), digest_size=16).digest()

    def _locate(self, index: int) -> tuple[LazyArray, int]:
        part = max(position for position, start in enumerate(self.starts) if start <= index)
        return self.arrays[part], index - self.starts[part]

    def _row(self, index: int) -> npt.NDArray[Any]:
        lazy, row = self._locate(index)
        return np.asarray(lazy.array[row])


def npz_cases(path: str) -> Cases:
    """The cases of a MedMNIST-style archive.

    Raises:
        UsageProblem: no archive, keys missing, object arrays, shapes that disagree, or labels that are no numbers.
    """
    members = _members(path)
    present = [split for split in SPLITS if f"{split}_images" in members]
    wanted = [f"{split}_{part}" for split in present or ("train",) for part in ("images", "labels")]
    absent = [f"`{key}`" for key in wanted if key not in members]
    if absent:
        raise UsageProblem(
            f"`{path}` has no array{'s' * (len(absent) > 1)} {' and '.join(absent)}; it holds "
            + (", ".join(f"`{key}`" for key in sorted(members)) or "nothing"),
            hint="a MedMNIST-style file holds `train_images` [n, H, W] and `train_labels` [n, 1], and the same for "
            "`val` and `test`",
            code="npz-keys",
        )
    images = [members[f"{split}_images"] for split in present]
    labels = [_labels(members[f"{split}_labels"]) for split in present]
    _check_shapes(path, images, labels)
    sizes = [member.shape[0] for member in images]
    starts = tuple(int(start) for start in np.cumsum([0, *sizes[:-1]]))
    source = ArrayImages(tuple(LazyArray(member) for member in images), starts, _white(images[0]))
    every = np.concatenate(labels)
    facts = known_set(path)
    fits = facts is not None and every.shape[1] == (len(facts.classes) if facts.task == "multilabel" else 1)
    names = facts.classes if facts and fits else ()
    several = every.shape[1] > 1
    columns = tuple(
        LabelColumn(
            names[column] if several and names else f"label_{column}" if several else "label", _cells(every[:, column])
        )
        for column in range(every.shape[1])
    )
    return Cases(
        ids=tuple(f"{split}/{row}" for split, size in zip(present, sizes, strict=True) for row in range(size)),
        images=source,
        columns=columns,
        where=lambda index: source.describe(index).replace("_images[", "_labels["),
        channels=3 if len(images[0].shape) == 4 and images[0].shape[3] == 3 else 1,
        splits=np.repeat(np.array(present), sizes),
        class_names=names,
        task=(facts.task if facts and fits else None),
        positive=facts.positive if facts and fits else None,
        notes=(facts.caution,) if facts and fits and facts.caution else (),
    )


def _members(path: str) -> dict[str, Member]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                name.removesuffix(".npy"): _header(path, name.removesuffix(".npy"), archive)
                for name in archive.namelist()
                if name.endswith(".npy")
            }
    except FileNotFoundError:
        raise UsageProblem(f"`{path}` does not exist", code="missing-path") from None
    except (zipfile.BadZipFile, OSError) as error:
        raise UsageProblem(f"`{path}` is not an .npz archive: {error}", code="not-npz") from None


def _header(path: str, key: str, archive: zipfile.ZipFile) -> Member:
    with archive.open(f"{key}.npy") as file:
        try:
            version = np.lib.format.read_magic(file)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = reader(file)
        except ValueError as error:
            raise UsageProblem(f"array `{key}` is damaged: {error}", where=path, code="not-npz") from None
    if dtype.hasobject:
        raise UsageProblem(
            f"array `{key}` holds Python objects; they are never unpickled, because that could run code",
            where=path,
            hint="save numbers: `numpy.savez(FILE, train_images=images.astype('uint8'), …)`",
            code="object-array",
        )
    return Member(path, key, tuple(shape), dtype)


def _labels(member: Member) -> npt.NDArray[Any]:
    """Labels as [n, L]."""
    if member.dtype.kind not in "biuf":
        raise UsageProblem(
            f"`{member.key}` holds no numbers (type {member.dtype})", where=member.path, code="npz-labels"
        )
    try:
        values = _load(member)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UsageProblem(f"array `{member.key}` is damaged: {error}", where=member.path, code="not-npz") from None
    if values.ndim not in {1, 2}:
        raise UsageProblem(
            f"`{member.key}` has shape {member.shape}, not [n] or [n, L]", where=member.path, code="npz-shape"
        )
    return values.reshape(len(values), -1)


def _check_shapes(path: str, images: list[Member], labels: list[npt.NDArray[Any]]) -> None:
    first = images[0]
    for member, values in zip(images, labels, strict=True):
        shape = member.shape
        if len(shape) not in {3, 4} or (len(shape) == 4 and shape[3] not in {1, 3}):
            kind = " (volumes are not read)" if len(shape) in {4, 5} else ""
            raise UsageProblem(
                f"`{member.key}` has shape {shape}, not [n, H, W] or [n, H, W, 3]{kind}", where=path, code="npz-shape"
            )
        if shape[0] != len(values):
            raise UsageProblem(
                f"`{member.key}` has {shape[0]} images and its labels {len(values)} rows", where=path, code="npz-shape"
            )
        if shape[0] == 0:
            raise UsageProblem(f"`{member.key}` is empty", where=path, code="npz-shape")
        if values.shape[1] != labels[0].shape[1]:
            raise UsageProblem(
                f"`{member.key}` has other label columns than `{first.key}`", where=path, code="npz-shape"
            )
        if shape[1:] != first.shape[1:] or member.dtype != first.dtype:
            raise UsageProblem(
                f"`{member.key}` is {member.dtype} {shape[1:]} and `{first.key}` {first.dtype} {first.shape[1:]}",
                where=path,
                code="npz-shape",
            )
        if member.dtype not in {np.dtype("uint8"), np.dtype("uint16")} and member.dtype.kind != "f":
            raise UsageProblem(
                f"`{member.key}` is of type {member.dtype}; uint8, uint16 or decimals in 0..1 are read",
                where=path,
                code="npz-type",
            )


def _white(member: Member) -> float:
    return 1.0 if member.dtype.kind == "f" else float(np.iinfo(member.dtype).max)


def _cells(values: npt.NDArray[Any]) -> tuple[str, ...]:
    if values.dtype.kind == "b":
        values = values.astype(np.int64)
    if values.dtype.kind == "f":
        return tuple("" if np.isnan(value) else f"{value:g}" for value in values.tolist())
    return tuple(map(str, values.tolist()))


def _load(member: Member) -> npt.NDArray[Any]:
    if member.nbytes > IN_MEMORY:
        return np.load(_unpacked(member), mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    with zipfile.ZipFile(member.path) as archive, archive.open(f"{member.key}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _unpacked(member: Member) -> Path:
    """The array as a plain .npy in the cache: zip archives cannot be memory-mapped."""
    status = Path(member.path).stat()
    identity = f"{Path(member.path).resolve()}|{status.st_size}|{status.st_mtime_ns}|{member.key}"
    root = cache_root() / "npz"
    target = root / f"{hashlib.blake2b(identity.encode(), digest_size=12).hexdigest()}.npy"
    if target.exists():
        return target
    root.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=root, suffix=".part")
    try:
        with (
            os.fdopen(handle, "wb") as out,
            zipfile.ZipFile(member.path) as archive,
            archive.open(f"{member.key}.npy") as file,
        ):
            shutil.copyfileobj(file, out, 2**22)
        Path(temporary).replace(target)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return target
