"""Weights from files, safely and strictly.

A network that silently kept its random weights looks like a weak architecture; so either every tensor of the backbone
comes from the file, or nothing is loaded and the reason is said.
"""

from __future__ import annotations

import argparse
import inspect
import logging
import math
import pickle
import struct
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from medcli.errors import UsageProblem

__all__ = ["WEIGHT_SUFFIXES", "LoadReport", "load_weights", "looks_like_file", "read_weights"]

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt")

# The only class beside tensors and plain containers that a foreign file may hold: training scripts keep their
# command line in it. It is a bag of attributes and runs nothing.
_ALLOWED_CLASSES: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [argparse.Namespace]
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "net.", "network.", "base_model.", "encoder.")
_FILTERS = ("checkpoint_filter_fn", "_filter_fn", "pretrained_filter_fn", "_filter_torchvision_pretrained")
_NESTING = 3
_COUNTER = "num_batches_tracked"
_TABLE = "relative_position_bias_table"
_HINT = "`medcli models show ARCH` lists the weights that fit an architecture"

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class LoadReport:
    """What came out of a weight file.

    Args:
        source: the file.
        matched: tensors of the backbone that were set from the file.
        total: tensors the backbone has.
        head: names in the file that belong to the classifier it was trained with, and were left out.
        resized: names of position tables or embeddings that were interpolated to this size.
        converted: names of input convolutions that were adapted to the number of channels.
    """

    source: str
    matched: int
    total: int
    head: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()

    def sentence(self) -> str:
        """One line for the user."""
        parts = [f"{self.matched} of {self.total} backbone tensors from {self.source}"]
        if self.head:
            parts.append(f"{len(self.head)} of its old head left out")
        if self.resized:
            parts.append(f"{len(self.resized)} interpolated to this size")
        if self.converted:
            parts.append("input layer adapted to the number of channels")
        return ", ".join(parts)


def looks_like_file(weights: str) -> bool:
    """Whether `--weights` names a file and not a tag."""
    return weights.lower().endswith(WEIGHT_SUFFIXES) or "/" in weights or "\\" in weights or Path(weights).is_file()


def read_weights(path: str | Path) -> State:
    """The tensors of a weight file by name, wrapper dictionaries opened, floats as float32.

    Raises:
        UsageProblem: no such file, not a weight file, damaged, or it could only be read by running code.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageProblem(f"there is no weight file `{path}`", code="no-weights", where="--weights")
    if not path.name.lower().endswith(WEIGHT_SUFFIXES):
        raise UsageProblem(
            f"`{path.name}` is not a weight file medcli reads ({' '.join(WEIGHT_SUFFIXES)})",
            code="bad-weights",
            where="--weights",
        )
    state = _opened(_read_any(path))
    if not state:
        raise UsageProblem(f"`{path}` holds no tensors by name", code="bad-weights", where="--weights")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _read_any(path: Path) -> Mapping[str, Any]:
    if path.suffix.lower() == ".safetensors":
        try:
            return dict(load_file(str(path)))
        except (SafetensorError, OSError, ValueError) as error:
            raise UsageProblem(
                f"`{path}` cannot be read as safetensors: {_first_line(error)}", code="bad-weights", where="--weights"
            ) from error
    try:
        with torch.serialization.safe_globals(_ALLOWED_CLASSES):
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


def _opened(content: Mapping[str, Any]) -> State:
    """The dictionary of tensors inside the wrappers that training scripts put around it."""
    for key in _WRAPPERS:
        inner = content.get(key)
        if isinstance(inner, Mapping) and any(isinstance(value, torch.Tensor) for value in inner.values()):
            return _opened(inner)
    return {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}


def load_weights(
    network: nn.Module,
    path: str | Path,
    *,
    name: str,
    head_keys: Iterable[str] = (),
    first_convolutions: Iterable[str] = (),
) -> tuple[LoadReport, State]:
    """Set every tensor of `network` from a file.

    Names and shapes must match exactly, after these and no other changes: common prefixes are stripped, timm's own
    renaming for the family is applied, an RGB input convolution is adapted to other channel counts, position
    embeddings are interpolated, and the old classifier is left out.

    Args:
        network: the network without its classifier.
        path: the file.
        name: the architecture, for messages.
        head_keys: names that only the network with a classifier has.
        first_convolutions: names of the modules that see the picture's channels.

    Returns:
        The report, and the left-out tensors of the old head.

    Raises:
        UsageProblem: code `weights-do-not-fit`, with counts and the first names, and the network unchanged.
    """
    raw = read_weights(path)
    expected = network.state_dict()
    heads = tuple(head_keys)
    state = _stripped(raw, {*expected, *heads})
    before = {key: tensor.shape for key, tensor in state.items()}
    state = _renamed(network, _resized_tables(state, expected))
    converted = _adapt_channels(network, state, first_convolutions)
    head = {key: state.pop(key) for key in list(state) if key in heads or key.startswith("medcli_head.")}
    counters = {key: tensor for key, tensor in expected.items() if key.endswith(_COUNTER) and key not in state}
    missing = [key for key in expected if key not in state and key not in counters]
    unexpected = [key for key in state if key not in expected]
    wrong = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    matched = len(expected) - len(missing) - len(wrong) - len(counters)
    if missing or unexpected or wrong:
        raise _misfit(name, Path(path), expected, state, matched, missing, unexpected, wrong)
    # Files older than PyTorch 0.4.1 lack the counters of batch norm; nothing that medcli uses reads them.
    network.load_state_dict({**state, **{key: torch.zeros_like(value) for key, value in counters.items()}}, strict=True)
    resized = tuple(
        key for key in expected if key in before and before[key] != expected[key].shape and key not in converted
    )
    return LoadReport(str(path), matched, len(expected), tuple(head), resized, converted), head


def _stripped(state: State, expected: set[str]) -> State:
    """Without the prefixes that wrappers add: the shortest sequence of them with which most names match."""
    best, candidates = state, [state]
    most = sum(key in expected for key in state)
    for _ in range(_NESTING):
        shorter = [one for each in candidates for prefix in _PREFIXES if (one := _without(prefix, each))]
        for candidate in shorter:
            matches = sum(key in expected for key in candidate)
            if matches > most:
                best, most = candidate, matches
        candidates = shorter
    return best


def _without(prefix: str, state: State) -> State | None:
    """The same tensors, the prefix removed from the names that have it; None where that changes or confuses names."""
    shorter = {key.removeprefix(prefix): value for key, value in state.items()}
    return shorter if len(shorter) == len(state) and any(key.startswith(prefix) for key in state) else None


def _renamed(network: nn.Module, state: State) -> State:
    """timm's own conversion of older and original files of this family."""
    source = sys.modules.get(type(network).__module__)
    convert: Callable[..., State] | None = next(
        (getattr(source, name) for name in _FILTERS if callable(getattr(source, name, None))), None
    )
    if convert is None:
        return state
    parameters = inspect.signature(convert).parameters
    arguments: dict[str, Any] = {"adapt_layer_scale": True} if "adapt_layer_scale" in parameters else {}
    quiet = logging.getLogger("timm")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(convert(dict(state), network, **arguments) if len(parameters) > 1 else convert(dict(state)))
    except Exception:
        # The conversion stumbles over foreign names and shapes; the comparison that follows says which ones.
        return state
    finally:
        quiet.setLevel(level)


