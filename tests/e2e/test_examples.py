"""Every example of every help page is run, in a folder that holds small stand-ins for the files it names."""

from __future__ import annotations

import gzip
import json
import shlex
import shutil
import signal
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medcli.cli.app import ABOUT, COMMAND_TABLE, GROUPS
from medcli.cli.help import describe
from medcli.testing.command import RunCli, forget_user_settings
from medcli.testing.hub import FakeHub

SMALL = "--limit 8 --epochs 1 --image-size 32 --batch-size 4 --workers 0"
MEASURED = "--image-size 32 --seconds 0.05 --batch-sizes 1"
FEW = "--limit 3 --epochs 1 --image-size 32 --batch-size 3 --workers 0"
TINY_MASK = f"{FEW} --arch-opt encoder=test_resnet"
JUDGED = "--register none --workers 1 --bootstrap 20"
UNALIGNED = f"{FEW} --register none"
TINY_MAP = f"{TINY_MASK} --register none"
AS_WRITTEN = ""
# What is added to an example that would take long as it stands. Whatever trains or draws has to be listed here, so that
# nobody adds hours by adding an example; everything else runs as written.
CHEAPER = {
    "medcli plugins doctor": "medcli-echo",
    "medcli train resnet18 --data synthetic/chest --limit 200 --image-size 64 --epochs 2": SMALL,
    "medcli train resnet18 --data synthetic/chest --image-size 64 --epochs 5": SMALL,
    "medcli train resnet18 --data breastmnist.npz --preset medmnist-28": SMALL,
    "medcli train resnet50 --data breastmnist.npz": SMALL,
    r"medcli train densenet121 --data xrays/ --patient-pattern '(person\d+)_' --weights densenet121.safetensors": SMALL,
    "medcli train resnet50 --data aptos/train.csv --image-dir aptos/images --image-column id_code "
    "--label-column diagnosis --task ordinal": SMALL,
    "medcli train resnet18 --data breastmnist.npz --augment modality --modality ultrasound --sampler balanced": SMALL,
    "medcli train --resume runs/20261121T101500Z-train-resnet18-1a2b": AS_WRITTEN,
    "medcli finetune resnet18 --strategy lp-ft --data breastmnist.npz": SMALL,
    "medcli finetune deit_tiny_patch16_224 --strategy layerwise --layer-decay 0.65 --weights deit.safetensors "
    "--data aptos/train.csv --image-dir aptos/images --image-column id_code --label-column diagnosis": SMALL,
    "medcli finetune resnet18 --strategy gradual --unfreeze-at 1,10,20 --epochs 30 --data xrays/": f"{SMALL} "
    "--epochs 21",
    "medcli finetune runs/NAME --strategy frozen --data breastmnist.npz": "--limit 8 --epochs 1 --workers 0",
    "medcli finetune --resume runs/20261121T101500Z-train-resnet18-1a2b": AS_WRITTEN,
    "medcli lora deit_tiny_patch16_224 --weights deit.safetensors --targets attn --data xrays/": SMALL,
    "medcli lora deit_tiny_patch16_224 --weights deit.safetensors --preset dr-lora --data aptos/train.csv "
    "--image-dir aptos/images --image-column id_code --label-column diagnosis": SMALL,
    "medcli lora resnet18 --rank 4 --variant dora --data breastmnist.npz": SMALL,
    "medcli lora runs/NAME --data breastmnist.npz": "--limit 8 --epochs 1 --workers 0",
    "medcli lora --resume runs/20261121T101500Z-train-resnet18-1a2b": AS_WRITTEN,
    "medcli evaluate densenet121 --weights densenet121.safetensors --class-names NORMAL,PNEUMONIA --task binary "
    "--data xrays/ --ten-crop": "--image-size 32 --limit 4",
    "medcli search resnet18 --data breastmnist.npz --trials 30 --epochs 20": f"{SMALL} --trials 1",
    "medcli search resnet18 --strategy layerwise --data xrays/ --pruner hyperband --timeout 7200": f"{SMALL} "
    "--trials 1",
    "medcli search resnet18 --data breastmnist.npz --space space.toml --dry-run": AS_WRITTEN,
    "medcli search resnet18 --data breastmnist.npz --storage study.log --trials 100": f"{SMALL} --trials 1",
    "medcli search --resume runs/20261121T101500Z-search-resnet18-1a2b --trials 60": "--trials 2",
    "medcli benchmark --all --list": AS_WRITTEN,
    "medcli benchmark --all --batch-sizes 1": f"--filter custom1 {MEASURED}",
    # What each of these does is tried in tests/benchmark; here they would measure network after network.
    "medcli benchmark resnet18 mobilenet --batch-sizes 1,8,32 --runtime onnx": "--list",
    "medcli benchmark --filter 'timm/resnet*' --memory-limit 8 --time-limit 300": "--list",
    "medcli benchmark resnet18 densenet121 --data breastmnist.npz --epochs 5 --image-size 64": "--list",
    "medcli benchmark --all --data breastmnist.npz --strategy frozen --image-size 64": "--list",
    "medcli benchmark runs/NAME --batch-sizes 1,32": "--seconds 0.05",
    "medcli benchmark custom1 --compare-to baseline/results.json --max-slowdown 0.2": f"{MEASURED} --max-slowdown 99",
    "medcli benchmark --resume runs/20261121T101500Z-benchmark-custom1-1a2b --time-limit 1200": AS_WRITTEN,
    "medcli report runs/NAME": "--bootstrap 20",
    "medcli report runs/NAME --format html,md --checklist claim --out study": "--bootstrap 20",
    "medcli ensemble resnet18 --members 5 --data breastmnist.npz --preset medmnist-28": f"{SMALL} --members 2",
    "medcli ensemble resnet18 densenet121 --members 4 --data xrays/ --out committee": f"{SMALL} --members 2",
    "medcli ensemble deit_tiny_patch16_224 --weights deit.safetensors --share-backbone --members 10 --data xrays/": (
        f"{SMALL} --members 2"
    ),
    "medcli ensemble runs/A runs/B --weights-by val": AS_WRITTEN,
    "medcli ensemble predictions.npz other.npz --out pooled": AS_WRITTEN,
    "medcli ensemble --resume runs/20261121T101500Z-ensemble-resnet18-1a2b": AS_WRITTEN,
    "medcli data synth --images 200 --size 64 --out phantoms": AS_WRITTEN,
    "medcli data synth synthetic/chest --task multilabel --seed 7 --out phantoms-multilabel": "--images 20",
    "medcli data synth synthetic/chest-pairs --pairs 50 --size 128 --out pairs": (
        "--pairs 3 --size 32 --overwrite --yes"
    ),
    "medcli diffmap train --data synthetic/chest-pairs --limit 60 --image-size 64 --epochs 5": TINY_MAP,
    "medcli diffmap train --data pairs/ --arch-opt encoder=resnet50 --image-size 256 --scheduler onecycle": UNALIGNED,
    "medcli diffmap train --data pairs/ --gradient-weight 1 --ssim-weight 0.5 --adversarial --accumulate 4": TINY_MAP,
    "medcli diffmap train --data pairs/ --encoder-from "
    "runs/20261121T101500Z-diffmap-pretrain-siamese-unet-1a2b": TINY_MAP,
    "medcli diffmap train --resume runs/20261121T101500Z-diffmap-train-siamese-unet-1a2b": AS_WRITTEN,
    "medcli diffmap pretrain --data synthetic/chest --limit 100 --image-size 64 --epochs 5": TINY_MASK,
    "medcli diffmap pretrain --data xrays/ --image-size 256 --mask-mode checkerboard --mask-patches 8": TINY_MASK,
    "medcli diffmap pretrain --data xrays/ --arch-opt encoder=resnet50 --adversarial --fourier-weight 0.3": FEW,
    "medcli diffmap evaluate runs/20261121T101500Z-diffmap-train-siamese-unet-1a2b --data pairs/": JUDGED,
    "medcli diffmap evaluate runs/20261121T101500Z-diffmap-train-siamese-unet-1a2b --data pairs/ --figure curves.png "
    "--save-maps found --min-auprc 0.01": JUDGED,
    "medcli diffmap evaluate maps/ --data pairs/ --threshold 0.05 --readers readers/": JUDGED,
    "medcli diffmap predict baseline.png followup.png --out change": "--image-size 64",
    "medcli diffmap predict baseline.png followup.png --format nifti,json --threshold 0.3 --out change-nifti": (
        "--image-size 64"
    ),
    # Films of 32 pixels, which hardly show enough to be laid over each other.
    "medcli diffmap predict --run runs/20261121T101500Z-diffmap-train-siamese-unet-1a2b --data pairs/ --out changes": (
        "--format json --allow-mismatch"
    ),
    "medcli diffmap synth --pairs 200 --out pairs": "--pairs 3 --image-size 32 --overwrite --yes",
    "medcli diffmap synth --pairs 500 --source chest-xrays/ --patient-pattern '^([0-9]+)_' --out painted-pairs": (
        "--pairs 1 --image-size 64"
    ),
    "medcli diffmap synth --pairs 100 --nuisance 2 --nuisance-only 0.5 --seed 7 --format nifti --out hard-pairs": (
        "--pairs 3 --image-size 32"
    ),
    "medcli diffmap synth --pairs 700 --nuisance 0.5,2 --nuisance-only 0.4 --out mixed-pairs": (
        "--pairs 3 --image-size 32"
    ),
}
# What has to be done before an example that builds on another.
AFTER = {
    **dict.fromkeys(
        (
            "medcli finetune resnet18 --strategy lp-ft --data breastmnist.npz",
            "medcli finetune resnet18 --strategy gradual --unfreeze-at 1,10,20 --epochs 30 --data xrays/",
            "medcli lora resnet18 --rank 4 --variant dora --data breastmnist.npz",
        ),
        "medcli models fetch resnet18",
    ),
    "medcli models verify resnet18 --weights in1k --json": "medcli models fetch resnet18",
    "medcli predict bundles/NAME-onnx images/": "medcli export runs/NAME",
    "medcli evaluate bundles/NAME-onnx --data siteC/ --operating-point sens=0.95": "medcli export runs/NAME",
    "medcli search resnet18 --strategy layerwise --data xrays/ --pruner hyperband --timeout 7200": (
        "medcli models fetch resnet18"
    ),
}
TRAINING = (
    "train",
    "finetune",
    "lora",
    "search",
    "ensemble",
    "benchmark",
    "data synth",
    "diffmap train",
    "diffmap pretrain",
)
COSTLY = tuple(f"medcli {name} " for name in TRAINING)


