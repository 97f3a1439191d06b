"""Published weights with their own classifier: judged and applied without training, outputs matched by name alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from medcli.evaluation.predictions import load_predictions
from medcli.testing.command import RunCli

# Four outputs, one of them never trained: mean brightness of each quarter of the picture, times a row of the file.
MODULE = """
import torch
from torch import nn

from medcli.plugin import LayerGroup, PretrainedHead, UsageProblem, load_weights, read_weights


class Quarters(nn.Module):
    feature_dim = 4

    def __init__(self, channels):
        super().__init__()
        self.gain = nn.Parameter(torch.rand(1))
        self.pretrained_head = None

    def forward(self, images):
        return self.gain * torch.nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), 2).flatten(1)

    def layer_groups(self):
        return (LayerGroup("gain", 0, ("gain",), ()),)


def build(*, in_channels, image_size, pretrained=False, weights=None, drop_path=0.0, names="none"):
    net = Quarters(in_channels)
    if weights:
        tensors = read_weights(weights)
        net.load_report, _ = load_weights(net, tensors, name="quarters", origin=weights, ignore=("head.*",))
        if "head.weight" in tensors:
            named = {"none": (), "three": ("Mass", "", "Pleural_Thickening", "Hernia")}[names]
            net.pretrained_head = PretrainedHead(
                tensors["head.weight"], tensors["head.bias"], named, "multilabel" if named else ""
            )
    return net
