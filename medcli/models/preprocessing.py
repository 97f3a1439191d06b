"""From settings and a card to a model's preprocessing: decided in one place for training and for published weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medcli.data.dataset import Preprocessing
from medcli.plugin import ArchitectureCard
from medcli.settings.groups import DataSettings, ModelSettings

__all__ = ["per_channel", "plan_preprocessing"]

FALLBACK_SIZE = 224
FALLBACK_MEAN = (0.485, 0.456, 0.406)
FALLBACK_STD = (0.229, 0.224, 0.225)
FALLBACK_FIT = "squash"


def plan_preprocessing(
    card: ArchitectureCard | None,
    settings: DataSettings,
    model: ModelSettings | None = None,
    options: Mapping[str, Any] | None = None,
) -> Preprocessing:
    """From picture to input: flags first, then the card (as its weights and options want it), then ImageNet's figures.

    Args:
        card: of the architecture, or None.
        settings: flags about the picture.
        model: which weights.
        options: parsed `--arch-opt` values.
    """
    size = settings.image_size or (card.input_size if card else None) or FALLBACK_SIZE
    channels = settings.in_channels or (card.in_channels if card else None) or 3
    tag = (
        model.weights
        if model and model.weights
        else (card.default_weights if card and model and model.pretrained else "")
    )
    normalisation = card.normalisation_for(tag or "", options) if card else None
    mean = settings.mean or (normalisation.mean if normalisation else FALLBACK_MEAN)
    std = settings.std or (normalisation.std if normalisation else FALLBACK_STD)
    return Preprocessing(
        image_size=size,
        channels=channels,
        mean=per_channel(mean, channels),
        std=per_channel(std, channels),
        interpolation=normalisation.interpolation if normalisation else "bilinear",
        fit=settings.fit or (normalisation.fit if normalisation else "") or FALLBACK_FIT,
        window=settings.window,
    )


def per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One value per channel: one is repeated, three become their mean for a single channel."""
    if len(values) == channels:
        return tuple(values)
    return (sum(values) / len(values),) * channels
