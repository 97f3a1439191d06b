"""Configuration files: which are read, and which of their keys a command takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medcli.errors import MedcliError, UsageProblem, nearest
from medcli.registry.requirements import requirement_fault
from medcli.settings.commands import COMMANDS, FIXED_BY_RUN, IMAGE_STORE, CommandSettings
from medcli.settings.fields import Field, fields_of
from medcli.settings.groups import DataSettings
from medcli.settings.layers import Layer
from medcli.settings.toml_files import Document, read_toml

__all__ = ["DATA_TABLE_KEYS", "FileSettings", "find_files", "read_settings", "shown_path", "take_settings", "user_file"]

DATA_TABLE_KEYS: Mapping[str, Field | None] = {
    "path": None,
    **{
        setting.name: setting
        for setting in fields_of(DataSettings)
        if setting.name not in (*FIXED_BY_RUN, *IMAGE_STORE, "data", "leave_out", "skip_unreadable", "limit")
    },
}
"""What a `[data.NAME]` table may say: where the set is and how its labels are read, not how images become tensors."""

_TOP_LEVEL_WORDS = ("command", "architecture", "unset", "origins")


@dataclass(frozen=True)
class FileSettings:
    """What one file says to one command.

    Args:
        layer: the values for the command.
        other: the values it holds for other commands and for data sets, to be checked for type alone.
        architecture: its `architecture` key and where it stands, or None.
        data_tables: its `[data.NAME]` tables.
        saved: whether a run wrote it (it then names every value, also those that act only together with others).
        problems: everything that is wrong with its keys.
        requires: what `[plugins] require` asks for and where it stands.
    """

    layer: Layer
    other: tuple[Layer, ...] = ()
    architecture: tuple[str, str] | None = None
    data_tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    saved: bool = False
    problems: tuple[MedcliError, ...] = ()
    requires: tuple[tuple[str, str], ...] = ()


def user_file(environ: Mapping[str, str]) -> Path:
    """`$XDG_CONFIG_HOME/medcli/config.toml`, below `~/.config` without that variable."""
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    base = environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else home / ".config") / "medcli" / "config.toml"


def shown_path(path: Path, cwd: Path) -> str:
    """The path as a person would write it: relative to the working directory where it lies below it."""
    return str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path)


def find_files(environ: Mapping[str, str], cwd: Path) -> Iterator[tuple[str, Path]]:
    """The user file and the project file, as far as they exist, lowest first, each with its layer's name."""
    if user_file(environ).is_file():
        yield "user file", user_file(environ)
    for name in ("pyproject.toml", "medcli.toml"):
        if (cwd / name).is_file():
            yield "project file", cwd / name


def read_settings(layer: str, path: Path, command: CommandSettings, cwd: Path) -> FileSettings | None:
    """Read one file for one command; None for a `pyproject.toml` that does not speak of medcli.

    Raises `UsageProblem` for a file that cannot be read or is no TOML.
    """
    shown = shown_path(path, cwd)
    if path.name == "pyproject.toml":
        # Another tool's mistake in a file that says nothing to medcli is not medcli's business.
        if b"medcli" not in path.read_bytes():
            return None
        document = read_toml(path, shown)
        tools = document.values.get("tool")
        if not isinstance(tools, dict) or "medcli" not in tools:
            return None
        if not isinstance(tools["medcli"], dict):
            raise UsageProblem(
                "`tool.medcli` must be a table of settings",
                where=document.where("tool", "medcli"),
                hint="write `[tool.medcli]` and below it `epochs = 30`",
                code="bad-setting",
            )
        return take_settings(layer, document.below("tool", "medcli"), command)
    return take_settings(layer, read_toml(path, shown), command)


