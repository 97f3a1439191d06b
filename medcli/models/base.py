"""Which weights an adapter was trained on: enough to find them again, and to refuse all others."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from medcli.errors import UsageProblem

if TYPE_CHECKING:
    from medcli.models.spec import ModelSpec

__all__ = ["Base", "Origin", "base_from_json", "base_of", "base_to_json", "content_hash", "state_digest"]

Kind = Literal["file", "run", "tag", "random"]


@dataclass(frozen=True)
class Origin:
    """How a classifier came to its weights.

    Args:
        spec: what was built.
        kind: `file`, `run` (a model file of medcli), `tag` (weights only the factory can find) or `random`.
        weights: as the user named them, or empty.
        file: the file or folder they were read from, or None.
        seed: from which anything drawn at random was drawn, or None for the global generator.
        adapted: tensors of the backbone that were interpolated or converted on loading, which may differ in the last
            bit from machine to machine.
    """

    spec: ModelSpec
    kind: Kind = "random"
    weights: str = ""
    file: Path | None = None
    seed: int | None = None
    adapted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Base:
    """The identity of a backbone's weights, as it is kept beside an adapter.

    Args:
        kind: see `Origin`.
        weights: as the user named them.
        file: where they were, absolute.
        sha256: of that file, or of a folder's files.
        seed: see `Origin`.
        state: digest of the backbone's tensors; this is what is compared.
    """

    kind: Kind
    weights: str
    file: str
    sha256: str
    seed: int | None
    state: str

    def sentence(self) -> str:
        """Half a sentence that tells a user which weights are meant."""
        if self.kind == "random":
            return f"random weights drawn from seed {self.seed}"
        name = Path(self.file).name if self.file else self.weights
        if self.kind == "run":
            name = f"{Path(self.file).parent.name}/{name}"
        return f"`{name}`" + (f" (sha256 {self.sha256[:12]}…)" if self.sha256 else "")


def base_of(origin: Origin, state: Mapping[str, torch.Tensor]) -> Base:
    """The identity of a backbone that was built so; its file is read once.

    Args:
        origin: where its weights came from.
        state: the state of the backbone, before any adapter.
    """
    file = origin.file
    return Base(
        origin.kind,
        origin.weights,
        # Links are kept: in a hub's cache the name is the link's, and what it leads to has no suffix.
        "" if file is None else str(file.absolute()),
        "" if file is None else content_hash(file),
        origin.seed,
        state_digest(state, origin.adapted),
    )


def base_to_json(base: Base) -> dict[str, Any]:
    """Plain JSON types."""
    return asdict(base)


def base_from_json(document: Any) -> Base:
    """The inverse of `base_to_json`; raises `ValueError`."""
    names = {entry.name for entry in fields(Base)}
    if not isinstance(document, dict) or set(document) != names:
        raise ValueError("its `base` has missing or unknown fields")
    seed = document["seed"]
    texts = [document[name] for name in ("weights", "file", "sha256", "state")]
    if document["kind"] not in get_args(Kind) or not all(isinstance(text, str) for text in texts):
        raise ValueError("its `base` holds other values than medcli writes")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise ValueError("its `base` holds a seed that is no whole number")
    return Base(**document)


def state_digest(state: Mapping[str, torch.Tensor], without: Collection[str] = ()) -> str:
    """SHA-256 over names, types, shapes and numbers of tensors, in the order of their names.

    Those `without` are left out, by the end of their name. It does not depend on the device, the memory layout, or the
    format of the file they came from.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        if any(name == other or name.endswith(f".{other}") for other in without):
            continue
        tensor = state[name].detach().to("cpu").contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def content_hash(path: Path) -> str:
    """SHA-256 of a file; of a folder, over the names and hashes of its files.

    Raises:
        UsageProblem: it cannot be read.
    """
    try:
        if path.is_dir():
            lines = [f"{one.name} {_file_hash(one)}\n" for one in _weight_files(path)]
            return hashlib.sha256("".join(lines).encode()).hexdigest()
        return _file_hash(path)
    except OSError as error:
        raise UsageProblem(
            f"`{path}` cannot be read: {(error.strerror or str(error)).lower()}", code="bad-weights"
        ) from error


def _weight_files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in {".json", ".safetensors", ".bin"})


def _file_hash(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
