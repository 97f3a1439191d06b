"""Preprocessing as a graph says what `medcli.data.resize` says, for every way of making a picture square."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from medcli.bundles.bundle import open_session
from medcli.bundles.pictures import as_input
from medcli.data.dataset import Picture, Preprocessing
from medcli.data.resize import normalise, to_tensor
from medcli.export.before import DEEP, preprocessing_inputs, preprocessing_nodes

SHAPES = [(97, 333), (333, 97), (32, 32), (31, 33), (16, 20), (2, 3), (45, 90, 3), (32, 32, 3), (700, 41, 3)]


def session_of(preprocessing: Preprocessing, file: Path) -> Any:
    nodes = preprocessing_nodes(preprocessing, "x")
    nothing = onnx.numpy_helper.from_array(np.zeros((1, 1, 1, 1), dtype=np.float32), DEEP)
    result = onnx.helper.make_tensor_value_info(
        "x", onnx.TensorProto.FLOAT, ["n", preprocessing.channels, *[preprocessing.image_size] * 2]
    )
    graph = onnx.helper.make_graph(
        nodes.nodes, "before", list(preprocessing_inputs()), [result], [*nodes.constants, nothing]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(file))
    return open_session(file, threads=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_the_graph_prepares_pictures_as_training_does(
    fit: str, interpolation: str, channels: int, tmp_path: Path
) -> None:
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.25)[:channels]
    how = Preprocessing(32, channels, mean, std, interpolation, fit)
    session = session_of(how, tmp_path / "before.onnx")
    random = np.random.default_rng(0)
    for shape in SHAPES:
        pictures = [
            Picture(random.integers(0, 256, shape, dtype=np.uint8), 0, 255),
            Picture(random.integers(0, 4096, shape, dtype=np.uint16), 100, 4095),
        ]
        for picture in pictures:
            image = as_input(picture)[None]
            feed = {"image": image}
            if image.dtype != np.uint8:
                feed = {"image": np.zeros(image.shape, dtype=np.uint8), "deep": image}
            (found,) = session.run(None, feed)
            expected = normalise(to_tensor(picture, how)[None], how).numpy()
            assert found.shape == expected.shape
            # A sixth of a grey level of 255, at the largest factor of enlargement.
            assert np.abs(found - expected).max() < 6e-4, shape


def test_pictures_of_one_size_go_together(tmp_path: Path) -> None:
    how = Preprocessing(16, 3, (0.5,) * 3, (0.5,) * 3)
    session = session_of(how, tmp_path / "before.onnx")
    images = np.random.default_rng(1).integers(0, 256, (5, 40, 30, 1), dtype=np.uint8)
    (together,) = session.run(None, {"image": images})
    alone = np.concatenate([session.run(None, {"image": one[None]})[0] for one in images])
    assert together.shape == (5, 3, 16, 16)
    assert np.abs(together - alone).max() < 1e-6


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_the_program_of_torch_prepares_them_too(fit: str) -> None:
    import torch

    from medcli.export.before_torch import Before

    how = Preprocessing(32, 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), "bicubic", fit)
    random = np.random.default_rng(0)
    for shape in [(97, 333, 3), (31, 33, 3), (32, 32, 3), (700, 41, 3)]:
        picture = Picture(random.integers(0, 256, shape, dtype=np.uint8), 0, 255)
        found = Before(how)(torch.from_numpy(as_input(picture)[None]))
        expected = normalise(to_tensor(picture, how)[None], how)
        assert float((found - expected).abs().max()) < 1e-5, shape
