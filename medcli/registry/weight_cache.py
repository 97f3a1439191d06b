"""Where published weights lie: what a card's `source` means, and which of its files are on this machine.

Looking is all that happens here, so that training, evaluation and listings can ask without ever reaching out.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from medcli.caches import cache_root
from medcli.errors import UsageProblem, nearest
from medcli.plugin import ArchitectureCard, WeightCard

__all__ = [
    "HubSource",
    "Source",
    "WebSource",
    "cached_file",
    "chosen_weights",
    "file_digest",
    "hub_cache",
    "hub_endpoint",
    "not_cached",
    "source_of",
    "unknown_weights",
    "web_cache",
]

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_HUB = "https://huggingface.co"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class HubSource:
    """A repository of the Hugging Face hub.

    Args:
        repository: `owner/name`.
        files: the names its weights may have, the preferred one first.
    """

    repository: str
    files: tuple[str, ...] = _HUB_FILES

    @property
    def page(self) -> str:
        """Where a person reads about it and asks for access."""
        return f"{hub_endpoint()}/{self.repository}"

    def __str__(self) -> str:
        return f"{self.page}/resolve/main/{quote(self.files[0])}"


@dataclass(frozen=True)
class WebSource:
    """A file at an ordinary address.

    Args:
        url: of the file itself.
        file: the name it gets here.
    """

    url: str
    file: str

    @property
    def page(self) -> str:
        """Where a person reads about it: nothing better is known than the address."""
        return self.url

    def __str__(self) -> str:
        return self.url


Source = HubSource | WebSource


def source_of(weights: WeightCard) -> Source | None:
    """What a card means by `source` and `file`; None for a source that is no place to fetch a file from.

    `owner/name` is a repository of the hub. A URL that ends in `/` is the folder of `file`; any other URL is the file
    itself, kept under the name `file`, or under its own.
    """
    url = urlsplit(weights.source)
    if url.scheme in {"https", "http"} and url.netloc:
        if weights.source.endswith("/"):
            return WebSource(weights.source + quote(weights.file), Path(weights.file).name) if weights.file else None
        name = Path(weights.file or url.path).name
        return WebSource(weights.source, name) if name else None
    if _REPOSITORY.fullmatch(weights.source):
        return HubSource(weights.source, (weights.file,) if weights.file else _HUB_FILES)
    return None


def cached_file(source: Source) -> Path | None:
    """The file on this machine, or None. Its name keeps the suffix that says how to read it."""
    if isinstance(source, WebSource):
        path = web_cache(source)
        return path if path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    for name in source.files:
        found = try_to_load_from_cache(source.repository, name, cache_dir=hub_cache())
        if isinstance(found, str):
            return Path(found)
    return None


def chosen_weights(
    name: str, card: ArchitectureCard | None, weights: str | None, pretrained: bool = False
) -> WeightCard | None:
    """The weights of the card that are meant; None where a file, a folder or a name unknown to it was given.

    Args:
        name: of the architecture, for messages.
        card: its card, if it has one.
        weights: tag, path, or None.
        pretrained: whether the card's default is meant where `weights` is None.

    Raises:
        UsageProblem: code `unknown-weights` for a word that is neither a tag of the card nor a path, where the factory
            cannot know it either.
    """
    if card is None:
        return None
    chosen = weights or (card.default_weights if pretrained else "")
    known = card.weight(chosen) if chosen else None
    if known is not None or not weights or not card.weights:
        return known
    # timm's own tags are many more than those a card lists, and a source that is no place belongs to the factory.
    ours = all(one.file and not one.source.startswith("timm/") for one in card.weights)
    if ours and not (os.sep in weights or "/" in weights or "." in weights or Path(weights).exists()):
        raise unknown_weights(name, card, weights)
    return None


def unknown_weights(name: str, card: ArchitectureCard, weights: str) -> UsageProblem:
    """The error for a tag that the card does not list, with those that it does."""
    tags = [one.tag for one in card.weights]
    close = nearest(weights, tags)
    hint = f"did you mean `{close[0]}`?" if close else f"its tags: {', '.join(f'`{tag}`' for tag in tags)}"
    return UsageProblem(
        f"`{name}` has no weights `{weights}`", where=f"--weights {weights}", hint=hint, code="unknown-weights"
    )


def not_cached(name: str, weights: WeightCard, source: Source, where: str = "--weights") -> UsageProblem:
    """The error for weights that are not on this machine, with every way to get them."""
    ask = f"ask for access at {source.page}, then " if weights.gated else ""
    return UsageProblem(
        f"the weights `{weights.tag}` of `{name}` are not on this machine",
        code="weights-not-cached",
        where=where,
        hint=f"{ask}`medcli models fetch {name} --weights {weights.tag}`, or give the file with `--weights FILE`",
    )


def hub_endpoint() -> str:
    """Address of the hub: `HF_ENDPOINT`, or the public one."""
    return (os.environ.get("HF_ENDPOINT") or _HUB).rstrip("/")


def hub_cache() -> Path:
    """Folder in which the hub's own library, and so every tool that uses it, keeps what was downloaded."""
    from huggingface_hub import constants

    return Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE)


def web_cache(source: WebSource) -> Path:
    """Where a file from an ordinary address is kept, told apart from others of its name by its address."""
    mark = hashlib.sha256(source.url.encode()).hexdigest()[:12]
    return cache_root() / "weights" / f"{mark}-{source.file}"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()
