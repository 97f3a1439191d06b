"""`plugins list`, `doctor` and `check`: what they say, and that a broken plugin harms nobody but itself."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
NET = "def build(*, in_channels, image_size, pretrained=False, weights=None, drop_path=0.0):\n"


def listed(outcome) -> dict[str, dict]:
    return {row["qualified"]: row for row in outcome.json()["result"]["plugins"]}


def test_list_gives_every_name_a_status_a_reason_and_a_hint(isolated_plugins, run_cli) -> None:
    isolated_plugins("fine-net", distribution="medcli-fine")
    isolated_plugins("resnet18", distribution="medcli-twin")
    isolated_plugins("bad-card", distribution="medcli-card", broken="card")
    isolated_plugins("old-net", distribution="medcli-old", broken="api")
    isolated_plugins("Loud Net", distribution="medcli-loud", card=False)
    isolated_plugins("lacking", distribution="medcli-lacking", extra='requires = ["no-such-thing>=2"]')
    isolated_plugins("mute", distribution="medcli-mute", broken="metadata", card=False)
    outcome = run_cli("plugins", "list", "--json", in_process=True)
    assert outcome.code == 0, outcome.stderr
    rows = listed(outcome)
    states = {name: row["status"] for name, row in rows.items() if row["distribution"] != "medcli"}
    expected = {
        "medcli-fine/fine-net": "ok",
        "medcli-twin/resnet18": "ambiguous",
        "medcli-card/bad-card": "problem",
        "medcli-old/old-net": "problem",
        "medcli-loud/Loud Net": "problem",
        "medcli-lacking/lacking": "unavailable",
        "medcli-mute": "problem",
    }
    assert {name: states.get(name) for name in expected} == expected
    assert rows["medcli/resnet18"]["status"] == "ambiguous"
    assert "feature_dims" in rows["medcli-card/bad-card"]["reason"]
    assert "needs medcli plugin API 99" in rows["medcli-old/old-net"]["reason"]
    assert rows["medcli-lacking/lacking"]["hint"] == "pip install 'no-such-thing>=2'"
    assert rows["medcli-twin/resnet18"]["hint"] == "use `medcli-twin/resnet18`"
    assert rows["medcli-fine/fine-net"]["version"] == "1.0"
    assert rows["medcli-fine/fine-net"]["group"] == "medcli.architectures"
    assert all(row["reason"] and row["hint"] for row in rows.values() if row["status"] not in {"ok"})


def test_list_shows_what_medcli_plugins_leaves_out(isolated_plugins, run_cli) -> None:
    isolated_plugins("fine-net", distribution="medcli-fine")
    outcome = run_cli("plugins", "list", "--json", env={"MEDCLI_PLUGINS": "none"}, in_process=True)
    assert listed(outcome)["medcli-fine/fine-net"]["status"] == "excluded"
    unknown = run_cli("plugins", "list", env={"MEDCLI_PLUGINS": "medcli-fin"}, in_process=True)
    assert unknown.code == 2
    assert "medcli-fine" in unknown.stderr


def test_list_needs_no_torch_imports_no_plugin_and_is_not_stopped_by_strictness(no_heavy_imports, fake_plugin) -> None:
    fake_plugin("fake-net", broken="init", extra="unknown_key = 1")
    outcome = no_heavy_imports.cli("plugins", "list", env={"MEDCLI_STRICT_PLUGINS": "1"})
    assert outcome.code == 0, outcome.stderr
    assert "unknown_key" in outcome.stdout
    assert "built into medcli" in outcome.stdout


def test_doctor_survives_whatever_a_plugin_does(isolated_plugins, run_cli) -> None:
    def install(name: str, module: str) -> None:
        isolated_plugins(name, distribution=f"medcli-{name}", module=module)

    isolated_plugins("fine", distribution="medcli-fine")
    isolated_plugins("change", distribution="medcli-change", group="medcli.difference_models")
    install("exits", "import sys\n\nsys.exit(7)\n")
    install("prints", 'print("{}")\n' + NET + "    return 3\n")
    install("crashes", "import os, signal\n\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    install("raises", NET + '    raise ValueError("no such luck")\n')
    isolated_plugins("bad-card", distribution="medcli-card", broken="card")
    outcome = run_cli("plugins", "doctor", "--json", in_process=True)
    assert outcome.code == 4, outcome.stderr
    rows = {name: row for name, row in listed(outcome).items() if row["status"] != "excluded"}
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {"medcli-fine/fine", "medcli-change/change"}
    assert rows["medcli-fine/fine"]["parameters"] == 16
    for name, words in (
        ("exits", "SystemExit: 7"),
        ("prints", "gave a int"),
        ("crashes", "SIGSEGV"),
        ("raises", "no such luck"),
        ("card/bad-card", "feature_dims"),
    ):
        row = rows[f"medcli-{name}" if "/" in name else f"medcli-{name}/{name}"]
        assert row["status"] == "failed"
        assert words in row["reason"]


def test_doctor_gives_up_on_a_plugin_that_hangs(isolated_plugins, run_cli) -> None:
    isolated_plugins("hangs", module="import time\n\ntime.sleep(600)\n")
    outcome = run_cli("plugins", "doctor", "hangs", "--timeout", "4", in_process=True)
    assert outcome.code == 4
    assert "did not end within 4 s" in outcome.stdout
    assert "hint: medcli-fake/hangs: reinstall or remove `medcli-fake`" in outcome.stderr


def test_doctor_goes_on_after_the_name_that_killed_its_process(isolated_plugins, run_cli) -> None:
    points = {"a-net": "medcli_fake.net:build", "b-net": "medcli_fake.net:crash", "c-net": "medcli_fake.net:build"}
    module = (
        "import os\n\nfrom torch import nn\n\nfrom medcli.plugin import LayerGroup\n\n\n"
        "class Net(nn.Linear):\n    feature_dim = 2\n\n    def layer_groups(self):\n        return ()\n\n\n"
        f"{NET}    return Net(1, 2)\n\n\ndef crash(**keywords):\n    os._exit(5)\n"
    )
    isolated_plugins(card=False, entry_points=points, module=module)
    outcome = run_cli("plugins", "doctor", "medcli-fake", "--json", in_process=True)
    assert [row["status"] for row in outcome.json()["result"]["plugins"]] == ["ok", "failed", "ok"]
    assert "status 5" in listed(outcome)["medcli-fake/b-net"]["reason"]


def test_doctor_takes_names_and_knows_what_is_not_there(isolated_plugins, run_cli) -> None:
    isolated_plugins("lacking", distribution="medcli-lacking", extra='requires = ["no-such-thing>=2"]')
    assert run_cli("plugins", "doctor", "medcli-lacking", in_process=True).code == 4
    nothing = run_cli("plugins", "doctor", "medcli-lackin", in_process=True)
    assert nothing.code == 2
    assert "did you mean `medcli-lacking`" in nothing.stderr


def test_check_reports_every_check_of_an_installed_plugin(isolated_plugins, run_cli) -> None:
    isolated_plugins("fake-net", extra="params_total = 3")
    outcome = run_cli(
        "plugins", "check", "medcli-fake", "--json", "--only", "facts,gradients,options,seed", in_process=True
    )
    assert outcome.code == 4, outcome.stderr
    result = outcome.json()["result"]
    verdicts = {f"{one['of']}:{one['check']}": one for one in result["checks"]}
    assert verdicts["fake-net:gradients"]["outcome"] == "passed"
    assert verdicts["fake-net:options"]["outcome"] == "skipped"
    assert verdicts["fake-net:facts"]["outcome"] == "failed"
    assert "16 in the card and 16" not in verdicts["fake-net:facts"]["reason"]
    assert all(one["reason"] for one in result["checks"] if one["outcome"] != "passed")
    assert result["failed"] >= 1


def test_check_survives_a_crash_and_says_which_check_it_was(isolated_plugins, run_cli) -> None:
    module = (
        "import os\n\nfrom torch import nn\n\n\n"
        "class Net(nn.Linear):\n    feature_dim = 8\n\n    def forward(self, images):\n"
        "        if len(images) == 4:\n            os.abort()\n"
        f"        return super().forward(images.mean((2, 3)))\n\n\n{NET}    return Net(in_channels, 8)\n"
    )
    isolated_plugins("fake-net", module=module, card=False)
    outcome = run_cli("plugins", "check", "fake-net", "--only", "import-alone,gradients,state-dict", in_process=True)
    assert outcome.code == 4
    lines = {line.split()[2]: line for line in outcome.stdout.splitlines()[:-1]}
    assert lines["gradients"].startswith("failed")
    assert "SIGABRT" in lines["gradients"]
    assert lines["import-alone"].startswith("passed")
    assert lines["state-dict"].startswith("passed")


@pytest.mark.parametrize("layout", ["flat", "src", "dynamic"])
def test_check_takes_a_folder_that_is_not_installed(run_cli, tmp_path: Path, layout: str) -> None:
    folder = tmp_path / "medcli-new"
    package = folder / ("src/medcli_new" if layout == "src" else "medcli_new")
    package.mkdir(parents=True)
    version = 'dynamic = ["version"]' if layout == "dynamic" else 'version = "0.1"'
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n\n'
        f'[project]\nname = "medcli-new"\n{version}\n\n'
        '[project.entry-points."medcli.architectures"]\nnew-net = "medcli_new:build"\n\n'
        '[tool.hatch.version]\npath = "medcli_new/__init__.py"\n',
        encoding="utf-8",
    )
    echo = "from medcli_echo import echo\n"
    (package / "__init__.py").write_text(f'__version__ = "0.3"\n{echo}\nbuild = echo\n', encoding="utf-8")
    outcome = run_cli("plugins", "check", str(folder), "--only", "card,import-alone,outline", "--json", in_process=True)
    assert outcome.code == 0, outcome.stdout + outcome.stderr
    checks = outcome.json()["result"]["checks"]
    assert {one["of"] for one in checks} == {"medcli-new", "new-net"}
    assert [one["outcome"] for one in checks if one["check"] == "card"] == ["skipped"]
    assert {path.name for path in folder.iterdir()} == {"pyproject.toml", package.relative_to(folder).parts[0]}


def test_check_makes_the_checks_asked_for_on_the_network_asked_for(run_cli) -> None:
    arguments = ("plugins", "check", "echo", "--only", "output,facts", "--arch-opt", "width=3", "--image-size", "12")
    outcome = run_cli(*arguments, in_process=True)
    assert outcome.code == 0, outcome.stderr
    assert "[3, 3] from [3, 3, 12, 12]" in outcome.stdout
    wrong = run_cli("plugins", "check", "echo", "--only", "outputs", in_process=True)
    assert wrong.code == 2
    assert "`output`" in wrong.stderr
    assert run_cli("plugins", "check", "echo", "--arch-opt", "witdh=3", in_process=True).code == 2


def test_check_refuses_what_is_no_plugin(run_cli, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for target, words in (
        (f"{empty}/", "no `pyproject.toml`"),
        (str(ROOT / "tests"), "no `pyproject.toml`"),
        ("no-such-plugin", "is called `no-such-plugin`"),
        ("./absent", "no `pyproject.toml`"),
    ):
        outcome = run_cli("plugins", "check", target, in_process=True)
        assert outcome.code == 2, outcome.stdout
        assert words in outcome.stderr
    (empty / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\n', encoding="utf-8")
    assert "offers medcli nothing" in run_cli("plugins", "check", f"{empty}/", in_process=True).stderr
    (empty / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1"\n\n[project.entry-points."medcli.architectures"]\nx = "x_net:build"\n',
        encoding="utf-8",
    )
    assert "names the package `x_net`" in run_cli("plugins", "check", f"{empty}/", in_process=True).stderr
