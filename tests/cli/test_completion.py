"""How command lines are read and answers written, shell by shell."""

from __future__ import annotations

import pytest

from medcli.cli.completion import SHELLS, reply, script, words_of
from medcli.cli.offers import Offer
from medcli.errors import UsageProblem


@pytest.mark.parametrize(
    ("joined", "cursor", "before", "incomplete", "kept"),
    [
        ("medcli\ntr", 1, (), "tr", 2),
        ("medcli\n", 1, (), "", 0),
        ("medcli", 1, (), "", 0),
        ("medcli\ntrain\n--loss\n=\nc", 4, ("train",), "--loss=c", 1),
        ("medcli\ntrain\n--loss\n=", 3, ("train",), "--loss=", 0),
        ("medcli\ntrain\n--data\nx\n=\na\\ b", 5, ("train", "--data"), "x=a b", 3),
        ("medcli\ntrain\n--device\ncuda\n:\n0", 5, ("train", "--device"), "cuda:0", 1),
        ("medcli\ntrain\n'half a", 2, ("train",), "half a", 6),
        ("medcli\ntrain\nafter\nignored", 2, ("train",), "after", 5),
    ],
)
def test_words_are_put_together_again(
    joined: str, cursor: int, before: tuple[str, ...], incomplete: str, kept: int
) -> None:
    word = words_of("bash", joined, cursor)
    assert (word.before, word.incomplete, word.kept) == (before, incomplete, kept)


def test_the_reply_holds_only_what_bash_replaces() -> None:
    offer = Offer((("x=synthetic/chest", ""),), files=True)
    assert reply("bash", offer, words_of("bash", "medcli\ntrain\n--data\nx\n=\nsyn", 5)).splitlines() == [
        "files",
        "synthetic/chest",
    ]
    assert reply(
        "bash", Offer((("depth=", ""),)), words_of("bash", "medcli\ntrain\n--arch-opt\nde", 3)
    ).splitlines() == [
        "nospace",
        "depth=",
    ]


def test_the_script_defines_what_it_registers() -> None:
    assert "_medcli_completion()" in script("bash")
    assert script("bash").rstrip().endswith("complete -F _medcli_completion medcli")
    assert all("_MEDCLI_COMPLETE" in script(shell) and f"complete_{shell}" in script(shell) for shell in SHELLS)


def test_other_shells_do_not_cut_words() -> None:
    word = words_of("zsh", "medcli\ntrain\n--data=a\\ b", 2)
    assert (word.before, word.incomplete) == (("train",), "--data=a b")
    assert words_of("fish", "medcli\ntrain\n=", 2).incomplete == "="


@pytest.mark.parametrize(
    ("shell", "line"),
    [("bash", "a:b"), ("zsh", "a\\:b:what it is"), ("fish", "a:b\twhat it is"), ("powershell", "a:b\twhat it is")],
)
def test_every_shell_reads_its_own_lines(shell: str, line: str) -> None:
    offer = Offer((("a:b", "what it is; and much more that no menu has room for"),))
    assert reply(shell, offer, words_of(shell, "medcli\na", 1)).split("\n") == ["words", line]


def test_an_unknown_shell_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageProblem, match="powershell"):
        script("tcsh")
