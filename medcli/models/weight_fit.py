"""Whether a weight file belongs to an architecture: by what cards say of it, and by loading it as a training would."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from medcli.data.target import Target
from medcli.errors import MedcliError
from medcli.models.build import build_classifier
from medcli.models.spec import ModelSpec
from medcli.models.weight_facts import WeightFacts
from medcli.models.weights import LoadReport
from medcli.plugin import ArchitectureCard
from medcli.registry.catalogue import Listed
from medcli.registry.discovery import Entry
from medcli.registry.weight_cache import cached_file, source_of

__all__ = ["Fit", "Listing", "Shape", "candidates", "fit", "listings"]

_MISFIT = "weights-do-not-fit"
_COMMON_NAMES = frozenset({"model.safetensors", "pytorch_model.bin"})
_LEAST, _MOST = 0.98, 1.4  # a file may lack a little, and bring a head and a decoder along


@dataclass(frozen=True)
class Listing:
    """A card that knows a file: the architecture, the tag, and by what (`checksum`, `place`, `name`)."""

    architecture: str
    tag: str
    by: str


@dataclass(frozen=True)
class Fit:
    """What came of loading a file.

    Args:
        architecture: qualified name.
        report: what was matched; None where the file does not fit.
        problem: why not, in words; empty where it fits.
        head_classes: of the old classifier that came along; None if none did.
    """

    architecture: str
    report: LoadReport | None
    problem: str = ""
    head_classes: int | None = None


def listings(facts: WeightFacts, listed: Sequence[Listed]) -> tuple[Listing, ...]:
    """The weights of installed cards that this file may be, the surest first."""
    found = []
    for one in listed:
        for weights in one.card.weights if one.card else ():
            source = source_of(weights)
            cached = cached_file(source) if source is not None and weights.file else None
            by = (
                "checksum"
                if weights.sha256 and weights.sha256.lower() == facts.sha256
                else "place"
                if cached is not None and cached.resolve() == facts.path.resolve()
                else "name"
                if weights.file == facts.path.name and weights.file not in _COMMON_NAMES
                else ""
            )
            if by:
                found.append(Listing(one.label, weights.tag, by))
    return tuple(sorted(found, key=lambda one: ("checksum", "place", "name").index(one.by)))


def candidates(facts: WeightFacts, listed: Sequence[Listed]) -> tuple[Listed, ...]:
    """The architectures that can be built here and have about as many parameters as the file."""
    return tuple(
        one
        for one in listed
        if one.card is not None
        and not one.missing
        and one.card.params
        and one.card.params * _LEAST <= facts.parameters <= max(one.card.params, one.card.params_total or 0) * _MOST
    )


@dataclass(frozen=True)
class Shape:
    """How the network is built for the comparison; None means the card's own."""

    image_size: int | None = None
    in_channels: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


def fit(
    entry: Entry, card: ArchitectureCard | None, weights: str, shape: Shape | None = None, *, outline: bool = False
) -> Fit:
    """Build the architecture and load the weights.

    Args:
        entry: the architecture.
        card: its card.
        weights: file, folder or tag.
        shape: size, channels and options other than the card's.
        outline: build without memory for the weights; names and shapes are still compared.

    Raises:
        MedcliError: the architecture cannot be built, or the file cannot be read.
    """
    shape = shape or Shape()
    spec = ModelSpec(
        architecture=entry.qualified,
        in_channels=shape.in_channels or (card.in_channels if card else None) or 3,
        image_size=shape.image_size or (card.input_size if card else None) or 224,
        target=Target("binary", ("0", "1")),
        options=dict(shape.options),
    )
    try:
        with torch.device("meta" if outline else "cpu"), warnings.catch_warnings():
            if outline:  # torch warns for every tensor that a weightless network did not really take
                warnings.simplefilter("ignore")
            built = build_classifier(spec, weights=weights, seed=0)
    except MedcliError as error:
        if error.code != _MISFIT:
            raise
        return Fit(entry.qualified, None, error.message)
    head = getattr(built.classifier.backbone, "pretrained_head", None)
    return Fit(entry.qualified, built.load_report, head_classes=None if head is None else len(head.weight))
