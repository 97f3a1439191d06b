"""2-D NIfTI: orientation by the header, ranges by the stated rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medcli.data.decode import UnreadableImage, explain, read_picture

nib = pytest.importorskip("nibabel")

# A picture as it should hang: rows down, columns to the right.
HUNG = np.arange(12, dtype=np.int16).reshape(3, 4)


def write(path: Path, array: np.ndarray, affine: np.ndarray | None = None, **header: float) -> Path:
    image = nib.Nifti1Image(array, affine)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


def test_without_orientation_the_first_axis_runs_along_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz", HUNG.T)
    np.testing.assert_array_equal(read_picture(path).pixels, HUNG)
    assert any("no orientation" in step for step in explain(path).steps)


@pytest.mark.parametrize(
    ("affine", "array"),
    [
        # Axis 0 to the patient's left, axis 1 to the back: as DICOM writes columns and rows.
        (np.diag([-1.0, -1.0, 1.0, 1.0]), HUNG.T),
        # Axis 0 to the right, axis 1 to the front.
        (np.diag([1.0, 1.0, 1.0, 1.0]), HUNG[::-1, ::-1].T),
        # Axes exchanged: axis 0 runs to the back, axis 1 to the left.
        (np.array([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), HUNG),
    ],
)
def test_orientation_is_honoured(tmp_path: Path, affine: np.ndarray, array: np.ndarray) -> None:
    np.testing.assert_array_equal(read_picture(write(tmp_path / "a.nii", array, affine)).pixels, HUNG)


def test_coronal_hangs_with_the_head_up(tmp_path: Path) -> None:
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])  # axis 0 to the left, axis 2 upwards
    array = HUNG[::-1].T[:, None, :]
    np.testing.assert_array_equal(read_picture(write(tmp_path / "a.nii.gz", array, affine)).pixels, HUNG)


def test_range_of_the_file_header_or_type(tmp_path: Path) -> None:
    floats = np.array([[-50.0, 0.0], [25.0, 150.0]], dtype=np.float32)
    picture = read_picture(write(tmp_path / "own.nii", floats))
    assert (picture.low, picture.high) == (-50, 150)
    picture = read_picture(write(tmp_path / "cal.nii", floats, cal_min=0, cal_max=100))
    assert (picture.low, picture.high) == (0, 100)
    assert picture.pixels.max() == 100
    picture = read_picture(write(tmp_path / "type.nii", np.array([[1, 2], [3, 4]], dtype=np.uint8)))
    assert (picture.low, picture.high) == (0, 255)
    picture = read_picture(tmp_path / "own.nii", "0,101")
    assert (picture.low, picture.high) == (0, 1)


def test_scaling_of_the_header_is_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.array([[0, 10], [20, 30]], dtype=np.int16), None)
    image.header.set_slope_inter(2.0, 5.0)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(np.sort(read_picture(tmp_path / "a.nii").pixels.ravel()), [5, 25, 45, 65])


def test_nan_is_black(tmp_path: Path) -> None:
    picture = read_picture(write(tmp_path / "a.nii", np.array([[np.nan, 1.0], [2.0, 3.0]], dtype=np.float32)))
    assert picture.pixels.min() == picture.low == 1


def test_colour(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    packed = np.ascontiguousarray(colours).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nib.save(nib.Nifti1Image(packed, None), tmp_path / "a.nii")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.nii").pixels, colours.swapaxes(0, 1))


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty"), (b"not a nifti" * 60, "NIfTI"), (b"\x1f\x8bxx", "compressed file ended")]
)
def test_broken_files(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason):
        read_picture(tmp_path / "a.nii.gz")


def test_volumes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="volume of 4×5×6"):
        read_picture(write(tmp_path / "a.nii", np.zeros((4, 5, 6), dtype=np.float32)))


def test_truncated(tmp_path: Path) -> None:
    data = write(tmp_path / "a.nii", np.ones((40, 40), dtype=np.float32)).read_bytes()
    (tmp_path / "a.nii").write_bytes(data[:-1000])
    with pytest.raises(UnreadableImage):
        read_picture(tmp_path / "a.nii")
