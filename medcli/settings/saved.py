"""The `config.toml` of a run: every value with its origin, readable as `--config` and enough to reproduce the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medcli.errors import UsageProblem
from medcli.settings.commands import COMMANDS
from medcli.settings.fields import Field
from medcli.settings.files import take_settings
from medcli.settings.layers import LAYERS, Layer, Origin
from medcli.settings.resolve import Resolved, raise_all
from medcli.settings.toml_files import Document

__all__ = ["SavedConfig", "parse_saved", "render_saved"]


@dataclass(frozen=True)
class SavedConfig:
    """What a run was started with.

    Args:
        command: the command that made the run.
        architecture: its architecture, or None.
        values: every setting that a file may hold, typed.
        origins: where each value came from; absent means its default.
        data_tables: the `[data.NAME]` tables.
    """

    command: str
    architecture: str | None
    values: Mapping[str, Any]
    origins: Mapping[str, Origin] = field(default_factory=dict)
    data_tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def resolved(self) -> Resolved:
        """The same settings as a command receives them; what only the command line may say has its default."""
        fields = COMMANDS[self.command].fields
        return Resolved(
            self.command,
            self.architecture,
            {name: self.values.get(name, setting.default) for name, setting in fields.items()},
            {name: self.origins.get(name, Origin("default")) for name in fields},
            self.data_tables,
        )


def _kept(command: str) -> dict[str, Field]:
    return {
        name: setting
        for name, setting in COMMANDS[command].fields.items()
        if not setting.option.flag_only and setting.option.in_file
    }


def render_saved(resolved: Resolved, *, version: str, cwd: Path | None = None) -> str:
    """The text of `config.toml`. Paths that exist are written absolute, so the run can be resumed from anywhere."""
    base = Path.cwd() if cwd is None else cwd
    table = COMMANDS[resolved.command].table
    lines = [
        f"# Settings of a run of medcli {version}. `medcli {resolved.command} --config THIS` reproduces it.",
        _assign("command", resolved.command),
    ]
    if resolved.architecture is not None:
        lines.append(_assign("architecture", resolved.architecture))
    lines += ["", f"[{table}]"]
    unset = []
    for name, setting in _kept(resolved.command).items():
        value = resolved.values[name]
        if value is None:
            unset.append(name)
            continue
        if setting.option.completes in ("path", "dir", "data", "run"):
            value = _anchored(value, base)
        lines.append(f"{_assign(name, value)}{_comment(resolved.origin(name))}")
    lines.append(_assign("unset", unset))
    for name, entries in resolved.data_tables.items():
        lines += ["", f"[data.{_key(name)}]"]
        lines += [
            _assign(key, _anchored(value, base) if key in ("path", "image_dir") else value)
            for key, value in entries.items()
        ]
    lines += ["", "# For `medcli runs show`; ignored when this file is read as `--config`.", "[origins]"]
    for name in _kept(resolved.command):
        origin = resolved.origin(name)
        if origin.layer != "default":
            # A place may be a file whose name is no text; no value can be.
            where = origin.where.encode("utf-8", "backslashreplace").decode("utf-8")
            lines.append(_assign(name, [origin.layer, where]))
    return "\n".join(lines) + "\n"


def parse_saved(document: Document) -> SavedConfig:
    """Read a run's settings back, validated. Raises `UsageProblem` or `Problems` naming file and line."""
    from medcli.settings.validation import check_layer, merge

    command = document.values.get("command")
    if not isinstance(command, str) or command not in COMMANDS:
        raise UsageProblem(
            "the file does not say which command made the run", where=document.where("command"), code="bad-run-file"
        )
    taken = take_settings("config file", document, COMMANDS[command])
    wrong = [*check_layer(taken.layer, COMMANDS[command].fields).values()]
    wrong += [problem for layer in taken.other for problem in check_layer(layer).values()]
    raise_all([*taken.problems, *wrong])
    merged = merge([Layer("config file", taken.layer.values)])
    return SavedConfig(
        command,
        taken.architecture[0] if taken.architecture else None,
        {name: merged[name] for name in _kept(command)},
        _origins(document, command),
        taken.data_tables,
    )


def _origins(document: Document, command: str) -> dict[str, Origin]:
    origins: dict[str, Origin] = {}
    for name, pair in document.below("origins").values.items():
        match pair:
            case [str(layer), str(where)] if layer in LAYERS:
                if name in COMMANDS[command].fields:
                    origins[name] = Origin(layer, where)
            case _:
                message = f"the origin of `{name}` must be a layer and a place"
                raise UsageProblem(message, where=document.where("origins", name), code="bad-run-file")
    return origins


def _anchored(value: Any, base: Path) -> Any:
    if isinstance(value, tuple):
        return tuple(_anchored(item, base) for item in value)
    name, equals, path = value.partition("=")
    # A data set's name holds no separator; `a/b=c.csv` is a path.
    if not equals or "/" in name or (base / value).exists():
        name, equals, path = "", "", value
    found = base / path
    if not path or not found.exists():
        return value
    absolute = f"{name}{equals}{found.resolve()}"
    # A folder above may have a name that is no text, which TOML cannot hold.
    return absolute if absolute.encode("utf-8", "replace").decode("utf-8") == absolute else value


def _assign(key: str, value: Any) -> str:
    import tomli_w

    if isinstance(value, list | tuple):
        items = ", ".join(_assign("item", item).removeprefix("item = ") for item in value)
        return f"{_key(key)} = [{items}]"
    return tomli_w.dumps({key: value}).removesuffix("\n")


def _key(name: str) -> str:
    return _assign(name, 0).rpartition(" = ")[0]


def _comment(origin: Origin) -> str:
    # Control characters, which a file name may hold, would end the comment.
    return "  # " + "".join(letter if letter.isprintable() else "?" for letter in str(origin))
