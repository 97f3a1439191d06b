"""`medcli export --quantize`: what becomes smaller, what is lost by that, and what is refused for it."""

from __future__ import annotations

import csv
import errno
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from medcli.bundles.bundle import open_bundle, open_session
from medcli.data.target import Target
from medcli.evaluation.paired import paired_difference
from medcli.evaluation.predictions import Predictions
from medcli.export import quantising, weighing
from medcli.export.graph import write_network
from medcli.export.shrinking import (
    calibrated_ranges,
    network_bytes,
    prepare,
    shrunk_share,
    write_dynamic,
    write_half,
    write_static,
)
from medcli.settings.groups import EvaluationSettings
from medcli.testing.command import Outcome, RunCli


@pytest.fixture
def cli(workplace: Path) -> RunCli:
    return RunCli(workplace)


def typed(cli: RunCli, *words: str) -> Outcome:
    return cli(*words, in_process=True)


class Linear(nn.Module):
    """Nearly all of its numbers are in linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 8, 8)
        self.layers = nn.Sequential(nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 64))
        self.head = nn.Linear(64, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.layers(self.first(images).flatten(1))
        return self.head(features), features


class Convolutions(nn.Module):
    """A first convolution, a depthwise one, squeeze-and-excitation, a wide one, and a mean before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, 2, 1)
        self.depthwise = nn.Conv2d(32, 32, 3, 1, 1, groups=32)
        self.squeeze, self.excite = nn.Conv2d(32, 16, 1), nn.Conv2d(16, 32, 1)
        self.wide = nn.Conv2d(32, 64, 3)
        self.last = nn.Conv2d(64, 64, 1)
        self.head = nn.Linear(64, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = functional.hardswish(self.depthwise(functional.relu(self.first(images))))
        x = x * functional.hardsigmoid(self.excite(functional.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        features = self.last(functional.relu(self.wide(x)).mean((2, 3), keepdim=True)).flatten(1)
        return self.head(features), features


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both as ONNX, and prepared."""
    folder, found = tmp_path_factory.mktemp("networks"), {}
    for network in (Linear(), Convolutions()):
        kind = type(network).__name__
        file = folder / f"{kind}.onnx"
        write_network(network.eval(), file, channels=3, image_size=32, opset=18)
        prepare(file, folder / f"{kind}-prepared.onnx")
        found[kind] = file
    return found


def prepared(network: Path) -> Path:
    return network.with_name(f"{network.stem}-prepared.onnx")


def logits(file: Path, count: int) -> np.ndarray[Any, Any]:
    images = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(3)).numpy()
    found: np.ndarray[Any, Any] = open_session(file, threads=1).run(["logits"], {"images": images})[0]
    return found


def test_dynamic_int8_shrinks_linear_layers_and_hardly_a_convolutional_network(
    networks: dict[str, Path], tmp_path: Path
) -> None:
    shares = {}
    for kind, network in networks.items():
        write_dynamic(prepared(network), tmp_path / f"{kind}.onnx")
        shares[kind] = shrunk_share(tmp_path / f"{kind}.onnx")
        assert logits(tmp_path / f"{kind}.onnx", 3).shape == (3, 2)
    assert shares["Linear"] > 0.8
    assert shares["Convolutions"] < 0.05
    assert network_bytes(tmp_path / "Linear.onnx") < 0.5 * network_bytes(networks["Linear"])


@pytest.mark.parametrize("kind", ["Linear", "Convolutions"])
def test_half_precision_takes_half_the_bytes(kind: str, networks: dict[str, Path], tmp_path: Path) -> None:
    write_half(networks[kind], tmp_path / "half.onnx")
    stored = onnx.load(str(tmp_path / "half.onnx"))
    original = onnx.load(str(networks[kind]))
    weights = [sum(len(one.raw_data) for one in model.graph.initializer) for model in (stored, original)]
    assert weights[0] < 0.55 * weights[1]
    for count in (1, 3):
        assert np.abs(logits(tmp_path / "half.onnx", count) - logits(networks[kind], count)).max() < 2e-2


class Padded(nn.Module):
    """An output of fewer classes than another, and a constant that float16 cannot hold on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 8, 8)
        self.head = nn.Linear(16, 6)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = functional.relu(self.first(images)).mean((2, 3))
        logits = (self.head(features) * 1e30).clamp(-1e30, 1e30).mul(1e-30).unflatten(1, (2, 3))
        beyond = torch.tensor([[False, False, False], [False, False, True]])
        return logits.masked_fill(beyond, float("-inf")), features


def test_infinite_logits_of_several_outputs_are_no_obstacle(tmp_path: Path) -> None:
    network, images = tmp_path / "n.onnx", torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)).numpy()
    write_network(Padded().eval(), network, channels=3, image_size=32, opset=18)
    write_half(network, tmp_path / "half.onnx")
    prepare(network, prepared(network))
    expected = logits(network, 5)
    found = {"half": logits(tmp_path / "half.onnx", 5)}
    for calibration in ("minmax", "percentile", "entropy"):
        ranges = calibrated_ranges(prepared(network), images, calibration, tmp_path)  # type: ignore[arg-type]
        write_static(prepared(network), tmp_path / "small.onnx", ranges, "all")
        found[calibration] = logits(tmp_path / "small.onnx", 5)
    for kind, one in found.items():
        assert np.array_equal(np.isneginf(one), np.isneginf(expected))
        known = np.isfinite(expected)
        assert np.abs(one[known] - expected[known]).max() < (2e-3 if kind == "half" else 0.2), kind
        assert weighing.distance(expected, one) < (0.02 if kind == "half" else 0.7), kind


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "entropy"])
def test_static_int8_leaves_the_head_and_a_free_batch(
    calibration: Any, networks: dict[str, Path], tmp_path: Path
) -> None:
    network = networks["Convolutions"]
    images = torch.randn(10, 3, 32, 32, generator=torch.Generator().manual_seed(0)).numpy()
    ranges = calibrated_ranges(prepared(network), images, calibration, tmp_path)
    shares = []
    for extent in ("all", "careful", "wary"):
        write_static(prepared(network), tmp_path / "small.onnx", ranges, extent)  # type: ignore[arg-type]
        shares.append(shrunk_share(tmp_path / "small.onnx"))
        for count in (1, 3):
            assert logits(tmp_path / "small.onnx", count).shape == (count, 2)
    assert shares[0] >= shares[1] > shares[2] > 0.3
    stored = {
        one.name: numpy_helper.to_array(one).dtype for one in onnx.load(str(tmp_path / "small.onnx")).graph.initializer
    }
    whole = {name for name, dtype in stored.items() if name.endswith(".weight") and dtype == np.float32}
    assert whole == {f"{layer}.weight" for layer in ("head", "first", "depthwise", "squeeze", "excite")}


