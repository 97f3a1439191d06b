"""Manual pages, made from the same pages as `--help`, so that a changed option changes both.

`python -m medcli.cli.manual DIR` writes them all; the folder `man/` of the repository is what that gives.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from medcli import RELEASED, __version__
from medcli.cli.help import HelpPage, Row, Section, copyable
from medcli.cli.pages import command_page, group_page
from medcli.cli.tree import Command, Group
from medcli.errors import EXIT_MEANINGS

__all__ = ["ENVIRONMENT", "FILES", "manual_name", "manuals", "pages_of"]

LINE = 76
ENVIRONMENT = (
    Row("MEDCLI_SETTING", "any setting of a layered command, such as MEDCLI_EPOCHS; below flags, above files"),
    Row("MEDCLI_COMMAND_SETTING", "the same for one command, such as MEDCLI_TRAIN_EPOCHS"),
    Row("MEDCLI_DEBUG", "show tracebacks, as `--debug` does"),
    Row("MEDCLI_NO_PROGRESS, MEDCLI_NO_COLOR, NO_COLOR", "no moving display; no colour"),
    Row("MEDCLI_PLUGINS", "which plugins are seen: `none`, or names separated by commas"),
    Row("MEDCLI_STRICT_PLUGINS", "a plugin that does not work stops every command"),
    Row("HF_HOME, HF_HUB_CACHE", "where downloaded weights are kept and found"),
    Row("HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE", "mirror, access token and offline mode of `models fetch`"),
    Row("XDG_CONFIG_HOME, XDG_CACHE_HOME", "where the user's settings are read, and where caches are kept"),
)
FILES = (
    Row("$XDG_CONFIG_HOME/medcli/config.toml", "the user's settings"),
    Row("medcli.toml, pyproject.toml", "the project's settings (in the latter under `[tool.medcli]`)"),
    Row("runs/", "one directory for every training, with everything about it"),
    Row("$XDG_CACHE_HOME/medcli", "decoded images, features, downloaded weights"),
)


def manual_name(words: str) -> str:
    """`models list` -> `medcli-models-list`; no words -> `medcli`."""
    return "-".join(["medcli", *words.split()])


def pages_of(program: Group) -> Iterator[tuple[str, str, HelpPage]]:
    """Every page: the words after the program's name (none for the program), a one-line summary, the page."""
    yield "", program.description.summary, group_page(program, program.name)
    for name, member in program.members.items():
        if isinstance(member, Command):
            yield name, member.summary, command_page(member)
            continue
        yield name, member.description.summary, group_page(member, f"{program.name} {name}")
        for inner in member.members.values():
            if isinstance(inner, Command):
                yield inner.name, inner.summary, command_page(inner)


def manuals(program: Group) -> dict[str, str]:
    """File name -> roff (the macros of man(7)), for section 1."""
    pages = list(pages_of(program))
    names = [words for words, _, _ in pages]
    return {f"{manual_name(words)}.1": _roff(words, summary, page, names) for words, summary, page in pages}


def _roff(words: str, summary: str, page: HelpPage, names: list[str]) -> str:
    name = manual_name(words)
    lines = [
        '.\\" Made by `make generate` from the command line itself; edit that instead.',
        f'.TH {name.upper()} 1 "{RELEASED}" "medcli {__version__}" "medcli manual"',
        ".SH NAME",
        *textwrap.wrap(f"{_escaped(name)} \\- {_escaped(summary.rstrip('.'))}", LINE, break_on_hyphens=False),
        ".SH SYNOPSIS",
        _usage(page.usage),
        ".SH DESCRIPTION",
        _prose(page.description.summary),
    ]
    lines += [line for text in page.description.paragraphs for line in (".PP", _prose(text))]
    if page.description.examples:
        lines += [".SH EXAMPLES", ".nf", *_examples(page.description.examples), ".fi"]
    arguments = [section for section in page.sections if section.title in {"Arguments", "Commands"}]
    options = [section for section in page.sections if section not in arguments]
    for section in arguments:
        if section.rows:
            lines += [f".SH {section.title.upper()}", *_rows(section.rows)]
    lines += [".SH OPTIONS", *_options(options)]
    if not words or "medcli.toml" in " ".join(page.closing):
        lines += [line for text in page.closing if words for line in (".PP", _prose(text))]
    lines += [".SH ENVIRONMENT", *_rows(ENVIRONMENT), ".SH FILES", *_rows(FILES)]
    meanings = tuple(Row(str(int(code)), meaning) for code, meaning in EXIT_MEANINGS.items())
    lines += [".SH EXIT STATUS", *_rows(meanings), ".SH SEE ALSO", _see_also(words, names)]
    return "\n".join(line for line in lines if line) + "\n"


def _examples(commands: tuple[str, ...]) -> Iterator[str]:
    for command in commands:
        yield from (_no_macro(_escaped(line)) for line in copyable(command, LINE).split("\n"))


def _options(sections: list[Section]) -> Iterator[str]:
    for section in sections:
        if section.title != "Options":
            yield f".SS {_prose(section.title)}"
        yield from _rows(section.rows)


def _rows(rows: tuple[Row, ...]) -> Iterator[str]:
    for row in rows:
        yield ".TP"
        yield _flags(row.name.strip())
        yield _prose(row.text)


def _flags(name: str) -> str:
    """Spellings in bold, placeholders in italics."""
    pieces = [
        f"\\fI{_escaped(word)}\\fR" if re.fullmatch(r"[\[\]A-Z|=,:…]+", word) else f"\\fB{_escaped(word)}\\fR"
        for word in name.split()
    ]
    return " ".join(pieces)


def _usage(usage: str) -> str:
    words = [f"\\f{'B' if word == word.lower() else 'I'}{_escaped(word)}\\fR" for word in usage.split()]
    return "\n".join(textwrap.wrap(" ".join(words), LINE, break_long_words=False, break_on_hyphens=False))


def _see_also(words: str, names: list[str]) -> str:
    """The program, the group and the other commands of the same group; for the program every first word."""
    first = words.split(" ")[0] if words else ""
    near = [name for name in names if name != words and (name.split(" ")[0] == first if words else " " not in name)]
    seen = dict.fromkeys(([""] if words else []) + [name for name in near if name])
    shown = [f"\\fB{_escaped(manual_name(name))}\\fR(1)" for name in seen]
    return ",\n".join(shown)


def _prose(text: str) -> str:
    """A paragraph: what stands in backticks becomes bold, and no line can be taken for a macro."""
    parts = text.split("`")
    marked = [_escaped(part) if index % 2 == 0 else f"\\fB{_escaped(part)}\\fR" for index, part in enumerate(parts)]
    lines = textwrap.wrap("".join(marked).strip(), LINE, break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(_no_macro, lines))


def _no_macro(line: str) -> str:
    return f"\\&{line}" if line[:1] in {".", "'"} else line


def _escaped(text: str) -> str:
    plain = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha").replace("~", "\\(ti")
    )
    return "".join(char if ord(char) < 128 else f"\\[u{ord(char):04X}]" for char in plain)


def write(folder: Path, program: Group) -> None:
    """Write every page and remove those of commands that are gone."""
    pages = manuals(program)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.1"):
        if stale.name not in pages:
            stale.unlink()
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    from medcli.cli.app import program as whole

    write(Path(sys.argv[1]), whole())
