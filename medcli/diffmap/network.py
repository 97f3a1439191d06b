"""Difference models by name, built-in or a plugin's, and encoders taken over from other runs.

What training, prediction and listings know of a difference model goes through here, so that a plugin's is no different
from one of medcli's own.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from medcli.diffmap.spec import Map
from medcli.errors import MedcliError, RunFailure, UsageProblem
from medcli.models.build import check_options
from medcli.models.layers import LayerTable, layer_table
from medcli.models.pretrained import factory_weights
from medcli.plugin import DifferenceModel, DifferenceModelFactory
from medcli.registry.cards import read_card
from medcli.registry.discovery import DIFFERENCE_MODELS, discover, find, load_factory

__all__ = [
    "EncoderReport",
    "PatchDiscriminator",
    "build_difference",
    "build_discriminator",
    "build_reconstruction",
    "describe_difference",
    "load_encoder",
]

_COMMON = ("in_channels", "image_size", "map", "weights", "name")
_HEAD = "medcli_head."
_WRAPPERS = ("backbone.", "net.", "encoder.")


@dataclass(frozen=True)
class EncoderReport:
    """What an encoder took from another network.

    Args:
        matched: tensors of the encoder that were set; always all of them.
        total: tensors the encoder has.
        head: tensors of the other network's head, left out.
        spare: tensors of parts of the other network that a difference model does not have, left out.
    """

    matched: int
    total: int
    head: int = 0
    spare: int = 0

    def sentence(self) -> str:
        """One line for the user."""
        left = [f"{self.head} of its head"] if self.head else []
        left += [f"{self.spare} of other parts"] if self.spare else []
        text = f"{self.matched} of {self.total} encoder tensors"
        return f"{text}, left out {' and '.join(left)}" if left else text


def build_difference(
    name: str,
    *,
    in_channels: int,
    image_size: int,
    map: Map = "signed",  # noqa: A002 (the contract's own name)
    weights: str | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> nn.Module:
    """Build a difference model.

    Args:
        name: as the registry finds it: `siamese-unet`, or `distribution/name`.
        in_channels: channels of the images.
        image_size: side in pixels.
        map: `signed` for values in [-1, 1], `magnitude` for values in [0, 1].
        weights: a weight tag of the card whose file is on this machine, or a file; None for random weights.
        options: keywords of the factory, already typed (`parse_options`).
        seed: draws the initial weights from this seed alone and leaves the global generator as it was; None draws
            from the global generator.

    Returns:
        A `medcli.plugin.DifferenceModel`: `forward(baseline, followup [B, C, H, W]) -> [B, 1, H, W]`, `encoder`,
        `layer_groups()`.

    Raises:
        UsageProblem: unknown name, option, image size or weights.
        RunFailure: the package is broken, or does not keep the contract of `medcli.plugin.DifferenceModel`.
    """
    entry = find(discover(), name, DIFFERENCE_MODELS)
    factory: DifferenceModelFactory = load_factory(entry)
    card = read_card(entry)
    options = dict(options or {})
    check_options(entry.name, factory, options, _COMMON)
    if card is not None and (near := card.size.nearest(image_size, options)) != image_size:
        raise UsageProblem(
            f"`{entry.name}` takes no images of {image_size} × {image_size} pixels",
            where="--image-size",
            hint=f"--image-size {near}",
            code="bad-image-size",
        )
    weights = factory_weights(entry.name, card, weights)
    where = f"{entry.origin}, entry point `{entry.reference}`"
    with _seeded(seed):
        try:
            network: object = factory(
                in_channels=in_channels, image_size=image_size, map=map, weights=weights, **options
            )
        except MedcliError:
            raise
        except Exception as error:
            raise RunFailure(
                f"`{entry.name}` cannot be built: {type(error).__name__}: {error}",
                where=where,
                hint="`--debug` shows its traceback",
                code="broken-plugin",
            ) from error
    if not isinstance(network, nn.Module) or not isinstance(network, DifferenceModel):
        raise RunFailure(
            f"`{entry.name}` gave a {type(network).__name__} without `encoder` or `layer_groups()`",
            where=where,
            code="broken-plugin",
        )
    return network


def describe_difference(
    name: str, *, in_channels: int, image_size: int, options: Mapping[str, Any] | None = None
) -> tuple[LayerTable, dict[str, Any]]:
    """Every module of a difference model, and its totals, for a pair; no memory for weights. Raises as it builds."""
    with torch.device("meta"):
        network = build_difference(name, in_channels=in_channels, image_size=image_size, options=options)
    table = layer_table(network, image_size, in_channels, images=2)
    groups = network.layer_groups()  # type: ignore[operator]
    encoder: nn.Module = network.encoder  # type: ignore[assignment]
    return table, {
        "image_size": image_size,
        "in_channels": in_channels,
        "parameters": table.parameters,
        "encoder": sum(one.numel() for one in encoder.parameters()),
        "macs": table.macs,
        "stages": len({group.stage for group in groups}),
        "blocks": len(groups),
    }


def load_encoder(model: nn.Module, run_state: Mapping[str, torch.Tensor]) -> EncoderReport:
    """Set every tensor of a difference model's encoder from another network's, or none.

    Accepted are the tensors of a classifier of the same encoder (`medcli train`, under `backbone.`), of a masked
    pretraining and of another difference model (under `encoder.`), and the encoder's alone. A model may name its
    tensors otherwise than a classifier of the same network does: then its `encoder_tensors(state)` gives them their
    names, and says which of a classifier's it does not need.

    Args:
        model: with an `encoder`.
        run_state: tensors by name, as in `model.safetensors`.

    Raises:
        UsageProblem: code `weights-do-not-fit`, with counts and the first names, and the model unchanged; code
            `no-encoder` where the model has none to set.
    """
    encoder: nn.Module = model.encoder  # type: ignore[assignment]
    expected = encoder.state_dict()
    if not expected:
        raise UsageProblem(
            "this difference model has no encoder with weights",
            where="--encoder-from",
            hint="`medcli models list --difference` shows those that have one",
            code="no-encoder",
        )
    head = [name for name in run_state if name.startswith(_HEAD)]
    state = {name: tensor for name, tensor in run_state.items() if not name.startswith(_HEAD)}
    state, spare = _inner(state, expected)
    translate: Callable[..., tuple[dict[str, torch.Tensor], tuple[str, ...]]] | None = getattr(
        model, "encoder_tensors", None
    )
    if translate is not None:
        state, unneeded = translate(state)
        spare += len(unneeded)
    missing = [name for name in expected if name not in state]
    foreign = [name for name in state if name not in expected]
    shapes = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    matched = len(expected) - len(missing) - len(shapes)
    if missing or foreign or shapes:
        parts = [f"{matched} of the encoder's {len(expected)} tensors match"]
        parts += [f"{len(missing)} are missing ({_some(missing)})"] if missing else []
        parts += [f"{len(foreign)} are not part of it ({_some(foreign)})"] if foreign else []
        said = [f"{one} {list(state[one].shape)} instead of {list(expected[one].shape)}" for one in shapes]
        parts += [f"{len(shapes)} have another shape ({_some(said)})"] if shapes else []
        raise UsageProblem(
            f"the run's encoder does not fit this model's: {'; '.join(parts)}",
            where="--encoder-from",
            hint="the run needs the same encoder, channels, image size and options as this model",
            code="weights-do-not-fit",
        )
    encoder.load_state_dict(state)
    return EncoderReport(matched, len(expected), len(head), spare)


def build_reconstruction(model: nn.Module, name: str) -> nn.Module:
    """The network for masked pretraining around a difference model's own encoder: images [B, C, H, W] -> [B, 1, H, W].

    Its `encoder` is the model's, so that what it learns is in the model at once.

    Raises:
        UsageProblem: code `no-pretraining`, the model offers none.
    """
    make: Callable[[], nn.Module] | None = getattr(model, "reconstruction", None)
    if make is None:
        raise UsageProblem(
            f"`{name}` cannot be pretrained: it offers no reconstruction from its encoder",
            hint="`diffmap train` trains it as it is",
            code="no-pretraining",
        )
    return make()


def build_discriminator(model: nn.Module, in_channels: int = 1) -> nn.Module:
    """The judge of adversarial training: maps or pictures [B, C, H, W] -> a logit for each patch, [B, 1, h, w].

    A model may bring its own (`discriminator(in_channels)`); others get medcli's.
    """
    make: Callable[[int], nn.Module] | None = getattr(model, "discriminator", None)
    return PatchDiscriminator(in_channels) if make is None else make(in_channels)


class PatchDiscriminator(nn.Module):
    """[B, C, H, W] -> logits [B, 1, H / 8 - 2, W / 8 - 2], each for the 70 pixels around it.

    Five convolutions of 4 × 4, the last two without stride, as in PatchGAN (Isola et al. 2017), with group norms,
    because batches of pairs are small. Pictures need 32 pixels or more.

    Args:
        in_channels: channels of what is judged.
        width: channels of the first convolution.
    """

    def __init__(self, in_channels: int = 1, width: int = 64) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width, 8 * width)
        layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for index, (before, after) in enumerate(itertools.pairwise(widths)):
            stride = 2 if index < 2 else 1
            layers += [
                nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=False),
                nn.GroupNorm(min(8, after), after),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, 1, h, w]."""
        logits: torch.Tensor = self.layers(images)
        return logits


def _inner(state: dict[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], int]:
    """The tensors below the wrappers a run puts around an encoder, and how many lay beside the encoder.

    An encoder may have a part that is itself called `encoder`: a wrapper is taken off only where at least as many names
    fit without it.
    """
    spare = 0
    while True:
        fits = sum(name in expected for name in state)
        inner = [
            {name.removeprefix(wrapper): one for name, one in state.items() if name.startswith(wrapper)}
            for wrapper in _WRAPPERS
        ]
        best = max(inner, key=lambda one: (sum(name in expected for name in one), len(one)))
        if not best or sum(name in expected for name in best) < fits or (fits and len(best) < fits):
            return state, spare
        spare += len(state) - len(best)
        state = best


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