def test_a_quantised_bundle_is_used_like_any_other(cli: RunCli, workplace: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    words = ("export", "run", "--quantize", "int8-static", "--max-drop", "0.2", "--out", str(out), "--json")
    done = typed(cli, *words)
    assert done.code == 0, done.stderr
    (facts,) = done.json()["result"]["bundles"]
    assert facts["quantized"] == "int8-static"
    found = facts["quantization"]
    assert [one["figure"] for one in found["validation"]] == ["auc", "accuracy"]
    assert all(one["cases"] == 30 and one["low"] <= one["drop"] <= one["high"] for one in found["validation"])
    assert found["calibration_images"] == 16
    assert [one["way"] for one in found["tried"] if one["kept"]] == [found["way"]]
    assert facts["verification"]["probability"] <= 1e-5
    assert set(facts["files"]) == {"README.md", "model.onnx", "selftest.npz"}
    assert "quantised" in (out / "README.md").read_text()

    bundle = open_bundle(out)
    assert bundle.self_test() < 1e-6
    assert json.loads((out / "bundle.json").read_text())["facts"]["quantized"] == "int8-static"
    graph = onnx.load(str(out / "model.onnx")).graph
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert not node.name.startswith(("before/", "after/"))
    predicted = typed(cli, "predict", str(out), "data/test")
    assert predicted.code == 0, predicted.stderr
    assert len(list(csv.DictReader(io.StringIO(predicted.stdout)))) == 12
    judged = typed(cli, "evaluate", str(out), "--data", "data", "--bootstrap", "0", "--json")
    assert judged.code == 0, judged.stderr


def test_a_way_that_may_have_been_lucky_gives_way_to_the_one_that_moves_answers_least(
    cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of six ways; what the figures of a few cases make of them does not count."""
    moved = iter((0.3, 0.05, 0.2, 0.1, 0.3, 0.2))
    monkeypatch.setattr(quantising, "surely_kept", lambda changes: False)
    monkeypatch.setattr(quantising, "distance", lambda before, after: next(moved))
    words = (
        "export",
        "run",
        "--quantize",
        "int8-static",
        "--max-drop",
        "0.9",
        "--out",
        str(tmp_path / "out"),
        "--json",
    )
    done = typed(cli, *words)
    assert done.code == 0, done.stderr
    found = done.json()["result"]["bundles"][0]["quantization"]
    assert len(found["tried"]) == 6
    assert found["way"] == "percentile, all"
    assert [one["kept"] for one in found["tried"]] == [False, True, False, False, False, False]
    assert open_bundle(tmp_path / "out").self_test() < 1e-6


@pytest.mark.parametrize(("count", "sure"), [(40, False), (4000, True)])
def test_a_small_loss_is_sure_on_many_cases_alone(count: int, sure: bool) -> None:
    random = np.random.default_rng(1)
    truth = np.arange(count) % 2
    before = truth + 0.7 * random.standard_normal(count)
    after = before + 0.05 * random.standard_normal(count)
    target = Target("binary", ("no", "yes"))
    cases = [
        Predictions(
            ids=np.arange(count).astype(np.str_),
            labels=truth,
            logits=np.stack([-score, score], axis=1).astype(np.float32),
            target=target,
            split="val",
            data_name="drawn",
        )
        for score in (before, after)
    ]
    difference = paired_difference(*cases, "auc", EvaluationSettings(bootstrap=0))
    assert weighing.surely_kept((weighing.Change("auc", difference, 0.005),)) is sure
    assert not weighing.surely_kept((weighing.Change("auc", replace(difference, first=1.0, second=0.9), 0.005),))
    assert not weighing.surely_kept((weighing.Change("accuracy", replace(difference, areas=None), 0.005),))


def test_what_loses_too_much_is_not_kept_and_all_that_was_tried_is_told(
    cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = quantising.write_static

    def spoiled(prepared: Path, destination: Path, ranges: Any, extent: Any) -> None:
        """As if one number of each layer were so large that the others become zero."""
        original(prepared, destination, ranges, extent)
        model = onnx.load(str(destination))
        for tensor in model.graph.initializer:
            if tensor.name.endswith("_quantized"):
                tensor.raw_data = bytes(len(tensor.raw_data))
        onnx.save(model, str(destination))

    monkeypatch.setattr(quantising, "write_static", spoiled)
    out = tmp_path / "out"
    done = typed(cli, "export", "run", "--quantize", "int8-static", "--max-drop", "0", "--out", str(out))
    assert done.code == 4, done.stderr
    for way in ("minmax, all", "percentile, all", "entropy, all", "percentile, careful", "percentile, wary"):
        assert f"{way}: auc +" in done.stderr
    assert "nothing was kept" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("problem", "free"), [(OSError(errno.ENOSPC, "No space left"), 10**9), (ValueError("wire format was corrupt"), 0)]
)
def test_a_full_disk_is_no_fault_of_a_way(
    problem: Exception, free: int, cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise problem

    monkeypatch.setattr(quantising, "write_static", full)
    monkeypatch.setattr(quantising.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    done = typed(cli, "export", "run", "--quantize", "int8-static", "--out", str(tmp_path / "out"))
    assert done.code == 1
    assert "cannot be written: no space is left" in done.stderr
    assert done.stderr.count("trying") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["fp16", "int8-dynamic"])
def test_other_kinds_need_no_training_images(kind: str, cli: RunCli, workplace: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(workplace / "data", tmp_path / "data"))
    for picture in (data / "train").rglob("*.png"):
        picture.write_bytes(b"gone")
    words = ("--quantize", kind, "--data", str(data), "--max-drop", "1", "--out", str(tmp_path / "out"))
    done = typed(cli, "export", "run", *words)
    assert done.code == 0, done.stderr
    assert f"{kind}: network" in done.stdout
    assert ("other pictures of its batch" in done.stderr) == (kind == "int8-dynamic")
    refused = typed(cli, "export", "run", *words, "--quantize", "int8-static", "--overwrite")
    assert refused.code == 2
    assert "no picture of the training split" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--quantize", "int8-static", "--format", "pt2"), "`--quantize` is about ONNX"),
        (("--quantize", "fp16", "--no-verify"), "`--no-verify` looks at none"),
        (("--max-drop", "0.01"), "`--quantize` is `none`"),
        (("--quantize", "int4"), "int4"),
        (("--quantize", "int8-static", "--max-drop", "2"), "--max-drop"),
        (("--quantize", "int8-static", "--data", "data/test/clear"), "measured on the run's validation images"),
    ],
)
def test_what_cannot_be_quantised_is_said(words: tuple[str, ...], said: str, cli: RunCli, tmp_path: Path) -> None:
    done = typed(cli, "export", "run", *words, "--out", str(tmp_path / "x"))
    assert done.code == 2, done.stderr
    assert said in done.stderr
    assert not (tmp_path / "x").exists()


def test_training_images_that_are_gone_are_asked_for(cli: RunCli, workplace: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(workplace / "run", tmp_path / "run"))
    config = run / "config.toml"
    config.write_text(config.read_text().replace(str(workplace / "data"), str(tmp_path / "moved")))
    words = ("export", str(run), "--quantize", "int8-static", "--max-drop", "1", "--out", str(tmp_path / "out"))
    refused = typed(cli, *words)
    assert refused.code == 2
    assert "training images" in refused.stderr or "no pictures to compare" in refused.stderr
    assert "`--data PATH`" in refused.stderr
    shutil.copytree(workplace / "data", tmp_path / "part/data")
    shutil.rmtree(tmp_path / "part/data/train")
    refused = typed(cli, *words, "--data", str(tmp_path / "part/data"))
    assert refused.code == 2
    assert "training" in refused.stderr


@pytest.mark.parametrize("gone", ["val", "train"])
def test_a_split_that_is_gone_is_not_drawn_from_the_others(
    gone: str, cli: RunCli, workplace: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(workplace / "data", tmp_path / "data"))
    shutil.rmtree(data / gone)
    out = tmp_path / "out"
    refused = typed(cli, "export", "run", "--quantize", "int8-static", "--data", str(data), "--out", str(out))
    assert refused.code == 2
    said = "mix training with validation images" if gone == "val" else "has no training split"
    assert said in refused.stderr
    assert not out.exists()
