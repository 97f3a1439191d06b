"""`medcli export` as a user types it: what the bundle holds, that others can run it, and every way it can go wrong."""

from __future__ import annotations

import csv
import errno
import io
import json
import re
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.bundles.bundle import open_bundle
from medcli.export import bundling
from medcli.export.graph import cannot_trace
from medcli.testing.command import Outcome, RunCli
from medcli.testing.imports import NoHeavyImports


@pytest.fixture
def cli(workplace: Path) -> RunCli:
    return RunCli(workplace)


def typed(cli: RunCli, *words: str) -> Outcome:
    return cli(*words, in_process=True)


def scores(outcome: Outcome) -> np.ndarray[Any, Any]:
    assert outcome.code == 0, outcome.stderr
    rows = list(csv.DictReader(io.StringIO(outcome.stdout)))
    return np.array([[float(row["prob_clear"]), float(row["prob_opaque"])] for row in rows])


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith((".part", ".old"))]


def test_the_bundle_holds_what_the_run_knows(workplace: Path) -> None:
    document = json.loads((workplace / "bundle/bundle.json").read_text())
    assert document["schema"] == "medcli-bundle/1"
    assert document["outputs"] == ["probabilities", "logits", "features"]
    assert document["calibrator"]["method"] == "platt"
    assert [one["rule"] for one in document["thresholds"]] == ["sens=0.9", "sens=0.95", "spec=0.9", "spec=0.95"]
    checked = document["verification"]
    assert checked["batch_sizes"] == [1, 3, 32]
    assert checked["probability"] <= 1e-5
    assert document["facts"]["data"]["splits"]["train"]["count"] == 16
    assert set(document["files"]) == {"README.md", "model.onnx", "selftest.npz"}
    text = (workplace / "bundle/bundle.json").read_text() + (workplace / "bundle/README.md").read_text()
    assert str(workplace) not in text
    assert "clear0-1" not in text


def test_a_bundle_and_its_run_answer_alike_without_torch(
    cli: RunCli, workplace: Path, no_heavy_imports: NoHeavyImports
) -> None:
    run = scores(typed(cli, "predict", "run", "data/test"))
    bundle = no_heavy_imports.cli("predict", "bundle", "data/test", cwd=workplace)
    assert len(run) == 12
    assert np.abs(scores(bundle) - run).max() <= 2e-6  # six digits are written
    through = scores(typed(cli, "predict", "run", "data/test", "--runtime", "onnx"))
    assert np.abs(through - run).max() <= 2e-6


def test_a_bundle_is_measured_like_its_run_without_torch(
    cli: RunCli, workplace: Path, no_heavy_imports: NoHeavyImports
) -> None:
    words = ("--data", "data", "--bootstrap", "20", "--json")
    run = typed(cli, "evaluate", "run", *words).json()["result"]["evaluations"][0]["figures"]
    done = no_heavy_imports.cli("evaluate", "bundle", *words, "--operating-point", "sens=0.9", cwd=workplace)
    assert done.code == 0, done.stderr
    bundle = done.json()["result"]["evaluations"][0]
    for name in ("auc", "nll", "ece"):
        assert bundle["figures"][name]["value"] == pytest.approx(run[name]["value"], abs=1e-5)
    section = bundle["sections"]["operating_points"]
    frozen = open_bundle(workplace / "bundle").manifest.thresholds[0]
    assert section["points"][0]["threshold"] == pytest.approx(frozen.value)
    assert "validation" in section["chosen_on"]


def test_the_lines_of_the_readme_give_the_same_answer(
    cli: RunCli, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (workplace / "bundle/README.md").read_text(), re.DOTALL)
    assert len(code.strip().splitlines()) <= 12
    shutil.copytree(workplace / "bundle", tmp_path / "received")
    source = workplace / "data/test/opaque/opaque2-0.png"
    shutil.copy(source, tmp_path / "received/scan.png")
    monkeypatch.chdir(tmp_path / "received")
    said = io.StringIO()
    with redirect_stdout(said):
        exec(compile(code, "README.md", "exec"), {})
    found = [float(line.split(": ")[1]) for line in said.getvalue().splitlines()]
    expected = scores(typed(cli, "predict", "run", str(source)))
    assert found == pytest.approx(expected[0].tolist(), abs=6e-5)


