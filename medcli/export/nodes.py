"""Operators of ONNX written down one after another, for the small graphs around the network.

They are written, not traced: a page of arithmetic on image sizes stays readable, and exporting costs seconds less.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

__all__ = ["Nodes"]


@dataclass
class Nodes:
    """A growing graph; every call adds one operator and gives the name of its result.

    Args:
        prefix: of all names, so that graphs can be joined.
    """

    prefix: str
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def __call__(self, operator: str, *inputs: str, to: str | None = None, **attributes: Any) -> str:
        """Add an operator with one output, called `to` or a name of its own."""
        name = to or f"{self.prefix}/{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=f"{self.prefix}/{name}", **attributes))
        return name

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """Add a constant."""
        name = f"{self.prefix}/constant/{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def whole(self, *values: int) -> str:
        """An int64 vector."""
        return self.constant(values, np.int64)

    def cast(self, name: str, dtype: npt.DTypeLike) -> str:
        """The same numbers in another type."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        result = f"{self.prefix}/{len(self.nodes)}"
        self.nodes.append(helper.make_node("Cast", [name], [result], name=f"{self.prefix}/{result}", to=kind))
        return result
