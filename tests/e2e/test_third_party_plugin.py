"""Somebody else's package, from its source to a training: built, installed beside medcli, used, and broken.

Two authors are played: one who starts from `medcli plugins new`, and one who types the smallest example of
`plugins/README.md` by hand, with another build backend. Nothing is downloaded: the wheels are built with the backends
of this environment, and the clean environment sees medcli and torch through a `.pth` file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "plugins" / "README.md"
TINY = ["--image-size", "32", "--limit", "40", "--epochs", "1", "--batch-size", "8", "--workers", "0"]
PIP = [sys.executable, "-m", "pip"]
OFFLINE = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]


@dataclass(frozen=True)
class Place:
    """A clean environment with one third-party plugin installed from its wheel.

    Args:
        name: the architecture it offers.
        distribution: its distribution.
        source: the folder it was built from.
        python: the environment's interpreter.
        work: a working directory.
    """

    name: str
    distribution: str
    source: Path
    python: Path
    work: Path

    @property
    def package(self) -> str:
        return self.distribution.replace("-", "_")

    @property
    def site(self) -> Path:
        """The environment's own site-packages."""
        return next((self.python.parents[1] / "lib").glob("python*/site-packages"))

    @property
    def entry_points(self) -> Path:
        return next(self.site.glob(f"{self.package}-*.dist-info")) / "entry_points.txt"

    def run(self, *words: str | Path, code: int = 0, module: str = "medcli") -> subprocess.CompletedProcess[str]:
        """Run a module of the environment and check its exit status."""
        done = subprocess.run(
            [self.python, "-m", module, *map(str, words)],
            cwd=self.work, env=variables(self.work), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
        return done

    def listed(self) -> list[str]:
        """The labels that `models list` shows."""
        return self.run("models", "list", "-q").stdout.splitlines()


def variables(work: Path) -> dict[str, str]:
    """The environment of a user of the clean environment: nobody's settings, nobody's import path."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MEDCLI_", "PYTHON", "PYTEST_"))}
    return {**kept, "XDG_CONFIG_HOME": str(work / "nobody"), "XDG_CACHE_HOME": str(work / "nobody"), "COLUMNS": "80"}


def from_the_template(root: Path) -> tuple[str, str, Path]:
    subprocess.run(
        [sys.executable, "-m", "medcli", "plugins", "new", "third-net", "--out", str(root / "third")],
        cwd=root, env=variables(root), capture_output=True, check=True,
    )  # fmt: skip
    return "third-net", "medcli-third-net", root / "third"


def by_hand(root: Path) -> tuple[str, str, Path]:
    for text in re.findall(r"^```(?:toml|python)\n# smallest/(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        path, _, _ = text.partition("\n")
        (root / "smallest").mkdir(exist_ok=True)
        (root / "smallest" / path).write_text(f"# smallest/{text}")
    return "smallest", "medcli-smallest", root / "smallest"


def by(*authors: Any) -> pytest.MarkDecorator:
    """The test runs where these authors' plugins are installed."""
    return pytest.mark.parametrize("place", authors, indirect=True)


by_both = by(from_the_template, by_hand)
# medcli cannot tell who wrote a plugin: the second round is for long runs.
by_one_or_both = by(from_the_template, pytest.param(by_hand, marks=pytest.mark.slow))


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    author: Callable[[Path], tuple[str, str, Path]] = request.param
    root = tmp_path_factory.mktemp("author")
    name, distribution, source = author(root)
    subprocess.run(
        [*PIP, "wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", root / "wheels", source],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = (root / "wheels").iterdir()
    venv.create(root / "clean", symlinks=True)
    made = Place(name, distribution, source, root / "clean" / "bin" / "python", root / "work")
    made.work.mkdir()
    beside = sysconfig.get_paths()["purelib"]
    (made.site / "beside.pth").write_text(f"import site; site.addsitedir({beside!r})\n")
    subprocess.run([*PIP, "--python", made.python, "install", *OFFLINE, wheel], check=True, capture_output=True)
    return made


@pytest.fixture
def broken(place: Place, tmp_path: Path) -> Iterator[Place]:
    """The same place, whatever a test does to its packages put right again."""
    site = place.site
    shutil.copytree(site, tmp_path / "site", symlinks=True)
    yield place
    shutil.rmtree(site)
    shutil.copytree(tmp_path / "site", site, symlinks=True)


@by_both
def test_it_is_installed_in_the_clean_environment_alone(place: Place) -> None:
    assert any(path.name.startswith(place.package) for path in place.site.iterdir())
    assert not any(path.name.startswith(place.package) for path in Path(sysconfig.get_paths()["purelib"]).iterdir())


@by_both
def test_it_is_listed_with_its_card(place: Place) -> None:
    assert place.name in place.listed()
    rows = json.loads(place.run("plugins", "list", "--json").stdout)["result"]["plugins"]
    (row,) = [one for one in rows if one["distribution"] == place.distribution]
    assert (row["name"], row["version"], row["status"]) == (place.name, "0.1.0", "ok")


@by_both
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_its_name(place: Place) -> None:
    program = place.work / "bin"
    program.mkdir(exist_ok=True)
    (program / "medcli").write_text(f'#!/bin/sh\nexec "{place.python}" -m medcli "$@"\n')
    (program / "medcli").chmod(0o755)
    script = f"""
        eval "$(medcli --show-completion bash)"
        compopt() {{ :; }}
        COMP_WORDS=(medcli train {place.name[:3]}); COMP_CWORD=2
        _medcli_completion medcli {place.name[:3]} train
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-c", script],
        env={**variables(place.work), "PATH": f"{program}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [place.name]


@by_both
def test_it_trains_and_is_named_in_the_run(place: Place) -> None:
    run = place.work / "trained"
    place.run("train", place.name, "--data", "synthetic/chest", *TINY, "--out", run)
    assert (run / "model.safetensors").is_file()
    environment = (run / "environment.json").read_text()
    assert place.distribution in environment
    assert "0.1.0" in environment
    assert json.loads(place.run("evaluate", run, "--bootstrap", "0", "--json").stdout)["status"] == "done"


@by(from_the_template)
def test_its_own_tests_pass_where_it_is_installed(place: Place) -> None:
    done = place.run("-q", "-p", "no:cacheprovider", place.source / "tests", module="pytest")
    assert re.search(r"\d\d passed", done.stdout), done.stdout


@by(by_hand)
@pytest.mark.slow
def test_what_the_page_says_to_type_works(broken: Place) -> None:
    (typed,) = re.findall(r"^```sh\n(.*?smallest.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    shutil.copytree(broken.source, broken.work / "smallest", dirs_exist_ok=True)
    for line in typed.splitlines():
        program, *words = line.split()
        if program == "pip":
            command = [*PIP, "--python", broken.python, *words, *OFFLINE, "--no-build-isolation"]
            subprocess.run(command, cwd=broken.work, check=True, capture_output=True)
        else:
            assert program == "medcli"
            broken.run(*words)


def others_still_work(place: Place) -> None:
    assert "custom1" in place.listed()
    run = place.work / "custom1"
    place.run("train", "custom1", "--data", "synthetic/chest", *TINY, "--out", run, "--overwrite", "--yes")


@by_one_or_both
def test_a_crash_at_import_breaks_nothing_else(broken: Place) -> None:
    file = broken.site / broken.package / "__init__.py"
    file = file if file.is_file() else broken.site / f"{broken.package}.py"
    file.write_text("raise RuntimeError('made for another torch')\n")
    others_still_work(broken)
    assert broken.name in broken.listed()  # nobody has imported it
    said = broken.run("train", broken.name, "--data", "synthetic/chest", *TINY, code=1).stderr
    assert "made for another torch" in said
    assert f"{broken.distribution} 0.1.0" in said
    assert "Traceback" not in said
    assert broken.run("plugins", "doctor", broken.name, "-q", code=4).stdout == f"{broken.distribution}/{broken.name}\n"


@by(from_the_template)
def test_a_wrong_card_breaks_nothing_else(broken: Place) -> None:
    card = broken.site / broken.package / "medcli-card.toml"
    card.write_text(card.read_text().replace("feature_dim", "feature_dims"))
    others_still_work(broken)
    said = broken.run("models", "list").stderr
    assert "warning:" in said
    assert re.search(r"medcli-card\.toml:\d+", said)
    refused = broken.run("train", broken.name, "--data", "synthetic/chest", *TINY, code=2).stderr
    assert "feature_dims" in refused
    assert "did you mean `feature_dim`?" in refused


@by_one_or_both
def test_a_name_that_two_offer_breaks_nothing_else(broken: Place) -> None:
    file = broken.entry_points
    file.write_text(file.read_text() + "resnet18 = " + file.read_text().strip().rpartition("= ")[2] + "\n")
    others_still_work(broken)
    assert {broken.name, "medcli/resnet18", f"{broken.distribution}/resnet18"} <= set(broken.listed())
    refused = broken.run("train", "resnet18", "--data", "synthetic/chest", *TINY, code=2).stderr
    assert f"`{broken.distribution}/resnet18`" in refused
    assert "`medcli/resnet18`" in refused
