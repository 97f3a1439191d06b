"""DICOM against pydicom's own functions, hand-made files and real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_windowing
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, SecondaryCaptureImageStorage

from medcli.data.decode import UnreadableImage, explain, peek_channels, read_picture
from medcli.data.dicom import apply_window

STORED = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)


def write(path: Path, pixels: np.ndarray = STORED, *, bits: int = 12, **tags: Any) -> Path:
    """A small DICOM file; keywords of `tags` go into the header as they are."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.PatientName, dataset.PatientID = "Secret^Name", "secret-id"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def shown(path: Path, window: str = "auto") -> np.ndarray:
    """The picture in 0..1."""
    picture = read_picture(path, window)
    return (picture.pixels.astype(np.float64) - picture.low) / (picture.high - picture.low)


def _reason(path: Path, window: str = "auto") -> str:
    with pytest.raises(UnreadableImage) as caught:
        read_picture(path, window)
    assert "ecret" not in str(caught.value)
    return caught.value.reason


def test_depth_is_kept_and_the_range_is_the_declared_one(tmp_path: Path) -> None:
    picture = read_picture(write(tmp_path / "a.dcm"))
    assert picture.pixels.dtype == np.uint16
    assert (picture.low, picture.high) == (0, 4095)
    np.testing.assert_array_equal(picture.pixels, STORED)


def test_monochrome1_is_the_inverse_within_the_declared_range(tmp_path: Path) -> None:
    one = shown(write(tmp_path / "1.dcm", PhotometricInterpretation="MONOCHROME1"))
    two = shown(write(tmp_path / "2.dcm"))
    np.testing.assert_allclose(one, 1 - two, atol=1e-12)


def test_inverse_lut_shape_inverts_once(tmp_path: Path) -> None:
    plain = shown(write(tmp_path / "a.dcm"))
    inverse = shown(write(tmp_path / "b.dcm", PresentationLUTShape="INVERSE"))
    both = shown(write(tmp_path / "c.dcm", PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"))
    np.testing.assert_allclose(inverse, 1 - plain, atol=1e-12)
    np.testing.assert_allclose(both, inverse, atol=1e-12)


def test_rescale_moves_values_and_range_together(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", RescaleSlope="2", RescaleIntercept="-1000")
    picture = read_picture(path)
    assert (picture.low, picture.high) == (-1000, 7190)
    np.testing.assert_allclose(picture.pixels, apply_modality_lut(STORED, pydicom.dcmread(path)))


def test_a_negative_slope_keeps_black_below_white(tmp_path: Path) -> None:
    picture = read_picture(write(tmp_path / "a.dcm", RescaleSlope="-1", RescaleIntercept="0"))
    assert picture.low < picture.high
    assert shown(tmp_path / "a.dcm")[0, 0] == 1.0


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(2000, 1000), (100, 50), (4000, 1)])
def test_windows_agree_with_pydicom(tmp_path: Path, function: str, centre: int, width: int) -> None:
    tags = {"RescaleSlope": "1.5", "RescaleIntercept": "-20", "WindowCenter": str(centre), "WindowWidth": str(width)}
    path = write(tmp_path / "a.dcm", VOILUTFunction=function, **tags)
    header = pydicom.dcmread(path)
    with np.errstate(over="ignore"):
        reference = apply_windowing(apply_modality_lut(STORED, header), header)
    low, high = -20.0, 4095 * 1.5 - 20
    np.testing.assert_allclose(shown(path), (reference - low) / (high - low), atol=1e-6)


def test_window_comes_before_inversion(tmp_path: Path) -> None:
    tags = {"WindowCenter": "1000", "WindowWidth": "800"}
    two = shown(write(tmp_path / "2.dcm", **tags))
    one = shown(write(tmp_path / "1.dcm", PhotometricInterpretation="MONOCHROME1", **tags))
    np.testing.assert_allclose(one, 1 - two, atol=1e-6)
    assert one[0, 0] == 1.0


def test_full_and_given_windows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", WindowCenter=["500", "2000"], WindowWidth=["100", "300"])
    np.testing.assert_allclose(shown(path, "full"), STORED / 4095)
    np.testing.assert_allclose(shown(path, "2000,300"), apply_window(STORED, 2000, 300))
    np.testing.assert_allclose(shown(path), apply_window(STORED, 500, 100))
    assert any("the first of 2" in step for step in explain(path).steps)


def test_impossible_window_says_what_would_read_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", WindowCenter="500", WindowWidth="0")
    assert "--window full" in _reason(path)
    assert shown(path, "full").max() > 0


def test_voi_lut_goes_before_the_window(tmp_path: Path) -> None:
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 10]
    table = (1023 - np.arange(4096) // 4).astype(np.uint16)
    item.add_new("LUTData", "OW", table.tobytes())
    path = write(tmp_path / "a.dcm", VOILUTSequence=[item], WindowCenter="5", WindowWidth="5")
    picture = read_picture(path)
    assert picture.high == 1023
    np.testing.assert_array_equal(picture.pixels, table[STORED])


def test_modality_lut(tmp_path: Path) -> None:
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 16]
    item.ModalityLUTType = "US"
    table = (np.arange(4096) * 3).astype(np.uint16)
    item.add_new("LUTData", "OW", table.tobytes())
    picture = read_picture(write(tmp_path / "a.dcm", ModalityLUTSequence=[item]))
    np.testing.assert_array_equal(picture.pixels, table[STORED])
    assert picture.high == 65535


