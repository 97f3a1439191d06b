"""Why a network cannot leave torch: exporters bury the operator, or the line of the network, in pages of text.

Told to those who export (`medcli.export`) and to authors of architectures (`medcli.testing`) in the same words.
"""

from __future__ import annotations

import re
import traceback
from pathlib import Path

__all__ = ["why_untraceable"]

_OPERATOR = re.compile(r"OpOverload\(op='([\w.]+)'|torch\.ops\.([\w.]+)|No ONNX function found for .*?([\w]+\.[\w.]+)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def why_untraceable(error: BaseException) -> str:
    """The rest of a sentence that begins with the network.

    Args:
        error: of `torch.export` or `torch.onnx`.

    Returns:
        "uses the operator `x`, which ...", or "cannot be traced (file, line, in `forward`): ...".
    """
    chain = _causes(error)
    root, kinds = chain[-1], {type(one).__name__ for one in chain}
    texts = [_COLOUR.sub("", str(one)) for one in chain]
    place = _own_line(root)
    if any(kind.startswith("GuardOnDataDependent") for kind in kinds):
        return f"cannot be traced{place}: what it computes there depends on the values in the picture"
    operator = next((found for text in texts if (found := _OPERATOR.search(text))), None)
    if operator is not None:
        name = next(part for part in operator.groups() if part)
        captured = any("onnx" in type(one).__module__ for one in chain)
        lacks = "which has no counterpart in ONNX" if captured else f"which cannot be traced{place}"
        return f"uses the operator `{name}`, {lacks}"
    last = next((line.strip() for line in texts[-1].splitlines() if line.strip()), type(root).__name__)
    return f"cannot be traced{place}: {last[:300]}"


def _causes(error: BaseException) -> list[BaseException]:
    """An exception and what it came from, the first of all last."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return chain


def _own_line(error: BaseException) -> str:
    """Where the traced network itself was, in the traceback: the last line outside of torch and of whoever traces."""
    tracing = ("medcli/export/graph.py", "medcli/export/formats.py", "medcli/testing/checks/exporting.py")
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "/torch/" not in (file := Path(frame.filename).as_posix()) and not file.endswith(tracing)
    ]
    if not own:
        return ""
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno}, in `{own[-1].name}`)"