def test_another_batch_size_changes_nothing(workplace: Path) -> None:
    bundle = open_bundle(workplace / "bundle")
    images = np.random.default_rng(0).integers(0, 256, (7, 25, 31, 3), dtype=np.uint8)
    together = bundle.run(images)
    for size in (1, 3):
        parts = np.concatenate([bundle.run(images[at : at + size]).answers for at in range(0, 7, size)])
        assert np.abs(parts - together.answers).max() < 1e-6
    assert np.abs(bundle.probabilities(together.logits) - together.answers).max() < 1e-6


def copied(workplace: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(workplace / "bundle", tmp_path / "b"))


def test_a_changed_file_is_refused(cli: RunCli, workplace: Path, tmp_path: Path) -> None:
    bundle = copied(workplace, tmp_path)
    with (bundle / "model.onnx").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x00" if file.read(1) != b"\x00" else b"\x01")
        file.write(b"!")
    done = typed(cli, "predict", str(bundle), "data/test")
    assert done.code == 2
    assert "not the file that was exported" in done.stderr


def test_a_model_that_computes_something_else_is_noticed(cli: RunCli, workplace: Path, tmp_path: Path) -> None:
    bundle = copied(workplace, tmp_path)
    with np.load(bundle / "selftest.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["answers"] = arrays["answers"][:, ::-1]
    np.savez_compressed(bundle / "selftest.npz", **arrays)
    from medcli.bundles.manifest import file_facts

    document = json.loads((bundle / "bundle.json").read_text())
    document["files"]["selftest.npz"] = file_facts(bundle / "selftest.npz")
    (bundle / "bundle.json").write_text(json.dumps(document))
    done = typed(cli, "predict", str(bundle), "data/test")
    assert done.code == 1
    assert "computes other probabilities" in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "medcli-bundle/9"}, "has the format `medcli-bundle/9`"),
        ({"schema": "other"}, "its schema is 'other'"),
        ({"format": "tflite"}, "its format is `tflite`"),
        ({"files": {"../x": {"sha256": "", "bytes": 0}}}, "outside of it"),
        ({"target": {}}, "its task is"),
        ({"preprocessing": {}}, "its preprocessing has other fields"),
    ],
)
def test_a_bundle_of_another_kind_is_refused(
    change: dict[str, Any], said: str, cli: RunCli, workplace: Path, tmp_path: Path
) -> None:
    bundle = copied(workplace, tmp_path)
    document = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(document | change))
    done = typed(cli, "predict", str(bundle), "data/test")
    assert done.code == 2
    assert said in done.stderr


def test_flags_that_a_bundle_leaves_no_choice_about_are_refused(cli: RunCli) -> None:
    for words in (("--image-size", "32"), ("--ten-crop",), ("--device", "cuda"), ("--precision", "bf16")):
        done = typed(cli, "predict", "bundle", "data/test", *words)
        assert done.code == 2, words
        assert words[0] in done.stderr


