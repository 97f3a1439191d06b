"""Preprocessing, network and calibration as one ONNX graph: raw picture in, probabilities out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from medcli.data.dataset import Preprocessing
from medcli.data.target import Target
from medcli.evaluation.calibrator import Calibrator
from medcli.export.after import answer_name, answer_nodes
from medcli.export.before import DEEP, preprocessing_inputs, preprocessing_nodes
from medcli.runs.directory import writing

__all__ = ["join"]


def join(
    network: Path, destination: Path, preprocessing: Preprocessing, target: Target, calibrator: Calibrator | None
) -> None:
    """Write the whole graph.

    `image` uint8 [n, h, w, 1 or 3], and optionally `deep` -> `probabilities` (or `scores`), `logits`, `features`.

    Args:
        network: as `medcli.export.graph.export_onnx` wrote it; weights in a file beside it stay there.
        destination: in the same folder; may be `network` itself.
        preprocessing: of the run.
        target: of the run.
        calibrator: of the run, or None.

    Raises:
        RunFailure: the file cannot be written.
    """
    model = onnx.load(str(network), load_external_data=False)
    graph = model.graph
    before = preprocessing_nodes(preprocessing, graph.input[0].name)
    after = answer_nodes(target, calibrator, graph.output[0].name)
    own = [*before.nodes, *graph.node, *after.nodes]
    del graph.node[:]
    graph.node.extend(own)
    graph.initializer.extend([*before.constants, *after.constants])
    # An input with a value of its own may be left out: what is above eight bits is nothing, unless somebody says so.
    graph.initializer.append(numpy_helper.from_array(np.zeros((1, 1, 1, 1), dtype=np.float32), DEEP))
    del graph.input[:]
    graph.input.extend(preprocessing_inputs())
    outputs = list(graph.output)
    answer = helper.make_tensor_value_info(answer_name(calibrator), onnx.TensorProto.FLOAT, ["n", *target.logits_shape])
    del graph.output[:]
    graph.output.extend([answer, *outputs])
    graph.name = "medcli"
    with writing(destination):
        onnx.save(model, str(destination))
