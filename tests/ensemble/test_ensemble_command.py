"""`medcli ensemble` as a user types it: trained, finished, joined, shared, and used by commands that take a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from medcli.evaluation.predictions import load_predictions
from medcli.evaluation.scores import softmax
from medcli.testing.command import Outcome, RunCli

ARCH = "timm/test_resnet"
SMALL = ("--image-size", "32", "--epochs", "1", "--augment", "none", "--workers", "0", "--device", "cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def write_archive(path: Path, *, count: int = 40, seed: int = 7) -> Path:
    random = np.random.default_rng(seed)
    arrays = {}
    for split, number in (("train", count), ("val", count // 2), ("test", count // 2)):
        images = random.integers(60, 180, (number, 32, 32), dtype=np.uint8)
        labels = np.arange(number) % 2
        images[labels == 1, :16, :16] += np.uint8(60)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels[:, None].astype(np.uint8)
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive and an ensemble of three that was trained on it."""
    folder = tmp_path_factory.mktemp("ensembles")
    write_archive(folder / "tiny.npz")
    words = ("--data", "tiny.npz", *SMALL, "--dropout", "0.5", "--members", "3", "--seed", "5", "--out", "three")
    done = RunCli(folder)("ensemble", ARCH, *words, in_process=True)
    assert done.code == 0, done.stderr
    return folder


def cli(place: Path, *words: object, code: int = 0) -> Outcome:
    done = RunCli(place)(*(str(word) for word in words), in_process=True)
    assert done.code == code, done.stdout + done.stderr
    return done


def said(done: Outcome) -> str:
    return " ".join(done.stderr.split())


def test_a_member_is_what_train_makes_with_its_seed(place: Path, tmp_path: Path) -> None:
    words = ("--data", "tiny.npz", *SMALL, "--dropout", "0.5", "--seed", "6", "--out", tmp_path / "alone")
    cli(place, "train", ARCH, *words)
    alone = load_predictions(tmp_path / "alone/predictions/test.npz")
    members = [load_predictions(place / f"three/members/0{number}/predictions/test.npz") for number in (1, 2, 3)]
    assert np.array_equal(alone.logits, members[1].logits)
    pooled = load_predictions(place / "three/predictions/test.npz")
    assert pooled.member_logits is not None
    for stored, member in zip(pooled.member_logits, members, strict=True):
        assert np.array_equal(stored, member.logits)
    mean = np.mean([softmax(member.logits) for member in members], axis=0)
    assert np.allclose(softmax(pooled.logits), mean, atol=1e-12)


def test_commands_that_take_a_run_take_it(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "three", tmp_path / "three")
    shutil.copy(place / "tiny.npz", tmp_path)
    shown = cli(tmp_path, "evaluate", "three", "--bootstrap", "20")
    assert "uncertainty by 3 members" in shown.stdout
    listed = cli(tmp_path, "runs", "list", ".", "--json").json()
    assert "three" in json.dumps(listed)
    detail = cli(tmp_path, "runs", "show", "three")
    assert "members       3 of 3" in detail.stdout
    assert "members/02" in detail.stdout
    assert cli(tmp_path, "runs", "compare", "three", place / "three/members/01").code == 0
    again = cli(tmp_path, "evaluate", "three", "--data", "tiny.npz", "--bootstrap", "0", "--save-predictions", "p.npz")
    assert "the run's own test, predicted again" in said(again)
    stored, found = load_predictions(tmp_path / "three/predictions/test.npz"), load_predictions(tmp_path / "p.npz")
    assert found.member_logits is not None
    assert np.allclose(found.member_logits, stored.member_logits, atol=1e-5)
    dropped = cli(tmp_path, "evaluate", "three", "--data", "tiny.npz", "--bootstrap", "0", "--mc-dropout", "4")
    assert "uncertainty by 12 members" in dropped.stdout
    cli(tmp_path, "calibrate", "three")
    kept = json.loads((tmp_path / "three/calibrator.json").read_text())
    assert kept["fitted_on"]["members"] == 3
    table = cli(tmp_path, "predict", "three", "tiny.npz", "--workers", "0", "--json").json()["result"]
    assert table["calibrated"]
    row = table["predictions"][0]
    assert {"uncertainty_total", "uncertainty_epistemic"} <= row.keys()
    refused = cli(tmp_path, "finetune", "three", "--strategy", "full", "--data", "tiny.npz", code=2)
    assert "is an ensemble" in said(refused)


