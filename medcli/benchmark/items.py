"""What a benchmark measures: names, families, runs and patterns become a list, from metadata and cards alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

from medcli.errors import MedcliError, UsageProblem, nearest
from medcli.plugin import ArchitectureCard
from medcli.registry.cards import read_card
from medcli.registry.discovery import ARCHITECTURES, DIFFERENCE_MODELS, Entry, Registry, find
from medcli.registry.layout import install_line
from medcli.registry.namespaces import read_names
from medcli.registry.requirements import unmet
from medcli.runs.directory import MANIFEST

__all__ = ["Item", "Kind", "choose_items", "item_from_json", "item_to_json"]

Kind = Literal["architecture", "difference", "run", "bundle"]


@dataclass(frozen=True)
class Item:
    """One thing that is measured.

    Args:
        kind: what it is.
        name: the qualified name of an architecture or difference model, or the path of a run or bundle.
        label: the shortest name that is not ambiguous.
        origin: distribution and version; empty for a run or bundle.
        family: as its card says; may be empty.
        image_size: side in pixels as its card says; None where nothing says so.
        params: parameters of the backbone as its card says, or None.
        gmacs: multiply-adds in 10^9 as its card says, or None; only used to guess how long it takes.
        fault: why it cannot be measured here, as far as that is known without importing anything.
        toy: whether its card says that it was made for tests.
        pairs: whether it is a run or bundle of a difference model.
    """

    kind: Kind
    name: str
    label: str
    origin: str = ""
    family: str = ""
    image_size: int | None = None
    params: int | None = None
    gmacs: float | None = None
    fault: str = ""
    toy: bool = False
    pairs: bool = False

    @property
    def compares(self) -> bool:
        """Whether it is given two pictures of a patient at a time."""
        return self.pairs or self.kind == "difference"

    @property
    def key(self) -> str:
        """What tells it apart from every other item of a benchmark."""
        return f"{self.kind} {self.name}"


def item_to_json(item: Item) -> dict[str, Any]:
    """Plain JSON types."""
    return asdict(item)


def item_from_json(document: Mapping[str, Any]) -> Item:
    """The inverse of `item_to_json`; raises `ValueError` where it is none."""
    item = Item(**document)
    if item.kind not in get_args(Kind) or not isinstance(item.name, str) or not isinstance(item.label, str):
        raise ValueError("this is no item of a benchmark")
    return item


def choose_items(
    registry: Registry, words: Sequence[str], *, every: bool = False, patterns: Sequence[str] = ()
) -> tuple[Item, ...]:
    """The items that the command line means, each once, in the order of words, then of the registry.

    Args:
        registry: what is installed.
        words: architectures, difference models, families, run directories and bundles.
        every: all named entries of both groups, unless patterns choose among them.
        patterns: of everything installed those that match; they alone reach the names in a namespace.

    Raises:
        UsageProblem: nothing was named, a word means nothing, or a pattern matches nothing.
    """
    if not words and not every and not patterns:
        raise UsageProblem(
            "nothing to measure was named",
            hint="name architectures, families or runs (`medcli benchmark resnet18 efficientnet`), or `--all`",
            code="nothing-named",
        )
    found: dict[str, Item] = {}
    for word in words:
        found.update((item.key, item) for item in _meant(registry, word))
    if patterns:
        found.update((item.key, item) for item in _matching(registry, patterns))
    elif every:
        found.update((item.key, item) for item in _named(registry))
    return tuple(found.values())


def _named(registry: Registry) -> list[Item]:
    entries = (*registry.named(ARCHITECTURES), *registry.named(DIFFERENCE_MODELS))
    return [_item(registry, entry) for entry in entries]


def _meant(registry: Registry, word: str) -> list[Item]:
    path = Path(word)
    if path.is_dir():
        if (path / MANIFEST).is_file():
            return [_run(path, word)]
        from medcli.bundles.manifest import holds_pairs, is_bundle

        if is_bundle(path):
            return [Item("bundle", word, word, pairs=holds_pairs(path))]
    if "*" in word or "?" in word:
        raise UsageProblem(
            f"`{word}` is a pattern", hint=f"patterns are given as `--filter '{word}'`", code="pattern-as-name"
        )
    try:
        return [_item(registry, find(registry, word))]
    except UsageProblem as problem:
        if problem.code != "unknown-architecture":
            raise
        unknown = problem
    try:
        return [_item(registry, find(registry, word, DIFFERENCE_MODELS))]
    except UsageProblem as problem:
        if problem.code != "unknown-architecture":
            raise
    family = [item for item in _named(registry) if item.family == word]
    if family:
        return family
    if path.is_dir():
        raise UsageProblem(
            f"`{word}` is a folder, but neither a run of medcli nor a bundle",
            hint="`medcli runs list` shows the runs here",
            code="not-a-run",
        )
    near = nearest(word, {item.family for item in _named(registry) if item.family})
    if near and not (unknown.hint or "").startswith("did you mean"):
        unknown.hint = f"did you mean the family {' or '.join(f'`{one}`' for one in near)}?"
    raise unknown


def _matching(registry: Registry, patterns: Sequence[str]) -> list[Item]:
    named = _named(registry)
    found: dict[str, Item] = {}
    for pattern in patterns:
        plain = pattern.lower()
        hits = [item for item in named if _matches(item, plain)]
        for entry in registry.entries:
            stem = entry.name.removesuffix("*")
            # A pattern reaches into a namespace only where it names it: `*` alone never means a thousand networks.
            if entry.is_namespace and plain.startswith((stem, f"{entry.distribution}/{stem}")):
                rest = plain.removeprefix(f"{entry.distribution}/").removeprefix(stem)
                names = read_names(entry.reference, entry.namespace).names
                hits += [_item(registry, find(registry, stem + name)) for name in names if fnmatchcase(name, rest)]
        if not hits:
            choices = {item.label for item in named} | {item.family for item in named if item.family}
            near = nearest(plain.strip("*?"), choices)
            raise UsageProblem(
                f"`--filter {pattern}` matches nothing that is installed",
                where="--filter",
                hint=f"did you mean {' or '.join(f'`{one}*`' for one in near)}?"
                if near
                else "`medcli benchmark --all --list` shows the names; those of a namespace as in 'timm/resnet*'",
                code="nothing-matches",
            )
        found.update((item.key, item) for item in hits)
    return list(found.values())


def _matches(item: Item, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in (item.label, item.name, item.name.rpartition("/")[2]))


def _item(registry: Registry, entry: Entry) -> Item:
    label = entry.qualified if entry.name in registry.ambiguous(entry.group) else entry.name
    kind: Kind = "difference" if entry.group == DIFFERENCE_MODELS else "architecture"
    card: ArchitectureCard | None = None
    fault = ""
    try:
        card = read_card(entry)
        missing = unmet(card.requires) if card else ()
        if missing:
            fault = f"needs {', '.join(missing)}, which is not installed: {install_line(missing)}"
    except MedcliError:
        pass  # the process that measures it says what is wrong with its card
    if card is None:
        return Item(kind, entry.qualified, label, entry.origin)
    return Item(
        kind,
        entry.qualified,
        label,
        entry.origin,
        card.family,
        card.input_size,
        card.params,
        card.gmacs,
        fault,
        toy=card.modalities == ("test",),
    )


def _run(path: Path, word: str) -> Item:
    """A run, with what its description says where that can be read without its tensors."""
    facts = _header(path / "model.safetensors")
    spec = facts.get("spec", {}) if isinstance(facts.get("spec"), dict) else {}
    size, pairs = spec.get("image_size"), str(facts.get("schema", "")).startswith("medcli-difference/")
    of = str(spec.get("model" if pairs else "architecture", ""))
    return Item("run", word, word.rstrip("/"), "", of, size, pairs=pairs)


def _header(file: Path) -> dict[str, Any]:
    """medcli's description in a safetensors file: eight bytes of length, then JSON; empty where there is none."""
    try:
        with file.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if not 0 < length < 100_000_000:
                return {}
            metadata = json.loads(handle.read(length)).get("__metadata__", {})
        found = json.loads(metadata["medcli"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
