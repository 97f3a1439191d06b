"""What can be recommended: everything installed that has a card, and known plugins that are not installed yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medcli.errors import MedcliError, UsageProblem
from medcli.plugin import ArchitectureCard
from medcli.recommend.rules import Rules
from medcli.registry.cards import read_card
from medcli.registry.discovery import CORE, Registry, find

__all__ = ["Candidate", "candidates"]


@dataclass(frozen=True)
class Candidate:
    """One architecture with the facts that rules and estimates need.

    Args:
        name: bare name, which rules use.
        label: what is typed; the qualified name where the bare one is ambiguous.
        card: its card; for a plugin that is not installed the few facts known about it.
        distribution: where it comes from, or would.
        installed: whether it can be built now.
        modalities: kinds of pictures it was made for, as rules call them; empty for any.
    """

    name: str
    label: str
    card: ArchitectureCard
    distribution: str
    installed: bool
    modalities: tuple[str, ...] = ()

    @property
    def built_in(self) -> bool:
        """Whether it comes with medcli."""
        return self.distribution == CORE


def candidates(registry: Registry, rules: Rules, only: Sequence[str] = ()) -> tuple[Candidate, ...]:
    """Everything that can be recommended, in the registry's order. Broken cards are left out.

    Args:
        registry: what is installed.
        rules: name the plugins that need not be installed.
        only: the architectures to choose from; empty for all.

    Raises:
        UsageProblem: one of `only` is unknown, ambiguous, has no card or is not meant to be trained.
    """
    if only:
        return tuple(_asked(registry, rules, name) for name in dict.fromkeys(only))
    ambiguous = registry.ambiguous()
    found = []
    for entry in registry.named():
        try:
            card = read_card(entry)
        except MedcliError:
            continue  # `models list` and `plugins doctor` say what is wrong with it
        if card is not None and card.trainable and card.task == "classification":
            label = entry.qualified if entry.name in ambiguous else entry.name
            found.append(_candidate(entry.name, label, card, entry.distribution, rules))
    installed = {one.name for one in found}
    absent = [_absent(name, rules) for name in rules.packages if name not in installed]
    return (*found, *absent)


def _asked(registry: Registry, rules: Rules, name: str) -> Candidate:
    installed = {entry.name for entry in registry.named()}
    if name in rules.packages and name not in installed:
        return _absent(name, rules)
    entry = find(registry, name)
    card = read_card(entry)
    if card is None or not card.trainable:
        reason = "its distribution has no card" if card is None else "its card says that it is not made for training"
        raise UsageProblem(
            f"nothing can be recommended for `{name}`: {reason}", where=entry.origin, code="cannot-recommend"
        )
    return _candidate(entry.name, name, card, entry.distribution, rules)


def _candidate(name: str, label: str, card: ArchitectureCard, distribution: str, rules: Rules) -> Candidate:
    kinds = tuple(rules.modality(kind) or kind.lower() for kind in card.modalities)
    return Candidate(name, label, card, distribution, True, kinds)


def _absent(name: str, rules: Rules) -> Candidate:
    package = rules.packages[name]
    card = ArchitectureCard(
        name=name,
        summary=f"in `{package.distribution}`, which is not installed",
        family=package.family,
        params=package.params,
        gmacs=package.gmacs,
        input_size=package.input_size,
        feature_dim=package.feature_dim,
    )
    return Candidate(name, name, card, package.distribution, False, (package.modality,))