def _resized_tables(state: State, expected: Mapping[str, torch.Tensor]) -> State:
    """Swin's tables of relative positions [(2w - 1)^2, heads] for other windows, bicubic as in its authors' code."""
    resized = dict(state)
    for key, table in state.items():
        wanted = expected.get(key)
        if not key.endswith(_TABLE) or wanted is None or table.ndim != 2 or table.shape[1:] != wanted.shape[1:]:
            continue
        old, new = math.isqrt(len(table)), math.isqrt(len(wanted))
        if old != new and (old * old, new * new) == (len(table), len(wanted)):
            grid = table.T.reshape(1, -1, old, old)
            grid = nn.functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
            resized[key] = grid.reshape(-1, new * new).T.contiguous()
    return resized


def _adapt_channels(network: nn.Module, state: State, first_convolutions: Iterable[str]) -> tuple[str, ...]:
    """RGB input convolutions summed or repeated to the network's channels, in place; their names."""
    from timm.models import adapt_input_conv

    converted = []
    for module in first_convolutions:
        key = f"{module}.weight"
        wanted = network.state_dict().get(key)
        given = state.get(key)
        if (
            wanted is None
            or given is None
            or given.ndim != 4
            or given.shape[1] == wanted.shape[1]
            or given.shape[1] != 3
        ):
            continue
        state[key] = adapt_input_conv(wanted.shape[1], given)
        converted.append(key)
    return tuple(converted)


def _misfit(
    name: str,
    path: Path,
    expected: Mapping[str, torch.Tensor],
    state: State,
    matched: int,
    missing: list[str],
    unexpected: list[str],
    wrong: list[str],
) -> UsageProblem:
    parts = [f"`{path.name}` does not fit `{name}`: {matched} of {len(expected)} tensors match"]
    if missing:
        parts.append(f"{len(missing)} are missing ({_some(missing)})")
    if unexpected:
        parts.append(f"{len(unexpected)} are not part of it ({_some(unexpected)})")
    if wrong:
        shapes = [f"{key} {_shape(state[key])} instead of {_shape(expected[key])}" for key in wrong[:3]]
        parts.append(f"{len(wrong)} have another shape ({', '.join(shapes)}{', …' if len(wrong) > 3 else ''})")
    return UsageProblem("; ".join(parts), code="weights-do-not-fit", where="--weights", hint=_HINT)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _shape(tensor: torch.Tensor) -> str:
    return "[" + ", ".join(str(size) for size in tensor.shape) + "]"
