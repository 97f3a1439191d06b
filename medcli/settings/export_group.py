"""Settings of `export`, and with what a network is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from medcli.settings.option import COMPUTE, THIS, Option

__all__ = ["ExportSettings", "RuntimeSettings"]


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What `export` writes, and how closely it must agree with the run."""

    opset: Annotated[
        int | None, Option("version of the standard ONNX operators, 18 to 23 (default: 18, what most can run)", THIS)
    ] = None
    tolerance: Annotated[
        float | None,
        Option(
            "most that a probability may differ from the run's (default: 1e-5; of a map 1e-4 or more)",
            THIS,
            "P",
            minimum=0,
            exclusive=True,
        ),
    ] = None
    quantize: Annotated[
        Literal["none", "int8-dynamic", "int8-static", "fp16"],
        Option("make the network of an ONNX bundle smaller; kept if it scores as well on validation images", THIS),
    ] = "none"
    max_drop: Annotated[
        float | None,
        Option(
            "most that AUC and accuracy may lose on validation images by `--quantize` (default: 0.005)",
            THIS,
            "X",
            minimum=0,
            maximum=1,
        ),
    ] = None
    no_verify: Annotated[
        bool,
        Option("do not compare with the run on its images; the bundle then says that nobody did", THIS, flag_only=True),
    ] = False


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings:
    """With what a network is run."""

    runtime: Annotated[
        Literal["torch", "onnx"],
        Option("`onnx`: the network of a run through ONNX Runtime, often faster on a CPU", COMPUTE),
    ] = "torch"
