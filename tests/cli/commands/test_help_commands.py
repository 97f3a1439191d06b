"""`help` and `man`: the same page as `--help`, the guides, and a word that is neither."""

from __future__ import annotations

import pytest

from medcli.cli.guides import guides, laid_out
from medcli.testing.command import RunCli


@pytest.mark.parametrize("words", [["train"], ["models"], ["models", "show"]])
def test_help_shows_the_page_of_a_command(words: list[str], run_cli: RunCli) -> None:
    assert run_cli("help", *words, in_process=True).stdout == run_cli(*words, "--help", in_process=True).stdout


@pytest.mark.parametrize("command", ["help", "man"])
def test_a_word_that_is_no_page_offers_the_nearest(command: str, run_cli: RunCli) -> None:
    outcome = run_cli(command, "models", "sho", in_process=True)
    assert outcome.code == 2
    assert "`medcli help models show`" in outcome.stderr


def test_man_prints_text_where_nobody_looks_and_roff_on_request(run_cli: RunCli) -> None:
    assert run_cli("man", "train", in_process=True).stdout.startswith("Usage: medcli train")
    assert run_cli("man", "train", "-q", in_process=True).stdout.splitlines()[1].startswith(".TH MEDCLI-TRAIN 1")
    assert run_cli("man", "--json", in_process=True).json()["result"]["page"] == "medcli.1"


def test_help_lists_the_guides(run_cli: RunCli) -> None:
    listed = run_cli("help", "--json", in_process=True).json()["result"]["topics"]
    assert listed == {name: one.title for name, one in guides().items()}


@pytest.mark.parametrize("width", [60, 80, 200])
def test_guides_fit_their_width_except_for_commands(width: int) -> None:
    text = "A title\n\n" + "word " * 80 + "\n\n- " + "item " * 60 + "\n- short\n\n    medcli train resnet18 --data x"
    lines = laid_out(text, width).splitlines()
    assert max(map(len, lines)) <= width
    assert "    medcli train resnet18 --data x" in lines
    assert "- short" in lines