def test_what_cannot_be_read_is_named_and_the_rest_is_done(cli: RunCli, workplace: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    done = typed(cli, "predict", "bundle", str(workplace / "data/test/clear"), str(bad))
    assert done.code == 3
    assert "bad.png" in done.stderr
    assert len(done.stdout.splitlines()) == 7


@pytest.mark.parametrize("kind", ["pt2", "safetensors"])
def test_other_formats_agree_with_the_run(kind: str, cli: RunCli, workplace: Path, tmp_path: Path) -> None:
    done = typed(cli, "export", "run", "--format", kind, "--out", str(tmp_path / "out"), "--json")
    assert done.code == 0, done.stderr
    (bundle,) = done.json()["result"]["bundles"]
    assert bundle["verification"]["probability"] <= 1e-5
    refused = typed(cli, "predict", str(tmp_path / "out"), "data/test")
    assert refused.code == 2
    assert f"a bundle of the format `{kind}`" in refused.stderr


def test_nothing_is_left_where_the_export_differs(
    cli: RunCli, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = bundling.ask_run

    def other(*arguments: Any) -> bundling.Reference:
        found = original(*arguments)
        wrong = [type(one)(one.images, one.probabilities + 1e-3, one.logits, one.features) for one in found.real]
        return bundling.Reference(tuple(wrong), found.drawn)

    monkeypatch.setattr(bundling, "ask_run", other)
    out = tmp_path / "out"
    done = typed(cli, "export", "run", "--format", "safetensors", "--out", str(out))
    assert done.code == 4
    assert "a probability differs by 0.001" in done.stderr
    assert not out.exists()
    assert not leftovers(tmp_path)


def test_a_full_disk_leaves_nothing(cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    out = tmp_path / "out"
    done = typed(cli, "export", "run", "--format", "safetensors", "--out", str(out))
    assert done.code == 1
    assert "no space is left" in done.stderr
    assert not out.exists()
    assert not leftovers(tmp_path)


def test_a_full_disk_stops_a_program_of_torch_too(cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Torch's own writer would end the process.
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    done = typed(cli, "export", "run", "--format", "pt2", "--out", str(tmp_path / "out"))
    assert done.code == 1
    assert "no space is left" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "way"),
    [
        (("export", "run", "--out", "untraced"), "medcli plugins check medcli-echo/echo --only onnx"),
        (("export", "run", "--out", "untraced"), "medcli export run --format safetensors"),
        (("predict", "run", "data/test", "--runtime", "onnx"), "leave `--runtime onnx` out"),
    ],
)
def test_a_network_that_cannot_be_traced_is_told_with_a_way_on(
    words: tuple[str, ...], way: str, cli: RunCli, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise cannot_trace(RuntimeError("a graph of torch.ops.lab.fold"))

    monkeypatch.setattr("medcli.export.formats.write_network", refuse)
    monkeypatch.setattr("medcli.export.running.export_onnx", refuse)
    done = typed(cli, *words)
    assert done.code == 1
    assert "the network uses the operator `lab.fold`" in done.stderr
    assert way in done.stderr
    assert not (workplace / "untraced").exists()
    assert leftovers(workplace) == []


def test_an_older_bundle_is_replaced_when_asked(cli: RunCli, workplace: Path, tmp_path: Path) -> None:
    bundle = copied(workplace, tmp_path)
    words = ("export", "run", "--format", "safetensors", "--out", str(bundle))
    refused = typed(cli, *words)
    assert refused.code == 2
    assert "exists already" in refused.stderr
    assert typed(cli, *words, "--overwrite").code == 0
    assert not (bundle / "model.onnx").exists()
    assert (bundle / "model.safetensors").is_file()
    assert not leftovers(tmp_path)
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("all of it")
    done = typed(cli, "export", "run", "--out", str(other), "--overwrite")
    assert done.code == 2
    assert (other / "thesis.txt").is_file()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("export", "run", "--format", "tflite"), 2, "tflite"),
        (("export", "run", "--format", "adapter"), 2, "has no adapter"),
        (("export", "run", "--opset", "11"), 2, "opset 11 cannot be written"),
        (("export", "run", "--format", "safetensors", "--opset", "20"), 2, "`--opset` is about ONNX"),
        (("export", "run", "--no-verify", "--tolerance", "1e-3"), 2, "`--tolerance` is about the comparison"),
        (("export", "run", "--format", "onnx,pt2", "--out", "x"), 2, "`--out` is one folder"),
        (("export", "run", "--data", "nowhere"), 2, "there are no pictures to compare"),
        (("export", "data"), 2, "not a run directory"),
        (("export", "bare"), 2, "holds no weights"),
        (("evaluate", "bundle"), 2, "is a bundle, and no data was named"),
        (
            ("predict", "run", "data/test", "--runtime", "onnx", "--device", "cuda"),
            2,
            "`--runtime onnx` works on the CPU",
        ),
    ],
)
def test_what_cannot_be_done_is_said(
    words: tuple[str, ...], code: int, said: str, cli: RunCli, workplace: Path
) -> None:
    (workplace / "bare").mkdir(exist_ok=True)
    shutil.copy(workplace / "run/.medcli-run.json", workplace / "bare")
    done = typed(cli, *words)
    assert done.code == code, done.stderr
    assert said in done.stderr
    assert not (workplace / "x").exists()


