"""EfficientNet and EfficientNet-Lite (Tan & Le 2019)."""

from __future__ import annotations

from typing import Literal

from medcli.errors import UsageProblem
from medcli.plugin import ArchitectureFactory, TimmBackbone

__all__ = [
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "efficientnet_lite3",
    "efficientnet_lite4",
]

Padding = Literal["symmetric", "same"]


def _factory(name: str, default: Padding) -> ArchitectureFactory:
    """A factory whose default padding is that of the weights that are published under this name.

    Weights from TensorFlow expect its `same` padding and batch-norm epsilon. A file does not show which it needs: the
    names and shapes of its tensors are the same.
    """

    def build(
        *,
        in_channels: int = 3,
        image_size: int | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        drop_path: float = 0.0,
        padding: Padding = default,
    ) -> TimmBackbone:
        if padding not in {"symmetric", "same"}:
            raise UsageProblem(
                f"`{padding}` is not a padding: symmetric, same", code="bad-option", where="--arch-opt padding"
            )
        return TimmBackbone(
            f"tf_{name}" if padding == "same" else name,
            in_channels=in_channels,
            image_size=image_size,
            pretrained=pretrained,
            weights=weights,
            drop_path=drop_path,
        )

    build.__name__ = build.__qualname__ = name
    return build  # type: ignore[return-value]


efficientnet_b0 = _factory("efficientnet_b0", "symmetric")
efficientnet_b1 = _factory("efficientnet_b1", "symmetric")
efficientnet_b2 = _factory("efficientnet_b2", "symmetric")
efficientnet_b3 = _factory("efficientnet_b3", "symmetric")
efficientnet_b4 = _factory("efficientnet_b4", "symmetric")
efficientnet_b5 = _factory("efficientnet_b5", "symmetric")
efficientnet_b6 = _factory("efficientnet_b6", "same")
efficientnet_b7 = _factory("efficientnet_b7", "same")
efficientnet_lite0 = _factory("efficientnet_lite0", "symmetric")
efficientnet_lite1 = _factory("efficientnet_lite1", "same")
efficientnet_lite2 = _factory("efficientnet_lite2", "same")
efficientnet_lite3 = _factory("efficientnet_lite3", "same")
efficientnet_lite4 = _factory("efficientnet_lite4", "same")
