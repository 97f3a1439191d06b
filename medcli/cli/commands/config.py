"""`medcli config`: what is set, where from, whether it holds together, and files to begin with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from medcli.cli.options import CommandArgument, Flags, NewFileArgument, OptionalArchitecture, OptionalFile
from medcli.cli.output import Output
from medcli.errors import MedcliError, UsageProblem, nearest
from medcli.settings.commands import COMMANDS, CommandSettings
from medcli.settings.resolve import Resolved, raise_all, resolve, survey
from medcli.settings.schema import commented_file, file_fields, json_schema

__all__ = ["check_config", "init_config", "list_presets", "show_config", "show_schema", "value_text"]

PROJECT_FILE = "medcli.toml"


def show_config(command: CommandArgument, architecture: OptionalArchitecture, flags: Flags) -> None:
    """Show every setting of a command and where its value comes from.

    Nothing is run: files, variables, `--preset` and `--config` are read, and with an architecture the recipe of its
    card. Commands of two words are written with a dash, as their tables in a file are: `data-check`.

    Examples:
        medcli config show train resnet18
        medcli config show train resnet18 --preset medmnist-official-28
        medcli config show data-check --json
    """
    from medcli.registry.recipes import recipe_source

    output = Output(flags.output(), "config show")
    settings = _command(command)
    if architecture and not settings.architecture:
        raise UsageProblem(f"`{settings.name}` takes no architecture", where="ARCH", code="no-architecture-here")
    given = {name: flags.given[name] for name in ("config", "preset") if name in flags.given}
    if "preset" in given and "preset" not in settings.fields:
        raise UsageProblem(f"`{settings.name}` takes no preset", where="`--preset`", code="idle-flag")
    resolved = resolve(settings.name, given, architecture=architecture, recipe_for=recipe_source("train"))
    shown = file_fields(settings)
    result = {
        "command": settings.name,
        "architecture": {
            "value": resolved.architecture,
            "layer": resolved.architecture_origin.layer if resolved.architecture else None,
            "where": resolved.architecture_origin.where,
        },
        "settings": {
            name: {
                "value": resolved.values[name],
                "layer": resolved.origin(name).layer,
                "where": resolved.origin(name).where,
            }
            for name in shown
        },
        "data_tables": resolved.data_tables,
    }
    output.answer(result, lambda: _settings_table(output, resolved, list(shown)))


def check_config(file: OptionalFile, flags: Flags) -> None:
    """Check configuration files and variables without running anything.

    Every key, value and contradiction is reported at once, with file and line. Without FILE the files that apply here
    are checked: `medcli.toml` or `[tool.medcli]` of this folder, and the user's own.

    Examples:
        medcli config check
        medcli config check experiments/swin.toml
        medcli config check --json
    """
    from medcli.registry.recipes import recipe_source
    from medcli.settings.files import find_files, shown_path

    output = Output(flags.output(), "config check")
    cwd = Path.cwd()
    given = {} if file is None else {"config": file}
    recipe_for = recipe_source("train")
    problems: list[MedcliError] = []
    for name, command in COMMANDS.items():
        if not command.layered or "config" not in command.fields:
            continue
        resolved, wrong = survey(name, given, recipe_for=recipe_for)
        problems += [*wrong, *_missing_paths(resolved, cwd)]
    raise_all(problems)
    files = [shown_path(path, cwd) for _, path in find_files(os.environ, cwd)]
    if file is not None and file not in files:
        files.append(file)
    variables = sorted(name for name in os.environ if name.startswith("MEDCLI_"))
    checked = [*files, *variables]
    text = "\n".join(f"{name}: no problem" for name in checked) or "nothing is configured here, so nothing is wrong"
    output.answer({"files": files, "variables": variables, "problems": []}, text, identifier="\n".join(files))
    if not checked:
        output.hint(f"`medcli config init` writes a `{PROJECT_FILE}` with every setting, commented out")


def init_config(file: NewFileArgument, flags: Flags) -> None:
    """Write a configuration file that names every setting, commented out.

    Each setting stands with its default, what it does and which commands have it. An existing file is never replaced.

    Examples:
        medcli config init
        medcli config init experiments/small.toml
    """
    output = Output(flags.output(), "config init")
    path = Path(file or PROJECT_FILE)
    text = "\n".join(commented_file()) + "\n"
    try:
        with path.open("x", encoding="utf-8") as handle:
            handle.write(text)
    except FileExistsError:
        raise UsageProblem(
            f"`{path}` exists already and is left as it is",
            hint=f"medcli config init {path.with_stem(path.stem + '-new')}",
            code="file-exists",
        ) from None
    except OSError as error:
        raise UsageProblem(
            f"`{path}` cannot be written: {(error.strerror or str(error)).lower()}",
            hint="name another file: `medcli config init FILE`",
            code="cannot-write",
        ) from None
    output.answer({"file": str(path)}, f"wrote {path}", identifier=str(path))
    used = "read in this folder by itself" if path.name == PROJECT_FILE else f"used with `--config {path}`"
    output.hint(f"remove the `#` before what you want to set; it is {used}")


def show_schema(flags: Flags) -> None:
    """Print the JSON schema of configuration files.

    Editors that know JSON schemas complete and check `medcli.toml` with it.

    Examples:
        medcli config schema
        medcli config schema > medcli.schema.json
    """
    output = Output(flags.output(), "config schema")
    schema = json_schema()
    output.answer(schema, lambda: json.dumps(schema, indent=2, ensure_ascii=False))


def list_presets(flags: Flags) -> None:
    """List the named sets of settings that `--preset` takes.

    A preset is data: every value is shown, with the source it was taken from. Files named with `--config`, variables
    and flags win over it.

    Examples:
        medcli config presets
        medcli config presets --json
    """
    from medcli.settings.presets import presets

    output = Output(flags.output(), "config presets")
    result = {
        name: {
            "summary": preset.summary,
            "source": preset.source,
            "commands": preset.commands,
            "settings": preset.settings,
        }
        for name, preset in presets().items()
    }
    output.answer(result, _presets_text, identifier="\n".join(result))


def _command(word: str) -> CommandSettings:
    wanted = word.replace("-", " ").replace("_", " ")
    command = COMMANDS.get(wanted)
    if command is None or not command.layered:
        tables = [one.table for one in COMMANDS.values() if one.layered]
        close = nearest(word, tables)
        known = ", ".join(f"`{table}`" for table in tables)
        raise UsageProblem(
            f"`{word}` is no command that has settings" if command is None else f"`{word}` takes flags alone",
            where="COMMAND",
            hint=f"did you mean `{close[0]}`?" if close else f"commands with settings: {known}",
            code="unknown-command",
        )
    return command


def _settings_table(output: Output, resolved: Resolved, names: list[str]) -> str:
    rows = [("architecture", resolved.architecture, str(resolved.architecture_origin))] if resolved.architecture else []
    rows += [(name, value_text(resolved.values[name]), str(resolved.origin(name))) for name in names]
    text = output.table(("setting", "value", "origin"), [(name, value or "-", origin) for name, value, origin in rows])
    tables = [
        f"\n[data.{name}]\n" + "\n".join(f"{key} = {value_text(value)}" for key, value in table.items())
        for name, table in resolved.data_tables.items()
    ]
    return "\n".join([text, *tables])


def value_text(value: Any) -> str:
    """A setting's value as a person writes it; `-` for nothing."""
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(value_text(item) for item in value)
    return str(value)


def _presets_text() -> str:
    from medcli.settings.presets import presets

    blocks = []
    for preset in presets().values():
        lines = [
            f"{preset.name}: {preset.summary}",
            f"  for: {', '.join(preset.commands)}",
            f"  source: {preset.source}",
        ]
        lines += [f"  {name} = {value_text(value)}" for name, value in preset.settings.items()]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _missing_paths(resolved: Resolved, cwd: Path) -> list[MedcliError]:
    """Data sets that a file or a variable names but that are not there."""
    problems: list[MedcliError] = []
    named = [(text, str(resolved.origin("data"))) for text in resolved.values.get("data", ())]
    for name, table in resolved.data_tables.items():
        if "path" in table:  # a table without one has been complained about
            named.append((str(table["path"]), f"[data.{name}]"))
    for text, where in named:
        path = text if _there(text, cwd) else text.partition("=")[2] or text
        if path not in resolved.data_tables and not _there(path, cwd):
            problems.append(UsageProblem(f"there is no data `{path}`", where=where, code="missing-data"))
    return problems


def _there(path: str, cwd: Path) -> bool:
    return path.startswith("synthetic/") or (cwd / Path(path).expanduser()).exists()
