"""Reading weight files of strangers: tensors by name come out, and nothing in the file is ever run."""

from __future__ import annotations

import argparse
import pickle
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from medcli.errors import UsageProblem

__all__ = ["WEIGHT_SUFFIXES", "Allowed", "State", "looks_like_file", "read_weights"]

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt")

State = dict[str, torch.Tensor]
Allowed = type | Callable[..., Any] | tuple[Callable[..., Any], str]

# The only class beside tensors and plain containers that any foreign file may hold: training scripts keep their
# command line in it. It is a bag of attributes and runs nothing.
_ALLOWED: tuple[Allowed, ...] = (argparse.Namespace,)
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")


def looks_like_file(weights: str) -> bool:
    """Whether `--weights` names a file or a folder and not a tag."""
    return weights.lower().endswith(WEIGHT_SUFFIXES) or "/" in weights or "\\" in weights or Path(weights).exists()


def read_weights(path: str | Path, *, inside: Sequence[str] = (), allow: Sequence[Allowed] = ()) -> State:
    """The tensors of a weight file by name, wrapper dictionaries opened, floats as float32.

    Args:
        path: safetensors, or a file of `torch.save`, read with `weights_only=True`.
        inside: names of dictionaries to look into before the usual ones (`state_dict`, `model`, ...).
        allow: classes that such a file may hold beside tensors and plain containers. Name a class only if making one
            from a stranger's data does nothing; `argparse.Namespace` is always allowed.

    Raises:
        UsageProblem: no such file, not a weight file, damaged, or it could only be read by running code.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageProblem(
            f"`{path}` is a folder; this architecture reads its weights from one file",
            code="bad-weights",
            where="--weights",
        )
    if not path.is_file():
        raise UsageProblem(f"there is no weight file `{path}`", code="no-weights", where="--weights")
    if not path.name.lower().endswith(WEIGHT_SUFFIXES):
        raise UsageProblem(
            f"`{path.name}` is not a weight file medcli reads ({' '.join(WEIGHT_SUFFIXES)})",
            code="bad-weights",
            where="--weights",
        )
    state = _opened(_read_any(path, (*_ALLOWED, *allow)), (*inside, *_WRAPPERS))
    if not state:
        raise UsageProblem(f"`{path}` holds no tensors by name", code="bad-weights", where="--weights")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _read_any(path: Path, allowed: Sequence[Allowed]) -> Mapping[str, Any]:
    if path.suffix.lower() == ".safetensors":
        try:
            return dict(load_file(str(path)))
        except (SafetensorError, OSError, ValueError) as error:
            raise UsageProblem(
                f"`{path}` cannot be read as safetensors: {_first_line(error)}", code="bad-weights", where="--weights"
            ) from error
    try:
        with torch.serialization.safe_globals(list(allowed)), warnings.catch_warnings():
            # Files of newer pickle protocols are read or refused below; torch's remark on them helps nobody.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageProblem(
            f"`{path}` holds more than tensors and could only be read by running code from it, which medcli never does",
            code="unsafe-weights",
            where="--weights",
            hint="ask its author for a safetensors file",
        ) from error
    # What the reader of old PyTorch files makes of foreign bytes depends on the bytes.
    except (
        RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError, TypeError, struct.error,
    ) as error:  # fmt: skip
        raise UsageProblem(
            f"`{path}` is damaged or is no PyTorch file: {_first_line(error)}", code="bad-weights", where="--weights"
        ) from error
    if not isinstance(content, Mapping):
        raise UsageProblem(
            f"`{path}` holds a {type(content).__name__}, not tensors by name", code="bad-weights", where="--weights"
        )
    return content


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _opened(content: Mapping[str, Any], wrappers: Sequence[str]) -> State:
    """The dictionary of tensors inside the wrappers that training scripts put around it."""
    for key in wrappers:
        inner = content.get(key)
        if isinstance(inner, Mapping) and any(isinstance(value, torch.Tensor) for value in inner.values()):
            return _opened(inner, wrappers)
    return {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
