"""EfficientNet and EfficientNet-Lite (Tan & Le 2019)."""

from __future__ import annotations

from medcli.architectures.padding import padded_factory

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

efficientnet_b0 = padded_factory("efficientnet_b0", "symmetric")
efficientnet_b1 = padded_factory("efficientnet_b1", "symmetric")
efficientnet_b2 = padded_factory("efficientnet_b2", "symmetric")
efficientnet_b3 = padded_factory("efficientnet_b3", "symmetric")
efficientnet_b4 = padded_factory("efficientnet_b4", "symmetric")
efficientnet_b5 = padded_factory("efficientnet_b5", "symmetric")
efficientnet_b6 = padded_factory("efficientnet_b6", "same")
efficientnet_b7 = padded_factory("efficientnet_b7", "same")
efficientnet_lite0 = padded_factory("efficientnet_lite0", "symmetric")
efficientnet_lite1 = padded_factory("efficientnet_lite1", "same")
efficientnet_lite2 = padded_factory("efficientnet_lite2", "same")
efficientnet_lite3 = padded_factory("efficientnet_lite3", "same")
efficientnet_lite4 = padded_factory("efficientnet_lite4", "same")
