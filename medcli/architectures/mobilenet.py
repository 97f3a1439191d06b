"""MobileNetV3 (Howard et al. 2019)."""

from __future__ import annotations

from typing import Literal

from medcli.errors import UsageProblem
from medcli.plugin import ArchitectureFactory, TimmBackbone

__all__ = ["mobilenetv3_large_100", "mobilenetv3_small_100"]


def _factory(name: str) -> ArchitectureFactory:
    def build(
        *,
        in_channels: int = 3,
        image_size: int | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        drop_path: float = 0.0,
        padding: Literal["symmetric", "same"] = "symmetric",
    ) -> TimmBackbone:
        if padding not in {"symmetric", "same"}:
            raise UsageProblem(
                f"`{padding}` is not a padding: symmetric, same", code="bad-option", where="--arch-opt padding"
            )
        return TimmBackbone(
            # Weights from TensorFlow or Keras expect its `same` padding and batch-norm epsilon.
            f"tf_{name}" if padding == "same" else name,
            in_channels=in_channels,
            image_size=image_size,
            pretrained=pretrained,
            weights=weights,
            drop_path=drop_path,
        )

    build.__name__ = build.__qualname__ = name
    return build  # type: ignore[return-value]


mobilenetv3_small_100 = _factory("mobilenetv3_small_100")
mobilenetv3_large_100 = _factory("mobilenetv3_large_100")