def examples() -> list[str]:
    found = [*ABOUT.examples]
    for group in GROUPS.values():
        found += group.examples
    for place in COMMAND_TABLE.values():
        module, _, function = place.reference.partition(":")
        found += describe(getattr(import_module(module), function).__doc__).examples
    return list(dict.fromkeys(found))


EXAMPLES = examples()


def picture(path: Path, seed: int, label: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(20, 180, (32, 32), dtype=np.uint8)
    pixels[8:24, 8:24] += np.uint8(15 * label)
    Image.fromarray(pixels).save(path)


def table(path: Path, header: str, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")


def draw_folders(root: Path) -> None:
    """Class folders: two films of each of ten patients a class in `xrays/`, other people in `chest/` and `siteC/`."""
    for label, name in enumerate(("NORMAL", "PNEUMONIA")):
        for number in range(20):
            picture(root / f"xrays/{name}/person{10 * label + number // 2}_{number}.png", 100 * label + number, label)
            picture(root / f"chest/{name}/person{100 * label + number}_1.png", 500 + 100 * label + number, label)
        for number in range(4):
            picture(root / f"siteC/{name}/{number}.png", 900 + 10 * label + number, label)
    picture(root / "chest/NORMAL/IM-0001-0001.png", 499)
    for number in range(3):
        picture(root / f"images/{number}.png", 950 + number)
    picture(root / "a.png", 960)
    picture(root / "b.png", 961)


def draw_tables(root: Path) -> None:
    for number in range(12):
        picture(root / f"siteB/{number}.png", 700 + number, number % 2)
        picture(root / f"graded/{number}.png", 720 + number, number % 3)
    sick = ("NORMAL", "PNEUMONIA")
    table(root / "siteB.csv", "image,label", [f"siteB/{n}.png,{sick[n % 2]}" for n in range(12)])
    table(root / "labels.csv", "image,grade,patient", [f"graded/{n}.png,{n % 3},p{n}" for n in range(12)])
    table(root / "drop.csv", "data,id,split,file,reason", [])
    for number in range(50):
        picture(root / f"aptos/images/{number:06x}.png", 800 + number, number % 5)
    table(root / "aptos/train.csv", "id_code,diagnosis", [f"{n:06x},{n % 5}" for n in range(50)])


def draw_archive(path: Path) -> None:
    random = np.random.default_rng(3)
    arrays: dict[str, Any] = {}
    for split, count in (("train", 24), ("val", 12), ("test", 12)):
        arrays[f"{split}_images"] = random.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    np.savez(path, **arrays)


def write_chests(root: Path) -> None:
    """Six films that a phantom can be fitted to, since they are phantoms."""
    from medcli.data.synthetic.source import PhantomImages, draw_cases

    images = PhantomImages(draw_cases(30, 5, task="multiclass"), 5, 128)
    first = np.unique(images.cases.patient, return_index=True)[1][:6]
    (root / "chest-xrays").mkdir()
    for index in first.tolist():
        Image.fromarray(images.read(index).pixels).save(root / f"chest-xrays/{index:04d}_0.png")


def write_pair(root: Path) -> None:
    """A patient twice."""
    from medcli.diffmap.pairs import Drawn
    from medcli.diffmap.phantom import draw_phantom_pair

    pair = draw_phantom_pair(Drawn(1, 3, 96))
    for name, film in (("baseline", pair.prior), ("followup", pair.current)):
        Image.fromarray(np.rint(film * 255).astype(np.uint8)).save(root / f"{name}.png")


def write_predictions(root: Path) -> None:
    """Good and calibrated ones, so that they keep the limits of the example, and those of another tool."""
    from medcli.data.target import Target
    from medcli.evaluation.predictions import Predictions, save_predictions

    labels = np.arange(200) % 2
    logits = np.where(labels[:, None] == np.arange(2), 4.0, -4.0).astype(np.float32)
    ids = np.array([f"case{n}" for n in range(200)])
    save_predictions(
        root / "predictions.npz", Predictions(ids, labels, logits, Target("binary", ("no", "yes")), split="test")
    )
    random = np.random.default_rng(5)
    other = (logits + random.normal(size=logits.shape)).astype(np.float32)
    save_predictions(root / "other.npz", Predictions(ids, labels, other, Target("binary", ("no", "yes")), split="test"))
    for split in ("val", "test"):
        drawn = random.normal(size=(200, 2))
        truth = (random.random(200) < 1 / (1 + np.exp(drawn[:, 0] - drawn[:, 1]))).astype(np.int64)
        names = np.array([f"{split}{n}" for n in range(200)])
        save_predictions(
            root / f"{split}.npz", Predictions(names, truth, drawn, Target("binary", ("no", "yes")), split=split)
        )
    rows = ["Image Index,Patient ID,Patient Gender,Effusion,Mass,prob_Effusion,prob_Mass"]
    for number in range(60):
        first, second = random.random(2)
        labels_of_it = f"{number % 2},{number % 3 == 0:d}"
        rows.append(f"{number}.png,{number // 2},{'FM'[number // 2 % 2]},{labels_of_it},{first:.4f},{second:.4f}")
    (root / "chexnet.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))


def write_scans(root: Path) -> None:
    import nibabel
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    pixels = np.random.default_rng(9).integers(0, 4000, (48, 40)).astype(np.uint16)
    scan = Dataset()
    scan.file_meta = FileMetaDataset()
    scan.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    scan.file_meta.MediaStorageSOPClassUID = scan.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    scan.file_meta.MediaStorageSOPInstanceUID = scan.SOPInstanceUID = generate_uid(entropy_srcs=["example"])
    scan.Modality, scan.PhotometricInterpretation = "CR", "MONOCHROME2"
    scan.Rows, scan.Columns = pixels.shape
    scan.SamplesPerPixel, scan.PixelRepresentation = 1, 0
    scan.BitsAllocated, scan.BitsStored, scan.HighBit = 16, 12, 11
    scan.PixelData = pixels.tobytes()
    scan.save_as(root / "scan.dcm", enforce_file_format=True)
    image = nibabel.Nifti1Image(pixels[:, :, None].astype(np.int16), np.eye(4))
    nibabel.save(image, root / "slice.nii.gz")


def write_weights(root: Path) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    for name, file in (("densenet121", "densenet121.safetensors"), ("deit_tiny_patch16_224", "deit.safetensors")):
        torch.manual_seed(0)
        network = timm.create_model(name, num_classes=2)
        save_file({key: tensor.half() for key, tensor in network.state_dict().items()}, root / file)


def publish(hub: FakeHub) -> None:
    """What the examples fetch, in the repositories that the cards name."""
    import timm
    import torch
    from safetensors.torch import save

    torch.manual_seed(0)
    # timm's random branches begin at zero, where nothing inside them would learn; published ones do not.
    weights = save(timm.create_model("resnet18", zero_init_last=False).state_dict())
    for repository in ("resnet18.a1_in1k", "vit_base_patch16_224.dino", "resnet26d.bt_in1k"):
        hub.put(f"timm/{repository}", "model.safetensors", weights)


def swell(folder: Path) -> None:
    """Repeat the stored predictions of a tiny run, with some noise, until there are enough to calibrate on."""
    from dataclasses import replace

    from medcli.evaluation.predictions import load_predictions, save_predictions

    random = np.random.default_rng(6)
    for split in ("val", "test"):
        one = load_predictions(folder / f"{split}.npz")
        rows = np.arange(60) % len(one)
        logits = one.logits[rows] + random.normal(size=(60, 2)).astype(np.float32)
        ids = np.array([f"{one.ids[row]}-{n}" for n, row in enumerate(rows)])
        patients = None if one.patients is None else np.array([f"{split}{n}" for n in range(60)])
        save_predictions(
            folder / f"{split}.npz",
            replace(one, ids=ids, labels=one.labels[rows], logits=logits, patients=patients, features=None),
        )


def train_runs(root: Path) -> None:
    """Three finished runs on `xrays/`, one of them twice, one that was stopped after its first epoch, and a search."""
    from medcli.training import loop

    cli = RunCli(root)

    def train(out: str, code: int, *more: str) -> None:
        words = ("train", "timm/test_resnet", "--data", "xrays/", "--patient-pattern", r"(person\d+)_", *more)
        small = ("--image-size", "32", "--batch-size", "8", "--workers", "0", "--dropout", "0.2", "--out", out)
        done = cli(*words, *small, in_process=True)
        assert done.code == code, done.stderr

    for seed, name in enumerate("ABC"):
        train(f"runs/{name}", 0, "--epochs", "1", "--seed", str(seed))
    for name in ("APTOS", "MESSIDOR"):
        words = ("lora", "timm/test_vit", "--random-weights", "--data", "xrays/", "--out", f"runs/{name}")
        done = cli(*words, "--image-size", "32", "--epochs", "1", "--workers", "0", "--limit", "8", in_process=True)
        assert done.code == 0, done.stderr
    shutil.copytree(root / "runs/A", root / "runs/NAME")
    swell(root / "runs/NAME/predictions")
    shutil.copytree(root / "runs/A", root / "experiments/runs/first")
    original = loop.learn_epoch

    def stop_in_the_second(parts: Any, position: Any, interruption: Any, watch: Any) -> Any:
        if position.epoch == 1:
            interruption.signal = signal.SIGINT
        return original(parts, position, interruption, watch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "learn_epoch", stop_in_the_second)
        train("runs/20261121T101500Z-train-resnet18-1a2b", 130, "--epochs", "2")
    small = ("--image-size", "32", "--workers", "0", "--limit", "8", "--epochs", "1", "--trials", "1")
    several = ("--members", "2", "--out", "runs/20261121T101500Z-ensemble-resnet18-1a2b")
    tiny = ("--image-size", "32", "--workers", "0", "--limit", "8", "--epochs", "1")
    done = cli("ensemble", "timm/test_resnet", "--data", "xrays/", *tiny, *several, in_process=True)
    assert done.code == 0, done.stderr
    found = ("search", "timm/test_resnet", "--data", "xrays/", "--out", "runs/20261121T101500Z-search-resnet18-1a2b")
    done = cli(*found, *small, in_process=True)
    assert done.code == 0, done.stderr
    done = cli("benchmark", "custom1", *MEASURED.split(), "--out", "baseline", in_process=True)
    assert done.code == 0, done.stderr
    shutil.copytree(root / "baseline", root / "runs/20261121T101500Z-benchmark-custom1-1a2b")


def train_maps(root: Path) -> None:
    """Pairs, an encoder that was pretrained, and a difference model on some of them."""
    cli, stamp = RunCli(root), "runs/20261121T101500Z-diffmap"
    for words in (
        ("synth", "--pairs", "13", "--image-size", "32", "--out", "pairs"),
        (
            "pretrain",
            "--data",
            "synthetic/chest",
            *shlex.split(TINY_MASK),
            "--out",
            f"{stamp}-pretrain-siamese-unet-1a2b",
        ),
        ("train", "--data", "pairs/", *shlex.split(TINY_MAP), "--out", f"{stamp}-train-siamese-unet-1a2b"),
        (
            *("evaluate", f"{stamp}-train-siamese-unet-1a2b", "--data", "pairs/", "--save-maps", "maps"),
            *shlex.split(JUDGED),
        ),
    ):
        done = cli("diffmap", *words, in_process=True)
        assert done.code == 0, done.stderr
    pair = sorted(root.glob("maps/*/*.npy"))[0]
    reading = root / "readers" / pair.parent.name / pair.stem / "anna.json"
    reading.parent.mkdir(parents=True)
    mark = {"cx": 16, "cy": 12, "rx": 6, "ry": 4, "angle": 0, "label": "Appearance"}
    reading.write_text(json.dumps({"ellipses": [mark]}))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("files")
    draw_folders(root)
    draw_tables(root)
    draw_archive(root / "breastmnist.npz")
    write_predictions(root)
    write_scans(root)
    write_chests(root)
    write_pair(root)
    write_weights(root)
    (root / "space.toml").write_text("[space]\nlr = { low = 1e-5, high = 1e-2, log = true }\nbatch_size = [4, 8]\n")
    (root / "experiments").mkdir()
    (root / "experiments/swin.toml").write_text(
        'architecture = "swin_tiny_patch4_window7_224"\n\n[train]\nepochs = 3\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        forget_user_settings(patch, root)
        train_runs(root)
        train_maps(root)
    return root


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example: str, files: Path, run_cli: RunCli, fake_hub: FakeHub) -> None:
    if example.startswith(COSTLY):
        assert example in CHEAPER, f"say in CHEAPER how long `{example}` may take"
    shutil.copytree(files, run_cli.directory, dirs_exist_ok=True)
    command, _, _redirected = example.partition(" > ")
    program, *words = shlex.split(f"{command} {CHEAPER.get(example, AS_WRITTEN)}")
    assert program == "medcli"
    if words[:2] in (["models", "fetch"], ["models", "verify"]) or example in AFTER:
        publish(fake_hub)
    if example in AFTER:
        assert run_cli(*shlex.split(AFTER[example])[1:], in_process=True).code == 0
    done = run_cli(*words, in_process=True)
    assert done.code == 0, f"{example}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.strip(), example
    for flag, path in pairwise(words):
        # An example that names what it writes has written it.
        assert flag != "--out" or (run_cli.directory / path).exists()


def test_the_table_of_costly_examples_has_no_leftovers() -> None:
    assert set(CHEAPER) <= set(EXAMPLES)


def test_every_command_has_examples() -> None:
    for name in COMMAND_TABLE:
        assert any(f"{example} ".startswith(f"medcli {name} ") for example in EXAMPLES), name
