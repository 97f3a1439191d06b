"""What a network promises to whoever takes it elsewhere: it can be captured, and the captured one answers alike."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from medcli.testing.checks.subject import Subject, same
from medcli.testing.checks.verdict import CheckFailed, fail, skip
from medcli.untraceable import why_untraceable

__all__ = ["onnx", "torch_export"]

_ONNX = ("onnx", "onnxscript", "onnxruntime")


def torch_export(subject: Subject) -> None:
    """`torch.export`, without fallbacks."""
    import torch

    network, inputs = subject.network(), subject.inputs(2)
    with torch.no_grad():
        expected = network(*inputs)
        try:
            program = torch.export.export(network, inputs)
        except Exception as error:
            raise CheckFailed(f"`torch.export` cannot capture it: the network {why_untraceable(error)}") from error
        found = program.module()(*inputs)
    if not same(found, expected):
        fail(f"the captured network differs by up to {float((found - expected).abs().max()):.3g}")


def onnx(subject: Subject) -> None:
    """ONNX through `torch.onnx`, run by ONNX Runtime."""
    import torch

    missing = [name for name in _ONNX if find_spec(name) is None]
    if missing:
        skip(f"{', '.join(missing)} not installed: pip install {' '.join(_ONNX)}")
    onnxruntime = import_module("onnxruntime")

    network, inputs = subject.network(), subject.inputs(2)
    names = ["baseline", "followup"] if subject.is_difference else ["images"]
    with torch.no_grad():
        expected = network(*inputs)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                torch.onnx.export(network, inputs, file, input_names=names, dynamo=True, opset_version=18)
        except Exception as error:
            raise CheckFailed(f"`torch.onnx` cannot export it: the network {why_untraceable(error)}") from error
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        feed = {name: one.numpy() for name, one in zip(names, inputs, strict=True)}
        found = torch.from_numpy(session.run(None, feed)[0])
    if not same(found, expected, 1e-3):
        fail(f"ONNX Runtime differs by up to {float((found - expected).abs().max()):.3g}")
