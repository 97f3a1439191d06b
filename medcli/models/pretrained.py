"""Published weights by tag, from what is already on this machine.

Nothing is downloaded here: training often runs without internet, and a run that waits for a hub, or takes other
weights than it was told, is worse than a sentence that says which file is missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from medcli.errors import UsageProblem, nearest
from medcli.plugin import ArchitectureCard
from medcli.registry.weight_cache import (
    HubSource,
    Source,
    WebSource,
    cached_file,
    chosen_weights,
    not_cached,
    source_of,
)

__all__ = ["cached_weights", "factory_weights"]

_TIMM = "timm/"


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
    sources: list[Source] = []
    if config.hf_hub_id:
        files = {"files": (config.hf_hub_filename,)} if config.hf_hub_filename else {}
        sources.append(HubSource(_repository(config), **files))
    if config.url:
        sources.append(WebSource(config.url, Path(urlsplit(config.url).path).name))
    found = next((path for source in sources if (path := cached_file(source)) is not None), None)
    if found is None and config.url:
        found = _in_torch_cache(config.url)
    if found is not None:
        return found
    full = f"{name}.{tag or config.tag}" if (tag or config.tag) else name
    raise UsageProblem(
        f"the weights `{full}` are not on this machine",
        code="weights-not-cached",
        where="--pretrained" if tag is None else "--weights",
        hint=f"`medcli models fetch timm/{full}`, or give the file with `--weights FILE`",
    )


def factory_weights(
    name: str, card: ArchitectureCard | None, weights: str | None, pretrained: bool = False
) -> str | None:
    """What a factory is given as `weights`: the cached file of a tag of the card, or what was said.

    A path is handed on, and so is a tag without a file in the card, which only the factory can understand.

    Args:
        name: of the architecture, for messages.
        card: its card, or None.
        weights: tag, file, folder, or None.
        pretrained: whether the card's default is meant where `weights` is None.

    Raises:
        UsageProblem: code `weights-not-cached` for a tag whose file is not on this machine, `unknown-weights` for a
            word that is neither a tag nor a path.
    """
    known = chosen_weights(name, card, weights, pretrained)
    if known is None:
        return weights
    source = source_of(known)
    if not known.file or source is None:
        return known.tag
    found = cached_file(source) or _as_timm_keeps_it(source)
    if found is None:
        raise not_cached(name, known, source, "--weights" if weights else "--pretrained")
    return str(found)


def _as_timm_keeps_it(source: Source) -> Path | None:
    """The same weights where older releases of timm have put them: under another file name, or in torch's cache."""
    if not isinstance(source, HubSource) or not source.repository.startswith(_TIMM):
        return None
    network, _, tag = source.repository.removeprefix(_TIMM).partition(".")
    try:
        return cached_weights(network, tag)
    except UsageProblem:
        return None


def _repository(config: Any) -> str:
    name: str = config.hf_hub_id
    return name if not name.endswith("/") else f"{name}{config.architecture}.{config.tag}"


def _in_torch_cache(url: str) -> Path | None:
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
    return path if path.is_file() else None
