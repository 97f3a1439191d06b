"""Raster files against Pillow and numpy: depth, colour, orientation, and a reason for what cannot be read."""

from __future__ import annotations

import io
import pickle
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.data.decode import UnreadableImage, explain, image_suffix, parse_window, peek_channels, quiet, read_picture


def _ramp(height: int = 6, width: int = 8) -> np.ndarray:
    return np.arange(height * width, dtype=np.uint8).reshape(height, width) * 5


def _reason(path: Path) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read_picture(path)
    assert caught.value.path == str(path)
    return caught.value.reason


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_grey_8_bit_is_kept(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(_ramp()).save(path)
    picture = read_picture(path)
    assert picture.pixels.dtype == np.uint8
    assert (picture.low, picture.high) == (0, 255)
    np.testing.assert_array_equal(picture.pixels, _ramp())
    assert peek_channels(path) == 1


def test_colour_keeps_three_channels(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png").pixels, colours)
    assert peek_channels(tmp_path / "a.png") == 3


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    picture = read_picture(tmp_path / f"a.{suffix}")
    assert picture.pixels.dtype == np.uint16
    assert picture.high == 65535
    np.testing.assert_array_equal(picture.pixels, values)


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(_ramp() > 100).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png").pixels, np.where(_ramp() > 100, 255, 0))


def test_palette_is_looked_up_and_a_grey_one_stays_grey(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "colour.png")
    np.testing.assert_array_equal(
        read_picture(tmp_path / "colour.png").pixels,
        [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]],
    )
    image.putpalette([9, 9, 9, 70, 70, 70, 200, 200, 200])
    image.save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "grey.png").pixels, [[9, 70], [200, 70]])


def test_transparency_is_shown_over_black(tmp_path: Path) -> None:
    pixels = np.full((2, 2, 2), 200, dtype=np.uint8)
    pixels[0, 0, 1], pixels[:, 1, 1] = 0, 255
    pixels[1, 0, 1] = 255
    Image.fromarray(pixels, "LA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png").pixels, [[0, 200], [200, 200]])
    assert any("over black" in step for step in explain(tmp_path / "a.png").steps)


def test_cmyk_becomes_rgb_as_pillow_has_it(tmp_path: Path) -> None:
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    image.save(tmp_path / "a.jpg", quality=100)
    pixels = read_picture(tmp_path / "a.jpg").pixels
    assert pixels.shape == (8, 8, 3)
    with Image.open(tmp_path / "a.jpg") as again:
        np.testing.assert_array_equal(pixels, np.asarray(again.convert("RGB")))
    assert pixels[0, 0, 0] < 10  # full cyan holds no red
    assert pixels[0, 0, 1] > 245


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    image = Image.fromarray(_ramp(16, 24))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise for display
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png").pixels, np.rot90(_ramp(16, 24), -1))


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [([[0.0, 0.25], [0.5, 0.75]], 0.0, 1.0), ([[-100.0, 0.0], [50.0, 300.0]], -100.0, 300.0)],
)
def test_float_tiff_range(tmp_path: Path, values: list[list[float]], low: float, high: float) -> None:
    Image.fromarray(np.array(values, dtype=np.float32)).save(tmp_path / "a.tif")
    picture = read_picture(tmp_path / "a.tif")
    assert (picture.low, picture.high) == (low, high)
    np.testing.assert_array_equal(picture.pixels, np.array(values, dtype=np.float32))
    assert any("declares no range" in step for step in explain(tmp_path / "a.tif").steps)


def test_float_tiff_declared_range_wins(tmp_path: Path) -> None:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    tags = ImageFileDirectory_v2()
    tags.tagtype[340] = tags.tagtype[341] = 11
    tags[340], tags[341] = 0.0, 1000.0
    Image.fromarray(np.array([[0.0, 10.0], [20.0, 500.0]], dtype=np.float32)).save(tmp_path / "a.tif", tiffinfo=tags)
    picture = read_picture(tmp_path / "a.tif")
    assert (picture.low, picture.high) == (0.0, 1000.0)


def test_camera_previews_do_not_hide_the_picture(tmp_path: Path) -> None:
    first = Image.fromarray(np.full((8, 8, 3), 40, dtype=np.uint8))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[Image.new("RGB", (4, 4))])
    assert read_picture(tmp_path / "a.jpg").pixels.shape == (8, 8, 3)


def test_reduced_copies_in_a_tiff_are_passed_over(tmp_path: Path) -> None:
    full, small = Image.fromarray(_ramp(16, 16)), Image.fromarray(_ramp(8, 8))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    full.save(tmp_path / "a.tif", save_all=True, append_images=[small])
    assert read_picture(tmp_path / "a.tif").pixels.shape == (16, 16)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_several_frames_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("L", (32, 32), number * 100) for number in range(3)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    assert "3 frames" in _reason(tmp_path / f"a.{suffix}")


def test_a_single_frame_gif_is_a_picture(tmp_path: Path) -> None:
    Image.fromarray(_ramp()).save(tmp_path / "a.gif")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.gif").pixels, _ramp())


def test_zero_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert "empty" in _reason(tmp_path / "a.png")


def test_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<html>not found</html>")
    assert "not an image" in _reason(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"a.{suffix}")
    data = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(data[: len(data) // 2])
    assert _reason(tmp_path / f"a.{suffix}")


def test_broken_header_after_the_magic(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    assert _reason(tmp_path / "a.png")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert _reason(tmp_path / "none.png") == "no such file"
    assert "folder" in _reason(tmp_path)


def test_one_pixel_is_no_picture(tmp_path: Path) -> None:
    Image.new("L", (1, 1)).save(tmp_path / "a.png")
    assert "1×1" in _reason(tmp_path / "a.png")


def test_20000_pixels_wide_is_read(tmp_path: Path) -> None:
    Image.new("L", (20_000, 20)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").pixels.shape == (20, 20_000)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))
    (tmp_path / "a.png").write_bytes(data + chunk(b"IEND", b""))
    assert "20000×20000" in _reason(tmp_path / "a.png")


def test_the_suffix_does_not_decide(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(_ramp()).save(buffer, "PNG")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    np.testing.assert_array_equal(read_picture(tmp_path / "a.jpg").pixels, _ramp())


def test_unreadable_travels_between_processes() -> None:
    problem = pickle.loads(pickle.dumps(UnreadableImage("a.png", "broken")))
    assert (problem.path, problem.reason, str(problem)) == ("a.png", "broken", "a.png: broken")


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.PNG", ".png"), ("a.nii.gz", ".nii.gz"), ("a.b.tiff", ".tiff"), ("a.txt", ""), ("12", ""), (".png", "")],
)
def test_image_suffix(name: str, suffix: str) -> None:
    assert image_suffix(name) == suffix


def test_windows() -> None:
    assert parse_window("auto") == "auto"
    assert parse_window("40,400") == (40.0, 400.0)
    for wrong in ("40", "a,b", "40,0", "40,nan", "1,2,3"):
        with pytest.raises(ValueError, match=r"."):
            parse_window(wrong)


def test_quiet_restores_filters_when_threads_overlap() -> None:
    before = list(warnings.filters)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with quiet():
            inside.set()
            leave.wait()

    other = threading.Thread(target=hold)
    other.start()
    inside.wait()
    with quiet():
        warnings.warn("silenced", stacklevel=1)
    leave.set()
    other.join()
    assert list(warnings.filters) == before
