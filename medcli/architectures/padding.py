"""Families whose published weights come from TensorFlow for some sizes: the padding is an option of each network."""

from __future__ import annotations

from typing import Literal

from medcli.errors import UsageProblem
from medcli.plugin import ArchitectureFactory, TimmBackbone

__all__ = ["Padding", "padded_factory"]

Padding = Literal["symmetric", "same"]


def padded_factory(name: str, default: Padding) -> ArchitectureFactory:
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