def take_settings(layer: str, document: Document, command: CommandSettings) -> FileSettings:
    """Sort a document's keys: top-level ones apply to every command that has the setting, a command's table wins."""
    reader = _Reader(document, command)
    for key, value in document.values.items():
        reader.top_level(key, value)
    tables = {key: value for key, value in document.values.items() if _command_of(key) and isinstance(value, dict)}
    for key, table in tables.items():
        reader.table(key, _command_of(key) or command, table)
    return FileSettings(
        layer=Layer(layer, reader.values, reader.where),
        other=(Layer(layer, reader.other, reader.other_where), *reader.table_layers(layer)),
        architecture=reader.architecture,
        data_tables=reader.data_tables,
        saved="origins" in document.values,
        problems=tuple(reader.problems),
        requires=tuple(reader.requires),
    )


def _command_of(key: str) -> CommandSettings | None:
    wanted = key.replace("_", "-").replace(" ", "-")
    return next((command for command in COMMANDS.values() if command.layered and command.table == wanted), None)


def _in_files() -> dict[str, Field]:
    return {
        name: setting for command in COMMANDS.values() if command.layered for name, setting in command.fields.items()
    }


class _Reader:
    """Collects what one document says; problems are gathered, never raised."""

    def __init__(self, document: Document, command: CommandSettings) -> None:
        self.document = document
        self.command = command
        self.values: dict[str, Any] = {}
        self.where: dict[str, str] = {}
        self.other: dict[str, Any] = {}
        self.other_where: dict[str, str] = {}
        self.architecture: tuple[str, str] | None = None
        self.data_tables: dict[str, Mapping[str, Any]] = {}
        self.problems: list[MedcliError] = []
        self.requires: list[tuple[str, str]] = []
        self.seen: set[tuple[str, ...]] = set()

    def table_layers(self, layer: str) -> tuple[Layer, ...]:
        """Each `[data.NAME]` table as a layer, to be checked for type alone."""
        return tuple(
            Layer(
                layer,
                {key: value for key, value in table.items() if key != "path"},
                {key: self.document.where("data", name, key) for key in table},
            )
            for name, table in self.data_tables.items()
        )

    def top_level(self, key: str, value: Any) -> None:
        name = key.replace("-", "_")
        if name == "data" and isinstance(value, dict):
            self._data_tables(key, value)
        elif name == "plugins" and isinstance(value, dict):
            self._plugins(key, value)
        elif name == "command":
            if not isinstance(value, str) or value not in COMMANDS:
                self._problem(f"`command` names no command: `{value}`", key, hint="it may be left out")
        elif name == "origins" or (_command_of(key) and isinstance(value, dict)):
            pass
        elif name == "architecture":
            self._architecture((key,), value)
        elif name == "unset":
            self._unset((key,), value, _in_files())
        elif isinstance(value, dict):
            tables = [command.table for command in COMMANDS.values() if command.layered]
            self._unknown(f"unknown table `[{key}]`", (key,), key.replace("_", "-"), [*tables, "data", "plugins"])
        else:
            self._setting((key,), value, _in_files(), own=name in self.command.fields)

    def table(self, key: str, owner: CommandSettings, table: Mapping[str, Any]) -> None:
        own = owner is self.command
        for inner, value in table.items():
            path = (key, inner)
            if inner == "architecture" and owner.architecture:
                if own:
                    self._architecture(path, value)
            elif inner == "unset":
                if own:
                    self._unset(path, value, owner.fields)
            else:
                self._setting(path, value, owner.fields, own=own)

    def _setting(self, path: tuple[str, ...], value: Any, known: Mapping[str, Field], *, own: bool) -> None:
        name = path[-1].replace("-", "_")
        where = self.document.where(*path)
        if name not in known:
            takers = [command.name for command in COMMANDS.values() if command.layered and name in command.fields]
            if takers and len(path) > 1:
                hint = "it is a setting of " + ", ".join(f"`{taker}`" for taker in takers)
                self._problem(f"`[{path[0]}]` has no setting `{path[-1]}`", *path, hint=hint)
            else:
                usable = [field.name for field in known.values() if not field.option.flag_only and field.option.in_file]
                words = [*usable, *_TOP_LEVEL_WORDS[1:3], *(command.table for command in COMMANDS.values())]
                self._unknown(f"unknown setting `{path[-1]}`", path, name, words)
        elif known[name].option.flag_only or not known[name].option.in_file:
            hint = f"use the flag `{known[name].flag}`"
            if not known[name].option.flag_only:
                hint += f" or the variable `MEDCLI_{name.upper()}`"
            self._problem(f"`{path[-1]}` cannot be set in a file", *path, hint=hint)
        elif isinstance(value, dict):
            self._problem(f"`{path[-1]}` is a setting, not a table", *path)
        elif (*path[:-1], name) in self.seen:
            self._problem(f"`{path[-1]}` is set twice, with `-` and with `_`", *path)
        elif own:
            self.values[name], self.where[name] = value, where
        else:
            self.other[name], self.other_where[name] = value, where
        self.seen.add((*path[:-1], name))

    def _unset(self, path: tuple[str, ...], value: Any, known: Mapping[str, Field]) -> None:
        """TOML has no word for "nothing", so `unset = ["image_size"]` takes back what a lower layer says."""
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._problem('`unset` must be a list of settings, such as `["image_size"]`', *path)
            return
        for item in value:
            name = item.replace("-", "_")
            if name not in known:
                self._unknown(f"`unset` names the unknown setting `{item}`", path, name, list(known))
            elif not known[name].optional:
                self._problem(f"`{item}` always has a value, so it cannot be unset", *path)
            elif name in self.command.fields:
                self.values[name], self.where[name] = None, self.document.where(*path)

    def _plugins(self, key: str, table: Mapping[str, Any]) -> None:
        """`[plugins] require`: what must be installed for this project, in the words of package metadata."""
        for inner, value in table.items():
            if inner != "require":
                self._unknown(f"unknown key `{inner}` in `[plugins]`", (key, inner), inner, ["require"])
            elif not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                self._problem('`require` must be a list such as `["medcli-retfound>=0.1"]`', key, inner)
            else:
                where = self.document.where(key, inner)
                faults = [(item, requirement_fault(item)) for item in value]
                for _, fault in faults:
                    if fault:
                        self._problem(f"`require` {fault}", key, inner)
                self.requires += [(item, where) for item, fault in faults if not fault]

    def _architecture(self, path: tuple[str, ...], value: Any) -> None:
        if isinstance(value, str) and value:
            self.architecture = (value, self.document.where(*path))
        else:
            self._problem("`architecture` must be a text", *path)

    def _data_tables(self, key: str, tables: Mapping[str, Any]) -> None:
        for name, table in tables.items():
            if isinstance(table, dict):
                self.data_tables[name] = dict(self._data_table((key, name), table))
            else:
                self._problem(
                    f"`data.{name}` must be a table that describes the data set `{name}`",
                    key,
                    name,
                    hint=f'write `[data.{name}]` and below it `path = "…"`',
                )

    def _data_table(self, path: tuple[str, str], table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        title = f"`[data.{path[1]}]`"
        for inner, value in table.items():
            word = inner.replace("-", "_")
            if word not in DATA_TABLE_KEYS:
                self._unknown(f"unknown key `{inner}` in {title}", (*path, inner), word, list(DATA_TABLE_KEYS))
            elif word == "path" and not (isinstance(value, str) and value):
                self._problem("`path` must be a text", *path, inner)
            else:
                setting = DATA_TABLE_KEYS[word]
                many = setting is not None and setting.many
                yield word, (tuple(value) if isinstance(value, list) else (value,)) if many else value
        if "path" not in table:
            self._problem(f"{title} needs a `path`", *path)

    def _unknown(self, message: str, path: tuple[str, ...], word: str, known: list[str]) -> None:
        close = nearest(word, known)
        hint = f"did you mean `{close[0]}`?" if close else "`medcli config init` writes a file with every setting"
        self.problems.append(UsageProblem(message, where=self.document.where(*path), hint=hint, code="unknown-setting"))

    def _problem(self, message: str, *path: str, hint: str | None = None) -> None:
        self.problems.append(UsageProblem(message, where=self.document.where(*path), hint=hint, code="bad-setting"))
