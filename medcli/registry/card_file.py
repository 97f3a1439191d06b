"""The text level of a card: which files it is made of, which table inherits from which, and where every value stands.

Meaning and types are `card_schema`'s part. Finding a card never executes the package it belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from medcli.errors import MedcliError, UsageProblem, nearest
from medcli.plugin import API_VERSION
from medcli.registry.namespaces import package_directory
from medcli.toml_lines import find_lines

__all__ = ["CARD", "CardFile", "Table", "card_file", "check_api", "required"]

CARD = "medcli-card.toml"
KEYS = ("api", "include", "sources", "defaults", "architectures", "difference_models")
Keys = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Values with their places.

    Args:
        values: nested, as TOML gives them.
        places: path of keys within `values` to `file:line`.
    """

    values: Mapping[str, Any]
    places: Mapping[Keys, str]

    def place(self, *keys: str) -> str:
        """`file:line` of a key, or of the nearest table around it."""
        for length in range(len(keys), -1, -1):
            if keys[:length] in self.places:
                return self.places[keys[:length]]
        return ""


@dataclass(frozen=True, eq=False)
class CardFile:
    """One card with everything it includes; the same object for as long as the file is the same.

    Args:
        file: the card.
        api: the version of the plugin API it asks for.
        tables: architecture name to its table, with what it inherits merged in.
        sources: short name to full text of a source.
        problems: what is wrong with files or tables as a whole; `broken` says which architectures it concerns.
        broken: architecture name to its problem.
        sections: name to the kind of table it stands in, `architectures` or `difference_models`.
    """

    file: Path
    api: int = API_VERSION
    tables: Mapping[str, Table] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[MedcliError, ...] = ()
    broken: Mapping[str, MedcliError] = field(default_factory=dict)
    sections: Mapping[str, str] = field(default_factory=dict)


def card_file(package: str) -> CardFile | None:
    """The card of a top-level package, or None where it has none."""
    directory = package_directory(package)
    if directory is None or not (directory / CARD).is_file():
        return None
    card = directory / CARD
    return _read(card, card.stat().st_mtime_ns)


def check_api(package: str, origin: str) -> CardFile | None:
    """The card of a package, refused where it was made for another version of the plugin API; no card means version 1.

    Raises:
        UsageProblem: `plugin-api`, naming both versions.
    """
    card = card_file(package)
    if card is not None and card.api != API_VERSION:
        mend = "upgrade medcli" if card.api > API_VERSION else f"upgrade {origin.partition(' ')[0]}"
        raise UsageProblem(
            f"needs medcli plugin API {card.api}, this is {API_VERSION}",
            where=f"{origin}, {card.file}",
            hint=mend,
            code="plugin-api",
        )
    return card


def required(package: str, name: str) -> tuple[str, ...]:
    """What the card says must be installed for this name; empty where it says nothing, or nothing that can be read."""
    card = card_file(package)
    table = card.tables.get(name) if card is not None else None
    wanted = table.values.get("requires", []) if table is not None else []
    return tuple(one for one in wanted if isinstance(one, str)) if isinstance(wanted, list) else ()


@lru_cache(maxsize=256)
def _read(file: Path, _changed: int) -> CardFile:
    problems: list[MedcliError] = []
    main = _parse(file, problems)
    if main is None:
        return CardFile(file, problems=tuple(problems))
    api = main.values.get("api", API_VERSION)
    if type(api) is not int:
        problems.append(_problem("`api` must be a whole number", main.place("api")))
        api = API_VERSION
    elif api != API_VERSION:
        return CardFile(file, api)  # its keys may mean anything
    files = [main]
    for pattern in _strings(main, "include", problems):
        found = sorted(path for path in file.parent.glob(pattern) if path.is_file()) if _inside(pattern) else []
        if not found:
            problems.append(_problem(f"`{pattern}` matches no file beside the card", main.place("include")))
        files += [table for path in found if (table := _parse(path, problems)) is not None]
    return _assemble(file, api, files, problems)


