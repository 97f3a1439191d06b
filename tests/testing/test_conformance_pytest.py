"""One line in an author's tests becomes one test per check, with a message that can be acted upon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from medcli.testing import conformance
from medcli.testing.command import child_environment
from medcli.testing.plugins import FakePlugin


def outcomes(folder: Path, source: str) -> tuple[str, dict[str, str]]:
    """What pytest says, and the outcome of each test, in a process of its own in which warnings are errors."""
    (folder / "test_author.py").write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", "-rA", "-q", "test_author.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=child_environment({"COLUMNS": "500"}),
        check=False,
    )
    lines = [line.split() for line in done.stdout.splitlines() if "test_author.py::" in line]
    return done.stdout, {words[1].partition("::")[2]: words[0] for words in lines if len(words) > 1}


def test_one_line_gives_one_test_per_check(fake_plugin: FakePlugin, tmp_path: Path) -> None:
    fake_plugin("fake-net", extra="stages = 2")
    said, found = outcomes(
        tmp_path,
        "from medcli.testing import conformance\n\n"
        "test_conformance = conformance('medcli-fake', only=['card', 'facts', 'output', 'gradients', 'seed'],\n"
        "    expected_failures={'facts': 'the card is older than the network', 'fake-net:output': 'it is right'})\n"
        "test_other = conformance('medcli-absent')\n",
    )
    assert {name: outcome for name, outcome in found.items() if "gradients" in name or "seed" in name} == {
        "test_conformance[fake-net:gradients]": "PASSED",
        "test_conformance[fake-net:seed]": "PASSED",
    }
    assert found["test_conformance[fake-net:facts]"] == "XFAIL"
    assert found["test_conformance[fake-net:output]"] == "FAILED", "an expected failure that passes is an error"
    assert found["test_other[medcli-absent:discoverable]"] == "FAILED"
    assert "medcli-absent fails `discoverable`" in said
    assert "install it first" in said


def test_collecting_imports_neither_torch_nor_the_plugin(no_heavy_imports, fake_plugin: FakePlugin) -> None:
    fake_plugin("fake-net", broken="init")
    done = no_heavy_imports("from medcli.testing import conformance; conformance('medcli-fake')")
    assert done.code == 0, done.stderr


def test_a_name_that_is_no_check_is_refused() -> None:
    for wrong in ({"only": ["facts", "fact"]}, {"expected_failures": {"echo:fact": "why"}}):
        with pytest.raises(ValueError, match="no check is called"):
            conformance("custom1", **wrong)


test_a_built_in = conformance("custom1", only=["facts", "groups", "group-order", "gradients", "state-dict"])