def test_signed_values(tmp_path: Path) -> None:
    signed = (STORED.astype(np.int32) - 2048).astype(np.int16)
    picture = read_picture(write(tmp_path / "a.dcm", signed))
    assert (picture.low, picture.high) == (-2048, 2047)
    np.testing.assert_array_equal(picture.pixels, signed)


def test_padding_is_black_after_inversion(tmp_path: Path) -> None:
    pixels = STORED.copy()
    pixels[:4] = 7
    path = write(tmp_path / "a.dcm", pixels, PixelPaddingValue=7, PhotometricInterpretation="MONOCHROME1")
    assert (shown(path)[:4] == 0).all()
    assert shown(path)[4:].max() > 0.5


def test_bits_above_those_stored_are_cut_off(tmp_path: Path) -> None:
    picture = read_picture(write(tmp_path / "a.dcm", STORED | np.uint16(0x8000)))
    np.testing.assert_array_equal(picture.pixels, STORED)


def test_colour(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    path = write(tmp_path / "a.dcm", colours, bits=8)
    np.testing.assert_array_equal(read_picture(path).pixels, colours)
    assert peek_channels(path) == 3
    assert peek_channels(write(tmp_path / "b.dcm")) == 1


def test_16_bit_png_is_the_twin(tmp_path: Path) -> None:
    from PIL import Image

    values = (STORED * 16).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    one, two = read_picture(tmp_path / "a.png"), read_picture(write(tmp_path / "a.dcm", values, bits=16))
    np.testing.assert_array_equal(one.pixels, two.pixels)
    assert (one.low, one.high) == (two.low, two.high)


def test_no_pixels(tmp_path: Path) -> None:
    header = pydicom.dcmread(write(tmp_path / "a.dcm"))
    del header.PixelData
    header.SOPClassUID = CTImageStorage
    header.save_as(tmp_path / "b.dcm")
    assert "no pixels" in _reason(tmp_path / "b.dcm")


def test_not_dicom(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"hello world, this is text" * 20)
    assert _reason(tmp_path / "a.dcm")


def test_several_frames(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", np.concatenate([STORED, STORED]), NumberOfFrames="2", Rows=16)
    assert "2 frames" in _reason(path)


def test_truncated_pixels(tmp_path: Path) -> None:
    data = write(tmp_path / "a.dcm").read_bytes()
    (tmp_path / "b.dcm").write_bytes(data[:-100])
    assert _reason(tmp_path / "b.dcm")


def test_missing_decoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders import JPEG2000LosslessDecoder

    header = pydicom.dcmread(write(tmp_path / "a.dcm"))
    header.file_meta.TransferSyntaxUID = JPEG2000Lossless
    header.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])
    header["PixelData"].VR = "OB"
    header.save_as(tmp_path / "b.dcm")
    monkeypatch.setattr(JPEG2000LosslessDecoder, "_available", {})
    reason = _reason(tmp_path / "b.dcm")
    assert "JPEG 2000" in reason
    assert "medcli[dicom]" in reason


def test_video_is_refused(tmp_path: Path) -> None:
    header = pydicom.dcmread(write(tmp_path / "a.dcm"))
    header.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    header.PixelData = pydicom.encaps.encapsulate([bytes(64)])
    header["PixelData"].VR = "OB"
    header.save_as(tmp_path / "b.dcm")
    assert "cannot be decoded" in _reason(tmp_path / "b.dcm")


def test_nothing_identifying_is_told(tmp_path: Path) -> None:
    explanation = explain(write(tmp_path / "a.dcm", PixelSpacing=["0.2", "0.2"], Modality="CR"))
    assert "ecret" not in repr(explanation.facts) + repr(explanation.steps)
    assert explanation.facts["identifying_tags"] == ["PatientName", "PatientID"]
    assert explanation.facts["PixelSpacing"] == [0.2, 0.2]


def test_a_file_without_preamble_is_read(tmp_path: Path) -> None:
    header = pydicom.dcmread(write(tmp_path / "a.dcm"))
    bare = Dataset()
    bare.update({element.tag: element for element in header})
    bare.save_as(tmp_path / "b.dcm", implicit_vr=True, little_endian=True)
    np.testing.assert_array_equal(read_picture(tmp_path / "b.dcm").pixels, STORED)


def test_real_twins(shared_data: Path) -> None:
    folder = shared_data / "data" / "dicom_cxr"
    one = read_picture(folder / "rsna_cxr_pa_monochrome1_jpegbaseline.dcm")
    two = read_picture(folder / "rsna_cxr_pa_monochrome2_jpegbaseline.dcm")
    np.testing.assert_array_equal(one.pixels, 255 - two.pixels)


def test_real_16_bit_chest(shared_data: Path) -> None:
    path = shared_data / "data" / "dicom_cxr" / "RG1_J2KI_chest_monochrome1_16bit_j2k.dcm"
    header = pydicom.dcmread(path)
    reference = apply_windowing(header.pixel_array, header) / (2**15 - 1)
    np.testing.assert_allclose(shown(path), 1 - reference, atol=1e-6)
    values = shown(path)
    # A chest hung for reading: lungs (the middle of each half) are darker than the abdomen below.
    assert values[700:1000, 400:700].mean() < values[1700:1850, 700:1100].mean()
