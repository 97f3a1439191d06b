"""ResNet (He et al. 2016), with a stem that keeps the resolution of small pictures and two ways to draw its weights."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, get_args

from torch import nn

from medcli.errors import UsageProblem
from medcli.plugin import ArchitectureFactory, TimmBackbone

__all__ = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]

Stem = Literal["standard", "small"]
Draw = Literal["timm", "torch"]


def _network(name: str, stem: Stem, init: Draw, **arguments: Any) -> nn.Module:
    """timm's network, changed where somebody asks for it.

    With `stem="small"` its 7 × 7 convolution of stride 2 and its max-pool become one 3 × 3 convolution of stride 1: at
    28 or 64 px the published stem throws away three quarters of the picture twice before the first block.

    With `init="torch"` weights are drawn as PyTorch draws those of any layer, uniform within ± 1 / sqrt(fan in), and no
    block begins as the identity. That is how codes draw them that build a ResNet by hand, MedMNIST's among them. timm
    draws normally distributed ones with a variance of 2 / fan out (He et al. 2015), six times that, and begins every
    block as the identity. Larger weights before a batch norm learn as with a smaller rate.
    """
    import timm

    network: Any = timm.create_model(name, **arguments)
    if stem == "small":
        first = nn.Conv2d(network.conv1.in_channels, network.conv1.out_channels, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
        network.conv1 = first
        network.maxpool = nn.Identity()
    if init == "torch":
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
                layer.reset_parameters()
    module: nn.Module = network
    return module


def _factory(name: str) -> ArchitectureFactory:
    def build(
        *,
        in_channels: int = 3,
        image_size: int | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        drop_path: float = 0.0,
        stem: Stem = "standard",
        init: Draw = "timm",
    ) -> TimmBackbone:
        _check("stem", stem, get_args(Stem))
        _check("init", init, get_args(Draw))
        if init != "timm" and (pretrained or weights):
            raise UsageProblem(
                f"`init={init}` draws weights, and these come from a file",
                where="--arch-opt init",
                hint=f"leave out `--arch-opt init={init}`",
                code="idle-flag",
            )
        make: Any = name
        if (stem, init) != ("standard", "timm"):
            make = partial(_network, name, stem, init)
            make.__name__ = name
            make.published = name
        return TimmBackbone(
            make,
            in_channels=in_channels,
            image_size=image_size,
            pretrained=pretrained,
            weights=weights,
            drop_path=drop_path,
        )

    build.__name__ = build.__qualname__ = name
    return build  # type: ignore[return-value]


def _check(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageProblem(
            f"`{value}` is not a value of `{option}`: {', '.join(known)}",
            where=f"--arch-opt {option}",
            hint=f"`--arch-opt {option}={known[-1]}`, or leave it out",
            code="bad-option",
        )


resnet18 = _factory("resnet18")
resnet34 = _factory("resnet34")
resnet50 = _factory("resnet50")
resnet101 = _factory("resnet101")
resnet152 = _factory("resnet152")