def _assemble(file: Path, api: int, files: list[Table], problems: list[MedcliError]) -> CardFile:
    sections: dict[str, dict[str, Table]] = {"defaults": {}, "architectures": {}, "difference_models": {}}
    sources: dict[str, str] = {}
    for table in files:
        for key, value in table.values.items():
            if key not in KEYS:
                near = nearest(key, KEYS)
                hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(KEYS)}"
                problems.append(_problem(f"unknown key `{key}`", table.place(key), hint))
            elif key in sections or key == "sources":
                if not isinstance(value, dict):
                    problems.append(_problem(f"`{key}` must be a table", table.place(key)))
                    continue
                for name, inner in value.items():
                    if key == "sources":
                        sources[name] = str(inner)
                    elif not isinstance(inner, dict):
                        problems.append(_problem(f"`{key}.{name}` must be a table", table.place(key, name)))
                    elif name in sections[key]:
                        first = sections[key][name].place()
                        problems.append(
                            _problem(f"`{key}.{name}` stands twice", f"{first} and {table.place(key, name)}")
                        )
                    else:
                        sections[key][name] = _below(table, (key, name), inner)
    tables: dict[str, Table] = {}
    broken: dict[str, MedcliError] = {}
    kinds: dict[str, str] = {}
    for kind in ("architectures", "difference_models"):
        for name, table in sections[kind].items():
            if name in kinds:
                first = sections["architectures"][name].place()
                problems.append(_problem(f"`{name}` stands in both kinds of tables", f"{first} and {table.place()}"))
                continue
            kinds[name] = kind
            try:
                tables[name] = _inherit(table, sections["defaults"], ())
            except UsageProblem as problem:
                broken[name] = problem
    return CardFile(file, api, tables, sources, tuple(problems), broken, kinds)


def _parse(file: Path, problems: list[MedcliError]) -> Table | None:
    import tomli

    try:
        text = file.read_text(encoding="utf-8")
        values = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        problems.append(_problem(f"no valid TOML: {error.msg}", f"{file}:{error.lineno}:{error.colno}"))
        return None
    except (OSError, UnicodeDecodeError) as error:
        problems.append(_problem(f"cannot be read: {error}", str(file)))
        return None
    places = {path: f"{file}:{line}" for path, line in find_lines(text).items()}
    return Table(values, {(): str(file), **places})


def _below(table: Table, prefix: Keys, values: Mapping[str, Any]) -> Table:
    size = len(prefix)
    places = {path[size:]: place for path, place in table.places.items() if path[:size] == prefix}
    return Table(values, {(): table.place(*prefix), **places})


def _inherit(table: Table, defaults: Mapping[str, Table], seen: Keys) -> Table:
    """The table over everything it inherits."""
    values = _with_sources(table.values)
    parent = table.values.get("inherits")
    values.pop("inherits", None)
    own = Table(values, table.places)
    if parent is None:
        return own
    if not isinstance(parent, str) or parent not in defaults:
        near = nearest(str(parent), defaults)
        hint = f"did you mean `{near[0]}`?" if near else None
        raise _problem(f"there is no table `[defaults.{parent}]` to inherit", table.place("inherits"), hint)
    if parent in seen:
        raise _problem(f"`{parent}` inherits itself", table.place("inherits"))
    base = _inherit(defaults[parent], defaults, (*seen, parent))
    return Table(_merge(base.values, own.values), _merge_places(base.places, own.places))


def _with_sources(values: Mapping[str, Any]) -> dict[str, Any]:
    """Give every recipe value of this table its own source, so that none is mixed up with a parent's."""
    values = dict(values)
    recipes = values.get("recipes")
    if not isinstance(recipes, dict):
        return values
    spelled: dict[str, Any] = {}
    for strategy, recipe in recipes.items():
        if not isinstance(recipe, dict):
            spelled[strategy] = recipe
            continue
        common = recipe.get("source")
        spelled[strategy] = {
            key: value if isinstance(value, dict) or common is None else {"value": value, "source": common}
            for key, value in recipe.items()
            if key != "source"
        }
    values["recipes"] = spelled
    return values


def _merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Tables key by key; a recipe value and its source stay together, everything else is replaced."""
    merged = dict(base)
    for key, value in own.items():
        before = merged.get(key)
        if isinstance(value, dict) and isinstance(before, dict) and "value" not in value:
            merged[key] = _merge(before, value)
        else:
            merged[key] = value
    return merged


def _merge_places(base: Mapping[Keys, str], own: Mapping[Keys, str]) -> dict[Keys, str]:
    """Places of the merged table: a replaced array must not keep the lines of the items it replaced."""
    replaced = {path[:-1] for path in own if path and path[-1].isdigit()}
    kept = {
        path: place for path, place in base.items() if not any(path[:size] in replaced for size in range(len(path)))
    }
    return {**kept, **own}


def _strings(table: Table, key: str, problems: list[MedcliError]) -> list[str]:
    value = table.values.get(key, [])
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return list(value)
    problems.append(_problem(f"`{key}` must be a list of strings", table.place(key)))
    return []


def _inside(pattern: str) -> bool:
    """Whether a pattern stays within the package."""
    return not Path(pattern).is_absolute() and ".." not in Path(pattern).parts


def _problem(message: str, where: str, hint: str | None = None) -> UsageProblem:
    return UsageProblem(message, where=where, hint=hint, code="bad-card")
