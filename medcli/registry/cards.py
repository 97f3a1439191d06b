"""Cards for those who ask about one architecture: its facts, its options as typed values, its recipe as settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from medcli.errors import MedcliError, Problems, UsageProblem, nearest
from medcli.plugin import ArchitectureCard, Normalisation, OptionCard, RecipeValue, WeightCard
from medcli.registry.card_file import CardFile, check_api
from medcli.registry.card_schema import build_card, option_fault
from medcli.registry.discovery import Entry, Problem, Registry
from medcli.registry.namespaces import read_names

__all__ = ["RecipeLayer", "card_problems", "parse_options", "read_card", "recipe_layer"]


@dataclass(frozen=True)
class RecipeLayer:
    """A recipe as a layer of settings: what `medcli.settings` stacks above the defaults.

    Args:
        name: `recipe`.
        values: name of a setting to its value.
        where: name of a setting to card, recipe and source.
    """

    name: str
    values: Mapping[str, Any]
    where: Mapping[str, str]


def read_card(entry: Entry) -> ArchitectureCard | None:
    """The card of an entry, without importing the plugin; None where the plugin says nothing about it.

    For a name in a namespace it is the namespace's own table (`[architectures."timm/*"]`) with what the list of names
    says about that name.

    Raises:
        UsageProblem: the card asks for another plugin API, or something in it is wrong (file and line in `where`).
        Problems: several things are wrong in it.
    """
    file = check_api(entry.package, entry.origin)
    if file is None:
        return None
    card, problems = _read(file, entry.card_name)
    if problems:
        raise _blamed(problems, entry)
    if card is None and file.problems:
        raise _blamed(list(file.problems), entry)  # it may stand in the part that cannot be read
    if card is not None and entry.variant:
        return _fill_in(card, entry)
    return card


def card_problems(registry: Registry) -> tuple[Problem, ...]:
    """Everything wrong with the cards of the installed plugins, as values."""
    problems: list[Problem] = []
    seen: set[str] = set()
    offered: dict[str, set[str]] = {}
    for entry in registry.entries:
        offered.setdefault(entry.package, set()).add(entry.name)
    for entry in registry.entries:
        try:
            file = check_api(entry.package, entry.origin)
        except MedcliError as error:
            problems.append(_as_problem(error, entry, "" if entry.package not in seen else entry.name))
            seen.add(entry.package)
            continue
        if file is None:
            continue
        if entry.package not in seen:
            seen.add(entry.package)
            problems += [_as_problem(error, entry, "") for error in file.problems]
            problems += [
                Problem(
                    entry.distribution, entry.version, name, "card", f"{table.place()}: no entry point has this name"
                )
                for name, table in file.tables.items()
                if name not in offered[entry.package]
            ]
        problems += [_as_problem(error, entry, entry.name) for error in _read(file, entry.name)[1]]
    return tuple(dict.fromkeys(problems))


def parse_options(entry: Entry, card: ArchitectureCard | None, pairs: Sequence[str]) -> dict[str, Any]:
    """`--arch-opt KEY=VALUE` as typed keywords of the factory; only those given.

    Where the card says `any_option`, or there is none, values of other keys are read as number, true, false or text.

    Raises:
        UsageProblem: no `=`, a key that the card does not list (nearest named), or a bad value.
        Problems: several of these.
    """
    options: dict[str, Any] = {}
    problems: list[UsageProblem] = []
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip().replace("-", "_")
        where = f"--arch-opt {pair}"
        if not equals or not key:
            problems.append(_bad_option(f"`{pair}` is not of the form KEY=VALUE", where))
        elif card is None or (card.any_option and key not in card.options):
            options[key] = _guess(text.strip())
        elif key not in card.options:
            near = nearest(key, card.options)
            hint = f"`{entry.name}` has no options"
            if card.options:
                hint = (
                    f"did you mean `{near[0]}`?" if near else f"it has {', '.join(f'`{one}`' for one in card.options)}"
                )
            problems.append(_bad_option(f"`{entry.name}` has no option `{key}`", where, hint))
        else:
            value = _typed(card.options[key], text.strip())
            fault = option_fault(card.options[key], value)
            if fault:
                problems.append(_bad_option(f"option `{key}` of `{entry.name}` {fault}", where, card.options[key].help))
            options[key] = float(value) if card.options[key].type == "float" and type(value) is int else value
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise Problems(problems)
    return options


def recipe_layer(card: ArchitectureCard | None, strategy: str) -> RecipeLayer | None:
    """What the card recommends for `train`, `frozen`, `lora`, ..., each value with its source; None for nothing."""
    if card is None:
        return None
    recipe: dict[str, tuple[str, RecipeValue]] = {}
    for name in ("any", strategy):
        recipe.update({key: (name, value) for key, value in card.recipes.get(name, {}).items()})
    if not recipe:
        return None
    values = {key: value.value for key, (_, value) in recipe.items()}
    where = {key: f"card of {card.name}, recipe {name} ({value.source})" for key, (name, value) in recipe.items()}
    return RecipeLayer("recipe", values, where)


@lru_cache(maxsize=1024)  # a listing asks twice for each: for the card, and for what is wrong with it
def _read(file: CardFile, name: str) -> tuple[ArchitectureCard | None, tuple[MedcliError, ...]]:
    if name in file.broken:
        return None, (file.broken[name],)
    table = file.tables.get(name)
    if table is None:
        return None, ()
    card, problems = build_card(name, table, file.sources, file.sections.get(name, "architectures"))
    return card, tuple(problems)


def _fill_in(card: ArchitectureCard, entry: Entry) -> ArchitectureCard:
    """A namespace's card for one of its names."""
    listed = read_names(entry.reference, entry.namespace)
    facts = listed.facts(entry.variant)
    if facts is None:
        return replace(card, name=entry.name)
    base, _, tag = entry.variant.partition(".")
    own = listed.facts(base) or facts
    elsewhere = dict(own.elsewhere)
    weights = tuple(
        WeightCard(
            tag=one,
            source=elsewhere.get(one) or listed.source.format(name=base, tag=one),
            licence=licence,
            normalisation=_listed_normalisation(entry, f"{base}.{one}"),
        )
        for one, licence in own.tags
    )
    return replace(
        card,
        name=entry.name,
        input_size=facts.input_size or card.input_size,
        normalisation=_listed_normalisation(entry, entry.variant) or card.normalisation,
        weights=weights,
        default_weights=tag or (weights[0].tag if weights else ""),
    )


