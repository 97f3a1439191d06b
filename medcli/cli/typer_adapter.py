"""The only file that knows Typer: it turns the settings table into options and lazy commands into Typer's objects.

Typer builds its parameters with public means (`typer.Option`, `typer.Argument`, `typer.main.get_command`). What it
would do with pydantic, rich or shell detection is replaced here, on the instances: conversion of values, help pages,
completion. Only what Typer 0.27 to 0.29 share is touched; `tests/cli/test_typer_adapter.py` says what that is.
"""

from __future__ import annotations

import inspect
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from medcli.cli.completion import COMPLETE_VARIABLE, SHELLS, reply, words_of
from medcli.cli.errors import HelpWanted, Interrupted
from medcli.cli.help import HelpPage, render
from medcli.cli.offers import KIND_OF_PLACEHOLDER, Offer, offer
from medcli.cli.options import Flags, Positional
from medcli.cli.output import write_line
from medcli.cli.pages import command_page, group_page, is_many, is_negatable, may_be_absent, positionals_of
from medcli.cli.tree import Command, Group, RootOption, suggestions
from medcli.cli.typed_values import check, converted
from medcli.errors import ExitCode, MedcliError, Problems, UsageProblem, nearest

if TYPE_CHECKING:
    from medcli.settings.fields import Field

__all__ = ["execute"]

PROBLEMS = "medcli.problems"
HELP_NAMES = ["-h", "--help"]


def execute(program: Group, arguments: Sequence[str], environ: Mapping[str, str] | None = None) -> int:
    """Run a command line, or answer a shell's request for completions.

    Raises:
        MedcliError: everything that is wrong with the command line, and whatever the command raises.
    """
    variables = os.environ if environ is None else environ
    command = _group(program, path="")
    if variables.get(COMPLETE_VARIABLE):
        return _complete(command, program.name, variables)
    try:
        status = command.main(
            list(arguments), prog_name=program.name, complete_var=COMPLETE_VARIABLE, standalone_mode=False
        )
    except typer.Abort:
        return int(ExitCode.INTERRUPTED)
    except Exception as error:
        translated = _translated(error)
        if translated is None:
            raise
        raise translated from error
    return int(ExitCode.DONE if status is None else status)


def _translated(error: Exception) -> MedcliError | None:
    """Typer's usage errors in our words. They are known by their parts, since their classes moved between versions."""
    context = getattr(error, "ctx", None)
    if isinstance(error, MedcliError) or not hasattr(error, "format_message"):
        return None
    path = context.command_path if context is not None else "medcli"
    help_hint = f"`{path} --help`"
    if type(error).__name__ == "NoArgsIsHelpError" and context is not None:
        return HelpWanted(context.command.get_help(context), hint=help_hint, code="missing-command")
    option = getattr(error, "option_name", None)
    message = error.format_message().rstrip(".")
    if option and type(error).__name__ == "NoSuchOption":
        known = _flags_of(context)
        began = tuple(name for name in known if len(option) > 3 and name.startswith(option))
        bare = {name.lstrip("-"): name for name in known if name.startswith("--")}
        found = began or tuple(bare[word] for word in nearest(option.lstrip("-"), bare))
        return UsageProblem(
            f"no option `{option}` for `{path}`",
            hint=f"did you mean {_either(found)}?" if found else f"{help_hint} lists the options",
            code="unknown-option",
        )
    if option:
        wants = "needs a value" if "requires" in message else "takes no value"
        return UsageProblem(f"`{option}` {wants}", hint=help_hint, code="bad-option")
    if "unexpected extra argument" in message:
        words = message.rpartition(" (")[2].rstrip(")")
        return UsageProblem(f"`{path}` does not take `{words}`", hint=help_hint, code="extra-argument")
    return UsageProblem(f"{message[:1].lower()}{message[1:]}", hint=help_hint, code="usage")


def _flags_of(context: Any) -> list[str]:
    if context is None:
        return []
    return [name for item in context.command.get_params(context) for name in (*item.opts, *item.secondary_opts)]


def _either(words: Iterable[str]) -> str:
    return " or ".join(f"`{word}`" for word in words)


