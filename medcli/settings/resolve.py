"""From layers to the settings of one command, with the origin of every value and every problem at once.

pydantic is imported inside the functions, so importing this module stays cheap.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from medcli.errors import MedcliError, Problems, UsageProblem
from medcli.registry.requirements import missing_plugins
from medcli.settings.commands import COMMANDS, CommandSettings
from medcli.settings.fields import all_fields, fields_of
from medcli.settings.files import FileSettings, find_files, read_settings, shown_path
from medcli.settings.layers import Layer, Origin, flag_layer, variable_layer
from medcli.settings.presets import preset_layer
from medcli.settings.rules import Situation, broken_rules

__all__ = ["RecipeFor", "Resolved", "raise_all", "resolve", "survey"]

Group = TypeVar("Group")
RecipeFor = Callable[[str], Layer | None]
"""The recipe of an architecture as a layer named `recipe`. May raise `UsageProblem` (unknown architecture)."""

_DEFAULT = Origin("default")


@dataclass(frozen=True)
class Resolved:
    """The settings of one command.

    Args:
        command: its name.
        architecture: as typed or as a file names it, or None.
        values: every setting of the command by field name.
        origins: where each value came from.
        data_tables: the `[data.NAME]` tables: `path`, and settings of `DataSettings` typed as there.
        architecture_origin: where the architecture's name came from.
    """

    command: str
    architecture: str | None
    values: Mapping[str, Any]
    origins: Mapping[str, Origin]
    data_tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    architecture_origin: Origin = _DEFAULT

    def group(self, kind: type[Group]) -> Group:
        """One of the dataclasses of `medcli.settings.groups`; fields the command does not take have their default."""
        taken = fields_of(cast("type", kind))
        return kind(**{item.name: self.values[item.name] for item in taken if item.name in self.values})

    def origin(self, name: str) -> Origin:
        """Where the value of a setting came from."""
        return self.origins.get(name, _DEFAULT)


@dataclass(frozen=True)
class _Sources:
    """Everything that was read, before it is merged; `layers` lowest first."""

    layers: tuple[Layer, ...]
    saved: frozenset[str]
    architecture: str | None
    architecture_origin: Origin
    data_tables: Mapping[str, Mapping[str, Any]]


def resolve(
    command: str,
    given: Mapping[str, Any],
    *,
    architecture: str | None = None,
    recipe_for: RecipeFor | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Resolved:
    """Settings of a command from all layers.

    Args:
        command: a key of `COMMANDS`.
        given: the flags that were typed, by field name.
        architecture: as typed; without it a file's `architecture` key counts.
        recipe_for: looks up the card's recipe, for commands that take an architecture.
        environ: the variables; the process's own by default.
        cwd: where the project file is looked for; the working directory by default.

    Raises:
        UsageProblem: the one thing that is wrong.
        Problems: everything that is wrong.
    """
    resolved, problems = survey(
        command, given, architecture=architecture, recipe_for=recipe_for, environ=environ, cwd=cwd
    )
    raise_all(problems)
    return resolved


def survey(
    command: str,
    given: Mapping[str, Any],
    *,
    architecture: str | None = None,
    recipe_for: RecipeFor | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> tuple[Resolved, list[MedcliError]]:
    """Like `resolve`, but what is wrong is returned; a value that cannot be used gives way to the next lower layer."""
    settings = COMMANDS[command]
    problems: list[MedcliError] = []
    sources = _read_sources(
        settings,
        given,
        architecture,
        recipe_for,
        os.environ if environ is None else environ,
        Path.cwd() if cwd is None else cwd,
        problems,
    )
    resolved, invalid = _merge(settings, sources, problems)
    problems += broken_rules(Situation(resolved.values, resolved.origins, sources.saved), invalid)
    return resolved, problems


def raise_all(problems: list[MedcliError]) -> None:
    """Raise what was collected: nothing, the only problem, or all of them as `Problems`."""
    unique = list({str(problem): problem for problem in problems}.values())
    if len(unique) == 1:
        raise unique[0]
    if unique:
        raise Problems(unique)


def _read_sources(
    settings: CommandSettings,
    given: Mapping[str, Any],
    architecture: str | None,
    recipe_for: RecipeFor | None,
    environ: Mapping[str, str],
    cwd: Path,
    problems: list[MedcliError],
) -> _Sources:
    flags = flag_layer(given)
    if not settings.layered:
        return _Sources((flags,), frozenset(), architecture, _DEFAULT, {})
    files = _read_files(settings, given.get("config"), environ, cwd, problems)
    origin = Origin("flag", "ARCH") if architecture else _DEFAULT
    tables: dict[str, Mapping[str, Any]] = {}
    for file in files:
        problems += file.problems
        problems += missing_plugins(file.requires)
        tables.update(file.data_tables)
        if file.architecture and origin.layer != "flag" and settings.architecture:
            architecture, origin = file.architecture[0], Origin(file.layer.name, file.architecture[1])
    layers = [file.layer for file in files]
    above = sum(file.layer.name != "config file" for file in files)
    if given.get("preset"):
        try:
            preset = preset_layer(given["preset"], settings.name)
        except UsageProblem as problem:
            problems.append(problem)
        else:
            layers.insert(above, preset)
    if settings.architecture and architecture and recipe_for:
        layers = [*_recipe(architecture, origin, recipe_for, problems), *layers]
    variables, complaints = variable_layer(settings, environ)
    problems += complaints
    saved = frozenset(name for file in files if file.saved for name in file.layer.values)
    return _Sources((*layers, variables, flags), saved, architecture, origin, tables)


def _read_files(
    settings: CommandSettings, named: str | None, environ: Mapping[str, str], cwd: Path, problems: list[MedcliError]
) -> list[FileSettings]:
    from medcli.settings.validation import check_layer

    found = list(find_files(environ, cwd))
    if named is not None:
        path = cwd / Path(named).expanduser()
        # A run directory is named where its config.toml is meant.
        found.append(("config file", path / "config.toml" if path.is_dir() else path))
    files: list[FileSettings] = []
    for layer, path in found:
        try:
            file = read_settings(layer, path, settings, cwd)
        except MedcliError as problem:
            problems.append(problem)
            continue
        if file is not None:
            files.append(file)
            problems += (problem for other in file.other for problem in check_layer(other).values())
    projects = [shown_path(path, cwd) for layer, path in found if layer == "project file"]
    if sum(file.layer.name == "project file" for file in files) > 1:
        problems.append(
            UsageProblem(
                "both `medcli.toml` and `[tool.medcli]` hold settings of this project",
                where=", ".join(projects),
                hint="keep them in one of the two",
                code="two-project-files",
            )
        )
    return files


def _recipe(architecture: str, origin: Origin, recipe_for: RecipeFor, problems: list[MedcliError]) -> list[Layer]:
    try:
        layer = recipe_for(architecture)
    except MedcliError as problem:
        if problem.where is None and origin.layer != "flag":
            problem.where = str(origin)
        problems.append(problem)
        return []
    if layer is None:
        return []
    foreign = frozenset(
        name for name in layer.values if name not in all_fields() or not all_fields()[name].option.from_recipe
    )
    problems += (
        UsageProblem(f"a recipe cannot set `{name}`", where=layer.where.get(name), code="bad-recipe")
        for name in sorted(foreign)
    )
    return [layer.without(foreign)]


def _merge(
    settings: CommandSettings, sources: _Sources, problems: list[MedcliError]
) -> tuple[Resolved, frozenset[str]]:
    """Check each layer by itself, so that a wrong value is reported even where a higher layer hides it."""
    from medcli.settings.validation import check_layer, merge

    invalid: set[str] = set()
    clean: list[Layer] = []
    for layer in sources.layers:
        wrong = check_layer(layer, settings.fields)
        problems += wrong.values()
        invalid |= wrong.keys()
        foreign = frozenset(layer.values) - frozenset(settings.fields)
        clean.append(layer.without(frozenset(wrong) | foreign))
    merged = merge(clean)
    origins = dict.fromkeys(settings.fields, _DEFAULT)
    for layer in clean:
        origins |= {name: layer.origin(name) for name in layer.values}
    resolved = Resolved(
        settings.name,
        sources.architecture,
        {name: merged[name] for name in settings.fields},
        origins,
        sources.data_tables,
        sources.architecture_origin,
    )
    return resolved, frozenset(invalid)
