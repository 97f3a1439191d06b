"""What somebody wants of an export, known before anything of ONNX is imported: other formats do without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["MAX_DROP", "Kind", "Quantize", "Wishes"]

Kind = Literal["int8-dynamic", "int8-static", "fp16"]
Quantize = Literal["none", Kind]

MAX_DROP = 0.005


@dataclass(frozen=True)
class Wishes:
    """How an export is made.

    Args:
        opset: None for the default.
        tolerance: most that a probability or a value of a map may differ; None for the default of each.
        verify: whether it is compared with the run.
        data: other pictures to compare on than the run's own.
        batch_size: the largest batch compared.
        quantize: what the network becomes.
        max_drop: most that AUC and accuracy may fall by that, on validation cases.
    """

    opset: int | None = None
    tolerance: float | None = None
    verify: bool = True
    data: tuple[str, ...] = ()
    batch_size: int = 32
    quantize: Quantize = "none"
    max_drop: float = MAX_DROP
