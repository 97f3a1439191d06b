"""Two functions for notebooks and scripts: `from medcli import build, load`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.models.build import build_classifier, load_model, load_run
from medcli.models.classifier import Classifier
from medcli.models.heads import HeadKind
from medcli.models.preprocessing import FALLBACK_SIZE
from medcli.models.spec import ModelSpec
from medcli.runs.directory import RunDirectory

__all__ = ["build", "load"]


def build(
    architecture: str,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] = (),
    target: Target | None = None,
    pretrained: bool = False,
    weights: str | Path | None = None,
    in_channels: int = 3,
    image_size: int | None = None,
    dropout: float = 0.0,
    head_norm: bool = False,
    head_kind: HeadKind = "linear",
    drop_path: float = 0.0,
    seed: int | None = None,
    **options: Any,
) -> Classifier:
    """Build a classifier with any installed architecture, in eval mode.

    Args:
        architecture: a name of `medcli models list`, such as `resnet50`, `timm/resnet10t` or `medcli/resnet50`.
        num_classes: number of classes; for one of a binary or multiclass target.
        class_names: their names (default `0`, `1`, ...); may stand alone.
        target: the whole target instead, for ordinal, multilabel and multioutput.
        pretrained: start from the default weights, from the local cache.
        weights: a file, or a weight tag.
        in_channels: channels of the images.
        image_size: side of the images in pixels (default: the architecture's own).
        dropout: before the last linear layer.
        head_norm: put a LayerNorm before that.
        head_kind: `linear`, or `corn` or `coral` for an ordinal target.
        drop_path: stochastic depth, where the family has it.
        seed: draw the initial weights from this seed alone.
        **options: the architecture's own options, as `medcli models show` lists them.

    Raises:
        UsageProblem: the message says what does not fit and what would.

    Examples:
        >>> import torch
        >>> from medcli import build
        >>> model = build("resnet18", num_classes=5, dropout=0.3)
        >>> model(torch.zeros(1, 3, 224, 224)).shape
        torch.Size([1, 5])
        >>> vit = build("vit_tiny_patch16_224", num_classes=2, image_size=96, pool="mean")
        >>> vit.attention_maps(torch.zeros(1, 3, 96, 96)).shape
        torch.Size([1, 3, 37, 37])
    """
    from medcli.registry.cards import read_card
    from medcli.registry.discovery import discover, find

    if image_size is None:
        card = read_card(find(discover(), architecture))
        image_size = (card.input_size if card else None) or FALLBACK_SIZE
    spec = ModelSpec(
        architecture=architecture,
        in_channels=in_channels,
        image_size=image_size,
        target=target or _target(num_classes, class_names),
        options=options,
        drop_path=drop_path,
        dropout=dropout,
        head_norm=head_norm,
        head_kind=head_kind,
    )
    built = build_classifier(spec, weights=None if weights is None else str(weights), pretrained=pretrained, seed=seed)
    return built.classifier.eval()


def load(path: str | Path, *, device: str = "cpu") -> Classifier:
    """The trained classifier of a run, in eval mode.

    Args:
        path: a run directory, or its `model.safetensors`.
        device: where its weights go.

    Raises:
        UsageProblem: no such run, or a model file that cannot be read.

    Examples:
        >>> from medcli import load
        >>> model = load("runs/20260101T120000Z-train-resnet18-1a2b")  # doctest: +SKIP
        >>> model.target.class_names  # doctest: +SKIP
        ('normal', 'pneumonia')
    """
    path = Path(path)
    run = RunDirectory(path)
    if path.is_dir() and not run.holds_model:
        raise UsageProblem(
            f"`{path}` holds no `model.safetensors`", code="no-model-file", hint="`medcli runs list` shows the runs"
        )
    return (load_run(run, device) if path.is_dir() else load_model(path, device)).classifier


def _target(num_classes: int | None, class_names: Sequence[str]) -> Target:
    if num_classes is None and not class_names:
        raise UsageProblem("how many classes? give `num_classes`, `class_names` or `target`", code="no-classes")
    names = tuple(class_names) or tuple(str(index) for index in range(num_classes or 0))
    if num_classes is not None and num_classes != len(names):
        raise UsageProblem(f"{num_classes} classes but {len(names)} class names", code="no-classes")
    if len(names) < 2:
        raise UsageProblem(f"{len(names)} classes cannot be told apart; a target needs two or more", code="no-classes")
    return Target("binary" if len(names) == 2 else "multiclass", names)
