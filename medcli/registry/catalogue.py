"""What `models list` and `models show` know, as plain values: nothing here imports a plugin, or torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medcli.errors import MedcliError, UsageProblem, nearest
from medcli.plugin import ArchitectureCard
from medcli.registry.cards import card_problems, read_card
from medcli.registry.discovery import ARCHITECTURES, CORE, DIFFERENCE_MODELS, Entry, Problem, Registry
from medcli.registry.namespaces import read_names
from medcli.registry.requirements import unmet

__all__ = ["Catalogue", "Listed", "catalogue", "facts", "head_parameters"]


@dataclass(frozen=True)
class Listed:
    """One architecture or difference model of a list.

    Args:
        entry: its name and origin.
        label: the shortest name that is not ambiguous.
        card: its card, or None where there is none or it is broken.
        broken: whether its card is broken.
        missing: requirements that are not installed, so that it cannot be built.
    """

    entry: Entry
    label: str
    card: ArchitectureCard | None
    broken: bool = False
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Catalogue:
    """Lists of architectures and of difference models.

    Args:
        listed: architectures, in the registry's order.
        differences: difference models, in the registry's order.
        namespaces: prefix (`timm`) to the number of names behind it; empty when a filter is in force.
        unknown: how many a filter left out because their card does not say.
        problems: what is wrong with installed plugins.
    """

    listed: tuple[Listed, ...]
    differences: tuple[Listed, ...]
    namespaces: dict[str, int]
    unknown: int
    problems: tuple[Problem, ...]


def catalogue(
    registry: Registry, *, family: str | None = None, modality: str | None = None, max_params: float | None = None
) -> Catalogue:
    """The architectures and difference models that pass the filters.

    Args:
        registry: what is installed.
        family: only this family.
        modality: only those whose card names this kind of picture, or none.
        max_params: at most this many million parameters in the backbone.

    Raises:
        UsageProblem: no installed architecture is of that family.
    """
    groups = {group: _read(registry, group) for group in (ARCHITECTURES, DIFFERENCE_MODELS)}
    everything = [one for rows in groups.values() for one in rows]
    families = sorted({one.card.family for one in everything if one.card and one.card.family})
    if family is not None and family not in families:
        near = nearest(family, families)
        listed = ", ".join(f"`{name}`" for name in near or families)
        raise UsageProblem(
            f"no installed architecture is of the family `{family}`",
            where="--family",
            hint=f"did you mean {listed}?" if near else f"families: {listed}",
            code="unknown-family",
        )
    unknown = 0
    kept: dict[str, list[Listed]] = {group: [] for group in groups}
    for group, rows in groups.items():
        for one in rows:
            verdict = _passes(one.card, family, modality, max_params)
            unknown += verdict is None
            if verdict:
                kept[group].append(one)
    spaces = {}
    if family is None and modality is None and max_params is None:
        for entry in registry.entries:
            if entry.is_namespace:
                spaces[entry.namespace] = len(read_names(entry.reference, entry.namespace).names)
    return Catalogue(
        tuple(kept[ARCHITECTURES]),
        tuple(kept[DIFFERENCE_MODELS]),
        spaces,
        unknown,
        (*registry.problems, *card_problems(registry)),
    )


def facts(entry: Entry, card: ArchitectureCard | None, classes: int | None = None) -> dict[str, Any]:
    """Everything known about an architecture, as JSON can hold it; null means that its card does not say.

    Args:
        entry: its name and origin.
        card: its card, if it has one.
        classes: also count a linear head of that many outputs.
    """
    known: dict[str, Any] = {
        "name": entry.name,
        "qualified": entry.qualified,
        "kind": "difference" if entry.group == DIFFERENCE_MODELS else "architecture",
        "distribution": entry.distribution,
        "version": entry.version,
        "entry_point": entry.reference,
        "built_in": entry.distribution == CORE,
        "card": card is not None,
    }
    if card is None:
        return known
    known |= {
        name: getattr(card, name)
        for name in (
            "summary", "family", "task", "params", "params_total", "gmacs", "feature_dim", "stages", "blocks",
            "input_size", "in_channels", "modalities", "licence", "drop_path", "attention_maps", "trainable", "note",
            "default_weights", "lora_targets", "requires",
        )
    }  # fmt: skip
    known["missing"] = unmet(card.requires)
    known["normalisation"] = card.normalisation
    known["size"] = card.size
    known["scaling"] = card.scaling
    known["weights"] = card.weights
    known["memory"] = card.memory
    known["options"] = dict(card.options)
    known["references"] = card.references
    known["recipes"] = {
        strategy: {key: {"value": one.value, "source": one.source} for key, one in recipe.items()}
        for strategy, recipe in card.recipes.items()
    }
    if classes is not None:
        head = head_parameters(card, classes)
        known["classes"] = classes
        known["params_head"] = head
        known["params_with_head"] = None if head is None or card.params is None else card.params + head
    return known


def head_parameters(card: ArchitectureCard, classes: int) -> int | None:
    """Weights and biases of a linear head, or None where the feature width is unknown."""
    return None if card.feature_dim is None else (card.feature_dim + 1) * classes


def _read(registry: Registry, group: str) -> list[Listed]:
    """Every entry of a group with its card."""
    ambiguous = registry.ambiguous(group)
    rows = []
    for entry in registry.named(group):
        label = entry.qualified if entry.name in ambiguous else entry.name
        try:
            card = read_card(entry)
            rows.append(Listed(entry, label, card, missing=unmet(card.requires) if card else ()))
        except MedcliError:
            rows.append(Listed(entry, label, None, broken=True))  # said by `problems`
    return rows


def _passes(
    card: ArchitectureCard | None, family: str | None, modality: str | None, max_params: float | None
) -> bool | None:
    """Whether a card passes the filters; None where it does not say enough."""
    if family is None and modality is None and max_params is None:
        return True
    if card is None:
        return None
    if family is not None and card.family != family:
        return False
    kinds = [kind.lower() for kind in card.modalities]
    if modality is not None and kinds and modality.lower() not in kinds:
        return False
    if max_params is None:
        return True
    return None if card.params is None else card.params <= max_params * 1e6