class _Leaf(TyperCommand):
    """A command with our help page; problems of all its values are reported together."""

    page: HelpPage

    def get_help(self, ctx: Any) -> str:
        return render(self.page, _width())

    def get_params(self, ctx: Any) -> list[Any]:
        return _with_plain_help(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing and args and args[-1].startswith("-"):
            # An option that still waits for its value would hide every positional argument from completion.
            args = args[:-1]
        return _parse(super().parse_args, ctx, args)


class _Lazy(TyperGroup):
    """A group whose members are made when they are asked for."""

    group: Group
    path: str

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.group.members)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        member = self.group.members.get(cmd_name)
        if member is None:
            return None
        if isinstance(member, Group):
            return _group(member, path=f"{self.path} {cmd_name}".strip())
        return _leaf(member)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        found = self.get_command(ctx, args[0])
        if found is not None or ctx.resilient_parsing:
            return (args[0] if found else None), found, args[1:]
        close = suggestions(args[0], self.group)
        prefix = ctx.command_path
        raise UsageProblem(
            f"no command `{prefix} {args[0]}`",
            hint=f"did you mean {_either(f'{prefix} {word}' for word in close)}?" if close else f"`{prefix} --help`",
            code="unknown-command",
        )

    def get_help(self, ctx: Any) -> str:
        return render(group_page(self.group, ctx.command_path), _width())

    def get_params(self, ctx: Any) -> list[Any]:
        return _with_plain_help(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return _parse(super().parse_args, ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        if incomplete.startswith("-"):
            names = [name for name in _flags_of(ctx) if name.startswith(incomplete)]
            return _items(Offer(tuple((name, "") for name in names)))
        return _items(Offer(tuple(row for row in self.group.rows() if row[0].startswith(incomplete))))


def _group(group: Group, *, path: str) -> _Lazy:
    parameters = [_root_parameter(index, item) for index, item in enumerate(group.options)]

    def callback(**values: Any) -> None:
        pass

    callback.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    callback.__annotations__ = {}
    app = typer.Typer(
        cls=_Lazy,
        name=group.name,
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": HELP_NAMES},
    )
    app.callback()(callback)
    made: Any = typer.main.get_command(app)
    made.group, made.path = group, path
    for parameter, item in zip(made.params, group.options, strict=True):
        _bind_root(parameter, item)
    return made  # type: ignore[no-any-return]


def _root_parameter(index: int, item: RootOption) -> inspect.Parameter:
    kind: Any = str if item.metavar else bool
    annotation = Annotated[kind | None, typer.Option(*item.flags, help=item.help, is_eager=True)]
    return inspect.Parameter(f"root_{index}", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _bind_root(parameter: Any, item: RootOption) -> None:
    def process(ctx: Any, value: Any) -> None:
        if not value or ctx.resilient_parsing:
            return
        if item.choices and value not in item.choices:
            raise UsageProblem(
                f"`{item.flags[0]}` must be one of {', '.join(f'`{word}`' for word in item.choices)}, not `{value}`",
                code="bad-value",
            )
        item.act("" if value is True else value)
        ctx.exit()

    parameter.process_value = process
    parameter.shell_complete = lambda ctx, incomplete: _items(
        Offer(tuple((word, "") for word in item.choices if word.startswith(incomplete)))
    )


def _leaf(command: Command) -> _Leaf:
    function = command.load()
    positionals = positionals_of(function)
    settings = command.settings()
    fields = settings.fields
    flags_name = _flags_parameter(function)
    signature = [_argument(name, kind, mark) for name, (kind, mark) in positionals.items()]
    signature += [_option(field) for field in fields.values()]

    def callback(**values: Any) -> Any:
        given = {
            name: tuple(values[name]) if field.many else values[name]
            for name, field in fields.items()
            if values[name] is not None
        }
        check(given, fields)
        arguments = {name: _positional_value(kind, values[_inner(name)]) for name, (kind, _) in positionals.items()}
        try:
            return function(**arguments, **{flags_name: Flags(given, command.name)})
        except KeyboardInterrupt as stop:
            # Typer would turn it into a bare status without a word.
            raise Interrupted("interrupted", code="interrupted") from stop

    callback.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    callback.__annotations__ = {}
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(
        command.name.split()[-1],
        cls=_Leaf,
        help=command.summary,
        context_settings={"help_option_names": HELP_NAMES},
    )(callback)
    made: Any = typer.main.get_command(app)
    by_name = {parameter.name: parameter for parameter in made.params}
    for name, (kind, mark) in positionals.items():
        _bind_argument(by_name[_inner(name)], kind, mark)
    for name, field in fields.items():
        _bind_option(by_name[name], field)
    made.page = command_page(command)
    return made  # type: ignore[no-any-return]


def _inner(name: str) -> str:
    """A positional's name inside Typer, apart from settings of the same name."""
    return f"argument_{name}"


def _flags_parameter(function: Callable[..., Any]) -> str:
    (name,) = [name for name, annotation in get_type_hints(function).items() if annotation is Flags]
    return name


def _positional_value(kind: Any, value: Any) -> Any:
    return tuple(value or ()) if is_many(kind) else value


def _argument(name: str, kind: Any, mark: Positional) -> inspect.Parameter:
    base: Any = list[str] if is_many(kind) else str
    annotation = Annotated[base | None, typer.Argument(metavar=mark.metavar, help=mark.help)]
    return inspect.Parameter(_inner(name), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _option(field: Field) -> inspect.Parameter:
    base: Any = bool if field.base is bool else str
    names = [f"{field.flag}/--no-{field.flag[2:]}" if is_negatable(field) else field.flag]
    if field.option.short:
        names.insert(0, field.option.short)
    kind: Any = list[base] if field.many else base
    annotation = Annotated[kind | None, typer.Option(*names, help=field.option.help)]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _bind_argument(parameter: Any, kind: Any, mark: Positional) -> None:
    def process(ctx: Any, value: Any) -> Any:
        if value in (None, (), []):
            if not may_be_absent(kind, mark) and not ctx.resilient_parsing:
                problem = UsageProblem(
                    f"`{ctx.command_path}` needs {mark.metavar}: {mark.help}",
                    hint=f"`{ctx.command_path} --help`",
                    code="missing-argument",
                )
                ctx.meta.setdefault(PROBLEMS, []).append(problem)
            return None
        return value

    parameter.process_value = process
    parameter.shell_complete = lambda ctx, incomplete: _items(offer(mark.completes, incomplete, _typed(ctx)))


def _bind_option(parameter: Any, field: Field) -> None:
    def process(ctx: Any, value: Any) -> Any:
        if value in (None, (), []):
            return None
        if field.base is bool:
            return value
        return converted(field, value)

    def complete(ctx: Any, incomplete: str) -> list[Any]:
        if field.choices:
            return _items(Offer(tuple((word, "") for word in field.choices if str(word).startswith(incomplete))))
        kind = KIND_OF_PLACEHOLDER.get(field.option.metavar) or field.option.completes
        return _items(offer(kind, incomplete, _typed(ctx)))

    parameter.process_value = process
    parameter.shell_complete = complete


def _parse(parse: Callable[[Any, list[str]], list[str]], ctx: Any, args: list[str]) -> list[str]:
    """Parse, then raise what the values' own conversions complained about."""
    try:
        rest = parse(ctx, args)
    except Exception as error:
        # Typer's parser forgets to say which command it was reading.
        if getattr(error, "ctx", ctx) is None:
            error.ctx = ctx  # type: ignore[attr-defined]
        raise
    problems = ctx.meta.get(PROBLEMS, [])
    if problems and not ctx.resilient_parsing:
        raise problems[0] if len(problems) == 1 else Problems(problems)
    return rest


def _with_plain_help(parameters: list[Any]) -> list[Any]:
    """The help option with its value taken as it is; Typer would import pydantic to look at a missing flag."""
    for parameter in parameters:
        if "--help" in parameter.opts and "process_value" not in vars(parameter):
            parameter.process_value = _show_help
    return parameters


def _show_help(ctx: Any, value: Any) -> Any:
    if value and not ctx.resilient_parsing:
        write_line(sys.stdout, ctx.get_help())
        ctx.exit()
    return value


def _width() -> int:
    return min(100, shutil.get_terminal_size((80, 24)).columns)


def _typed(ctx: Any) -> dict[str, Any]:
    return {name.removeprefix("argument_"): value for name, value in ctx.params.items() if value is not None}


def _items(found: Offer) -> list[Any]:
    """Typer's completion items; a path is an item without a value that names its kind."""
    from typer import _completion_classes as shells

    make: Any = vars(shells)["CompletionItem"]
    items = [make(str(value), help=text or None) for value, text in found.values]
    items += [make("", type=kind) for kind, on in (("files", found.files), ("dirs", found.dirs)) if on]
    return items


def _complete(command: Any, name: str, variables: Mapping[str, str]) -> int:
    """Answer a shell. Nothing may be printed but words: an error leaves the shell with nothing to offer."""
    from typer import _completion_classes as shells

    instruction = variables[COMPLETE_VARIABLE]
    action, _, shell = instruction.partition("_")
    if action != "complete" or shell not in SHELLS:
        raise UsageProblem(f"`{COMPLETE_VARIABLE}={instruction}` is no request of a shell", code="bad-completion")
    walker: Any = shells.BashComplete(command, {}, name, COMPLETE_VARIABLE)
    try:
        word = words_of(shell, variables.get("COMP_WORDS", ""), int(variables.get("COMP_CWORD", "0")))
        found = _found(walker.get_completions(list(word.before), word.incomplete))
        write_line(sys.stdout, reply(shell, found, word))
    except Exception:
        if variables.get("MEDCLI_DEBUG"):
            raise
        return int(ExitCode.FAILED)
    return int(ExitCode.DONE)


def _found(items: Iterable[Any]) -> Offer:
    total = Offer()
    for item in items:
        if item.type in {"files", "dirs"}:
            total += Offer(files=item.type == "files", dirs=item.type == "dirs")
        elif item.value:
            total += Offer(((item.value, item.help or ""),))
    return total
