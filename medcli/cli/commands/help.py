"""`medcli help` and `medcli man`: pages about commands, and guides about the work."""

from __future__ import annotations

from medcli.cli.guides import guide, guides, laid_out
from medcli.cli.help import HelpPage, render
from medcli.cli.manual import manual_name, manuals
from medcli.cli.options import Flags, PageWords
from medcli.cli.output import Output
from medcli.cli.pages import command_page, group_page
from medcli.cli.reading import read_manual, text_width
from medcli.cli.tree import Command, Group, suggestions
from medcli.errors import UsageProblem, nearest

__all__ = ["help_page", "man"]


def help_page(words: PageWords, flags: Flags) -> None:
    """Explain a command, or a subject.

    Without a word, the subjects are listed. `medcli COMMAND --help` shows the same page as `medcli help COMMAND`.

    Examples:
        medcli help
        medcli help choosing
        medcli help models show
    """
    output = Output(flags.output(), "help")
    if not words:
        topics = guides()
        listed = output.table(("topic", "about"), [(name, one.title) for name, one in topics.items()])
        output.answer(
            {"topics": {name: one.title for name, one in topics.items()}},
            f"{listed}\n\n`medcli help TOPIC` shows a guide, `medcli help COMMAND` a command, `medcli --help` all.",
            identifier="\n".join(topics),
        )
        return
    if len(words) == 1 and words[0] in guides():
        one = guide(words[0])
        text = laid_out(one.text, text_width())
        output.answer({"topic": one.name, "title": one.title, "text": one.text}, text, identifier=text)
        return
    text = render(_page(words), text_width())
    output.answer({"command": " ".join(words), "text": text}, text, identifier=text)


def man(words: PageWords, flags: Flags) -> None:
    """Show a manual page.

    On a terminal it opens as the system's `man` (or `mandoc`) shows it; elsewhere, or where neither is installed, its
    text is printed. The pages are also installed with the package, under `share/man`.

    Examples:
        medcli man
        medcli man train
        medcli man models list
    """
    from medcli.cli.app import program

    output = Output(flags.output(), "man")
    _page(words)
    name = f"{manual_name(' '.join(words))}.1"
    roff = manuals(program())[name]
    if not output.settings.json and not output.settings.quiet and read_manual(roff):
        return
    text = render(_page(words), text_width())
    output.answer({"page": name, "roff": roff, "text": text}, text, identifier=roff)


def _page(words: tuple[str, ...]) -> HelpPage:
    """The page of a command or group, by its words.

    Raises:
        UsageProblem: neither a command nor a guide of that name.
    """
    from medcli.cli.app import program

    found: Command | Group = program()
    for position, word in enumerate(words):
        inner = found.members.get(word) if isinstance(found, Group) else None
        if inner is None:
            near = suggestions(word, found) if isinstance(found, Group) else ()
            start = " ".join(words[:position])
            offered = [f"{start} {name}".strip() for name in near] + (
                list(nearest(word, guides())) if not start else []
            )
            raise UsageProblem(
                f"neither a command nor a guide is called `{' '.join(words[: position + 1])}`",
                hint="did you mean " + " or ".join(f"`medcli help {name}`" for name in offered) + "?"
                if offered
                else "`medcli help` lists the guides, `medcli --help` the commands",
                code="unknown-page",
            )
        found = inner
    if isinstance(found, Command):
        return command_page(found)
    return group_page(found, " ".join(["medcli", *words]))
