"""Backbone plus medcli's own head: the one network that training, prediction, export and explanation see."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import nn

from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.models.heads import Head, HeadKind, decode
from medcli.models.nearest import NearestHead
from medcli.plugin import LayerGroup

if TYPE_CHECKING:
    from medcli.models.base import Origin
    from medcli.models.lora import Adapters, Variant

__all__ = ["Classifier", "ParameterCounts"]


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters: `total` = `backbone` + `head`, of which `trainable` take gradients."""

    total: int
    trainable: int
    backbone: int
    head: int


class Classifier(nn.Module):
    """Images [B, C, H, W], normalised -> raw outputs of the head (see `Head`).

    Args:
        backbone: images -> features [B, feature_dim]; see `medcli.plugin.Backbone`.
        target: what is predicted.
        head_kind: `linear`, `corn`, `coral`, or `knn` for one that compares with stored cases.
        dropout: before the last linear layer.
        head_norm: whether a LayerNorm comes before that.

    Examples:
        >>> from medcli import build
        >>> model = build("resnet18", num_classes=3)
        >>> model.freeze_backbone()
        >>> model.parameter_counts().trainable
        1539
    """

    def __init__(
        self,
        backbone: nn.Module,
        target: Target,
        *,
        head_kind: HeadKind = "linear",
        dropout: float = 0.0,
        head_norm: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.target = target
        self.head_kind: HeadKind = head_kind
        self.feature_dim = int(backbone.feature_dim)  # type: ignore[arg-type]
        # Typed as the head that learns: what looks inside one has no business with neighbours.
        self.medcli_head: Head = (
            NearestHead(self.feature_dim, target)  # type: ignore[assignment]
            if head_kind == "knn"
            else Head(self.feature_dim, target, head_kind, dropout=dropout, norm=head_norm)
        )
        self._frozen: frozenset[int] = frozenset()
        self.keep_statistics = False
        self.origin: Origin | None = None
        self.adapters: Adapters | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, K], [B, L], [B, O, Kmax] or, for corn and coral, [B, K-1]."""
        raw: torch.Tensor = self.medcli_head(self.backbone(images))
        return raw

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features [B, D], before LayerNorm and dropout of the head."""
        features: torch.Tensor = self.backbone(images)
        return features

    def decode(self, raw: torch.Tensor) -> torch.Tensor:
        """Raw outputs -> stored logits, float32 [B, *target.logits_shape]."""
        return decode(raw, self.target, self.head_kind)

    def attention_maps(self, images: torch.Tensor, layer: int = -1) -> torch.Tensor:
        """Attention [B, heads, N, N] of one block; N includes the class token.

        Raises:
            UsageProblem: the backbone has no attention over the whole picture.
        """
        maps = getattr(self.backbone, "attention_maps", None)
        if maps is None:
            raise UsageProblem(
                "this backbone offers no attention maps", code="no-attention", hint="choose a ViT or DeiT"
            )
        attention: torch.Tensor = maps(images, layer=layer)
        return attention

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        """The last map before pooling [B, D', H', W'].

        Raises:
            UsageProblem: the backbone offers none.
        """
        last = getattr(self.backbone, "feature_map", None)
        if last is None:
            raise UsageProblem("this backbone offers no feature map", code="no-feature-map")
        final: torch.Tensor = last(images)
        return final

    def set_grad_checkpointing(self, enabled: bool = True) -> None:
        """Recompute the backbone's activations in the backward pass.

        Raises:
            UsageProblem: the backbone does not offer it.
        """
        switch = getattr(self.backbone, "set_grad_checkpointing", None)
        if switch is None:
            raise UsageProblem(
                "this backbone does not offer gradient checkpointing",
                code="no-grad-checkpointing",
                where="--grad-checkpointing",
                hint="use a smaller `--batch-size` with `--accumulate`",
            )
        switch(enabled)

    def layer_groups(self) -> tuple[LayerGroup, ...]:
        """The backbone's blocks, then the head as one more stage; names as in `named_parameters()`."""
        groups = self._backbone_groups()
        blocks = [
            LayerGroup(
                group.name,
                group.stage,
                tuple(f"backbone.{name}" for name in group.parameters),
                tuple(f"backbone.{name}" for name in group.modules),
            )
            for group in groups
        ]
        head = LayerGroup(
            "medcli_head",
            self.stages(),
            tuple(f"medcli_head.{name}" for name, _ in self.medcli_head.named_parameters()),
            ("medcli_head", *(f"medcli_head.{name}" for name, _ in self.medcli_head.named_modules() if name)),
        )
        return (*blocks, head)

    def stages(self) -> int:
        """Number of stages of the backbone, the stem included."""
        return 1 + max((group.stage for group in self._backbone_groups()), default=-1)

    def freeze_backbone(self) -> None:
        """Train the head alone: no gradients below it, and no batch statistics, dropout or drop path either."""
        self._freeze(range(len(self._backbone_groups())))

    def unfreeze_backbone(self) -> None:
        """Let everything learn again."""
        self._freeze(())

    def freeze_stages(self, count: int) -> None:
        """Freeze the first `count` stages and let the rest learn.

        Args:
            count: 0 for none; 1 freezes the stem (stage 0).

        Raises:
            UsageProblem: there are fewer stages.
        """
        stages = self.stages()
        if not 0 <= count <= stages:
            raise UsageProblem(
                f"{count} stages cannot be frozen: this backbone has {stages}, the stem included",
                code="bad-stages",
                where="--freeze-layers",
                hint="`--freeze-backbone` freezes all of them",
            )
        self._freeze(index for index, group in enumerate(self._backbone_groups()) if group.stage < count)

    def freeze_groups(self, indices: Iterable[int]) -> None:
        """Freeze just these blocks of the backbone, counted as in `layer_groups()`, and let the rest learn."""
        self._freeze(indices)

    @property
    def frozen(self) -> frozenset[int]:
        """Positions in `layer_groups()` of the blocks that do not learn."""
        return self._frozen

    def frozen_groups(self) -> tuple[LayerGroup, ...]:
        """The groups of `layer_groups()` that do not learn."""
        return tuple(group for index, group in enumerate(self.layer_groups()) if index in self._frozen)

    def parameter_counts(self) -> ParameterCounts:
        """Numbers of parameters, each counted once."""
        total = sum(parameter.numel() for parameter in self.parameters())
        head = sum(parameter.numel() for parameter in self.medcli_head.parameters())
        trainable = sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
        return ParameterCounts(total, trainable, total - head, head)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.adapters is not None:
            self.adapters.settle(self)
        return self

    def add_adapter(
        self,
        name: str = "default",
        *,
        rank: int = 8,
        alpha: float | None = None,
        dropout: float = 0.0,
        targets: str | None = None,
        variant: Variant = "lora",
    ) -> None:
        """Put a fresh low-rank adapter into the backbone; it and the head learn, the base stays as it is.

        Args:
            name: how `set_adapter` calls it.
            rank: r of its factors.
            alpha: their product is scaled by alpha / r; None for 4 r.
            dropout: before the factors.
            targets: `qkv`, `attn`, `mlp`, `conv`, `all-linear`, or a pattern of module names; None for `qkv` where the
                network attends and `conv` where it is convolutional.
            variant: `lora`, `dora`, `rslora` or `pissa`.

        Raises:
            UsageProblem: nothing to adapt, a rank that does not fit, adapters that would never learn.

        Examples:
            >>> from medcli import build
            >>> model = build("vit_tiny_patch16_224", num_classes=5, head_norm=True, dropout=0.3)
            >>> model.add_adapter(rank=8, alpha=32, dropout=0.1)
            >>> counts = model.parameter_counts()
            >>> f"{counts.trainable:,} of {counts.total:,} learn"
            '75,077 of 5,599,493 learn'
        """
        from medcli.models.adapted import add_adapter
        from medcli.models.lora import LoraOptions

        add_adapter(self, LoraOptions(rank, alpha, dropout, targets, variant), name=name)

    def load_adapter(self, path: str | Path, name: str = "default") -> None:
        """Load a stored adapter and its head, and make it the active one; one of that name is replaced.

        Args:
            path: a run of `medcli lora`, or a folder in PEFT's layout.
            name: how `set_adapter` calls it.

        Raises:
            UsageProblem: trained on another base, damaged, or made for another network.
        """
        from medcli.models.adapted import load_adapter

        load_adapter(self, Path(path), name)

    def set_adapter(self, name: str) -> None:
        """Make another loaded adapter the active one, with its head.

        Raises:
            UsageProblem: none of that name was loaded.
        """
        self._adapted().switch(self, name)

    def save_adapter(self, path: str | Path) -> None:
        """Write the active adapter and its head into a folder, in PEFT's layout, with the identity of its base.

        Raises:
            UsageProblem: there is no adapter.
            RunFailure: the folder cannot be written.

        Examples:
            >>> import tempfile
            >>> from medcli import build
            >>> model = build("vit_tiny_patch16_224", num_classes=5, seed=0)
            >>> model.add_adapter(rank=8)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     model.save_adapter(f"{folder}/aptos")
            ...     model.load_adapter(f"{folder}/aptos", "messidor")
            >>> model.set_adapter("default")
        """
        from medcli.models.adapted import save_adapter

        save_adapter(self, Path(path))

    def merge(self) -> float:
        """Add the active adapter to the base weights; afterwards this is an ordinary classifier, as fast as before.

        Returns:
            the largest difference that this makes to an output for random images.

        Raises:
            UsageProblem: there is no adapter.
            RunFailure: the difference is above 1e-5; nothing was changed.

        Examples:
            >>> from medcli import build
            >>> model = build("vit_tiny_patch16_224", num_classes=5)
            >>> model.add_adapter(rank=8)
            >>> model.merge() <= 1e-5
            True
        """
        from medcli.models.lora_checks import sample_images

        difference = self._adapted().merge(self, sample_images(self.origin, self))
        self.adapters = None
        return difference

    def _adapted(self) -> Adapters:
        if self.adapters is None:
            raise UsageProblem(
                "this classifier has no adapter", code="no-adapter", hint="`add_adapter` or `load_adapter` first"
            )
        return self.adapters

    def train(self, mode: bool = True) -> Self:
        """Training mode, except for the frozen blocks: these stay in eval, so that their buffers never change.

        Beside adapters no batch statistics are gathered, because an adapter does not store them; nor where
        `keep_statistics` says so.
        """
        super().train(mode)
        if mode and (self.adapters is not None or self.keep_statistics):
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        if mode and self._frozen:
            groups = self._backbone_groups()
            modules = dict(self.backbone.named_modules())
            for index in self._frozen:
                for name in groups[index].modules:
                    modules[name].training = False
            if len(self._frozen) == len(groups):
                self.backbone.eval()
        return self

    def _freeze(self, indices: Iterable[int]) -> None:
        self._frozen = frozenset(indices)
        parameters = dict(self.backbone.named_parameters())
        for index, group in enumerate(self._backbone_groups()):
            for name in group.parameters:
                parameters[name].requires_grad_(index not in self._frozen)
        self.train(self.training)

    def _backbone_groups(self) -> tuple[LayerGroup, ...]:
        groups = tuple(self.backbone.layer_groups())  # type: ignore[operator]
        return groups if self.adapters is None else self.adapters.regroup(groups)
