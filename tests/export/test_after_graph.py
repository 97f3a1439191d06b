"""Calibration as a graph says what `medcli.evaluation.calibrator` says, for every method and target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from medcli.bundles.bundle import open_session
from medcli.data.target import Output, Target
from medcli.evaluation.calibrator import Calibrator, Fit, calibrate_logits
from medcli.evaluation.scores import sigmoid, softmax
from medcli.export.after import answer_name, answer_nodes

BINARY = Target("binary", ("ill", "well"), positive=0)
GRADES = Target("ordinal", ("0", "1", "2", "3"))
LABELS = Target("multilabel", ("a", "b", "c"))
ZONES = Target("multioutput", outputs=(Output("left", ("0", "1", "2")), Output("right", ("0", "1"))))

PARAMETERS: dict[str, dict[str, tuple[float, ...]]] = {
    "temperature": {"temperature": (1.7,)},
    "platt": {"slope": (0.6,), "offset": (-0.3,)},
    "beta": {"a": (0.8,), "b": (1.3,), "c": (0.2,)},
    "isotonic": {"logits": (-3.0, -1.0, 0.5, 4.0), "probabilities": (0.02, 0.1, 0.55, 0.97)},
}


def fits(method: str, target: Target) -> tuple[Fit, ...]:
    names = target.class_names if target.task == "multilabel" else [one.name for one in target.outputs] or [""]
    found = []
    for place, name in enumerate(names):
        classes = len(target.outputs[place].classes) if target.outputs else target.num_classes
        table = PARAMETERS.get(method) or {
            "weights": tuple(0.5 + 0.2 * k for k in range(classes)),
            "offsets": tuple(0.1 * k - 0.2 for k in range(classes)),
        }
        # The middle one could not be fitted, so its scores stay as they are.
        found.append(Fit(name, {} if place == 1 else table, 50, (25, 25)))
    return tuple(found)


CASES = [
    *((method, BINARY) for method in ("temperature", "vector", "platt", "beta", "isotonic")),
    *((method, GRADES) for method in ("temperature", "vector")),
    *((method, LABELS) for method in ("temperature", "platt", "beta", "isotonic")),
    *((method, ZONES) for method in ("temperature", "vector")),
    *((None, target) for target in (BINARY, LABELS, ZONES)),
]


@pytest.mark.parametrize(("method", "target"), CASES, ids=[f"{method}-{target.task}" for method, target in CASES])
def test_the_graph_calibrates_as_evaluation_does(method: str | None, target: Target, tmp_path: Path) -> None:
    calibrator = None if method is None else Calibrator(method, target, fits(method, target))  # type: ignore[arg-type]
    nodes = answer_nodes(target, calibrator, "logits")
    shape = ["n", *target.logits_shape]
    graph = onnx.helper.make_graph(
        nodes.nodes,
        "after",
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info(answer_name(calibrator), onnx.TensorProto.FLOAT, shape)],
        nodes.constants,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(tmp_path / "after.onnx"))
    logits = (np.random.default_rng(3).normal(size=(200, *target.logits_shape)) * 6).astype(np.float32)
    logits[0] = 40 * np.sign(logits[0])
    if target.outputs:
        logits[:, 1, 2] = -np.inf
    (found,) = open_session(tmp_path / "after.onnx").run(None, {"logits": logits})
    wide = logits if calibrator is None else calibrate_logits(calibrator, logits)
    expected = sigmoid(wide) if target.task == "multilabel" else softmax(wide)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-6
    assert answer_name(calibrator) == ("scores" if method is None else "probabilities")
