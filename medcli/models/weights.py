"""Weights into networks, strictly.

A network that silently kept its random weights looks like a weak architecture; so either every tensor of the backbone
comes from the file, or nothing is loaded and the reason is said.
"""

from __future__ import annotations

import inspect
import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medcli.errors import UsageProblem
from medcli.models.weight_files import State, read_weights

__all__ = ["LoadReport", "adapt_channels", "load_weights", "resize_positions"]

_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "net.", "network.", "base_model.", "encoder.")
_FILTERS = ("checkpoint_filter_fn", "_filter_fn", "pretrained_filter_fn", "_filter_torchvision_pretrained")
_NESTING = 3
_COUNTER = "num_batches_tracked"
_TABLE = "relative_position_bias_table"
_HINT = "`medcli models show ARCH` lists the weights that fit an architecture"


@dataclass(frozen=True)
class LoadReport:
    """What came out of a weight file.

    Args:
        source: the file.
        matched: tensors of the backbone that were set from the file.
        total: tensors the backbone has, not counting counters of batch norm that an old file lacks and nothing reads.
        head: names in the file that belong to the classifier it was trained with, and were left out.
        resized: names of position tables or embeddings that were interpolated to this size.
        converted: names of input convolutions that were adapted to the number of channels.
        ignored: names in the file that belong to other parts of what it was trained with (a decoder).
        fresh: names of the backbone that the file does not have and need not have; they keep their start.
    """

    source: str
    matched: int
    total: int
    head: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()

    def sentence(self) -> str:
        """One line for the user."""
        parts = [f"{self.matched} of {self.total} backbone tensors from {self.source}"]
        if self.head:
            parts.append(f"{len(self.head)} of its old head left out")
        if self.resized:
            parts.append(f"{len(self.resized)} interpolated to this size")
        if self.converted:
            parts.append("input layer adapted to the number of channels")
        if self.ignored:
            parts.append(f"{len(self.ignored)} of other parts of the file left out")
        if self.fresh:
            parts.append(f"{len(self.fresh)} new ({_some(list(self.fresh))})")
        return ", ".join(parts)


def load_weights(
    network: nn.Module,
    source: str | Path | Mapping[str, torch.Tensor],
    *,
    name: str,
    origin: str = "",
    rename: Callable[[str], str | None] | None = None,
    ignore: Iterable[str] = (),
    fresh: Iterable[str] = (),
    head_keys: Iterable[str] = (),
    first_convolutions: Iterable[str] = (),
) -> tuple[LoadReport, State]:
    """Set every tensor of `network` from a file.

    Names and shapes must match exactly, after these and no other changes: the caller's renaming, common prefixes
    stripped, timm's own renaming for its families, an input convolution adapted to other channel counts, position
    embeddings interpolated, the old classifier and what the caller ignores left out.

    Args:
        network: the network without its classifier.
        source: the file, or its tensors by name.
        name: the architecture, for messages.
        origin: the file's name for messages, where `source` is tensors.
        rename: the file's name of a tensor to the network's, or None for one that is left out.
        ignore: patterns (`decoder_*`) of names in the file that are no part of this network.
        fresh: patterns of names of the network that the file need not have; they keep their start.
        head_keys: names that only the network with a classifier has.
        first_convolutions: names of the modules that see the picture's channels.

    Returns:
        The report, and the left-out tensors of the old head.

    Raises:
        UsageProblem: code `weights-do-not-fit`, with counts and the first names, and the network unchanged.
    """
    given = dict(source) if isinstance(source, Mapping) else read_weights(source)
    path = Path(origin) if isinstance(source, Mapping) else Path(source)
    raw, dropped = _renamed_by(rename, given, path, name)
    expected = network.state_dict()
    heads = tuple(head_keys)
    state = _stripped(raw, {*expected, *heads})
    unwanted = tuple(ignore)
    ignored = [key for key in state if key not in expected and _matches(key, unwanted)]
    state = {key: tensor for key, tensor in state.items() if key not in set(ignored)}
    before = {key: tensor.shape for key, tensor in state.items()}
    state = _renamed(network, _resized_tables(state, expected))
    converted = _adapt_first(expected, state, first_convolutions)
    head = {key: state.pop(key) for key in list(state) if key in heads or key.startswith("medcli_head.")}
    counters = {key: tensor for key, tensor in expected.items() if key.endswith(_COUNTER) and key not in state}
    optional = tuple(fresh)
    new = {key: tensor for key, tensor in expected.items() if key not in state and _matches(key, optional)}
    missing = [key for key in expected if key not in state and key not in counters and key not in new]
    unexpected = [key for key in state if key not in expected]
    wrong = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    matched = len(expected) - len(missing) - len(wrong) - len(counters) - len(new)
    if missing or unexpected or wrong or not matched:
        raise _misfit(name, path, expected, state, matched, missing, unexpected, wrong)
    # Files older than PyTorch 0.4.1 lack the counters of batch norm; nothing that medcli uses reads them.
    zeros = {key: torch.zeros_like(value) for key, value in counters.items()}
    network.load_state_dict({**new, **state, **zeros}, strict=True)
    resized = tuple(
        key for key in expected if key in before and before[key] != expected[key].shape and key not in converted
    )
    left_out = (*dropped, *ignored)
    total = len(expected) - len(counters)
    return LoadReport(str(path), matched, total, tuple(head), resized, converted, left_out, tuple(new)), head


