"""LongitudinalMIM for medcli: the factories that the entry points name; torch is imported when they build."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from medcli_longitudinal.auxiliary import LongitudinalEncoder
    from medcli_longitudinal.constants import Sizes
    from medcli_longitudinal.document import LongitudinalMIMModel, LongitudinalMIMModelBig
    from medcli_longitudinal.memory import Checkpointing
    from medcli_longitudinal.subtract import SubtractModel, SubtractModelBig

__all__ = [
    "longitudinal_encoder",
    "longitudinal_mim",
    "longitudinal_mim_big",
    "longitudinal_subtract",
    "longitudinal_subtract_big",
]

Map = Literal["signed", "magnitude"]
Network = TypeVar("Network", bound="Checkpointing")


def longitudinal_mim(
    *,
    in_channels: int,
    image_size: int,
    map: Map = "signed",  # noqa: A002 (the keyword's own name)
    weights: str | None = None,
    width: float = 1.0,
    depth: int = 12,
    init_weights: bool = True,
    grad_checkpointing: bool = False,
) -> LongitudinalMIMModel:
    """The document's smaller difference model.

    Args:
        in_channels: channels of the pictures.
        image_size: side of the pictures in pixels, a multiple of 32.
        map: `signed` for values in [-1, 1], `magnitude` for values in [0, 1].
        weights: a file with every tensor of the network, or None.
        width: factor on all channels.
        depth: layers of the transformer.
        init_weights: Kaiming and truncated normal initial weights; otherwise torch's own.
        grad_checkpointing: recompute activations in the backward pass.

    Raises:
        UsageProblem: another size, or weights that do not fit.
    """
    from medcli_longitudinal.document import LongitudinalMIMModel

    sizes = _sizes("longitudinal-mim", image_size, 32, width, init_weights, depth)
    network = LongitudinalMIMModel(in_channels, map=map, sizes=sizes)
    return _ready(network, "longitudinal-mim", weights, grad_checkpointing)


def longitudinal_mim_big(
    *,
    in_channels: int,
    image_size: int,
    map: Map = "signed",  # noqa: A002 (the keyword's own name)
    weights: str | None = None,
    width: float = 1.0,
    depth: int = 12,
    init_weights: bool = True,
    grad_checkpointing: bool = False,
) -> LongitudinalMIMModelBig:
    """The document's recommended difference model. Arguments and errors as for `longitudinal_mim`."""
    from medcli_longitudinal.document import LongitudinalMIMModelBig

    sizes = _sizes("longitudinal-mim-big", image_size, 32, width, init_weights, depth)
    network = LongitudinalMIMModelBig(in_channels, map=map, sizes=sizes)
    return _ready(network, "longitudinal-mim-big", weights, grad_checkpointing)


def longitudinal_subtract(
    *,
    in_channels: int,
    image_size: int,
    map: Map = "signed",  # noqa: A002 (the keyword's own name)
    weights: str | None = None,
    width: float = 1.0,
    init_weights: bool = True,
    grad_checkpointing: bool = False,
) -> SubtractModel:
    """The public code's smaller difference model; `image_size` is a multiple of 16. Else as for `longitudinal_mim`."""
    from medcli_longitudinal.subtract import SubtractModel

    sizes = _sizes("longitudinal-subtract", image_size, 16, width, init_weights)
    network = SubtractModel(in_channels, map=map, sizes=sizes)
    return _ready(network, "longitudinal-subtract", weights, grad_checkpointing)


def longitudinal_subtract_big(
    *,
    in_channels: int,
    image_size: int,
    map: Map = "signed",  # noqa: A002 (the keyword's own name)
    weights: str | None = None,
    width: float = 1.0,
    init_weights: bool = True,
    grad_checkpointing: bool = False,
) -> SubtractModelBig:
    """The public code's recommended difference model. Arguments and errors as for `longitudinal_subtract`."""
    from medcli_longitudinal.subtract import SubtractModelBig

    sizes = _sizes("longitudinal-subtract-big", image_size, 16, width, init_weights)
    network = SubtractModelBig(in_channels, map=map, sizes=sizes)
    return _ready(network, "longitudinal-subtract-big", weights, grad_checkpointing)


def longitudinal_encoder(
    *,
    in_channels: int,
    image_size: int,
    pretrained: bool = False,
    weights: str | None = None,
    drop_path: float = 0.0,
    width: float = 1.0,
    depth: int = 12,
    init_weights: bool = True,
) -> LongitudinalEncoder:
    """The encoder of the document's difference models, as a classifier's backbone.

    Args:
        in_channels: channels of the pictures.
        image_size: side of the pictures in pixels, a multiple of 32.
        pretrained: refused, there are no published weights.
        weights: a file with every tensor of the network, or None.
        drop_path: refused, there is no stochastic depth.
        width: factor on all channels.
        depth: layers of the transformer.
        init_weights: Kaiming and truncated normal initial weights; otherwise torch's own.

    Raises:
        UsageProblem: another size, a drop path, or weights that are missing or do not fit.
    """
    from medcli.plugin import UsageProblem

    if pretrained and weights is None:
        raise UsageProblem(
            "`longitudinal-encoder` has no published weights",
            where="--pretrained",
            hint="pretrain it with `medcli diffmap pretrain`, or give `--weights FILE`",
            code="no-weights",
        )
    if drop_path:
        raise UsageProblem(
            "`longitudinal-encoder` has no stochastic depth",
            where="--drop-path",
            hint="leave it at 0 and use `--dropout`",
            code="no-drop-path",
        )
    from medcli_longitudinal.auxiliary import LongitudinalEncoder

    sizes = _sizes("longitudinal-encoder", image_size, 32, width, init_weights, depth)
    return _ready(LongitudinalEncoder(in_channels, sizes=sizes), "longitudinal-encoder", weights, False)


def _sizes(name: str, image_size: int, multiple: int, width: float, init_weights: bool, depth: int = 12) -> Sizes:
    from medcli.plugin import UsageProblem
    from medcli_longitudinal.constants import Sizes

    if image_size < 2 * multiple or image_size % multiple:
        near = max(2, round(image_size / multiple)) * multiple
        raise UsageProblem(
            f"`{name}` takes sides of {2 * multiple}, {3 * multiple}, {4 * multiple}, … pixels, not {image_size}",
            where="--image-size",
            hint=f"--image-size {near}",
            code="bad-image-size",
        )
    return Sizes(image_size, width, depth, init_weights)


def _ready(network: Network, name: str, weights: str | None, grad_checkpointing: bool) -> Network:
    """The same network, with its weights."""
    if weights is not None:
        from medcli.plugin import load_weights

        network.load_report, _ = load_weights(network, weights, name=name)
    network.set_grad_checkpointing(grad_checkpointing)
    return network
