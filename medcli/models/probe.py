"""The child of `plugins doctor`: imports one factory after another and builds each network, weightless if it can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from medcli.errors import MedcliError
from medcli.registry.cards import read_card
from medcli.registry.children import serve
from medcli.registry.discovery import DIFFERENCE_MODELS, Entry, discover, find, load_factory

if TYPE_CHECKING:
    from torch import nn

__all__ = ["probe"]

_SIZE = 224


def probe(job: str, _request: Mapping[str, Any]) -> dict[str, Any]:
    """Load and build one entry.

    Args:
        job: `GROUP NAME`.

    Returns:
        `stage` and `cause` of what went wrong (empty where nothing did), `hint`, and the number of `parameters`.
    """
    group, _, name = job.partition(" ")
    result: dict[str, Any] = {"stage": "", "cause": "", "hint": "", "parameters": None}
    stage = "discover"
    try:
        entry = find(discover(), name, group)
        stage = "load"
        load_factory(entry)
        if entry.is_namespace:
            return result
        stage = "build"
        network = _built(entry)
        result["parameters"] = sum(parameter.numel() for parameter in network.parameters())
    except MedcliError as error:
        result |= {"stage": stage, "cause": error.message, "hint": error.hint or ""}
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        result |= {"stage": stage, "cause": f"it cannot be built: {reason}"}
    return result


def _built(entry: Entry) -> nn.Module:
    """The network: weightless where its factory can, in full where it cannot."""
    import torch
    from torch import nn

    from medcli.data.target import Target
    from medcli.errors import RunFailure, UsageProblem
    from medcli.models.build import build_classifier, build_outline
    from medcli.models.spec import ModelSpec
    from medcli.plugin import DifferenceModel

    card = read_card(entry)
    channels = (card.in_channels if card else None) or 3
    size = (card.input_size if card else None) or _SIZE
    if entry.group == DIFFERENCE_MODELS:
        factory: Any = load_factory(entry)
        try:
            with torch.device("meta"):
                model: object = factory(in_channels=channels, image_size=size)
        except UsageProblem:
            raise
        except Exception:
            model = factory(in_channels=channels, image_size=size)
        if not isinstance(model, nn.Module) or not isinstance(model, DifferenceModel):
            raise RunFailure(f"it gave a {type(model).__name__} without `encoder` or `layer_groups()`")
        return model
    spec = ModelSpec(
        architecture=entry.qualified, in_channels=channels, image_size=size, target=Target("binary", ("no", "yes"))
    )
    try:
        return build_outline(spec).backbone
    except RunFailure:
        return build_classifier(spec).classifier.backbone


if __name__ == "__main__":
    serve(probe)