def test_the_same_command_goes_on_where_it_was_stopped(place: Path, tmp_path: Path) -> None:
    """One member is lost, one failed: the same command makes both again, bit for bit, and leaves the third alone."""
    shutil.copytree(place / "three", tmp_path / "three")
    shutil.copy(place / "tiny.npz", tmp_path)
    run = tmp_path / "three"
    before = load_predictions(run / "predictions/test.npz")
    document = json.loads((run / "ensemble.json").read_text())
    document["members"][1] |= {"state": "waiting"}
    document["members"][2] |= {"state": "failed", "error": "no memory"}
    (run / "ensemble.json").write_text(json.dumps(document))
    shutil.rmtree(run / "members/02")
    (run / "predictions/test.npz").unlink()
    # The archive lies elsewhere in the copy, so this is the command of the original's config.
    done = cli(tmp_path, "ensemble", "--resume", "three")
    assert "member 1 of 3" not in done.stderr
    assert "member 2 of 3: timm/test_resnet, seed 6" in done.stderr
    after = load_predictions(run / "predictions/test.npz")
    assert np.array_equal(before.member_logits, after.member_logits)  # type: ignore[arg-type]
    more = cli(tmp_path, "ensemble", "--resume", "three", "--members", "4")
    assert "member 4 of 4: timm/test_resnet, seed 8" in more.stderr
    again = load_predictions(run / "predictions/test.npz")
    assert np.array_equal(again.member_logits[:3], after.member_logits)  # type: ignore[index]
    assert "has 4 members already" in said(cli(tmp_path, "ensemble", "--resume", "three", "--members", "3", code=2))
    assert "`--lr` was" in said(cli(tmp_path, "ensemble", "--resume", "three", "--lr", "1", code=2))


def test_typing_it_again_with_the_same_place_finishes_it(place: Path) -> None:
    words = ("--data", "tiny.npz", *SMALL, "--dropout", "0.5", "--members", "3", "--seed", "5", "--out", "three")
    done = cli(place, "ensemble", ARCH, *words)
    assert "begun by this very command" in said(done)
    assert "member 1 of 3" not in done.stderr
    other = cli(place, "ensemble", ARCH, *words, "--lr", "0.5", code=2)
    assert "is not empty" in said(other)


