"""How a shell asks for completions and how it is answered; what fits is decided in `medcli.cli.offers`.

Every shell's script (in `medcli/cli/shells`, copied to `completions/`) runs the program itself with the words typed so
far in `COMP_WORDS`, one a line, and reads back a line of modes and a line for every word that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medcli.cli.offers import Offer
from medcli.errors import UsageProblem

__all__ = ["COMPLETE_VARIABLE", "SCRIPTS", "SHELLS", "Word", "reply", "script", "words_of"]

COMPLETE_VARIABLE = "_MEDCLI_COMPLETE"
SCRIPTS: Mapping[str, str] = {
    "bash": "medcli.bash",
    "zsh": "_medcli",
    "fish": "medcli.fish",
    "powershell": "medcli.ps1",
}
SHELLS = tuple(SCRIPTS)


@dataclass(frozen=True)
class Word:
    """The words before the cursor and the one under it, as medcli parses them.

    Args:
        before: complete words after the program's name.
        incomplete: the word under the cursor, up to it.
        kept: how many of its last characters bash will replace; bash cuts words at `=` and `:`.
    """

    before: tuple[str, ...]
    incomplete: str
    kept: int


def script(shell: str) -> str:
    """The text to source in one of `SHELLS`: bash 4.4, zsh 5, fish 3, PowerShell 5, or later.

    Raises:
        UsageProblem: no such shell.
    """
    if shell not in SCRIPTS:
        raise UsageProblem(
            f"no completion for the shell `{shell}`; there is one for {', '.join(f'`{name}`' for name in SHELLS)}",
            hint="`medcli completion show bash`",
            code="unknown-shell",
        )
    return (Path(__file__).parent / "shells" / SCRIPTS[shell]).read_text(encoding="utf-8")


def words_of(shell: str, joined: str, cursor: int) -> Word:
    """The command line as medcli parses it; undoes how bash cuts words at `=` and `:`.

    Args:
        shell: who asks.
        joined: `COMP_WORDS`, one word per line.
        cursor: `COMP_CWORD`.
    """
    raw = joined.split("\n")[: cursor + 1]
    raw += [""] * (cursor + 1 - len(raw))
    merged: list[str] = []
    glue = False
    for position, word in enumerate(raw):
        breaker = shell == "bash" and word in {"=", ":"} and position > 1
        if (glue or breaker) and len(merged) > 1:
            merged[-1] += word
        else:
            merged.append(word)
        glue = breaker
    last = raw[cursor]
    return Word(
        before=tuple(_unquote(word) for word in merged[1:-1]),
        incomplete=_unquote(merged[-1]),
        kept=0 if shell == "bash" and last in {"=", ":"} and cursor > 1 else len(_unquote(last)),
    )


def _unquote(word: str) -> str:
    import shlex

    for attempt in (word, f"{word}'", f'{word}"'):
        try:
            return "".join(shlex.split(attempt))
        except ValueError:
            continue
    return word.rstrip("\\")


def reply(shell: str, found: Offer, word: Word) -> str:
    """The lines a script reads: how the shell shall act, then the words that fit, with what they mean.

    Bash replaces only the part after the last `=` or `:`, so it gets just that part; the scripts of the others put the
    flag of `--flag=value` in front themselves.
    """
    modes = [name for name, on in (("files", found.files), ("dirs", found.dirs and not found.files)) if on]
    if found.values and all(value.endswith(("=", "/")) for value, _ in found.values):
        modes.append("nospace")
    line = {"bash": _bash_line(word), "zsh": _zsh_line}.get(shell, _tabbed)
    return "\n".join([" ".join(modes) or "words", *(line(value, text) for value, text in found.values)])


def _bash_line(word: Word) -> Callable[[str, str], str]:
    cut = len(word.incomplete) - word.kept
    flag, equals, _ = word.incomplete.partition("=")
    if equals and flag.startswith("-"):
        cut -= len(flag) + 1
    return lambda value, _: value[max(0, cut) :]


def _zsh_line(value: str, text: str) -> str:
    escaped = value.replace("\\", "\\\\").replace(":", "\\:")
    return f"{escaped}:{_first(text)}" if text else escaped


def _tabbed(value: str, text: str) -> str:
    return f"{value}\t{_first(text)}" if text else value


def _first(text: str) -> str:
    """What fits beside a word in a menu."""
    return text.partition(";")[0].partition(" (")[0]
