"""The files of a smaller network: what ONNX Runtime makes of a graph, and which parts of the graph it leaves alone.

The head stays in full precision always: next to nothing to gain there, and every answer goes through it.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto

from medcli.export.graph import INLINE_LIMIT
from medcli.runs.directory import writing

__all__ = [
    "LADDER",
    "Calibration",
    "Extent",
    "Rung",
    "calibrated_ranges",
    "network_bytes",
    "prepare",
    "shrunk_share",
    "write_dynamic",
    "write_half",
    "write_static",
]

Calibration = Literal["minmax", "percentile", "entropy"]
Extent = Literal["all", "careful", "wary"]

PERCENTILE = 99.99
AT_A_TIME = 8
"""Pictures whose intermediate results are held together while ranges are found: about 100 MB each for a ResNet-50."""

WEIGHTED = ("Conv", "MatMul", "Gemm")
_LINEAR = ("MatMul", "Gemm")
_POOLS = ("ReduceMean", "GlobalAveragePool")
_ALONG = (*WEIGHTED, "Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Mul", "Add", "Reshape", "Squeeze")


@dataclass(frozen=True)
class Rung:
    """One way to static int8.

    Args:
        calibration: how the range of a tensor follows from the numbers seen in it: all of them, all but the outermost
            0.01 %, or those that keep most information.
        extent: `all` but the head; `careful`: only multiplications with weights, and of these neither the first one nor
            depthwise convolutions, whose few numbers differ most in range; `wary`: squeeze-and-excitation not either.
    """

    calibration: Calibration
    extent: Extent

    def __str__(self) -> str:
        return f"{self.calibration}, {self.extent}"


LADDER = (
    Rung("minmax", "all"),
    Rung("percentile", "all"),
    Rung("entropy", "all"),
    Rung("percentile", "careful"),
    Rung("minmax", "careful"),
    Rung("percentile", "wary"),
)
"""From the most that is shrunk to the least; the first that answers well enough is kept."""


def prepare(network: Path, destination: Path) -> None:
    """Shapes inferred and layers fused, as quantisation wants it; beyond one file of a protocol buffer, shapes only."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    large = network_bytes(network) > INLINE_LIMIT
    beside = {"save_as_external_data": True, "all_tensors_to_one_file": True} if large else {}
    with _quiet(), writing(destination):
        quant_pre_process(
            str(network),
            str(destination),
            skip_optimization=large,
            skip_symbolic_shape=large,
            **beside,
        )


def write_dynamic(prepared: Path, destination: Path) -> None:
    """Weights of linear layers as int8, each output channel with its scale; activations are measured while running."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    head = _head(onnx.load(str(prepared), load_external_data=False))
    # A `Gemm` is taken apart first, and its product has this name.
    spared = head | {f"{name}_MatMul" for name in head}
    with _quiet(), writing(destination):
        quantize_dynamic(
            str(prepared),
            str(destination),
            op_types_to_quantize=list(_LINEAR),
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(spared),
            use_external_data_format=network_bytes(prepared) > INLINE_LIMIT,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )


def write_half(network: Path, destination: Path) -> None:
    """Every number of the network as float16, those of its head, input and outputs excepted."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    model = onnx.load(str(network))
    with _quiet():
        smaller = convert_float_to_float16(
            model,
            keep_io_types=True,
            op_block_list=list(DEFAULT_OP_BLOCK_LIST),
            node_block_list=sorted(_head(model)),
        )
    _keep_wide(smaller)
    large = smaller.ByteSize() > INLINE_LIMIT
    with writing(destination):
        onnx.save(smaller, str(destination), save_as_external_data=large, location=f"{destination.name}.data")


def _keep_wide(model: ModelProto) -> None:
    """Between layers in full precision, and before the outputs, let numbers be as they are.

    The converter rounds to float16 and back there, which makes an infinity of what is large, and does so once for each
    reader under one name, which ONNX Runtime refuses.
    """
    graph = model.graph
    rounded = {node.output[0]: node.input[0] for node in graph.node if node.name.endswith("_cast_to_fp16_node")}
    nodes = {tuple(node.output): node for node in graph.node}
    for node in nodes.values():
        to = next((one.i for one in node.attribute if one.name == "to"), None)
        if node.op_type == "Cast" and to == onnx.TensorProto.FLOAT and node.input[0] in rounded:
            node.op_type, node.input[0] = "Identity", rounded[node.input[0]]
            del node.attribute[:]
    del graph.node[:]
    graph.node.extend(nodes.values())


