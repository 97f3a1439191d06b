"""Any vision network of transformers as a backbone: built from a configuration, loaded strictly, offline.

transformers' own `from_pretrained` downloads, warns and fills gaps with random numbers; here the network is built from
its configuration alone and its tensors go through medcli's own comparison.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from medcli.errors import UsageProblem
from medcli.models.layer_groups import group_layers
from medcli.models.transformers_attention import attention_maps, watch_attention
from medcli.models.transformers_blocks import cut_blocks
from medcli.models.transformers_files import (
    Source,
    check_config,
    converted_names,
    find_source,
    quiet,
    read_config,
    renamed_by,
)
from medcli.models.weight_files import Allowed, State, read_weights
from medcli.models.weights import LoadReport, load_weights
from medcli.plugin import LayerGroup, PretrainedHead

__all__ = ["TransformersBackbone"]

Pool = Literal["cls", "mean"]

_SIZE_TRIES = 64
_UNDECAYED = (
    "cls_token",
    "distillation_token",
    "register_tokens",
    "position_embeddings",
    "relative_position_bias_table",
)
_HEADS = ("classifier", "cls_classifier", "distillation_classifier")
_CHECKPOINTING = ("activation_checkpointing_enable", "gradient_checkpointing_enable")


class TransformersBackbone(nn.Module):
    """Images [B, C, H, W] -> pooled features [B, feature_dim].

    Learned positions are interpolated by the network itself, in every forward pass, as its authors do it. So the number
    of parameters is the same at every size, and the published table stays whole.

    Args:
        model: a configuration object (`Dinov2Config(...)`), which starts from random weights unless `weights` is given;
            or a folder in the hub's layout (`config.json` and `model.safetensors` or `pytorch_model.bin`), or a
            repository of the hub that is already in the local cache, which bring their weights.
        in_channels: channels of the images, 1 or more.
        image_size: side in pixels; None for the configuration's own.
        weights: a file, folder or cached repository to load instead.
        drop_path: stochastic depth; refused where the configuration has none.
        pool: `cls`, the class token after the last norm; `mean`, the mean of the patches after it or, for a network of
            maps, its own average pooling. None: `cls` where there is a class token.
        name: the architecture, for messages; None for the configuration's family.
        inside, allow: how the file is read; see `read_weights`.
        convert: changes the file's tensors before anything else, such as splitting a fused matrix.
        rename, ignore, fresh: as in `load_weights`; `rename` may give any name transformers has had for a tensor.
        head: the classifier among the file's tensors, under the file's own names.

    Raises:
        UsageProblem: no vision network, an image size the network cannot represent, weights that are missing or do not
            fit.

    Examples:
        >>> from transformers import Dinov2Config
        >>> config = Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2)
        >>> backbone = TransformersBackbone(config, in_channels=1, image_size=56)
        >>> backbone(torch.zeros(2, 1, 56, 56)).shape
        torch.Size([2, 24])
    """

    feature_dim: int

    def __init__(
        self,
        model: Any,
        *,
        in_channels: int = 3,
        image_size: int | None = None,
        weights: str | Path | None = None,
        drop_path: float = 0.0,
        pool: Pool | None = None,
        name: str | None = None,
        inside: Sequence[str] = (),
        allow: Sequence[Allowed] = (),
        convert: Callable[[State], State] | None = None,
        rename: Callable[[str], str | None] | None = None,
        ignore: Iterable[str] = (),
        fresh: Iterable[str] = (),
        head: Callable[[State], PretrainedHead | None] | None = None,
    ) -> None:
        super().__init__()
        source, config = _described(model, name)
        self.name = name or str(config.model_type)
        if weights is not None:
            source = find_source(weights, name=self.name)
            if source.config is not None:
                check_config(config, source.config, name=self.name)
        plan = _plan(self.name, config, in_channels, drop_path)
        self.in_channels = in_channels
        self.image_size = image_size or plan.native_size
        self.feature_dim, self.pool, self._prefix = _probed(self.name, plan, self.image_size, pool)
        self._step = plan.step
        with quiet():
            self.net = plan.build()
        self._call = plan.call
        self.load_report: LoadReport | None = None
        self.pretrained_head: PretrainedHead | None = None
        self._groups = group_layers(self)
        if source is None:
            return
        tensors = read_weights(source.weights, inside=inside, allow=allow)
        renamed, dropped = _renamed(tensors if convert is None else convert(dict(tensors)), rename)
        state = converted_names(self.net, renamed)
        report, _ = load_weights(
            self.net,
            state,
            name=self.name,
            origin=str(source.weights),
            ignore=(*ignore, *plan.unused),
            fresh=fresh,
            head_keys=[key for key in state if key.partition(".")[0] in _HEADS],
            first_convolutions=_first_convolution(self.net),
        )
        self.load_report = replace(report, ignored=(*dropped, *report.ignored)) if dropped else report
        self.pretrained_head = None if head is None else head(tensors)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, feature_dim].

        Raises:
            UsageProblem: sides that are no multiples of the patch, whose rest the network would leave out.
        """
        final, pooled = self._run(images)
        if final.ndim == 4:
            return final.mean((2, 3)) if pooled is None else pooled.flatten(1)
        return final[:, 0] if self.pool == "cls" else final[:, self._prefix :].mean(1)

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        """The last map before pooling, [B, D, h, w]: patch tokens after the last norm, without class and registers."""
        final, _ = self._run(images)
        if final.ndim == 4:
            return final
        tokens = final[:, self._prefix :]
        height, width = images.shape[-2:]
        rows = round((tokens.shape[1] * height / width) ** 0.5)
        if rows < 1 or tokens.shape[1] % rows:
            raise UsageProblem(f"`{self.name}` has no two-dimensional feature map", code="no-feature-map")
        return tokens.transpose(1, 2).reshape(len(tokens), -1, rows, tokens.shape[1] // rows)

    def attention_maps(self, images: torch.Tensor, layer: int = -1) -> torch.Tensor:
        """Attention after the softmax, [B, heads, N, N]; N counts the class token and registers first.

        The network runs in eval mode and without gradients. The fused kernel never forms the matrix, so it is switched
        off for this one call.

        Args:
            images: [B, C, H, W], normalised.
            layer: block to read; negative numbers count from the last.

        Raises:
            UsageProblem: the network has no attention over all positions, or no such layer.
        """
        return attention_maps(self.net, lambda: self._run(images), layer, name=self.name)

    def watch_attention(
        self, keep: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> AbstractContextManager[list[torch.Tensor]]:
        """Attention of all blocks in the next pass, with its graph; fused kernels are off meanwhile.

        Args:
            keep: what of each map [B, heads, N, N] is kept.

        Raises:
            UsageProblem: the network has no attention over all positions.
        """
        return watch_attention(self.net, name=self.name, keep=keep)

    def layer_groups(self) -> tuple[LayerGroup, ...]:
        """Blocks from input to output; the embeddings are stage 0, and the last norm belongs to the last block."""
        return self._groups

    def group_matcher(self, coarse: bool = False) -> Callable[[str], tuple[int, ...]]:
        """Where to cut, as timm's networks say it: name of a parameter to its block, or with `coarse` to its stage."""
        cuts = cut_blocks(self.net, prefix="net.")
        return lambda name: cuts[name][:1] if coarse else cuts[name]

    def no_weight_decay(self) -> set[str]:
        """Tokens and tables of positions, which are free of weight decay in their authors' training."""
        return {name for name, _ in self.named_parameters() if name.endswith(_UNDECAYED)}

    def set_grad_checkpointing(self, enabled: bool = True) -> None:
        """Recompute activations in the backward pass.

        Raises:
            UsageProblem: the network does not offer it.
        """
        network: Any = self.net
        if not network.supports_gradient_checkpointing:
            if enabled:
                raise UsageProblem(
                    f"`{self.name}` does not offer gradient checkpointing",
                    code="no-grad-checkpointing",
                    where="--grad-checkpointing",
                    hint="use a smaller `--batch-size` with `--accumulate`",
                )
            return
        # transformers 5.23 has other names for the pair and warns about the older ones.
        enable = next(one for one in _CHECKPOINTING if hasattr(network, one))
        with quiet():
            if enabled:
                getattr(network, enable)({"use_reentrant": False})
            else:
                getattr(network, enable.replace("_enable", "_disable"))()

    def _run(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        height, width = images.shape[-2:]
        if height % self._step or width % self._step:
            near = max(self._step, (height + self._step // 2) // self._step * self._step)
            raise _bad_size(self.name, height, near)
        output = self.net(images, **self._call)
        return output.last_hidden_state, getattr(output, "pooler_output", None)


@dataclass(frozen=True)
class _Plan:
    """How the network is made and called; `unused` are names in files of parts that are not made."""

    kind: Any
    config: Any
    arguments: Mapping[str, Any]
    call: Mapping[str, Any]
    step: int
    native_size: int
    unused: tuple[str, ...]

    def build(self) -> Any:
        """A network of its own, without the mask token: masked pictures are seen in pretraining alone."""
        network = self.kind(deepcopy(self.config), **self.arguments)
        for module in network.modules():
            if isinstance(getattr(module, "mask_token", None), nn.Parameter):
                module.mask_token = None
        return network


def _described(model: Any, name: str | None) -> tuple[Source | None, Any]:
    """Where the weights are (None: nowhere), and the configuration."""
    if not isinstance(model, (str, Path)):
        return None, model
    with quiet():
        source = find_source(model, name=name or str(model))
        if source.config is None:
            raise UsageProblem(f"there is no `config.json` beside `{source.weights}`", code="bad-config")
        return source, read_config(source.config)


def _plan(name: str, config: Any, in_channels: int, drop_path: float) -> _Plan:
    from transformers import MODEL_MAPPING

    kind = MODEL_MAPPING.get(type(config), None)
    if kind is None or getattr(kind, "main_input_name", "") != "pixel_values" or not hasattr(config, "num_channels"):
        raise UsageProblem(f"`{type(config).__name__}` describes no vision network of transformers", code="bad-config")
    config = deepcopy(config)
    config.num_channels = in_channels
    config.return_dict = True
    if drop_path > 0 and not hasattr(config, "drop_path_rate"):
        raise UsageProblem(
            f"`{name}` has no stochastic depth, so a drop path has nothing to act on",
            code="no-drop-path",
            where="--drop-path",
            hint="leave it at 0 and use `--dropout`",
        )
    if hasattr(config, "drop_path_rate"):
        config.drop_path_rate = drop_path
    pooler = "add_pooling_layer" in inspect.signature(kind.__init__).parameters
    resizes = "interpolate_pos_encoding" in inspect.signature(kind.forward).parameters
    return _Plan(
        kind,
        config,
        {"add_pooling_layer": False} if pooler else {},
        {"interpolate_pos_encoding": True} if resizes else {},
        _side(getattr(config, "patch_size", 1)),
        _side(getattr(config, "image_size", None) or 224),
        ("*mask_token", "pooler.*") if pooler else ("*mask_token",),
    )


def _side(size: int | Sequence[int]) -> int:
    return int(size if isinstance(size, int) else size[0])


def _probed(name: str, plan: _Plan, size: int, pool: Pool | None) -> tuple[int, Pool, int]:
    """Width of the features, the pooling in use, and the number of tokens before the patches."""
    with quiet(), torch.device("meta"):
        outline = plan.build().eval()
    output = _outcome(outline, plan, size)
    if output is None:
        multiples = {
            size // plan.step * plan.step + offset * plan.step for offset in range(-_SIZE_TRIES, _SIZE_TRIES + 1)
        }
        nearby = sorted((side for side in multiples if side > 0), key=lambda side: (abs(side - size), -side))
        near = next((side for side in nearby if _outcome(outline, plan, side) is not None), None)
        raise _bad_size(name, size, near)
    final = output.last_hidden_state
    classed = any(one.endswith("cls_token") for one, _ in outline.named_parameters())
    if pool not in {None, "cls", "mean"} or (pool == "cls" and not classed):
        choices = "`cls` or `mean`" if classed else "`mean`, as it has no class token"
        raise UsageProblem(
            f"`{name}` cannot pool by `{pool}`; it takes {choices}", code="bad-option", where=f"--arch-opt pool={pool}"
        )
    prefix = final.shape[1] - (size // plan.step) ** 2 if classed else 0
    return int(final.shape[1] if final.ndim == 4 else final.shape[2]), pool or ("cls" if classed else "mean"), prefix


def _outcome(outline: Any, plan: _Plan, size: int) -> Any:
    """What the network gives for that size, without numbers; None where it cannot represent it."""
    if size % plan.step:
        return None
    with torch.device("meta"), torch.no_grad():
        try:
            return outline(torch.zeros(1, plan.config.num_channels, size, size), **plan.call)
        except (AssertionError, RuntimeError, ValueError, ZeroDivisionError, IndexError):
            return None


def _bad_size(name: str, size: int, near: int | None) -> UsageProblem:
    return UsageProblem(
        f"`{name}` cannot take images of {size} × {size} pixels"
        + (f"; the nearest size it can take is {near}" if near else ""),
        code="bad-image-size",
        where="--image-size",
        hint=f"--image-size {near}" if near else None,
    )


def _renamed(tensors: State, rename: Callable[[str], str | None] | None) -> tuple[State, list[str]]:
    """The tensors under the caller's names, and the file's names of those it drops."""
    if rename is None:
        return tensors, []
    wanted = {key: rename(key) for key in tensors}
    names = {key: new for key, new in wanted.items() if new is not None}
    return renamed_by(names, tensors), [key for key, new in wanted.items() if new is None]


def _first_convolution(network: nn.Module) -> tuple[str, ...]:
    return next(((name,) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)), ())
