"""ONNX Runtime and its companions where they are installed, and a sentence where they are not."""

from __future__ import annotations

from importlib.util import find_spec

from medcli.errors import UsageProblem
from medcli.registry.layout import install_line

__all__ = ["require_onnx"]


def require_onnx(purpose: str, *names: str, where: str | None = None) -> None:
    """Check that packages of the extra `export` are installed, without importing them.

    Args:
        purpose: what they are needed for, as the subject of the sentence.
        names: packages; `onnxruntime` alone runs what exists, writing needs `onnx` and `onnxscript` too.
        where: the flag that asked for it.

    Raises:
        UsageProblem: naming the extra that brings them.
    """
    missing = [name for name in names or ("onnxruntime",) if find_spec(name) is None]
    if missing:
        listed = ", ".join(f"`{name}`" for name in missing)
        raise UsageProblem(
            f"{purpose} needs {listed}, which {'is' if len(missing) == 1 else 'are'} not installed",
            where=where,
            hint=install_line(("medcli[export]",)),
            code="missing-extra",
        )