def _listed_normalisation(entry: Entry, name: str) -> Normalisation | None:
    facts = read_names(entry.reference, entry.namespace).facts(name)
    if facts is None or not facts.mean:
        return None
    interpolation = "bicubic" if facts.interpolation == "bicubic" else "bilinear"
    return Normalisation(mean=facts.mean, std=facts.std, interpolation=interpolation, crop=facts.crop or 1.0)  # type: ignore[arg-type]


def _blamed(problems: Sequence[MedcliError], entry: Entry) -> UsageProblem:
    """The problems with the plugin named in their origin."""
    blamed = [
        UsageProblem(one.message, where=f"{entry.origin}, {one.where}", hint=one.hint, code=one.code)
        for one in problems
    ]
    return blamed[0] if len(blamed) == 1 else Problems(blamed)


def _as_problem(error: MedcliError, entry: Entry, name: str) -> Problem:
    where = (error.where or "").removeprefix(f"{entry.origin}, ")
    cause = f"{error.message} ({where})" if where else error.message
    return Problem(entry.distribution, entry.version, name, "card", cause, error.hint or "")


def _bad_option(message: str, where: str, hint: str | None = None) -> UsageProblem:
    return UsageProblem(message, where=where, hint=hint, code="bad-option")


def _typed(option: OptionCard, text: str) -> Any:
    """The text as the option's type; the text itself where it is none, for the check to name it."""
    if option.type == "str":
        return text
    value = _guess(text)
    if option.type == "bool" and text.lower() in {"yes", "no", "on", "off", "1", "0"}:
        return text.lower() in {"yes", "on", "1"}
    return value


def _guess(text: str) -> int | float | bool | str:
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
