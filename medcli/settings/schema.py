"""The JSON schema of configuration files, for editors, and the commented file that `config init` writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Any

from medcli.settings.commands import COMMANDS, CommandSettings
from medcli.settings.fields import Field, all_fields
from medcli.settings.files import DATA_TABLE_KEYS

__all__ = ["commented_file", "file_fields", "json_schema"]

_REQUIRE = "plugins without which nothing runs in this project, such as `medcli-retfound>=0.1`"
_TEXTS = {"type": "array", "items": {"type": "string"}}
_WORDS = {int: "integer", float: "number", bool: "boolean", str: "string"}


def file_fields(command: CommandSettings | None = None) -> dict[str, Field]:
    """The settings that a file may hold, for one command or for all."""
    commands = [command] if command else [one for one in COMMANDS.values() if one.layered]
    # For all of them a setting has the words of all of them.
    return {
        name: setting if command else all_fields()[name]
        for one in commands
        for name, setting in one.fields.items()
        if not setting.option.flag_only and setting.option.in_file
    }


def json_schema() -> dict[str, Any]:
    """A schema (draft 2020-12) of `medcli.toml`, `config.toml` and `[tool.medcli]`."""
    layered = [command for command in COMMANDS.values() if command.layered]
    every = _properties(file_fields())
    # `data` at the top is a list of data sets, or the tables that describe them.
    every["data"] = {"anyOf": [every["data"], {"type": "object", "additionalProperties": _data_table()}]}
    tables = {
        command.table: _object(
            {
                **_properties(file_fields(command)),
                **({"architecture": _architecture()} if command.architecture else {}),
                "unset": _unset(file_fields(command)),
            },
            f"settings of `medcli {command.name}` alone; they win over the same keys outside a table",
        )
        for command in layered
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "medcli configuration",
        **_object(
            {
                **every,
                "command": {"enum": [command.name for command in layered], "description": "the command of a saved run"},
                "architecture": _architecture(),
                "unset": _unset(file_fields()),
                **tables,
                "plugins": _object(
                    {"require": {"type": "array", "items": {"type": "string"}, "description": _REQUIRE}},
                    "what is needed",
                ),
                "origins": {"type": "object", "description": "written by medcli into runs, ignored when read"},
            }
        ),
    }


def commented_file() -> Iterator[str]:
    """The lines of a file that names every setting with its default, its help and its limits, all commented out."""
    yield "# Settings of medcli. Remove the `#` before a line to use it. A key applies to every command that has it;"
    yield "# below `[train]`, `[evaluate]`, `[predict]`, … it applies to that command alone and wins."
    yield "# Flags win over MEDCLI_* variables, these over --config FILE, --preset, this file, the user's own file and"
    yield "# the recipe of the architecture. `medcli config show train` tells what applies and where it comes from."
    yield ""
    yield '# architecture = "resnet18"'
    panel = ""
    for name, setting in file_fields().items():
        if setting.option.panel != panel:
            panel = setting.option.panel
            yield from ("", f"# --- {panel} ---")
        takers = [one.name for one in COMMANDS.values() if one.layered and name in one.fields]
        yield ""
        yield from (f"# {line}" for line in wrap(f"{setting.option.help} [{', '.join(takers)}]", 110))
        if setting.choices:
            yield "# one of: " + ", ".join(str(choice) for choice in setting.choices)
        elif limits := _limits(setting):
            yield f"# {limits}"
        yield _default_line(name, setting)
    yield from ("", "# --- Plugins ---", "", "# [plugins]", f"# {_REQUIRE}", '# require = ["medcli-retfound>=0.1"]')
    yield from ("", "# --- Data sets with names: `--data NAME` is then enough ---", "")
    yield "# [data.NAME]"
    yield '# path = "labels.csv"'
    yield '# image_dir = "images"'
    yield "# Beside such tables `data` itself goes below `[train]`, `[evaluate]`, …, because TOML names a thing once."


def _limits(setting: Field) -> str:
    option = setting.option
    words = []
    if option.minimum is not None:
        words.append(f"{'above' if option.exclusive else 'at least'} {option.minimum:.10g}")
    if option.maximum is not None:
        words.append(f"at most {option.maximum:.10g}")
    return ", ".join(words)


def _default_line(name: str, setting: Field) -> str:
    import tomli_w

    if setting.default is None:
        return f"# {name} ="
    if not setting.many:
        return "# " + tomli_w.dumps({name: setting.default}).strip()
    items = (tomli_w.dumps({"item": item}).strip().removeprefix("item = ") for item in setting.default)
    return f"# {name} = [{', '.join(items)}]"


def _object(properties: Mapping[str, Any], description: str = "") -> dict[str, Any]:
    about = {"description": description} if description else {}
    return {"type": "object", **about, "properties": dict(properties), "additionalProperties": False}


def _properties(fields: Mapping[str, Field]) -> dict[str, Any]:
    return {name: _property(setting) for name, setting in fields.items()}


def _property(setting: Field) -> dict[str, Any]:
    kind: dict[str, Any] = {"enum": list(setting.choices)} if setting.choices else {"type": _WORDS[setting.base]}
    if setting.option.minimum is not None:
        kind["exclusiveMinimum" if setting.option.exclusive else "minimum"] = setting.option.minimum
    if setting.option.maximum is not None:
        kind["maximum"] = setting.option.maximum
    if setting.base is str and not setting.choices:
        kind["minLength"] = 1
    if setting.many:
        kind = {"anyOf": [{"type": "array", "items": kind}, kind]}
    kind["description"] = setting.option.help
    if setting.default is not None:
        kind["default"] = list(setting.default) if setting.many else setting.default
    return kind


def _architecture() -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "description": "the architecture, where the command line names none"}


def _unset(fields: Mapping[str, Field]) -> dict[str, Any]:
    optional = [name for name, setting in fields.items() if setting.optional]
    return {
        "type": "array",
        "items": {"enum": optional},
        "description": "settings put back to having no value, whatever a lower layer says",
    }


def _data_table() -> dict[str, Any]:
    described = {name: setting for name, setting in DATA_TABLE_KEYS.items() if setting is not None}
    path = {"type": "string", "minLength": 1, "description": "folder, table, .npz or built-in set"}
    return {
        **_object({"path": path, **_properties(described)}, "one data set with a name"),
        "required": ["path"],
    }
