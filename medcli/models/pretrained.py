"""Published weights by tag, from what is already on this machine.

Nothing is downloaded here: training often runs without internet, and a run that waits for a hub, or takes other
weights than it was told, is worse than a sentence that says which file is missing.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from medcli.errors import UsageProblem, nearest

__all__ = ["cached_weights"]

_FILES = ("model.safetensors", "pytorch_model.bin")


def cached_weights(name: str, tag: str | None = None) -> Path:
    """The cached file of timm's published weights for a network.

    Args:
        name: timm's name of the network, without a tag.
        tag: `a1_in1k` or `resnet18.a1_in1k`; None for timm's default.

    Raises:
        UsageProblem: code `unknown-weights` for a tag that this network does not have, `other-network` for one that
            belongs to another network, `no-weights` where nothing was
            published for it, `weights-not-cached` where the file is not on this machine.
    """
    import timm

    tags = [known for full in timm.list_pretrained(f"{name}.*") for known in [full.partition(".")[2]]]
    if tag is not None and "." in tag:
        network, _, own_tag = tag.partition(".")
        if network != name:
            hint = f"train `timm/{network}` with `--weights {own_tag}`" if timm.is_model(network) else None
            raise UsageProblem(
                f"the weights `{tag}` belong to timm's `{network}`; this network is timm's `{name}`",
                code="other-network",
                where="--weights",
                hint=hint,
            )
        tag = own_tag
    if tag is not None and tag not in tags:
        close = nearest(tag, tags) or tuple(tags[:3])
        raise UsageProblem(
            f"`{tag}` is neither a file nor a weight tag of `{name}`",
            code="unknown-weights",
            where="--weights",
            hint=f"its tags: {', '.join(close)}"
            if close
            else "no weights are published for it; give a file with `--weights FILE`",
        )
    if not tags:
        raise UsageProblem(
            f"no weights are published for `{name}`",
            code="no-weights",
            where="--pretrained",
            hint="give a file with `--weights FILE`, or leave `--pretrained` out",
        )
    config = timm.get_pretrained_cfg(f"{name}.{tag}" if tag else name)
    if config is None:
        raise UsageProblem(f"timm does not describe the weights of `{name}`", code="no-weights", where="--weights")
    files = _hub_files(config.hf_hub_id, config.hf_hub_filename, config.architecture, config.tag)
    found = next((path for path in map(_in_hub_cache, files) if path is not None), None)
    if found is None and config.url:
        found = _in_torch_cache(config.url)
    if found is not None:
        return found
    full = f"{name}.{tag or config.tag}" if (tag or config.tag) else name
    how = "; on a machine with internet fetch it with "
    source = f"`hf download {files[0][0]} {files[0][1]}`" if files else f"`{config.url}`"
    raise UsageProblem(
        f"the weights `{full}` are not in the local cache ({_hub_cache()})",
        code="weights-not-cached",
        where="--pretrained" if tag is None else "--weights",
        hint=f"give the file with `--weights FILE`{how if files else '; its source is '}{source}",
    )


def _hub_files(
    hub_id: str | None, filename: str | None, architecture: str | None, tag: str | None
) -> list[tuple[str, str]]:
    if not hub_id:
        return []
    repository = hub_id if not hub_id.endswith("/") else f"{hub_id}{architecture}.{tag}"
    return [(repository, name) for name in ((filename,) if filename else _FILES)]


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE)


def _in_hub_cache(file: tuple[str, str]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    repository, filename = file
    found = try_to_load_from_cache(repository, filename, cache_dir=_hub_cache())
    return Path(found) if isinstance(found, str) else None


def _in_torch_cache(url: str) -> Path | None:
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
    return path if path.is_file() else None
