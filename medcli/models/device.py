"""Where a network runs and with what numbers: the one place where `auto` is decided."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from medcli.errors import UsageProblem

__all__ = ["Precision", "autocast", "choose_device", "choose_precision"]

Precision = Literal["fp32", "bf16", "fp16"]


def choose_device(name: str) -> torch.device:
    """The device of `--device`.

    Raises:
        UsageProblem: unknown name, or a device this machine does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in {"cpu", "cuda", "mps"}:
        raise UsageProblem(
            f"unknown device `{name}`", hint="use `--device auto`, `cpu`, `cuda`, `cuda:N` or `mps`", code="bad-device"
        )
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageProblem(
            f"device `{name}` is not available: torch {torch.__version__} sees no CUDA GPU here",
            hint="use `--device cpu` or `--device auto`",
            code="no-such-device",
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageProblem(
            f"device `{name}` does not exist: this machine has {torch.cuda.device_count()} GPU(s)",
            hint="use `--device cuda:0`",
            code="no-such-device",
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageProblem(
            "device `mps` is not available on this machine", hint="use `--device auto`", code="no-such-device"
        )
    return device


def choose_precision(name: str, device: torch.device) -> Precision:
    """The number format of `--precision` on `device`.

    Raises:
        UsageProblem: fp16 on a CPU, where its gradients would vanish and its kernels are slow.
    """
    if name == "auto":
        if device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        return "fp32"
    if name == "fp16" and device.type == "cpu":
        raise UsageProblem(
            "`--precision fp16` needs a GPU; this run is on the CPU",
            hint="use `--precision fp32` (fastest on a CPU) or `--precision bf16`",
            code="precision-not-available",
        )
    if name == "fp32":
        return "fp32"
    return "bf16" if name == "bf16" else "fp16"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Run a forward pass in `precision`; fp32 leaves everything as it is."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)
