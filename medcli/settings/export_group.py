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
            "most that a probability may differ from the run's (default: 1e-5)", THIS, "P", minimum=0, exclusive=True
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
