"""Any timm network as a backbone: its classifier removed; its width, blocks and sizes asked for, not assumed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from medcli.errors import UsageProblem, nearest
from medcli.models.attention import attention_maps, watch_attention
from medcli.models.layer_groups import group_layers
from medcli.models.pretrained import cached_weights
from medcli.models.weight_files import Allowed, State, looks_like_file, read_weights
from medcli.models.weights import LoadReport, load_weights
from medcli.plugin import LayerGroup, PretrainedHead

__all__ = ["NativeInput", "TimmBackbone"]

NetworkMaker = Callable[..., nn.Module]
_SIZE_TRIES = 64


@dataclass(frozen=True)
class NativeInput:
    """What the network's published weights expect.

    Args:
        image_size: side in pixels.
        mean: per channel, in [0, 1] units.
        std: per channel.
        interpolation: `bilinear` or `bicubic`.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str


class TimmBackbone(nn.Module):
    """Images [B, C, H, W] -> pooled features [B, feature_dim].

    Args:
        name: a timm network, or a function that takes timm's keywords (`num_classes`, `in_chans`, ...) and returns one.
        in_channels: channels of the images, 1 or more.
        image_size: side in pixels; None for the network's own.
        pretrained: start from timm's default weights, from the local cache.
        weights: a file, or one of timm's tags, from the local cache.
        drop_path: stochastic depth; refused where the network has none.
        inside, allow: how the file is read; see `read_weights`.
        rename, ignore, fresh: how its tensors become the network's; see `load_weights`.
        head: the classifier among the file's tensors, under the file's own names; None for the one that timm's network
            would have.
        **timm_kwargs: passed to the network.

    Raises:
        UsageProblem: unknown name or option, an image size the network cannot represent, weights that do not fit.

    Examples:
        >>> backbone = TimmBackbone("resnet18", in_channels=1, image_size=64)
        >>> backbone(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 512])
    """

    feature_dim: int

    def __init__(
        self,
        name: str | NetworkMaker,
        *,
        in_channels: int = 3,
        image_size: int | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        drop_path: float = 0.0,
        inside: Sequence[str] = (),
        allow: Sequence[Allowed] = (),
        rename: Callable[[str], str | None] | None = None,
        ignore: Iterable[str] = (),
        fresh: Iterable[str] = (),
        head: Callable[[State], PretrainedHead | None] | None = None,
        **timm_kwargs: Any,
    ) -> None:
        super().__init__()
        self.name, published, make = _maker(name)
        options = {key: value for key, value in timm_kwargs.items() if value is not None}
        plan = _plan(self.name, make, {"in_chans": in_channels, **options}, drop_path)
        self.native = _native_input(plan.sample)
        self.image_size = image_size or self.native.image_size
        self.in_channels = in_channels
        if plan.sized:
            plan.arguments["img_size"] = self.image_size
        _check_size(self.name, plan, self.image_size, in_channels)
        self.net = make(num_classes=0, **plan.arguments)
        if drop_path > 0 and not _has_drop_path(self.net):
            raise _no_drop_path(self.name)
        self.feature_dim = plan.feature_dim
        self.pretrained_head: PretrainedHead | None = None
        self.load_report: LoadReport | None = None
        self._groups = group_layers(self.net, prefix="net.")
        if not (pretrained or weights):
            return
        if weights and looks_like_file(weights):
            path = weights
        else:
            known, _, tag = published.partition(".")
            path = str(cached_weights(known, weights or tag or None))
        tensors = read_weights(path, inside=inside, allow=allow)
        with torch.device("meta"):
            classes = list(make(num_classes=7, **plan.arguments).state_dict())
        headless = self.net.state_dict()
        self.load_report, old_head = load_weights(
            self.net,
            tensors,
            name=self.name,
            origin=path,
            rename=rename,
            ignore=ignore,
            fresh=fresh,
            head_keys=[key for key in classes if key not in headless],
            first_convolutions=_first_convolutions(self.net),
        )
        self.pretrained_head = _plain_head(old_head, self.feature_dim) if head is None else head(tensors)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, feature_dim]."""
        features: torch.Tensor = self.net(images)
        return features

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        """The last map before pooling, [B, D', H', W']; the prefix tokens of a ViT are left out."""
        final: torch.Tensor = self.net.forward_features(images)  # type: ignore[operator]
        if final.ndim == 4:
            return final.permute(0, 3, 1, 2) if getattr(self.net, "output_fmt", "NCHW") == "NHWC" else final
        if final.ndim == 3:
            tokens = final[:, int(getattr(self.net, "num_prefix_tokens", 0)) :]
            rows, columns = self._grid(images, tokens.shape[1])
            if rows * columns == tokens.shape[1]:
                return tokens.transpose(1, 2).reshape(len(tokens), -1, rows, columns)
        raise UsageProblem(f"`{self.name}` has no two-dimensional feature map", code="no-feature-map")

    def _grid(self, images: torch.Tensor, count: int) -> tuple[int, int]:
        """Rows and columns of `count` patches: as the embedding cuts them, else in the picture's proportions."""
        height, width = images.shape[-2:]
        patch = getattr(getattr(self.net, "patch_embed", None), "patch_size", None)
        if isinstance(patch, (tuple, list)) and height // patch[0] * (width // patch[1]) == count:
            return height // patch[0], width // patch[1]
        rows = max(1, round((count * height / width) ** 0.5))
        return rows, count // rows

    def attention_maps(self, images: torch.Tensor, layer: int = -1) -> torch.Tensor:
        """Attention [B, heads, N, N] of one block, prefix tokens such as CLS first; see `medcli.models.attention`."""
        return attention_maps(self.net, images, layer, name=self.name)

    def watch_attention(
        self, keep: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> AbstractContextManager[list[torch.Tensor]]:
        """Attention of all blocks in the next pass, with its graph; see `medcli.models.attention.watch_attention`."""
        return watch_attention(self.net, name=self.name, keep=keep)

    def layer_groups(self) -> tuple[LayerGroup, ...]:
        """Blocks from input to output; the stem is stage 0."""
        return self._groups

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the network's authors keep free of weight decay, such as position embeddings."""
        named = getattr(self.net, "no_weight_decay", None)
        return {f"net.{name}" for name in named()} if named is not None else set()

    def set_grad_checkpointing(self, enabled: bool = True) -> None:
        """Recompute activations in the backward pass.

        Raises:
            UsageProblem: the network does not offer it.
        """
        try:
            self.net.set_grad_checkpointing(enabled)  # type: ignore[operator]
        except (AssertionError, AttributeError, NotImplementedError) as error:
            if enabled:
                raise UsageProblem(
                    f"`{self.name}` does not offer gradient checkpointing",
                    code="no-grad-checkpointing",
                    where="--grad-checkpointing",
                    hint="use a smaller `--batch-size` with `--accumulate`",
                ) from error


@dataclass
class _Plan:
    """How the network is made: accepted arguments, a weightless sample, and what the sample says."""

    make: NetworkMaker
    arguments: dict[str, Any]
    sample: nn.Module
    sized: bool
    feature_dim: int


def _maker(name: str | NetworkMaker) -> tuple[str, str, NetworkMaker]:
    """Readable name, timm's name with its tag (empty if it has none), and the function that makes the network."""
    import timm

    if callable(name):
        own = str(getattr(name, "__name__", "network"))
        return own, str(getattr(name, "published", own)), name
    plain = name.partition(".")[0]
    if not timm.is_model(plain):
        close = nearest(plain, timm.list_models())
        raise UsageProblem(
            f"timm has no network `{name}`",
            code="unknown-architecture",
            hint=f"did you mean {', '.join(f'`{word}`' for word in close)}?" if close else "see `medcli models list`",
        )
    return plain, name, partial(timm.create_model, plain)


def _plan(name: str, make: NetworkMaker, options: Mapping[str, Any], drop_path: float) -> _Plan:
    arguments = dict(options)
    arguments["drop_path_rate"] = drop_path
    with torch.device("meta"):
        try:
            sample = _made(name, make, arguments)
        except _UnknownArgument as error:
            if error.argument != "drop_path_rate":
                raise error.problem from None
            if drop_path > 0:
                raise _no_drop_path(name) from None
            del arguments["drop_path_rate"]
            try:
                sample = _made(name, make, arguments)
            except _UnknownArgument as second:
                raise second.problem from None
    sized = "img_size" in inspect.signature(type(sample).__init__).parameters
    width = getattr(sample, "head_hidden_size", None) or sample.num_features
    return _Plan(make, arguments, sample, sized, int(width))  # type: ignore[arg-type]


class _UnknownArgument(Exception):
    def __init__(self, argument: str, problem: UsageProblem) -> None:
        super().__init__(argument)
        self.argument = argument
        self.problem = problem


def _made(name: str, make: NetworkMaker, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        return make(num_classes=0, **arguments)
    except TypeError as error:
        text = str(error)
        argument = next((key for key in arguments if f"'{key}'" in text), None)
        if "keyword argument" not in text or argument is None:
            raise UsageProblem(f"`{name}` cannot be built: {text}", code="bad-option", where="--arch-opt") from error
        raise _UnknownArgument(
            argument,
            UsageProblem(f"`{name}` has no option `{argument}`", code="bad-option", where="--arch-opt"),
        ) from error
    except (AssertionError, KeyError, ValueError, RuntimeError, AttributeError) as error:
        raise UsageProblem(
            f"`{name}` cannot be built with these options: {str(error) or type(error).__name__}",
            code="bad-option",
            where="--arch-opt",
        ) from error


def _no_drop_path(name: str) -> UsageProblem:
    return UsageProblem(
        f"`{name}` has no stochastic depth, so a drop path has nothing to act on",
        code="no-drop-path",
        where="--drop-path",
        hint="leave it at 0 and use `--dropout`",
    )


def _has_drop_path(network: nn.Module) -> bool:
    return any(
        type(module).__name__ in {"DropPath", "StochasticDepth"} and getattr(module, "drop_prob", 0.0) > 0
        for module in network.modules()
    )


def _native_input(sample: nn.Module) -> NativeInput:
    config: Mapping[str, Any] = getattr(sample, "pretrained_cfg", None) or {}
    interpolation = str(config.get("interpolation") or "bilinear")
    return NativeInput(
        image_size=int((config.get("input_size") or (3, 224, 224))[-1]),
        mean=tuple(config.get("mean") or (0.485, 0.456, 0.406)),
        std=tuple(config.get("std") or (0.229, 0.224, 0.225)),
        interpolation=interpolation if interpolation in {"bilinear", "bicubic"} else "bilinear",
    )


def _check_size(name: str, plan: _Plan, size: int, in_channels: int) -> None:
    """Refuse a size that the network cannot represent, naming the nearest that it can."""
    step = _patch(plan.sample)
    works = partial(_represents, plan, step, in_channels)
    its_own = size == _native_input(plan.sample).image_size and size % step == 0
    if its_own or works(size):
        return
    multiples = sorted(
        {size // step * step + offset * step for offset in range(-_SIZE_TRIES, _SIZE_TRIES + 1)},
        key=lambda side: (abs(side - size), -side),
    )
    near = next((candidate for candidate in multiples if candidate > 0 and works(candidate)), None)
    raise UsageProblem(
        f"`{name}` cannot take images of {size} × {size} pixels"
        + (f"; the nearest size it can take is {near}" if near else ""),
        code="bad-image-size",
        where="--image-size",
        hint=f"--image-size {near}" if near else f"--image-size {_native_input(plan.sample).image_size}",
    )


def _patch(network: nn.Module) -> int:
    """The side of the patches a network cuts the picture into without overlap; 1 where it does not."""
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if isinstance(patch, (tuple, list)):
        return int(patch[0])
    return int(patch) if isinstance(patch, int) else 1


def _represents(plan: _Plan, step: int, in_channels: int, size: int) -> bool:
    if size % step:
        return False
    arguments = {**plan.arguments, "img_size": size} if plan.sized else plan.arguments
    with torch.device("meta"), torch.no_grad():
        try:
            network = plan.make(num_classes=0, **arguments).eval() if plan.sized else plan.sample.eval()
            network(torch.zeros(1, in_channels, size, size))
        except (AssertionError, RuntimeError, ValueError, ZeroDivisionError, IndexError):
            return False
    return True


def _first_convolutions(network: nn.Module) -> tuple[str, ...]:
    config: Mapping[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    named = config.get("first_conv")
    if named:
        return (named,) if isinstance(named, str) else tuple(named)
    return next(((name,) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)), ())


def _plain_head(head: Mapping[str, torch.Tensor], feature_dim: int) -> PretrainedHead | None:
    """The old classifier, where it was one linear layer; the file does not say what its classes are."""
    matrices = [key for key, tensor in head.items() if tensor.ndim == 2 and tensor.shape[1] == feature_dim]
    if len(head) != 2 or len(matrices) != 1:
        return None
    bias = head.get(matrices[0].removesuffix("weight") + "bias")
    return None if bias is None else PretrainedHead(head[matrices[0]], bias)
