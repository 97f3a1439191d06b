"""What a weight file is, found out without building a network and without running anything the file brings along."""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from medcli.errors import MedcliError, UsageProblem
from medcli.models.weight_files import read_weights
from medcli.registry.weight_cache import file_digest

__all__ = ["WeightFacts", "weight_facts"]

_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number with which torch.save began until PyTorch 1.6
_RUNNING = ("running_mean", "running_var")
_FOREIGN = (
    (b"version https://git-lfs", "a pointer of Git LFS: the file itself was not downloaded"),
    (b"\x89HDF\r\n", "an HDF5 file, as Keras writes them; medcli reads PyTorch and safetensors"),
    (b"<", "a web page: the download went to a page in place of the file"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
)
_REFUSED = re.compile(r"GLOBAL ([\w.]+)")
_FOLDER = ("model.safetensors", "pytorch_model.bin")
_SHARDS = ("model-*.safetensors", "pytorch_model-*.bin")
_SAFE_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
               "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}  # fmt: skip


@dataclass(frozen=True)
class WeightFacts:
    """A weight file, or a folder of the transformers library.

    Args:
        path: of it.
        kind: format in words.
        size: in bytes.
        sha256: checksum of the file; empty for a folder of several.
        tensors: how many there are.
        parameters: numbers in them, without integers and the running statistics of batch norm.
        types: number type to count of tensors.
        wrappers: dictionaries the tensors lie in, from the outermost.
        prefix: what the name of every tensor begins with (`module.`); empty if nothing.
        beside: what else the file holds (`optimizer`, `epoch`).
    """

    path: Path
    kind: str
    size: int
    sha256: str
    tensors: int
    parameters: int
    types: Mapping[str, int]
    wrappers: tuple[str, ...] = ()
    prefix: str = ""
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Tensor:
    kind: str
    shape: tuple[int, ...]


def weight_facts(path: Path) -> WeightFacts:
    """Look into a weight file.

    Raises:
        UsageProblem: no such file, damaged, no weight file, or one that could only be read by running code from it
            (code `unsafe-weights`, which names what it would have called).
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise UsageProblem(f"there is no weight file `{path}`", code="no-weights", where=str(path))
    with path.open("rb") as stream:
        start = stream.read(64)
    known = next((text for mark, text in _FOREIGN if start.lstrip().startswith(mark)), None)
    if known:
        raise UsageProblem(f"`{path.name}` is {known}", code="bad-weights", where=str(path))
    size, digest = path.stat().st_size, file_digest(path)
    header = _safetensors_header(path, start)
    if header is not None:
        tensors, own = header
        kind = f"safetensors, a model of medcli ({own})" if own else "safetensors"
        return _facts(path, kind, size, digest, tensors)
    content = _torch_content(path)
    wrappers: list[str] = []
    beside: list[str] = []
    while True:
        inner = {str(key): value for key, value in content.items() if isinstance(value, Mapping)}
        counts = {key: _count(value) for key, value in inner.items()}
        own_tensors = sum(isinstance(value, torch.Tensor) for value in content.values())
        if own_tensors or not any(counts.values()):
            break
        # Optimisers keep tensors too, by number; the network's are by name.
        named = [key for key in counts if counts[key] and key not in {"optimizer", "optimizer_state_dict"}]
        largest = max(named or counts, key=lambda key: counts[key])
        beside += [str(key) for key in content if str(key) != largest]
        wrappers.append(largest)
        content = inner[largest]
    tensors = {
        str(key): _Tensor(str(value.dtype).removeprefix("torch."), tuple(value.shape))
        for key, value in content.items()
        if isinstance(value, torch.Tensor)
    }
    kind = "PyTorch, zip" if zipfile.is_zipfile(path) else "PyTorch before 1.6, pickle"
    return _facts(path, kind, size, digest, tensors, tuple(wrappers), tuple(beside))


def _facts(
    path: Path,
    kind: str,
    size: int,
    digest: str,
    tensors: Mapping[str, _Tensor],
    wrappers: tuple[str, ...] = (),
    beside: tuple[str, ...] = (),
) -> WeightFacts:
    if not tensors:
        raise UsageProblem(f"`{path.name}` holds no tensors by name", code="bad-weights", where=str(path))
    firsts = {name.partition(".")[0] if "." in name else "" for name in tensors}
    prefix = f"{firsts.pop()}." if len(firsts) == 1 and firsts != {""} and len(tensors) > 1 else ""
    parameters = sum(
        prod(tensor.shape) for name, tensor in tensors.items() if "float" in tensor.kind and not name.endswith(_RUNNING)
    )
    types = Counter(tensor.kind for tensor in tensors.values())
    return WeightFacts(path, kind, size, digest, len(tensors), parameters, dict(types), wrappers, prefix, beside)


def _safetensors_header(path: Path, start: bytes) -> tuple[dict[str, _Tensor], str] | None:
    """Names, types and shapes without reading a tensor, and the architecture if medcli wrote it; None for others."""
    length = int.from_bytes(start[:8], "little")
    named = path.suffix.lower() == ".safetensors"
    if not named and (start[8:9] != b"{" or length > path.stat().st_size):
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as handle:
            metadata = handle.metadata() or {}
            slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118 (not a mapping)
            tensors = {
                name: _Tensor(_SAFE_TYPES.get(one.get_dtype(), one.get_dtype()), tuple(one.get_shape()))
                for name, one in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise UsageProblem(
            f"`{path.name}` is damaged or no safetensors file: {str(error).splitlines()[0]}",
            code="bad-weights",
            where=str(path),
        ) from error
    try:
        own = json.loads(metadata.get("medcli", "{}")).get("spec", {}).get("architecture", "")
    except (json.JSONDecodeError, AttributeError):
        own = ""
    return tensors, str(own)


def _torch_content(path: Path) -> Mapping[Any, Any]:
    """What `torch.save` wrote, its tensors without their numbers."""
    import argparse

    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's doubts about a strange pickle; it is refused or it is not
            content = torch.load(path, map_location="meta", weights_only=True)
    except Exception as first:
        # The reader says what is wrong in the words used everywhere else.
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read_weights(path)
        except MedcliError as error:
            raise _with_culprit(error, path) from error.__cause__
        raise UsageProblem(
            f"`{path.name}` cannot be looked into: {str(first).splitlines()[0]}", code="bad-weights", where=str(path)
        ) from first
    if not isinstance(content, Mapping):
        raise UsageProblem(
            f"`{path.name}` holds a {type(content).__name__}, not tensors by name", code="bad-weights", where=str(path)
        )
    return content


def _with_culprit(error: MedcliError, path: Path) -> MedcliError:
    """The error with the name of what the file would have called, where PyTorch's refusal says it."""
    error.where = str(path)
    found = _REFUSED.search(str(error.__cause__))
    if error.code == "unsafe-weights" and found:
        error.message = f"{error.message}; it asks for `{found[1]}`"
    return error


def _count(content: Mapping[Any, Any]) -> int:
    """Tensors by name in a dictionary and in those inside it."""
    own = sum(isinstance(value, torch.Tensor) and isinstance(key, str) for key, value in content.items())
    return own + sum(_count(value) for value in content.values() if isinstance(value, Mapping))


def _folder(path: Path) -> WeightFacts:
    """A folder as `save_pretrained` of the transformers library writes it."""
    files = next(([path / name] for name in _FOLDER if (path / name).is_file()), None)
    files = files or next((found for pattern in _SHARDS if (found := sorted(path.glob(pattern)))), None)
    if files is None or not (path / "config.json").is_file():
        raise UsageProblem(
            f"`{path}` is no folder of the transformers library: it needs `config.json` and `model.safetensors`",
            code="bad-weights",
            where=str(path),
        )
    try:
        kind = str(json.loads((path / "config.json").read_text(encoding="utf-8")).get("model_type") or "unknown type")
    except (ValueError, AttributeError, OSError) as error:
        raise UsageProblem(
            f"`{path / 'config.json'}` cannot be read: {error}", code="bad-weights", where=str(path)
        ) from error
    parts = [weight_facts(file) for file in files]
    types: Counter[str] = Counter()
    for part in parts:
        types.update(part.types)
    return WeightFacts(
        path,
        f"folder of transformers ({kind}), {len(parts)} weight file{'s' if len(parts) > 1 else ''}",
        sum(part.size for part in parts),
        parts[0].sha256 if len(parts) == 1 else "",
        sum(part.tensors for part in parts),
        sum(part.parameters for part in parts),
        dict(types),
        prefix=parts[0].prefix if len(parts) == 1 else "",
    )