def resize_positions(table: torch.Tensor, side: int, *, prefix_tokens: int = 1) -> torch.Tensor:
    """A table of learned positions for another square grid, bicubic with antialiasing as timm resizes them.

    Args:
        table: [1, P + N, D]; the first P rows belong to class and register tokens and stay as they are.
        side: of the new grid; the result is [1, P + side * side, D].
        prefix_tokens: P.

    Raises:
        ValueError: the N rows form no square.
    """
    from timm.layers import resample_abs_pos_embed

    rows = table.shape[1] - prefix_tokens
    if table.ndim != 3 or rows < 1 or math.isqrt(rows) ** 2 != rows:
        raise ValueError(f"{tuple(table.shape)} with {prefix_tokens} prefix tokens is no square table of positions")
    resized: torch.Tensor = resample_abs_pos_embed(table, (side, side), num_prefix_tokens=prefix_tokens)
    return resized


def adapt_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """The weight of an input convolution for another number of channels.

    RGB weights are summed for one channel, and repeated and scaled for others, as timm does it. A weight of one channel
    is spread evenly, so that a grey picture repeated over the channels gives what it gave alone.

    Args:
        weight: [O, I, h, w] with I = 1 or 3.
        channels: of the result, [O, channels, h, w].

    Raises:
        ValueError: other numbers of input channels, where nothing says what they mean.
    """
    from timm.models import adapt_input_conv

    given = weight.shape[1]
    if given == channels:
        return weight
    if given == 1:
        return weight.repeat(1, channels, 1, 1) / channels
    if given != 3:
        raise ValueError(f"an input convolution of {given} channels cannot be adapted to {channels}")
    adapted: torch.Tensor = adapt_input_conv(channels, weight)
    return adapted


def _renamed_by(
    rename: Callable[[str], str | None] | None, given: State, path: Path, name: str
) -> tuple[State, list[str]]:
    """The tensors under the caller's names, and the file's names of those it drops."""
    if rename is None:
        return given, []
    state: State = {}
    dropped = []
    for key, tensor in given.items():
        new = rename(key)
        if new is None:
            dropped.append(key)
        elif new in state:
            raise UsageProblem(
                f"`{path.name}` does not fit `{name}`: several of its tensors would be `{new}`, one of them `{key}`",
                code="weights-do-not-fit",
                where="--weights",
                hint=_HINT,
            )
        else:
            state[new] = tensor
    return state, dropped


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


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


def _adapt_first(
    expected: Mapping[str, torch.Tensor], state: State, first_convolutions: Iterable[str]
) -> tuple[str, ...]:
    """Input convolutions of grey or RGB pictures for the network's channels, in place; their names."""
    converted = []
    for module in first_convolutions:
        key = f"{module}.weight"
        wanted, given = expected.get(key), state.get(key)
        if wanted is None or given is None or given.ndim != 4 or given.shape[1] not in {1, 3}:
            continue
        if given.shape[1] != wanted.shape[1]:
            state[key] = adapt_channels(given, wanted.shape[1])
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
