"""`medcli features` as a user types it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.testing.command import RunCli, forget_user_settings


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("features")
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for number in range(6):
            path = root / f"set/{split}/{'ab'[number % 2]}/{split}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 200, (20, 20), dtype=np.uint8)).save(path)
    small = ("--image-size", "16", "--epochs", "1", "--batch-size", "4", "--workers", "0", "--device", "cpu")
    with pytest.MonkeyPatch.context() as patch:
        forget_user_settings(patch, root)
        done = RunCli(root)("train", "echo", "--data", "set", *small, "--out", "run", in_process=True)
    assert done.code == 0, done.stderr
    return root


@pytest.fixture
def features(place: Path, run_cli: RunCli):
    return lambda *words: run_cli("features", *words, "--device", "cpu", cwd=place, in_process=True)


def test_a_run_looks_at_its_own_data(place, features, tmp_path):
    out = tmp_path / "own.npz"
    done = features("run", "--out", str(out), "--plot", "pca", "--neighbours", "set/val/b/val1.png", "--json")
    assert done.code == 0, done.stderr
    result = done.json()["result"]
    assert result["images"] == 18
    assert result["neighbours"][0]["id"] == "val/b/val1.png"
    assert result["neighbours"][0]["distance"] == pytest.approx(0, abs=1e-6)
    assert (tmp_path / "own-pca.png").is_file()
    assert (tmp_path / "own-neighbours.png").is_file()
    with np.load(out, allow_pickle=False) as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    assert sorted(set(kept["splits"].tolist())) == ["test", "train", "val"]
    # By the network itself: features are what its head reads.
    import torch

    from medcli.data.decode import read_picture
    from medcli.data.resize import normalise, to_tensor
    from medcli.models.build import load_model

    loaded = load_model(place / "run/model.safetensors")
    row = kept["ids"].tolist().index("test/a/test0.png")
    picture = to_tensor(read_picture(place / "set/test/a/test0.png"), loaded.preprocessing)[None]
    with torch.no_grad():
        own = loaded.classifier.features(normalise(picture, loaded.preprocessing))[0].numpy()
    assert np.allclose(kept["features"][row], own, atol=1e-5)


def test_an_architecture_needs_weights_or_says_that_it_has_none(features, tmp_path):
    bare = ("echo", "--data", "set", "--image-size", "16", "--workers", "0")
    refused = features(*bare)
    assert refused.code == 2
    assert "--random-weights" in refused.stderr
    out = tmp_path / "f.csv"
    done = features(*bare, "--weights", "half", "--out", str(out))
    assert done.code == 0, done.stderr
    assert out.read_text().startswith("id,split,label,f0,")
    picture = tmp_path / "alike.png"
    again = features(*bare, "--random-weights", "--neighbours", "set/val/b/val1.png", "--out", str(picture))
    assert again.code == 0, again.stderr
    assert picture.is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--out", "f.txt"), "ends in neither .npz nor .csv"),
        (("run", "--out", "f.png"), "is one picture, and 0 are asked for"),
        (("run", "--image-size", "32"), "belongs to an architecture"),
        (("run", "--target", "a"), "chooses what colours a plot"),
        (("run", "--neighbours", "missing.png"), "does not exist"),
        (("run", "--neighbours", "set"), "holds 18 images"),
        (("echo",), "no data was named"),
        (("resnet19", "--data", "set"), "resnet18"),
        (("echo", "--data", "set", "--random-weights", "--weights", "half"), "exclude each other"),
    ],
)
def test_refusals(place, features, words, said):
    before = {path for path in place.rglob("*") if path.is_file()}
    done = features(*words)
    assert done.code == 2, done.stdout
    assert said in done.stderr
    assert {path for path in place.rglob("*") if path.is_file()} == before