def test_a_failed_member_does_not_lose_the_others(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import medcli.ensemble.session as session

    conduct = session.conduct

    def failing(start, watch, **words):
        if start.plan.compute.seed == 1:
            raise RuntimeError("out of luck")
        return conduct(start, watch, **words)

    monkeypatch.setattr(session, "conduct", failing)
    words = ("--data", place / "tiny.npz", *SMALL, "--members", "3", "--out", "part")
    done = cli(tmp_path, "ensemble", ARCH, *words, code=3)
    assert "member 02 failed: RuntimeError: out of luck" in said(done)
    assert "mean of 2" in done.stdout
    assert load_predictions(tmp_path / "part/predictions/test.npz").member_logits.shape[0] == 2  # type: ignore[union-attr]
    assert "1 of 3 members failed" in cli(tmp_path, "runs", "show", "part").stdout


def test_nothing_is_pooled_where_all_but_one_fail(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import medcli.ensemble.session as session

    def failing(start, watch, **words):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(session, "conduct", failing)
    done = cli(tmp_path, "ensemble", ARCH, "--data", place / "tiny.npz", *SMALL, "--members", "2", "--out", "x", code=1)
    assert "an ensemble needs two" in said(done)
    assert "--resume x" in said(done)


def test_heads_share_one_backbone(place: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from medcli.models.timm_backbone import TimmBackbone

    torch.manual_seed(5)
    save_file(TimmBackbone("test_resnet", image_size=32).net.state_dict(), tmp_path / "net.safetensors")
    words = ("--data", place / "tiny.npz", *SMALL, "--weights", tmp_path / "net.safetensors", "--dropout", "0.2")
    done = cli(tmp_path, "ensemble", ARCH, *words, "--share-backbone", "--members", "3", "--out", "heads", "-v")
    assert done.stderr.count("features of 80 images computed") == 1
    assert said(done).count("features found in the cache: train, val, test") == 2
    held = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "heads/members").rglob("*.safetensors"))
    assert [path for path in held if "checkpoints" not in path] == [
        "heads/members/01/model.safetensors",
        "heads/members/02/head.safetensors",
        "heads/members/03/head.safetensors",
    ]
    cli(tmp_path, "evaluate", "heads", "--data", place / "tiny.npz", "--bootstrap", "0", "--save-predictions", "p.npz")
    stored, found = load_predictions(tmp_path / "heads/predictions/test.npz"), load_predictions(tmp_path / "p.npz")
    assert np.allclose(found.member_logits, stored.member_logits, atol=1e-5)  # type: ignore[arg-type]
    assert "changes it" in said(
        cli(tmp_path, "ensemble", ARCH, *words, "--share-backbone", "--strategy", "full", code=2)
    )


def test_runs_of_other_sizes_and_architectures_are_joined(place: Path, tmp_path: Path) -> None:
    data = ("--data", place / "tiny.npz")
    larger = [*SMALL]
    larger[larger.index("32")] = "40"
    cli(tmp_path, "train", "custom1", *data, *larger, "--mean", "0.2", "--std", "0.3", "--out", "other")
    done = cli(tmp_path, "ensemble", place / "three/members/01", "other", "--weights-by", "val", "--out", "pair")
    assert "mean of 2" in done.stdout
    cli(tmp_path, "evaluate", "pair", *data, "--bootstrap", "0", "--save-predictions", "p.npz")
    stored, found = load_predictions(tmp_path / "pair/predictions/test.npz"), load_predictions(tmp_path / "p.npz")
    assert np.allclose(found.member_logits, stored.member_logits, atol=1e-4)  # type: ignore[arg-type]
    assert np.allclose(softmax(found.logits), softmax(stored.logits), atol=1e-5)
    # A member that goes on learning is no longer what was joined.
    shutil.copy(place / "three/members/01/predictions/val.npz", tmp_path / "other/predictions/val.npz")
    stale = cli(tmp_path, "evaluate", "pair", *data, "--bootstrap", "0", code=2)
    assert "went on learning" in said(stale)
    shutil.rmtree(tmp_path / "other")
    assert "is not where it was" in said(cli(tmp_path, "predict", "pair", place / "tiny.npz", code=2))


def test_files_are_joined_without_a_network(place: Path, tmp_path: Path) -> None:
    files = [
        place / f"three/members/0{number}/predictions/{split}.npz" for split in ("val", "test") for number in (1, 2)
    ]
    done = cli(tmp_path, "ensemble", *files, "--out", "pooled")
    assert "mean of 2" in done.stdout
    assert cli(tmp_path, "calibrate", "pooled").code == 0
    assert "there is no model" in said(cli(tmp_path, "predict", "pooled", place / "tiny.npz", code=2))
    uneven = cli(tmp_path, "ensemble", *files[:3], "--out", "uneven", code=2)
    assert "2 of val, 1 of test" in said(uneven)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "neither architectures to train nor runs"),
        ((ARCH, "--data", "tiny.npz", "--members", "1"), "at least 2"),
        ((ARCH, "custom1", "resnet18", "--data", "tiny.npz", "--members", "2"), "shared out among 3 architectures"),
        ((ARCH, ARCH, "--data", "tiny.npz"), "named twice"),
        ((ARCH, "three", "--data", "tiny.npz"), "members are of one kind"),
        (("three", "three"), "named twice"),
        (("three",), "one member is no ensemble"),
        (("three", "three/members/01"), "is an ensemble itself"),
        (("three/members/01", "three/members/02", "--epochs", "3"), "members that exist are joined as they are"),
        ((ARCH, "--data", "tiny.npz", "--rank", "4"), "does nothing with `--strategy scratch`"),
        ((ARCH, "custom1", "--data", "tiny.npz", "--share-backbone"), "2 architectures are named"),
        (("--resume", "three/members/01"), "is no ensemble"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(place: Path, words: tuple[str, ...], message: str) -> None:
    before = sorted(path.name for path in place.iterdir())
    done = cli(place, "ensemble", *words, code=2)
    assert message in said(done)
    assert sorted(path.name for path in place.iterdir()) == before
