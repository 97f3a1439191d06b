"""The audit finds what was planted, and nothing in clean data."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from medcli.data.audit import Audit, audit, fix_rows, verify_readable
from medcli.data.dataset import Picture
from medcli.data.load import load_data
from medcli.data.perceptual import near_pairs, perceptual_hash
from medcli.settings.groups import DataSettings

Draw = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path, draw_image: Draw) -> Path:
    """60 different pictures of 60 patients in three splits and two classes."""
    number = 0
    for split, count in (("train", 15), ("val", 5), ("test", 10)):
        for name in ("a", "b"):
            for _ in range(count):
                draw_image(tmp_path / "set" / split / name / f"p{number}_x.png", seed=number, size=32)
                number += 1
    return tmp_path / "set"


def look(root: Path, near: bool = False) -> Audit:
    settings = DataSettings(data=(str(root),), patient_pattern="^(p[0-9]+)")
    return audit(load_data(settings, lenient=True)[0], near, workers=2)


def kinds(found: Audit) -> list[tuple[str, bool]]:
    return [(finding.kind, finding.leak) for finding in found.findings]


def test_clean_data_has_no_findings(root: Path) -> None:
    found = look(root, near=True)
    assert kinds(found) == []
    assert found.counts["train"] == {"a": 15, "b": 15}
    assert found.patients == {"train": 30, "val": 10, "test": 20}
    assert found.images == 60


def test_duplicates_across_splits_are_leaks_and_the_test_image_stays(root: Path) -> None:
    shutil.copy(root / "train/a/p0_x.png", root / "test/a/p900_x.png")
    found = look(root)
    assert kinds(found) == [("duplicate", True)]
    assert [row[1:3] for row in fix_rows([found])] == [("train/a/p0_x.png", "train")]


def test_duplicates_are_of_pixels_not_of_bytes(root: Path) -> None:
    with Image.open(root / "train/a/p0_x.png") as image:
        image.convert("RGB").save(root / "train/a/p901_x.bmp")
    found = look(root)
    assert kinds(found) == [("duplicate", False)]
    assert [row[1] for row in fix_rows([found])] == ["train/a/p901_x.bmp"]


def test_the_same_picture_with_two_labels(root: Path) -> None:
    shutil.copy(root / "train/a/p0_x.png", root / "train/b/p902_x.png")
    found = look(root)
    assert kinds(found) == [("conflicting-labels", False)]
    assert len(fix_rows([found])) == 2


def test_patients_in_several_splits(root: Path, draw_image: Draw) -> None:
    draw_image(root / "test/b/p3_again.png", seed=700, size=32)
    found = look(root)
    assert kinds(found) == [("patient-in-several-splits", True)]
    assert "1 in train, 1 in test" in found.findings[0].text
    assert [row[1] for row in fix_rows([found])] == ["train/a/p3_x.png"]


def test_near_duplicates_only_when_asked_for(root: Path) -> None:
    with Image.open(root / "train/a/p0_x.png") as image:
        image.resize((64, 64)).save(root / "val/a/p903_x.jpg", quality=90)
    assert kinds(look(root)) == []
    found = look(root, near=True)
    assert kinds(found) == [("near-duplicate", True)]
    assert {case.split for case in found.findings[0].cases} == {"train", "val"}


def test_unreadable_blank_and_nearly_blank(root: Path) -> None:
    (root / "train/a/p904_x.png").write_bytes(b"")
    Image.new("L", (32, 32), 7).save(root / "train/a/p905_x.png")
    Image.new("L", (32, 32), 7).save(root / "test/a/p906_x.png")
    nearly = np.full((32, 32), 7, dtype=np.uint8)
    nearly[0, 0] = 9
    Image.fromarray(nearly).save(root / "val/b/p907_x.png")
    found = look(root)
    assert sorted(kinds(found)) == [("blank", False), ("blank", False), ("nearly-blank", False), ("unreadable", False)]
    assert {row[4] for row in fix_rows([found])} == {"blank", "unreadable"}


def test_verify_lists_every_unreadable_file(root: Path) -> None:
    for name in ("train/a/p0_x.png", "train/b/p16_x.png", "test/a/p41_x.png"):
        (root / name).write_bytes((root / name).read_bytes()[:60])
    found = verify_readable(load_data(DataSettings(data=(str(root),)))[0], workers=2)
    assert {split: len(pairs) for split, pairs in found.items()} == {"train": 2, "test": 1}


def test_impossible_labels_and_rare_classes(tmp_path: Path, draw_image: Draw) -> None:
    rows = ["id,y"]
    for number in range(60):
        draw_image(tmp_path / f"{number}.png", seed=number)
        rows.append(f"{number},{'wrong' if number == 5 else 1 if number % 20 == 1 else 0}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    settings = DataSettings(data=(str(tmp_path / "t.csv"),), image_column=("id",))
    found = audit(load_data(settings, lenient=True)[0])
    assert {kind for kind, _ in kinds(found)} >= {"impossible-label", "rare-class"}
    assert [row[1] for row in fix_rows([found])] == ["5"]


def test_hash_ignores_size_depth_and_small_changes() -> None:
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (12, 12), dtype=np.uint8)).resize(
        (256, 256), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(image)
    plain = perceptual_hash(Picture(pixels, 0, 255))

    def apart(picture: Picture) -> int:
        return (plain ^ perceptual_hash(picture)).bit_count()

    assert apart(Picture(pixels.astype(np.uint16) * 257, 0, 65535)) == 0
    assert apart(Picture(np.stack([pixels] * 3, axis=-1), 0, 255)) <= 2
    assert apart(Picture(np.asarray(image.resize((100, 100))), 0, 255)) <= 4
    assert apart(Picture(np.asarray(image.filter(ImageFilter.GaussianBlur(1))), 0, 255)) <= 4
    assert apart(Picture(pixels[:, ::-1].copy(), 0, 255)) > 12


def test_pairs_agree_with_brute_force() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**63, 300, dtype=np.uint64)
    for position in range(0, 300, 3):
        flips = random.choice(64, random.integers(0, 8), replace=False)
        hashes[position] = hashes[(position + 1) % 300] ^ np.uint64(sum(1 << int(bit) for bit in flips))
    expected = [
        (i, j, bits)
        for i in range(300)
        for j in range(i + 1, 300)
        if (bits := int(hashes[i] ^ hashes[j]).bit_count()) <= 4
    ]
    assert near_pairs(hashes) == expected
    assert expected