def calibrated_ranges(prepared: Path, images: npt.NDArray[np.float32], calibration: Calibration, work: Path) -> Any:
    """The range of every tensor, from pictures of the training split.

    Args:
        prepared: of `prepare`.
        images: float32 [n, C, S, S], normalised.
        calibration: how.
        work: a folder for what has to be written on the way.

    Returns:
        ONNX Runtime's `TensorsData`, for `write_static`.
    """
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, part: npt.NDArray[np.float32]) -> None:
            self._rest = [part]

        def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
            return {"images": self._rest.pop()} if self._rest else None

    method, options = {
        "minmax": (CalibrationMethod.MinMax, {}),
        "percentile": (CalibrationMethod.Percentile, {"percentile": PERCENTILE, "symmetric": False}),
        "entropy": (CalibrationMethod.Entropy, {}),
    }[calibration]
    with _quiet():
        calibrator = create_calibrator(
            _body(prepared, work),
            [],
            augmented_model_path=str(work / "augmented.onnx"),
            calibrate_method=method,
            use_external_data_format=network_bytes(prepared) > INLINE_LIMIT,
            extra_options=options,
        )
        for start in range(0, len(images), AT_A_TIME):
            calibrator.collect_data(Reader(images[start : start + AT_A_TIME]))
        return calibrator.compute_data()


def _body(prepared: Path, work: Path) -> Path:
    """The network up to its features: the head is never quantised, and its logits may be infinite."""
    model = onnx.load(str(prepared))
    graph, head = model.graph, _head(model)
    nodes = [node for node in graph.node if node.name not in head]
    read = {name for node in nodes for name in node.input}
    weights = [one for one in graph.initializer if one.name in read]
    outputs = [one for one in graph.output if one.name != "logits"]
    for place, kept in ((graph.node, nodes), (graph.initializer, weights), (graph.output, outputs)):
        del place[:]
        place.extend(kept)
    body = work / "body.onnx"
    large = network_bytes(prepared) > INLINE_LIMIT
    with writing(body):
        onnx.save(model, str(body), save_as_external_data=large, location=f"{body.name}.data")
    return body


def write_static(prepared: Path, destination: Path, ranges: Any, extent: Extent) -> None:
    """Weights and activations as int8 (activations without a sign), pairs of quantising and back around each layer.

    Args:
        prepared: of `prepare`.
        destination: the file.
        ranges: of `calibrated_ranges`.
        extent: how much of the network.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    model = onnx.load(str(prepared))
    kinds = sorted({*QDQRegistry, *QLinearOpsRegistry}) if extent == "all" else list(WEIGHTED)
    spared = _head(model) | _delicate(model, extent)
    with _quiet(), writing(destination):
        quantizer = QDQQuantizer(
            model, True, False, QuantType.QInt8, QuantType.QUInt8, ranges, [], sorted(spared), kinds, {}
        )
        quantizer.quantize_model()
        quantizer.model.save_model_to_file(str(destination), network_bytes(prepared) > INLINE_LIMIT)


def shrunk_share(network: Path) -> float:
    """Share of the stored weights, by number, that are int8 or float16."""
    counts = {True: 0, False: 0}
    small = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT16)
    for tensor in onnx.load(str(network), load_external_data=False).graph.initializer:
        counts[tensor.data_type in small] += int(np.prod(tensor.dims, dtype=np.int64))
    return counts[True] / max(1, sum(counts.values()))


def _head(model: ModelProto) -> set[str]:
    """What leads to the logits and not to the features."""
    return _before(model, "logits") - _before(model, "features")


def _before(model: ModelProto, name: str) -> set[str]:
    makers = {result: node for node in model.graph.node for result in node.output}
    found: set[str] = set()
    waiting = [name]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting.extend(node.input)
    return found


def _delicate(model: ModelProto, extent: Extent) -> set[str]:
    """What static int8 leaves alone beside the head, see `Rung`."""
    if extent == "all":
        return set()
    weighted = [node for node in model.graph.node if node.op_type in WEIGHTED]
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    found = {weighted[0].name} if weighted else set()
    found |= {node.name for node in weighted if _is_depthwise(node, sizes)}
    return found | _squeezes(model, set(sizes)) if extent == "wary" else found


def _squeezes(model: ModelProto, constants: set[str]) -> set[str]:
    """Layers between a mean over the picture and the product of it with the picture; not those behind the last mean."""
    origins: dict[str, frozenset[str]] = {}
    found: set[str] = set()
    for node in model.graph.node:
        varying = [name for name in node.input if name and name not in constants]
        if node.op_type in _POOLS:
            origins.update(dict.fromkeys(node.output, frozenset[str]()))
            continue
        squeezed = [name for name in varying if name in origins]
        passed = frozenset[str]().union(*(origins[name] for name in squeezed))
        if squeezed and len(squeezed) == len(varying) and node.op_type in _ALONG:
            own = frozenset({node.name} if node.op_type in WEIGHTED else ())
            origins.update(dict.fromkeys(node.output, passed | own))
        elif squeezed and node.op_type == "Mul":
            found |= passed
    return found


def _is_depthwise(node: NodeProto, sizes: dict[str, tuple[int, ...]]) -> bool:
    if node.op_type != "Conv":
        return False
    shape = sizes.get(node.input[1], ())
    grouped = any(one.name == "group" and one.i > 1 for one in node.attribute)
    return grouped and bool(shape) and shape[1] == 1


def network_bytes(network: Path) -> int:
    """Size of a graph and of the weights beside it."""
    beside = network.with_name(f"{network.name}.data")
    return network.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's tools print, log and warn about what is meant."""
    before = logging.root.manager.disable
    nowhere = io.StringIO()
    try:
        logging.disable(logging.WARNING)
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield
    finally:
        logging.disable(before)
