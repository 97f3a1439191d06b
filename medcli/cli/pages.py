"""What each command's page says, made from its docstring and its settings; help, manual pages and guides print it."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from medcli.cli.help import HelpPage, Row, Section, describe, option_row
from medcli.cli.options import Positional
from medcli.cli.tree import Command, Group

if TYPE_CHECKING:
    from medcli.settings.fields import Field

__all__ = ["HELP_ROW", "command_page", "group_page", "is_many", "is_negatable", "may_be_absent", "positionals_of"]

HELP_ROW = Row("-h, --help", "show this page")
COMMAND_PANEL = "This command"


def command_page(command: Command) -> HelpPage:
    """The page of one command; imports its module, which is cheap, and nothing that the command itself needs."""
    function, settings = command.load(), command.settings()
    pieces = []
    arguments = []
    for kind, mark in positionals_of(function).values():
        shown = f"{mark.metavar}…" if is_many(kind) else mark.metavar
        pieces.append(f"[{shown}]" if may_be_absent(kind, mark) else shown)
        arguments.append(Row(shown, mark.help))
    panels: dict[str, list[Row]] = {}
    for field in settings.fields.values():
        title = "Options" if field.option.panel == COMMAND_PANEL else field.option.panel
        panels.setdefault(title, []).append(option_row(field, negatable=is_negatable(field)))
    last = "Output" if "Output" in panels else next(reversed(panels), "Options")
    panels.setdefault(last, []).append(HELP_ROW)
    closing = (
        (
            "Every option but those that act at once can also stand in `medcli.toml` or in a variable such as "
            f"`MEDCLI_{next(iter(settings.fields)).upper()}`; `medcli config show` tells what wins.",
        )
        if settings.layered
        else ()
    )
    return HelpPage(
        usage=" ".join(["medcli", command.name, *pieces, "[OPTIONS]"]),
        description=describe(function.__doc__),
        sections=(
            Section("Arguments", tuple(arguments)),
            *(Section(title, tuple(rows)) for title, rows in panels.items()),
        ),
        closing=closing,
    )


def group_page(group: Group, path: str) -> HelpPage:
    """The page of a group of commands, reached as `path`."""
    rows = tuple(Row(name, summary) for name, summary in group.rows())
    options = tuple(
        Row(", ".join(item.flags) + (f" {item.metavar}" if item.metavar else ""), item.help) for item in group.options
    )
    return HelpPage(
        usage=f"{path} COMMAND …",
        description=group.description,
        sections=(Section("Commands", rows), Section("Options", (*options, HELP_ROW))),
        closing=group.closing,
    )


def positionals_of(function: Callable[..., Any]) -> dict[str, tuple[Any, Positional]]:
    """Parameter name -> (type, how it appears), in the order of the signature."""
    found: dict[str, tuple[Any, Positional]] = {}
    for name, annotation in get_type_hints(function, include_extras=True).items():
        if get_origin(annotation) is Annotated:
            kind, *marks = get_args(annotation)
            for mark in marks:
                if isinstance(mark, Positional):
                    found[name] = (kind, mark)
    return found


def is_many(kind: Any) -> bool:
    """Whether a positional takes any number of values."""
    return get_origin(kind) is tuple


def may_be_absent(kind: Any, mark: Positional) -> bool:
    """Whether a positional may be left out."""
    return not mark.required if is_many(kind) else NoneType in get_args(kind)


def is_negatable(field: Field) -> bool:
    """Whether a flag also has its `--no-` form: those that a configuration file may have turned on."""
    from medcli.settings.groups import OutputSettings

    return field.base is bool and field.group is not OutputSettings
