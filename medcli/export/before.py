"""From a decoded picture to the network's input, as an ONNX graph: `medcli.data.resize` in operators.

Whatever is changed there has to be changed here; every export compares the two on real images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from medcli.data.dataset import Preprocessing
from medcli.data.resize import LUMA
from medcli.export.nodes import Nodes

__all__ = ["DEEP", "IMAGE", "no_depth", "preprocessing_inputs", "preprocessing_nodes"]

IMAGE, DEEP = "image", "deep"
"""Inputs: bytes; and, for sources above 8 bits, units in [0, 1] that are added to them (default: nothing)."""


def preprocessing_inputs(image: str = IMAGE, deep: str = DEEP) -> tuple[ValueInfoProto, ValueInfoProto]:
    """uint8 [n, height, width, channels] and float32 of that shape, everything free; several pictures share n."""
    own = "" if image == IMAGE else f"{image}_"
    return (
        helper.make_tensor_value_info(
            image, TensorProto.UINT8, ["n", *(f"{own}{axis}" for axis in ("height", "width", "channels"))]
        ),
        # Names of their own: where nothing is given, this is a single zero.
        helper.make_tensor_value_info(
            deep, TensorProto.FLOAT, [f"{deep}_{axis}" for axis in ("n", "height", "width", "channels")]
        ),
    )


def no_depth(deep: str = DEEP) -> TensorProto:
    """The value of the second input where it is left out: nothing lies above eight bits, unless somebody says so."""
    return numpy_helper.from_array(np.zeros((1, 1, 1, 1), dtype=np.float32), deep)


def preprocessing_nodes(
    preprocessing: Preprocessing, result: str, image: str = IMAGE, deep: str = DEEP, *, clipped: bool = False
) -> Nodes:
    """Pictures of one size, grey or colour -> `result`, float32 [n, C, S, S], normalised.

    Args:
        preprocessing: of the run.
        result: what the network calls its input.
        image: name of the input of bytes.
        deep: name of the input of units.
        clipped: whether units are kept in [0, 1] after resizing, as pairs are.
    """
    graph = Nodes("before" if image == IMAGE else f"before_{image}")
    units = graph("Div", graph.cast(image, np.float32), graph.constant(255, np.float32))
    planes = graph("Transpose", graph("Add", units, deep), perm=[0, 3, 1, 2])
    if preprocessing.channels == 1:
        planes = _grey(graph, planes)
    square = _resized(graph, planes, preprocessing)
    if clipped:
        square = graph("Clip", square, *(graph.constant(end, np.float32) for end in (0, 1)))
    mean, std = (
        graph.constant(np.reshape(values, (1, -1, 1, 1)), np.float32)
        for values in (preprocessing.mean, preprocessing.std)
    )
    # A grey picture for a network of three channels becomes three here, by broadcasting.
    graph("Div", graph("Sub", square, mean), std, to=result)
    return graph


def _grey(graph: Nodes, planes: str) -> str:
    """[n, 1 or 3, h, w] -> [n, 1, h, w]: the weights of as many channels as there are."""
    weights = graph.constant([[1, 0, 0], [0, 0, 0], LUMA], np.float32)
    channels = graph("Shape", planes, start=1, end=2)
    row = graph("Gather", weights, graph("Sub", channels, graph.whole(1)))
    row = graph("Slice", row, graph.whole(0), channels, graph.whole(1))
    shape = graph("Concat", graph.whole(1), channels, graph.whole(1, 1), axis=0)
    return graph("ReduceSum", graph("Mul", planes, graph("Reshape", row, shape)), graph.whole(1), keepdims=1)


def _resized(graph: Nodes, planes: str, preprocessing: Preprocessing) -> str:
    """[n, c, h, w] -> [n, c, S, S]."""
    side = graph.whole(preprocessing.image_size)
    height, width = (graph("Shape", planes, start=axis, end=axis + 1) for axis in (2, 3))
    if preprocessing.fit == "squash":
        return _interpolated(graph, planes, side, side, preprocessing)
    if preprocessing.fit == "crop":
        short = graph("Min", height, width)
        new_height, new_width = (graph("Div", graph("Mul", side, length), short) for length in (height, width))
        outer = _interpolated(graph, planes, new_height, new_width, preprocessing)
        starts = _halved(graph, graph("Sub", graph("Concat", new_height, new_width, axis=0), side))
        return graph("Slice", outer, starts, graph("Add", starts, side), graph.whole(2, 3))
    # In double precision and rounded half to even, as Python does it.
    longest = graph.cast(graph("Max", height, width), np.float64)
    scale = graph("Div", graph.cast(side, np.float64), longest)
    new_height, new_width = (_rounded(graph, length, scale) for length in (height, width))
    inner = _interpolated(graph, planes, new_height, new_width, preprocessing)
    missing = graph("Sub", side, graph("Concat", new_height, new_width, axis=0))
    before = _halved(graph, missing)
    none = graph.whole(0, 0)
    pads = graph("Concat", none, before, none, graph("Sub", missing, before), axis=0)
    return graph("Pad", inner, pads, graph.constant(0, np.float32))


def _rounded(graph: Nodes, length: str, scale: str) -> str:
    exact = graph("Mul", graph.cast(length, np.float64), scale)
    return graph("Max", graph.cast(graph("Round", exact), np.int64), graph.whole(1))


def _halved(graph: Nodes, lengths: str) -> str:
    return graph("Div", lengths, graph.whole(2))


def _interpolated(graph: Nodes, planes: str, height: str, width: str, preprocessing: Preprocessing) -> str:
    size = graph("Concat", graph("Shape", planes, start=0, end=2), height, width, axis=0)
    cubic: dict[str, Any] = {"cubic_coeff_a": -0.5} if preprocessing.interpolation == "bicubic" else {}
    return graph(
        "Resize",
        planes,
        "",
        "",
        size,
        mode="cubic" if cubic else "linear",
        antialias=1,
        exclude_outside=1,
        coordinate_transformation_mode="half_pixel",
        **cubic,
    )
