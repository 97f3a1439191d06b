"""The smallest medcli plugin: a network whose answers can be written down before it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medcli_echo.network import Echo

__all__ = ["echo"]


def echo(
    *,
    in_channels: int,
    image_size: int,  # noqa: ARG001 (it takes any size)
    pretrained: bool = False,
    weights: str | None = None,
    drop_path: float = 0.0,
    width: int = 8,
) -> Echo:
    """Build the network.

    Args:
        in_channels: channels of the images.
        image_size: side in pixels.
        pretrained: start from the tag `half`.
        weights: `half` or None.
        drop_path: must be 0.
        width: number of features.

    Raises:
        UsageProblem: other weights, or a drop path.
    """
    from medcli.errors import UsageProblem

    if weights not in {None, "half"}:
        raise UsageProblem(
            f"`echo` has no weights `{weights}`",
            where="--weights",
            hint="its only tag is `half`",
            code="unknown-weights",
        )
    if drop_path:
        raise UsageProblem(
            "`echo` has no stochastic depth", where="--drop-path", hint="leave it at 0", code="no-drop-path"
        )
    from medcli_echo.network import Echo

    return Echo(in_channels, width, scale=0.5 if pretrained or weights else 1.0)