@pytest.mark.parametrize("words", [("export", "run"), ("predict", "bundle", "data/test")])
def test_a_missing_package_names_the_extra(
    words: tuple[str, ...], cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medcli.bundles.extra.find_spec", lambda name: None)
    done = typed(cli, *words)
    assert done.code == 2
    assert "medcli[export]" in done.stderr
    assert "onnxruntime" in done.stderr


def test_pictures_that_are_gone_are_asked_for(cli: RunCli, workplace: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(workplace / "run", tmp_path / "run"))
    config = run / "config.toml"
    config.write_text(config.read_text().replace(str(workplace / "data"), str(tmp_path / "gone")))
    words = ("export", str(run), "--format", "safetensors", "--out", str(tmp_path / "out"))
    refused = typed(cli, *words)
    assert refused.code == 2
    assert "`--data PATH` names others" in refused.stderr
    assert typed(cli, *words, "--data", "data/test/clear").code == 0
    unchecked = typed(cli, *words, "--no-verify", "--overwrite")
    assert unchecked.code == 0, unchecked.stderr
    assert "nobody compared it" in (tmp_path / "out/README.md").read_text()


@pytest.mark.slow
def test_adapters_are_merged_or_kept(cli: RunCli, workplace: Path, tmp_path: Path) -> None:
    lora = ("lora", "timm/test_vit", "--random-weights", "--data", "data", "--image-size", "32", "--epochs", "1")
    done = typed(cli, *lora, "--workers", "0", "--batch-size", "8", "--out", str(tmp_path / "adapted"))
    assert done.code == 0, done.stderr
    words = ("export", str(tmp_path / "adapted"))
    for kind in ("onnx", "adapter"):
        done = typed(cli, *words, "--format", kind, "--out", str(tmp_path / kind))
        assert done.code == 0, done.stderr
    assert (tmp_path / "adapter/adapter/adapter_model.safetensors").is_file()
    run = typed(cli, "predict", str(tmp_path / "adapted"), "data/test").stdout.splitlines()
    bundle = typed(cli, "predict", str(tmp_path / "onnx"), "data/test").stdout.splitlines()
    for one, other in zip(run[1:], bundle[1:], strict=True):
        assert [float(x) for x in one.split(",")[1:3]] == pytest.approx(
            [float(x) for x in other.split(",")[1:3]], abs=2e-6
        )


@pytest.mark.slow
def test_an_ensemble_leaves_as_one_graph(cli: RunCli, workplace: Path, tmp_path: Path) -> None:
    small = ("--image-size", "16", "--epochs", "1", "--workers", "0", "--batch-size", "8", "--data", "data")
    out = str(tmp_path / "ensemble")
    done = typed(cli, "ensemble", "echo", "--members", "3", *small, "--out", out)
    assert done.code == 0, done.stderr
    done = typed(cli, "export", out, "--out", str(tmp_path / "bundle"))
    assert done.code == 0, done.stderr
    assert "one model" in typed(cli, "export", out, "--format", "safetensors", "--out", str(tmp_path / "s")).stderr
    run = typed(cli, "predict", out, "data/test", "--json").json()["result"]["predictions"]
    bundle = typed(cli, "predict", str(tmp_path / "bundle"), "data/test", "--json").json()["result"]["predictions"]
    for one, other in zip(run, bundle, strict=True):
        assert one["score_clear"] == pytest.approx(other["score_clear"], abs=1e-6)
