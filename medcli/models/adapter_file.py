"""An adapter on disk: PEFT's own two files, and beside them what medcli needs to find the base and refuse others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from medcli.data.dataset import Preprocessing
from medcli.errors import UsageProblem
from medcli.models.base import Base, base_from_json, base_to_json, state_digest
from medcli.models.provenance import made_by
from medcli.models.spec import ModelSpec, preprocessing_from_json, preprocessing_to_json, spec_from_json, spec_to_json
from medcli.models.tensor_file import write_tensors
from medcli.runs.directory import replace_text, writing

if TYPE_CHECKING:
    from peft import LoraConfig

__all__ = ["About", "StoredAdapter", "adapter_folder", "describe_adapter", "read_adapter", "write_adapter"]

SCHEMA = "medcli-adapter/1"
CONFIG, TENSORS, ABOUT = "adapter_config.json", "adapter_model.safetensors", "medcli.json"
_KEY = "medcli"

# What of PEFT's configuration decides what an adapter computes, and what may differ without changing it. Everything
# else must have its default: some of it names modules to import.
_MEANT = (
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_dora",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "fan_in_fan_out",
)
_HARMLESS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "exclude_modules",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "modules_to_save",
        "peft_type",
        "peft_version",
        "revision",
        "target_modules",
        "task_type",
    }
)
_CHANGING = ("pissa", "olora", "corda", "eva", "loftq", "mica", "lora_ga")


@dataclass(frozen=True)
class About:
    """What medcli knows of an adapter that it wrote.

    Args:
        spec: the classifier, its head included.
        base: the weights it was trained on; None where nobody knew.
        preprocessing: what its images went through; None for one saved from Python.
        package: the distribution that built the backbone.
    """

    spec: ModelSpec
    base: Base | None
    preprocessing: Preprocessing | None
    package: Any = None


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter as read.

    Args:
        folder: where.
        config: as peft takes it.
        tensors: under PEFT's names.
        about: what medcli wrote beside it; None for one of plain PEFT.
        extra: further facts that were saved with it, plain JSON.
    """

    folder: Path
    config: LoraConfig
    tensors: Mapping[str, torch.Tensor]
    about: About | None
    extra: Mapping[str, Any] = field(default_factory=dict)


def adapter_folder(path: Path) -> Path:
    """The folder of an adapter: a run of `medcli lora` has it below.

    Raises:
        UsageProblem: code `no-adapter`.
    """
    for folder in (path / "adapter", path):
        if (folder / CONFIG).is_file():
            return folder
    raise UsageProblem(
        f"`{path}` holds no adapter (`{CONFIG}`)" if path.exists() else f"there is no adapter `{path}`",
        hint="name a run of `medcli lora`, or a folder that PEFT wrote",
        code="no-adapter",
    )


def write_adapter(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    about: About,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write an adapter so that plain PEFT reads it; an older one is replaced file by file, each whole.

    Raises:
        RunFailure: a file cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / CONFIG, json.dumps(dict(config), indent=2, sort_keys=True) + "\n")
    document = {
        "schema": SCHEMA,
        "spec": spec_to_json(about.spec),
        "base": None if about.base is None else base_to_json(about.base),
        "preprocessing": None if about.preprocessing is None else preprocessing_to_json(about.preprocessing),
        "package": made_by(about.spec.architecture),
    }
    replace_text(folder / ABOUT, json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n")
    own = {
        name: tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    facts = {"schema": SCHEMA, "digest": state_digest(own), "extra": dict(extra or {})}
    metadata = {"format": "pt", _KEY: json.dumps(facts, allow_nan=False, sort_keys=True)}
    write_tensors(folder / TENSORS, own, metadata)


def describe_adapter(path: Path) -> About:
    """What medcli wrote beside an adapter; no tensor is read.

    Raises:
        UsageProblem: there is no adapter, or it is one of plain PEFT.
    """
    folder = adapter_folder(path)
    about = _about(folder / ABOUT)
    if about is None:
        raise UsageProblem(
            f"`{folder}` is an adapter of plain PEFT, which does not say what it was trained on",
            hint="`medcli lora ARCH --adapter PATH` starts from it",
            code="bad-adapter",
        )
    return about


def read_adapter(path: Path) -> StoredAdapter:
    """Read an adapter, checked as far as it can be without its base.

    Raises:
        UsageProblem: no adapter, a damaged one, or one of a kind that medcli does not know.
    """
    folder = adapter_folder(path)
    about = _about(folder / ABOUT)
    config = _config(folder / CONFIG)
    file = folder / TENSORS
    if not file.is_file():
        raise UsageProblem(f"`{folder}` holds no `{TENSORS}`", code="bad-adapter")
    try:
        with safe_open(str(file), framework="pt") as handle:
            metadata = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a mapping)
        facts = json.loads(metadata.get(_KEY, "{}"))
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise _damaged(file, str(error)) from error
    if about is not None and (not isinstance(facts, dict) or facts.get("digest") != state_digest(tensors)):
        raise _damaged(file, "its numbers are not those that were written")
    extra = facts.get("extra") if isinstance(facts, dict) else None
    return StoredAdapter(folder, config, tensors, about, extra if isinstance(extra, dict) else {})


def _about(file: Path) -> About | None:
    if not file.is_file():
        return None
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise ValueError(f"this medcli reads {SCHEMA!r}")
        base, how = document.get("base"), document.get("preprocessing")
        return About(
            spec_from_json(document.get("spec")),
            None if base is None else base_from_json(base),
            None if how is None else preprocessing_from_json(how),
            document.get("package"),
        )
    except UsageProblem as error:
        raise _damaged(file, error.message) from error
    except (OSError, ValueError) as error:
        raise _damaged(file, str(error)) from error


def _config(file: Path) -> LoraConfig:
    from peft import LoraConfig

    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(file, str(error)) from error
    if not isinstance(document, dict) or document.get("peft_type") != "LORA":
        kind = document.get("peft_type") if isinstance(document, dict) else None
        raise UsageProblem(f"`{file}` describes a {kind} adapter, not a LoRA", code="bad-adapter")
    start = str(document.get("init_lora_weights"))
    if start.lower().startswith(_CHANGING) and not (file.parent / ABOUT).is_file():
        raise UsageProblem(
            f"the adapter was started with `{start}`, which changed its base weights as well",
            where=str(file),
            hint="let PEFT convert it to a plain LoRA: `path_initial_model_for_weight_conversion` of `save_pretrained`",
            code="bad-adapter",
        )
    defaults = LoraConfig().to_dict()
    for name, value in document.items():
        if name in _MEANT or name in _HARMLESS or value == defaults.get(name) or value in (None, False, [], {}):
            continue
        raise UsageProblem(
            f"the adapter uses `{name}`, which medcli does not know", where=str(file), code="bad-adapter"
        )
    chosen = {name: document[name] for name in _MEANT if name in document}
    try:
        if not int(chosen.get("r", 0)) > 0 or not float(chosen.get("lora_alpha", 0)) > 0:
            raise ValueError("a rank and an alpha above 0 are needed")
        return LoraConfig(**chosen)
    except (TypeError, ValueError) as error:
        raise _damaged(file, str(error)) from error


def _damaged(file: Path, reason: str) -> UsageProblem:
    return UsageProblem(
        f"`{file}` is damaged or not as it was written: {' '.join(reason.split())}",
        hint="copy the adapter again from where it came, or train it again",
        code="bad-adapter",
    )
