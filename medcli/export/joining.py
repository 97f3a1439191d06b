"""Preprocessing, network and calibration as one ONNX graph: raw picture in, probabilities out."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

from medcli.bundles.difference import SIDES, deep_input
from medcli.data.dataset import Preprocessing
from medcli.data.target import Target
from medcli.evaluation.calibrator import Calibrator
from medcli.export.after import answer_name, answer_nodes
from medcli.export.before import no_depth, preprocessing_inputs, preprocessing_nodes
from medcli.runs.directory import writing

__all__ = ["join", "join_pair"]


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
    # An input with a value of its own may be left out.
    graph.initializer.append(no_depth())
    del graph.input[:]
    graph.input.extend(preprocessing_inputs())
    outputs = list(graph.output)
    answer = helper.make_tensor_value_info(answer_name(calibrator), onnx.TensorProto.FLOAT, ["n", *target.logits_shape])
    del graph.output[:]
    graph.output.extend([answer, *outputs])
    graph.name = "medcli"
    with writing(destination):
        onnx.save(model, str(destination))


def join_pair(network: Path, destination: Path, preprocessing: Preprocessing) -> None:
    """Write the whole graph of a difference model: two pictures in, each of its own size, the map out.

    `baseline` and `followup` uint8 [n, h, w, 1 or 3], and optionally `baseline_deep` and `followup_deep` -> `map`.

    Args:
        network: as `write_traced` wrote it, from two pictures [n, 1, S, S] in [0, 1]; weights beside it stay there.
        destination: in the same folder; may be `network` itself.
        preprocessing: of the pictures, up to those.

    Raises:
        RunFailure: the file cannot be written.
    """
    model = onnx.load(str(network), load_external_data=False)
    graph = model.graph
    names = [one.name for one in graph.input]
    parts = [
        preprocessing_nodes(preprocessing, name, side, deep_input(side), clipped=True)
        for name, side in zip(names, SIDES, strict=True)
    ]
    own = [*(node for part in parts for node in part.nodes), *graph.node]
    del graph.node[:]
    graph.node.extend(own)
    graph.initializer.extend(
        [*(one for part in parts for one in part.constants), *map(no_depth, map(deep_input, SIDES))]
    )
    del graph.input[:]
    graph.input.extend(one for side in SIDES for one in preprocessing_inputs(side, deep_input(side)))
    graph.name = "medcli"
    with writing(destination):
        onnx.save(model, str(destination))
