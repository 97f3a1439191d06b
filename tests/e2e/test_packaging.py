"""What is published: source archives and wheels of medcli and of every package in `plugins`, installed and used.

The wheels are built from the source archives, as an index's users get them, and installed in a clean environment that
sees the dependencies but not this source tree. Nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from importlib.metadata import EntryPoint, distribution
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[2]
PLUGINS = sorted(path.parent for path in (HOUSE / "plugins").glob("*/pyproject.toml"))
PIP = [sys.executable, "-m", "pip"]
OFFLINE = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]


@dataclass(frozen=True)
class Published:
    """Everything built, and an environment it is installed in.

    Args:
        archives: source archives by distribution.
        wheels: wheels by distribution.
        python: the environment's interpreter.
        work: an empty working directory.
    """

    archives: dict[str, Path]
    wheels: dict[str, Path]
    python: Path
    work: Path

    def run(self, *words: str, code: int = 0, script: str = "medcli") -> str:
        """Standard output of a script of the environment; its exit status is checked."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MEDCLI_", "PYTHON", "PYTEST_"))}
        done = subprocess.run(
            [self.python.with_name(script), *words],
            cwd=self.work,
            env={**kept, "XDG_CONFIG_HOME": str(self.work / "nobody"), "XDG_CACHE_HOME": str(self.work / "nobody")},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    root = tmp_path_factory.mktemp("published")
    archives, wheels = {}, {}
    for source in [HOUSE, *PLUGINS]:
        name = "medcli" if source == HOUSE else source.name
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", root / name],
            cwd=source, check=True, capture_output=True,
        )  # fmt: skip
        (archives[name],) = (root / name).glob("*.tar.gz")
        subprocess.run(
            [*PIP, "wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", root / name, archives[name]],
            cwd=root, check=True, capture_output=True,
        )  # fmt: skip
        (wheels[name],) = (root / name).glob("*.whl")
    venv.create(root / "clean", symlinks=True)
    python = root / "clean" / "bin" / "python"
    subprocess.run([*PIP, "--python", python, "install", *OFFLINE, *wheels.values()], check=True, capture_output=True)
    # The dependencies' folder as a plain path: its own .pth files, and with them editable installs, are not followed.
    site = next((root / "clean" / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    work = root / "work"
    work.mkdir()
    return Published(archives, wheels, python, work)


def test_the_source_tree_is_not_what_runs(published: Published) -> None:
    said = published.run(
        "-c", "import medcli, medcli_echo; print(medcli.__file__, medcli_echo.__file__)", script="python"
    )
    assert all(str(published.python.parents[1]) in path for path in said.split())
    assert str(HOUSE) not in said


def test_a_source_archive_holds_what_builds_and_tests_and_nothing_else(published: Published) -> None:
    with tarfile.open(published.archives["medcli"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt", "tests/conftest.py"} <= names
    assert "man/medcli.1" in names
    foreign = {name.split("/")[0] for name in names} - {
        "medcli", "tests", "man", "completions", "docs", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md",
        "CONTRIBUTING.md", "constraints.txt", "PKG-INFO", ".gitignore",
    }  # fmt: skip
    assert not foreign
    assert not [name for name in names if name.endswith((".pyc", ".safetensors", ".npz"))]


def test_a_wheel_holds_the_package_with_its_data_the_pages_and_the_scripts(published: Published) -> None:
    with zipfile.ZipFile(published.wheels["medcli"]) as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    kept = [
        path.relative_to(HOUSE).as_posix()
        for path in (HOUSE / "medcli").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert not set(kept) - names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"medcli"}
    shared = {name.partition(".data/data/")[2] for name in names if ".data/data/" in name}
    assert {f"share/man/man1/{page.name}" for page in (HOUSE / "man").iterdir()} <= shared
    assert "share/bash-completion/completions/medcli" in shared
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "Provides-Extra: all" in metadata


@pytest.mark.parametrize("name", [path.name for path in PLUGINS])
def test_a_plugins_wheel_holds_its_card_and_not_its_tests(published: Published, name: str) -> None:
    with zipfile.ZipFile(published.wheels[name]) as wheel:
        names = wheel.namelist()
    package = name.replace("-", "_")
    assert f"{package}/medcli-card.toml" in names
    assert not [one for one in names if not one.startswith(package)]


def test_every_name_is_offered(published: Published) -> None:
    listed = set(published.run("models", "list", "-q").split())
    points: list[EntryPoint] = [
        point
        for name in published.wheels
        for point in distribution(name).entry_points
        if point.group == "medcli.architectures" and not point.name.endswith("/*")
    ]
    assert listed == {point.name for point in points}
    assert published.run("--version").split()[-1] == distribution("medcli").version


def test_pages_scripts_and_schemas_come_along(published: Published) -> None:
    environment = published.python.parents[1]
    assert (environment / "share" / "man" / "man1" / "medcli-train.1").read_text().startswith(".")
    assert "complete" in published.run("completion", "show", "bash")
    assert json.loads(published.run("man", "train", "--json"))["result"]["roff"].count(".SH EXIT STATUS") == 1
    assert json.loads(published.run("config", "schema"))["type"] == "object"


@pytest.mark.parametrize("architecture", ["timm/test_resnet", "echo"])
def test_it_trains_predicts_exports_and_reports(published: Published, architecture: str) -> None:
    out = f"run-{architecture.replace('/', '-')}"
    small = ["--limit", "40", "--image-size", "32", "--epochs", "1", "--workers", "0", "--device", "cpu"]
    published.run("train", architecture, "--data", "synthetic/chest", *small, "--out", out)
    published.run("report", out)
    published.run("export", out, "--format", "onnx", "--out", f"{out}-bundle")
    assert (published.work / out / "report.html").stat().st_size > 10_000
    figures = json.loads(
        published.run("evaluate", f"{out}-bundle", "--data", "synthetic/chest", "--limit", "20", "--json")
    )
    assert figures["status"] == "done"


def test_a_change_between_two_images_is_mapped(published: Published) -> None:
    published.run("diffmap", "synth", "--pairs", "1", "--image-size", "128", "--out", "pairs")
    (pair,) = (published.work / "pairs").glob("*/pair_0")
    published.run("diffmap", "predict", str(pair / "prior.png"), str(pair / "current.png"), "--out", "change")
    assert (published.work / "change" / "sheet.png").stat().st_size > 10_000


def test_all_extras_resolve_to_what_is_installed_here(published: Published) -> None:
    done = subprocess.run(
        [*PIP, "install", "--dry-run", "--no-index", "--disable-pip-version-check", "--report", "-", "--quiet",
         f"medcli[all] @ {published.wheels['medcli'].as_uri()}"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [one["metadata"]["name"] for one in json.loads(done.stdout)["install"]] == ["medcli"]
