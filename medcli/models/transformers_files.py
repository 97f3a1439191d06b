"""Where the files of a transformers network lie, what its `config.json` says, and which names its tensors go by today.

Published files keep the names of the release they were written with, and later releases rename their modules; so names
are converted by transformers' own table before the strict comparison. Nothing here reaches the network or runs code.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medcli.errors import UsageProblem, nearest
from medcli.models.weight_files import WEIGHT_SUFFIXES, State

__all__ = [
    "CONFIG_FILE",
    "Source",
    "check_config",
    "converted_names",
    "find_source",
    "quiet",
    "read_config",
    "renamed_by",
]

CONFIG_FILE = "config.json"

_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# What shapes alone do not show, or show only as a long list of tensors; compared where both sides say it.
_DECISIVE = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size", "hidden_act", "mlp_ratio",
    "intermediate_size", "layer_norm_eps", "qkv_bias", "use_swiglu_ffn", "num_register_tokens",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Where weights come from.

    Args:
        weights: the file of tensors.
        config: the `config.json` beside it, or None.
    """

    weights: Path
    config: Path | None


def find_source(place: str | Path, *, name: str) -> Source:
    """The files behind a path or a repository of the Hugging Face hub that is already in the local cache.

    Args:
        place: a weight file, a folder in the hub's layout, or `owner/repository`.
        name: the architecture, for messages.

    Raises:
        UsageProblem: code `no-weights` where there is no such file or folder, `weights-not-cached` for a repository
            that is not on this machine, `bad-weights` for a folder without weights.
    """
    path = Path(place)
    if path.is_dir():
        return Source(_weights_in(path), _config_in(path))
    named = _REPOSITORY.fullmatch(str(place)) and not str(place).lower().endswith(WEIGHT_SUFFIXES)
    if named and not path.exists():
        return _in_hub_cache(str(place), name)
    # Files of other names beside a `config.json` are other checkpoints more often than not.
    return Source(path, _config_in(path.parent) if path.name in _WEIGHT_FILES else None)


def _config_in(folder: Path) -> Path | None:
    config = folder / CONFIG_FILE
    return config if config.is_file() else None


def _weights_in(folder: Path) -> Path:
    found = next((folder / file for file in _WEIGHT_FILES if (folder / file).is_file()), None)
    if found is not None:
        return found
    parts = any((folder / f"{file}.index.json").is_file() for file in _WEIGHT_FILES)
    raise UsageProblem(
        f"the weights in `{folder}` are split over several files, which medcli does not read"
        if parts
        else f"`{folder}` holds neither {' nor '.join(f'`{file}`' for file in _WEIGHT_FILES)}",
        code="bad-weights",
        where="--weights",
        hint="give the weight file itself",
    )


def _in_hub_cache(repository: str, name: str) -> Source:
    from huggingface_hub import constants, try_to_load_from_cache

    cache = Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE)

    def cached(file: str) -> Path | None:
        found = try_to_load_from_cache(repository, file, cache_dir=cache)
        return Path(found) if isinstance(found, str) else None

    weights = next((path for path in map(cached, _WEIGHT_FILES) if path is not None), None)
    if weights is None:
        raise UsageProblem(
            f"there is no file or folder `{repository}`, and no repository of that name in the local cache ({cache})",
            code="weights-not-cached",
            where="--weights",
            hint=f"`medcli models fetch {name}` downloads the weights its card lists; "
            f"elsewhere `hf download {repository}`, then give the folder",
        )
    return Source(weights, cached(CONFIG_FILE))


def read_config(path: Path) -> Any:
    """The configuration object of a `config.json`. Code that the file names is never looked at.

    Raises:
        UsageProblem: no such file, not JSON, of a family that the installed transformers does not know, or with values
            that it refuses.
    """
    values = _json(path)
    from transformers import CONFIG_MAPPING

    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        known = list(CONFIG_MAPPING)
        near = nearest(str(kind), known)
        raise UsageProblem(
            f"`{path}` describes a `{kind}`, which the installed transformers does not know",
            code="bad-config",
            where="--weights",
            hint=f"did you mean {', '.join(f'`{one}`' for one in near)}?" if near else "install a newer transformers",
        )
    try:
        return CONFIG_MAPPING[kind].from_dict(values)
    # Each family checks its values in its own way.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageProblem(
            f"`{path}` is no configuration of a `{kind}`: {reason}", code="bad-config", where="--weights"
        ) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageProblem(f"`{path}` cannot be read: {error}", code="bad-config", where="--weights") from error
    if not isinstance(values, dict):
        raise UsageProblem(f"`{path}` holds no table of settings", code="bad-config", where="--weights")
    return values


def check_config(config: Any, path: Path, *, name: str) -> None:
    """Refuse weights whose own `config.json` describes another network, even where every shape fits.

    Raises:
        UsageProblem: code `weights-do-not-fit`, naming what differs.
    """
    theirs = _json(path)
    differing = [
        f"{key} {theirs[key]!r} instead of {getattr(config, key)!r}"
        for key in _DECISIVE
        if key in theirs and hasattr(config, key) and theirs[key] != getattr(config, key)
    ]
    if differing:
        raise UsageProblem(
            f"`{path}` describes another network than `{name}`: {', '.join(differing[:3])}"
            f"{', …' if len(differing) > 3 else ''}",
            code="weights-do-not-fit",
            where="--weights",
            hint="`medcli models show ARCH` lists the weights that fit an architecture",
        )


def converted_names(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> State:
    """The tensors under the names that the installed transformers gives them.

    Where nothing applies they come back as they are; two that would get one name keep their own, so that the comparison
    which follows reports them.
    """
    given = dict(tensors)
    try:
        return _converted(network, given)
    # The table is internal to transformers, and foreign names and shapes make it stumble in ways of their own; the
    # comparison that follows says which tensors are not the network's.
    except Exception:
        return given


def _converted(network: Any, tensors: State) -> State:
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    changes = get_model_conversion_mapping(network)
    renamings = [change for change in changes if isinstance(change, WeightRenaming)]
    converters = [change for change in changes if isinstance(change, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    expected = network.state_dict()
    names: dict[str, str] = {}
    waiting: dict[str, Any] = {}
    for key, tensor in tensors.items():
        new, pattern = rename_source_key(key, renamings, converters, network.base_model_prefix, expected)
        if key in expected and new not in expected:
            new, pattern = key, None
        if pattern is None:
            names[key] = new
            continue
        converter = waiting.setdefault(new, deepcopy(by_pattern[pattern]))
        converter.add_tensor(new, key, pattern, lambda tensor=tensor: tensor)
    state = renamed_by(names, tensors)
    for first, converter in waiting.items():
        for new, parts in converter.convert(first, model=network, config=network.config).items():
            state[new] = parts[0] if isinstance(parts, list) else parts
    return state


def renamed_by(names: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> State:
    """The tensors that `names` lists, under the names it gives them.

    Where two would get one name, the one that has it already, or else the first, does; the other keeps its own, so that
    a strict comparison reports it.
    """
    owners: dict[str, str] = {}
    for old, new in names.items():
        if old == new or new not in owners:
            owners[new] = old
    return {new if owners[new] == old else old: tensors[old] for old, new in names.items()}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers logs advice for its own loading, which is not used here."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
