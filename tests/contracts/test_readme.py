"""Every command line of the README and of CONTRIBUTING is one that medcli takes: command, flags, presets."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from medcli.cli.app import program
from medcli.cli.tree import Command, Group
from medcli.settings.fields import Field
from medcli.settings.presets import presets

README = Path(__file__).resolve().parents[2] / "README.md"


def commands_of(text: str) -> list[str]:
    """Each indented `medcli …`, without its remark and with its continued lines; two on one line are two."""
    joined = re.sub(r"\\\n\s+", " ", text)
    lines = re.findall(r"^ {4}(?:accelerate launch .*-m )?(medcli .*)$", joined, re.MULTILINE)
    return [
        one.strip() for line in lines for one in re.split(r" && | ; ", re.split(r"\s{2,}#|\s#\s", line)[0].rstrip())
    ]


LINES = commands_of(README.read_text(encoding="utf-8"))


def spellings(field: Field) -> set[str]:
    negative = {f"--no-{field.flag[2:]}"} if field.base is bool else set()
    return {field.flag, *negative, *((field.option.short,) if field.option.short else ())}


def test_there_are_commands() -> None:
    assert len(LINES) > 60
    assert all(line.startswith("medcli ") for line in LINES)


@pytest.mark.parametrize("line", LINES)
def test_a_command_of_the_readme_exists_with_its_flags(line: str) -> None:
    words = shlex.split(line)[1:]
    place: Command | Group = program()
    while isinstance(place, Group) and words and words[0] in place.members:
        place = place.members[words.pop(0)]
    assert isinstance(place, Command), f"`{line}` ends at {place.name}"
    fields = place.settings().fields.values()
    known = {spelling for field in fields for spelling in spellings(field)}
    used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert used <= known, f"`{line}`: {used - known}"
    for flag, value in pairwise(words):
        if flag == "--preset":
            assert value in presets()
        choices = next((field.choices for field in fields if field.flag == flag and field.choices), ())
        if choices and not value.startswith("-"):
            assert set(value.split(",")) <= set(map(str, choices)), f"`{line}`: {value} is not among {choices}"
