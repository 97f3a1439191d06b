"""The recipe of an architecture as a layer of settings."""

from __future__ import annotations

from medcli.registry.cards import read_card, recipe_layer
from medcli.registry.discovery import ARCHITECTURES, Registry, discover, find
from medcli.settings.layers import Layer
from medcli.settings.resolve import RecipeFor

__all__ = ["recipe_source"]


def recipe_source(strategy: str, registry: Registry | None = None, *, group: str = ARCHITECTURES) -> RecipeFor:
    """What `resolve` asks for a recipe.

    Args:
        strategy: `train`, or a strategy of fine-tuning.
        registry: what is installed, if it is known already.
        group: whose recipes: architectures, or difference models.

    Raises (when asked):
        UsageProblem: the architecture is unknown or ambiguous, or its card is broken.
    """

    def recipe_for(architecture: str) -> Layer | None:
        known = discover() if registry is None else registry
        recipe = recipe_layer(read_card(find(known, architecture, group)), strategy)
        return None if recipe is None else Layer(recipe.name, recipe.values, recipe.where)

    return recipe_for
