"""From the network's logits to calibrated probabilities, as an ONNX graph: `medcli.evaluation.calibrator` in operators.

In double precision like the original, with which every export compares it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from medcli.data.target import Target
from medcli.evaluation.calibrator import Calibrator, Method
from medcli.evaluation.calibrator_fits import LARGEST_LOGIT
from medcli.export.nodes import Nodes

__all__ = ["answer_name", "answer_nodes"]

Table = Mapping[str, Sequence[float]]


def answer_name(calibrator: Calibrator | None) -> str:
    """`probabilities`, or `scores` of a network that was never calibrated."""
    return "scores" if calibrator is None else "probabilities"


def answer_nodes(target: Target, calibrator: Calibrator | None, logits: str) -> Nodes:
    """Logits float32 [n, ...] -> probabilities (or scores) float32 of the same shape, see `answer_name`.

    Args:
        target: what is predicted.
        calibrator: of the run, or None.
        logits: what the network calls them.
    """
    graph = Nodes("after")
    wide = graph.cast(logits, np.float64)
    if calibrator is not None:
        wide = _calibrated(graph, wide, target, calibrator)
    answer = graph("Sigmoid", wide) if target.task == "multilabel" else graph("Softmax", wide, axis=-1)
    kind = answer_name(calibrator)
    graph("Identity", graph.cast(answer, np.float32), to=kind)
    return graph


def _calibrated(graph: Nodes, wide: str, target: Target, calibrator: Calibrator) -> str:
    method = calibrator.method
    if not target.outputs and target.task != "multilabel":
        (fit,) = calibrator.fits
        return _classes(graph, method, fit.parameters, wide, target.positive) if fit.parameters else wide
    columns = []
    for index, fit in enumerate(calibrator.fits):
        if target.task == "multilabel":
            own = _columns(graph, wide, index, index + 1, axis=1)
            columns.append(_margin(graph, method, fit.parameters, _finite(graph, own)) if fit.parameters else own)
            continue
        classes = len(target.outputs[index].classes)
        row = graph("Gather", wide, graph.constant(index, np.int64), axis=1)
        own = _columns(graph, row, 0, classes, axis=1)
        if fit.parameters:
            own = _classes(graph, method, fit.parameters, own, 1)
        beyond = graph.whole(0, 0, 0, target.num_classes - classes)
        own = graph("Pad", own, beyond, graph.constant(-np.inf, np.float64))
        columns.append(graph("Unsqueeze", own, graph.whole(1)))
    return graph("Concat", *columns, axis=1)


def _columns(graph: Nodes, table: str, first: int, stop: int, *, axis: int) -> str:
    return graph("Slice", table, graph.whole(first), graph.whole(stop), graph.whole(axis))


def _number(graph: Nodes, value: npt.ArrayLike) -> str:
    return graph.constant(value, np.float64)


def _finite(graph: Nodes, margin: str) -> str:
    return graph("Max", graph("Min", margin, _number(graph, LARGEST_LOGIT)), _number(graph, -LARGEST_LOGIT))


def _tamed(graph: Nodes, logits: str) -> str:
    """Without infinities: an impossible class stands far below the likeliest one, and below all that are finite."""
    impossible = graph("IsInf", logits, detect_positive=0)
    largest = graph("ReduceMax", logits, graph.whole(-1), keepdims=1)
    floor = graph("Sub", largest, _number(graph, LARGEST_LOGIT))
    lowest = graph("ReduceMin", graph("Where", impossible, _number(graph, np.inf), logits), graph.whole(-1), keepdims=1)
    return graph("Where", impossible, graph("Min", floor, lowest), logits)


def _classes(graph: Nodes, method: Method, table: Table, logits: str, positive: int) -> str:
    """Logits [n, K] of classes that exclude each other."""
    plain = _tamed(graph, logits)
    if method == "temperature":
        return graph("Div", plain, _number(graph, table["temperature"][0]))
    if method == "vector":
        middle = graph(
            "Div", graph("ReduceSum", plain, graph.whole(1), keepdims=1), _number(graph, len(table["weights"]))
        )
        centred = graph("Sub", plain, middle)
        return graph("Add", graph("Mul", centred, _number(graph, table["weights"])), _number(graph, table["offsets"]))
    yes, no = (_columns(graph, plain, at, at + 1, axis=1) for at in (positive, 1 - positive))
    moved = _margin(graph, method, table, graph("Sub", yes, no))
    nothing = graph("Sub", moved, moved)
    return graph("Concat", *((nothing, moved) if positive else (moved, nothing)), axis=1)


def _margin(graph: Nodes, method: Method, table: Table, margin: str) -> str:
    """Margins [n, 1] of a question of two answers."""
    values = {name: _number(graph, numbers[0]) for name, numbers in table.items()}
    if method == "temperature":
        return graph("Div", margin, values["temperature"])
    if method == "platt":
        return graph("Add", graph("Mul", values["slope"], margin), values["offset"])
    if method == "beta":
        surely = graph("Mul", values["a"], graph("Softplus", graph("Neg", margin)))
        hardly = graph("Mul", values["b"], graph("Softplus", margin))
        return graph("Add", graph("Sub", hardly, surely), values["c"])
    chances = _interpolated(graph, margin, table["logits"], table["probabilities"])
    return graph("Sub", graph("Log", chances), graph("Log", graph("Sub", _number(graph, 1), chances)))


def _interpolated(graph: Nodes, at: str, knots: Sequence[float], heights: Sequence[float]) -> str:
    """`numpy.interp` for [n, 1]."""
    if len(knots) == 1:
        return graph("Add", graph("Mul", at, _number(graph, 0)), _number(graph, heights[0]))
    inside = graph("Max", graph("Min", at, _number(graph, knots[-1])), _number(graph, knots[0]))
    reached = graph.cast(graph("GreaterOrEqual", inside, _number(graph, [list(knots)])), np.int64)
    count = graph("ReduceSum", reached, graph.whole(1), keepdims=1)
    left = graph("Min", graph("Sub", count, graph.whole(1)), graph.whole(len(knots) - 2))
    xs, ys = _number(graph, knots), _number(graph, heights)
    slopes = _number(graph, (np.diff(heights) / np.diff(knots)).tolist())
    run = graph("Sub", inside, graph("Gather", xs, left))
    return graph("Add", graph("Gather", ys, left), graph("Mul", run, graph("Gather", slopes, left)))