"""
EXTRA = """
normalisation = { mean = [0.0], std = [1.0] }
options.names = { type = "str", default = "none", choices = ["none", "three"], help = "names of the outputs" }
"""
CARD = f"""api = 1
[architectures.quarters]
summary = "brightness of quarters"
params = 1
feature_dim = 4
input_size = 16
in_channels = 1
{EXTRA}
"""
WEIGHT = torch.tensor([[3.0, 0, 0, 0], [9, 9, 9, 9], [0, 0, 5, 1], [-2, 4, 0, 0.5]])
BIAS = torch.tensor([0.1, 7.0, -1.0, 0.3])
GAIN = 2.0


@pytest.fixture
def place(tmp_path: Path, fake_plugin) -> Path:
    fake_plugin("quarters", module=MODULE, card=CARD)
    save_file({"gain": torch.tensor([GAIN]), "head.weight": WEIGHT, "head.bias": BIAS}, tmp_path / "w.safetensors")
    save_file({"gain": torch.tensor([GAIN])}, tmp_path / "bare.safetensors")
    generator = np.random.default_rng(0)
    rows = ["file,hernia,pleural thickening,MASS,age"]
    for number in range(12):
        Image.fromarray(generator.integers(0, 256, (16, 16), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{number % 2},{number % 3 == 0:d},{number % 4 == 0:d},{20 + number}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.fixture
def medcli(tmp_path: Path) -> RunCli:
    return RunCli(tmp_path)


def run(medcli: RunCli, *words: object) -> tuple[int, str, str]:
    outcome = medcli(*map(str, words), in_process=True)
    return outcome.code, outcome.stdout, outcome.stderr


def by_hand(place: Path, rows: list[int]) -> np.ndarray:
    """Logits [12, len(rows)] of the network above, in numpy."""
    found = []
    for number in range(12):
        pixels = np.asarray(Image.open(place / f"{number}.png"), dtype=np.float64) / 255
        quarters = pixels.reshape(2, 8, 2, 8).mean(axis=(1, 3)).ravel() * GAIN
        found.append(WEIGHT.numpy()[rows] @ quarters + BIAS.numpy()[rows])
    return np.array(found)


ARGUMENTS = ("--weights", "w.safetensors", "--arch-opt", "names=three", "--device", "cpu", "--bootstrap", "0")


def test_labels_find_their_outputs_by_name(place: Path, medcli: RunCli) -> None:
    code, out, err = run(
        medcli, "evaluate", "quarters", *ARGUMENTS, "--data", "table.csv", "--json", "--save-predictions", "p.npz"
    )
    assert code == 0, err
    predictions = load_predictions(place / "p.npz")
    assert predictions.target.task == "multilabel"
    assert predictions.target.class_names == ("MASS", "pleural thickening", "hernia")
    assert np.allclose(predictions.logits, by_hand(place, [0, 2, 3]), atol=1e-5)
    assert predictions.labels[:, 2].tolist() == [number % 2 for number in range(12)]
    (found,) = json.loads(out)["result"]["evaluations"]
    assert found["target"]["class_names"] == ["MASS", "pleural thickening", "hernia"]


def test_outputs_without_a_label_are_named(place: Path, medcli: RunCli) -> None:
    (place / "one.csv").write_text("file,Hernia\n" + "".join(f"{n}.png,{n % 2}\n" for n in range(12)))
    code, _, err = run(medcli, "evaluate", "quarters", *ARGUMENTS, "--data", "one.csv", "--save-predictions", "p.npz")
    assert code == 0, err
    assert "not judged, because it has no such label: Mass, Pleural_Thickening" in err
    assert np.allclose(load_predictions(place / "p.npz").logits, by_hand(place, [3]), atol=1e-5)


def test_labels_in_one_column(place: Path, medcli: RunCli) -> None:
    cells = ["Mass|Hernia", "No Finding", "Pleural_Thickening"]
    (place / "tokens.csv").write_text("file,found\n" + "".join(f"{n}.png,{cells[n % 3]}\n" for n in range(12)))
    words = ["--data", "tokens.csv", "--label-column", "found", "--ignore-class", "No Finding"]
    code, _, err = run(medcli, "evaluate", "quarters", *ARGUMENTS, *words, "--save-predictions", "p.npz")
    assert code == 0, err
    assert load_predictions(place / "p.npz").labels[:3].tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_the_user_may_name_the_outputs(place: Path, medcli: RunCli) -> None:
    (place / "classes.csv").write_text("file,kind\n" + "".join(f"{n}.png,{'abcd'[n % 4]}\n" for n in range(12)))
    words = ["--weights", "w.safetensors", "--class-names", "a,b,c,d", "--data", "classes.csv", "--task", "multiclass"]
    code, _, err = run(medcli, "evaluate", "quarters", *words, "--bootstrap", "0", "--save-predictions", "p.npz")
    assert code == 0, err
    predictions = load_predictions(place / "p.npz")
    assert predictions.target.task == "multiclass"
    assert np.allclose(predictions.logits, by_hand(place, [0, 1, 2, 3]), atol=1e-5)


def test_predict(place: Path, medcli: RunCli) -> None:
    code, out, err = run(medcli, "predict", "quarters", "0.png", "5.png", *ARGUMENTS[:6])
    assert code == 0, err
    header, first, second = out.splitlines()
    assert header.startswith("image,score_Mass,score_Pleural_Thickening,score_Hernia")
    expected = 1 / (1 + np.exp(-by_hand(place, [0, 2, 3])))
    for line, row in ((first, 0), (second, 5)):
        assert np.allclose([float(cell) for cell in line.split(",")[1:4]], expected[row], atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "table.csv"], "without weights it is random"),
        (["--weights", "w.safetensors"], "no data was named to judge it by"),
        (["--weights", "bare.safetensors", "--data", "table.csv"], "bring no classifier, only a backbone"),
        (["--weights", "w.safetensors", "--data", "table.csv"], "do not say what each of them means"),
        (["--weights", "absent.safetensors", "--data", "table.csv"], "there is no weight file"),
        ([*ARGUMENTS[:4], "--data", "table.csv", "--label-column", "hernia,age"], "`age` is none of its outputs"),
        ([*ARGUMENTS[:4], "--data", "table.csv", "--class-names", "a,b,c,d"], "the outputs of these weights are"),
        (
            ["--weights", "w.safetensors", "--class-names", "a,b", "--data", "table.csv"],
            "2 class names for a classifier",
        ),
        ([*ARGUMENTS[:4], "--data", "table.csv", "--prob-columns", "p*"], "reads another tool's table"),
        ([*ARGUMENTS[:4], "--data", "other.csv"], "has a column for none of them"),
    ],
)
def test_what_cannot_be_judged_is_said(place: Path, medcli: RunCli, words: list[str], message: str) -> None:
    (place / "other.csv").write_text("file,age\n0.png,3\n")
    before = sorted(path.name for path in place.iterdir())
    code, out, err = run(medcli, "evaluate", "quarters", *words)
    assert code == 2
    assert message in " ".join(err.split())
    assert not out
    assert sorted(path.name for path in place.iterdir()) == before


def test_an_unknown_name_gets_the_nearest(medcli: RunCli) -> None:
    code, _, err = run(medcli, "evaluate", "resnet81")
    assert code == 2
    assert "no architecture of that name" in err
    assert "`resnet18`" in err


def test_a_run_keeps_its_own_ways(medcli: RunCli, small_run) -> None:
    for flag in (["--weights", "w.pt"], ["--image-size", "8"], ["--arch-opt", "a=b"], ["--ten-crop"]):
        code, _, err = run(medcli, "evaluate", small_run.run.path, *flag)
        assert code == 2, flag
        assert flag[0] in err
