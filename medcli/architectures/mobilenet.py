"""MobileNetV3 (Howard et al. 2019)."""

from __future__ import annotations

from medcli.architectures.padding import padded_factory

__all__ = ["mobilenetv3_large_100", "mobilenetv3_small_100"]

mobilenetv3_small_100 = padded_factory("mobilenetv3_small_100", "symmetric")
mobilenetv3_large_100 = padded_factory("mobilenetv3_large_100", "symmetric")
