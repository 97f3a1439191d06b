"""Nothing heavy is imported where no network is needed; proven by forbidding the import."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.cli.app import COMMAND_TABLE
from medcli.testing.imports import HEAVY, HEAVY_FOR_COMPLETION, NoHeavyImports

LINES = [
    "medcli\n",
    "medcli\ntr",
    "medcli\nmodels\n",
    "medcli\ntrain\nresnet5",
    "medcli\ntrain\ntimm/resnet1",
    "medcli\ntrain\n--epo",
    "medcli\ntrain\n--loss\n",
    "medcli\ntrain\n--data\nsyn",
    "medcli\ntrain\n--preset\n",
    "medcli\ntrain\nresnet18\n--arch-opt\n",
    "medcli\nevaluate\nruns/",
]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["models", "--help"], ["--show-completion", "bash"]])
def test_the_program_itself_is_light(no_heavy_imports: NoHeavyImports, arguments: list[str], tmp_path: Path) -> None:
    outcome = no_heavy_imports.cli(*arguments, blocked=HEAVY_FOR_COMPLETION, cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr


@pytest.mark.parametrize("line", LINES)
def test_completion_is_light(no_heavy_imports: NoHeavyImports, line: str, tmp_path: Path) -> None:
    words = line.split("\n")
    request = {"_MEDCLI_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    outcome = no_heavy_imports.cli(blocked=HEAVY_FOR_COMPLETION, cwd=tmp_path, env={**request, "MEDCLI_DEBUG": "1"})
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.splitlines()[0] in {"words", "files", "dirs", "words nospace", "nospace"}


@pytest.mark.parametrize("command", COMMAND_TABLE)
def test_the_help_of_every_command_is_light(no_heavy_imports: NoHeavyImports, command: str, tmp_path: Path) -> None:
    outcome = no_heavy_imports.cli(*command.split(), "--help", blocked=HEAVY_FOR_COMPLETION, cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.startswith(f"Usage: medcli {command} ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["models", "list"],
        ["models", "show", "resnet18"],
        ["runs", "list"],
        ["config", "show", "train"],
        ["config", "check"],
        ["config", "schema"],
        ["config", "presets"],
    ],
)
def test_listings_and_settings_need_no_torch(
    no_heavy_imports: NoHeavyImports, arguments: list[str], tmp_path: Path
) -> None:
    outcome = no_heavy_imports.cli(*arguments, blocked=HEAVY, cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr


def test_stored_predictions_are_measured_without_torch(no_heavy_imports: NoHeavyImports, tmp_path: Path) -> None:
    rows = [f"case{i},{'ab'[i % 2]},{0.2 + 0.01 * i:.2f},{0.8 - 0.01 * i:.2f}" for i in range(40)]
    (tmp_path / "p.csv").write_text("\n".join(["id,label,prob_a,prob_b", *rows]) + "\n", encoding="utf-8")
    outcome = no_heavy_imports.cli("evaluate", "p.csv", "--bootstrap", "20", "--json", blocked=HEAVY, cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert outcome.json()["schema"] == "medcli/evaluate/1"


def test_predictions_are_reported_without_torch(no_heavy_imports: NoHeavyImports, tmp_path: Path) -> None:
    rows = [f"case{i},{'ab'[i % 2]},{0.2 + 0.01 * i:.2f},{0.8 - 0.01 * i:.2f}" for i in range(40)]
    (tmp_path / "p.csv").write_text("\n".join(["id,label,prob_a,prob_b", *rows]) + "\n", encoding="utf-8")
    outcome = no_heavy_imports.cli("report", "p.csv", "--bootstrap", "20", blocked=HEAVY, cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert (tmp_path / "p-report.html").is_file()


def test_a_module_of_bundles_needs_no_torch(no_heavy_imports: NoHeavyImports) -> None:
    outcome = no_heavy_imports(
        "import medcli.bundles.batching, medcli.bundles.bundle, medcli.prediction.bundles, medcli.prediction.inputs\n"
        "import medcli.data.dicom, medcli.data.nifti, medcli.data.raster, medcli.data.sources.npz, medcli.data.load\n",
        blocked=HEAVY,
    )
    assert outcome.code == 0, outcome.stderr


def test_data_is_checked_and_inspected_without_torch(no_heavy_imports: NoHeavyImports, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("sick", "well"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(10):
            picture = Image.fromarray(random.integers(0, 255, (16, 16), dtype=np.uint8))
            picture.save(tmp_path / "set" / name / f"{index}.png")
    for arguments in (["data", "check", "--data", "set"], ["data", "inspect", "set/sick/0.png"]):
        outcome = no_heavy_imports.cli(*arguments, blocked=HEAVY, cwd=tmp_path)
        assert outcome.code == 0, outcome.stderr
