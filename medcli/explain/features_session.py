"""One call of `features`: the network, its features of a data set from the cache or by one pass, and what is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from medcli.data.batches import open_batches
from medcli.data.dataset import DataSet, ImageSource, Preprocessing, Samples
from medcli.data.decode import UnreadableImage
from medcli.data.load import load_data
from medcli.data.subset import SelectedImages
from medcli.errors import RunFailure, UsageProblem
from medcli.explain.embeddings import Embeddings
from medcli.explain.examples import own_settings
from medcli.explain.neighbours import SHOWN, Neighbour, nearest_images
from medcli.models.build import LoadedModel, build_classifier, load_run
from medcli.models.device import choose_device, choose_precision
from medcli.models.preprocessing import plan_preprocessing
from medcli.models.spec import ModelSpec
from medcli.prediction.feature_cache import FeatureCache
from medcli.prediction.features import Extractor
from medcli.prediction.files import list_inputs
from medcli.prediction.predict import suits_channels_last
from medcli.registry.cards import parse_options, read_card
from medcli.registry.discovery import discover, find
from medcli.runs.directory import open_run
from medcli.runs.members import is_ensemble
from medcli.settings.groups import ComputeSettings, DataSettings, ModelSettings

__all__ = [
    "Network",
    "Seen",
    "Teller",
    "look_at",
    "neighbours_of",
    "network_of_architecture",
    "network_of_run",
    "query_of",
    "set_of_run",
]


class Teller(Protocol):
    """Whoever passes sentences and progress on to the user."""

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def progress(self, what: str, total: int) -> Callable[[int], None]: ...


@dataclass(frozen=True)
class Network:
    """A backbone with its preprocessing.

    Args:
        backbone: in eval mode.
        spec: how it was made.
        preprocessing: what its images go through.
        name: for people.
    """

    backbone: torch.nn.Module
    spec: ModelSpec
    preprocessing: Preprocessing
    name: str


@dataclass(frozen=True)
class Seen:
    """Features of a data set.

    Args:
        embeddings: of every image.
        images: the images, one source and position per embedding.
        cached: whether nothing had to be computed.
        skipped: (file, reason) of images that were left out.
    """

    embeddings: Embeddings
    images: tuple[tuple[ImageSource, int], ...]
    cached: bool
    skipped: tuple[tuple[str, str], ...]


def network_of_run(source: str, weights: str | None, teller: Teller) -> tuple[Network, LoadedModel]:
    """The backbone of a run.

    Raises:
        UsageProblem: no such run, or an ensemble, whose members each see in their own way.
    """
    run = open_run(source)
    if is_ensemble(run.path):
        raise UsageProblem(
            f"`{source}` is an ensemble, whose members each have features of their own",
            hint="name one of its members",
            code="several-networks",
        )
    loaded = load_run(run, weights=weights)
    if loaded.caution:
        teller.warn(loaded.caution)
    name = f"{loaded.spec.architecture.removeprefix('medcli/')} of {Path(source).name}"
    return Network(loaded.classifier.backbone, loaded.spec, loaded.preprocessing, name), loaded


def network_of_architecture(
    architecture: str, data: DataSettings, model: ModelSettings, dataset: DataSet, *, random: bool, seed: int
) -> tuple[Network, str]:
    """The backbone of an architecture with weights, and what came out of the weight file.

    Raises:
        UsageProblem: unknown architecture, weights that do not fit, or no weights where `random` does not ask for none.
    """
    entry = find(discover(), architecture)
    card = read_card(entry)
    if random and (model.weights or model.pretrained):
        raise UsageProblem(
            "`--random-weights` and weights exclude each other", where="--random-weights", code="two-weights"
        )
    if not (model.weights or model.pretrained or random):
        tags = [one.tag for one in card.weights] if card else []
        listed = f" (its tags: {', '.join(tags)})" if tags else ""
        raise UsageProblem(
            f"`{architecture}` is an architecture: without weights its features are random",
            hint=f"`--weights FILE`{listed}, or `--random-weights` to see what random ones are worth",
            code="no-weights",
        )
    options = parse_options(entry, card, model.arch_opt)
    preprocessing = plan_preprocessing(card, data, model, options)
    spec = ModelSpec(
        architecture=entry.qualified,
        in_channels=preprocessing.channels,
        image_size=preprocessing.image_size,
        target=dataset.target,
        options=options,
    )
    built = build_classifier(spec, weights=model.weights, pretrained=model.pretrained, seed=seed)
    report = built.load_report.sentence() if built.load_report else f"random weights drawn from seed {seed}"
    name = entry.qualified.removeprefix("medcli/")
    return Network(built.classifier.backbone.eval(), spec, preprocessing, name), report


def set_of_run(
    source: str,
    loaded: LoadedModel,
    settings: DataSettings,
    tables: Mapping[str, Mapping[str, Any]],
    *,
    own_window: bool,
) -> DataSet:
    """The data set to look at with a run: that of `settings`, or where none is named the run's own.

    Raises:
        UsageProblem: the data cannot be read, or several sets were named.
    """
    if not settings.data:
        own, own_tables = own_settings(open_run(source))
        return _one(own, own_tables)
    if own_window:
        settings = replace(settings, window=loaded.preprocessing.window)
    return _one(settings, tables)


def _one(settings: DataSettings, tables: Mapping[str, Mapping[str, Any]]) -> DataSet:
    sets = load_data(settings, data_tables=tables)
    if len(sets) > 1:
        raise UsageProblem(
            f"features are made of one data set, not of {len(sets)}",
            where="--data",
            hint="call it once for each",
            code="one-data-set",
        )
    return sets[0]


def look_at(network: Network, dataset: DataSet, compute: ComputeSettings, data: DataSettings, teller: Teller) -> Seen:
    """Features of every image of a set, all splits together.

    Raises:
        UsageProblem: no such device.
        RunFailure: unreadable images, features that are no numbers.
    """
    extractor = _extractor(network, compute)
    device = extractor.device
    ids, splits, labels, rows, patients = [], [], [], [], []
    images: list[tuple[ImageSource, int]] = []
    skipped: list[tuple[str, str]] = []
    cached = True
    for split, samples in dataset.splits.items():
        batches = open_batches(
            samples,
            network.preprocessing,
            batch_size=compute.batch_size,
            workers=compute.workers,
            cache=data.cache,
            cache_limit=data.cache_limit,
            skip_unreadable=data.skip_unreadable,
            device=device,
        )
        found = extractor.features(
            batches, cache=FeatureCache(), on_batch=_counter(teller.progress(f"images of {split}", len(samples)))
        )
        for note in found.notes:
            teller.warn(note)
        cached = cached and found.cached
        kept: Samples = batches.samples
        ids.append(kept.ids)
        own = split if dataset.extra.get("own_splits", True) or dataset.made_splits else ""
        splits.append(np.full(len(kept), own))
        labels.append(kept.labels)
        rows.append(found.rows.numpy())
        patients.append(kept.patients)
        images += [(kept.images, at) for at in range(len(kept))]
        skipped += batches.skipped
    if not rows:
        raise RunFailure("the data set holds no images", code="no-images")
    known = [one for one in patients if one is not None]
    embeddings = Embeddings(
        np.concatenate(ids),
        np.concatenate(splits),
        np.concatenate(labels),
        dataset.target,
        np.concatenate(rows),
        network.name,
        np.concatenate(known) if len(known) == len(patients) else None,
    )
    return Seen(embeddings, tuple(images), cached, tuple(skipped))


def query_of(image: str, network: Network, window: str | None) -> Samples:
    """The one image that is asked about, read once to be sure of it.

    Raises:
        UsageProblem: not one image, or one that cannot be read.
    """
    entries = list_inputs([image], window or network.preprocessing.window)
    if len(entries) != 1:
        raise UsageProblem(
            f"`{image}` holds {len(entries)} images, and neighbours are of one",
            where="--neighbours",
            hint="name one image file",
            code="several-images",
        )
    only = SelectedImages(entries[0].images, np.array([entries[0].index]))
    try:
        only.read(0)
    except UnreadableImage as problem:
        raise UsageProblem(
            f"`{problem.path}` cannot be read: {problem.reason}", where="--neighbours", code="unreadable-images"
        ) from None
    return Samples(np.array([image]), only, np.zeros(1, dtype=np.int64))


def neighbours_of(query: Samples, network: Network, seen: Seen, compute: ComputeSettings) -> tuple[Neighbour, ...]:
    """The images nearest to the one that was asked about."""
    batches = open_batches(query, network.preprocessing, batch_size=1, workers=0)
    row = _extractor(network, compute).features(batches).rows[0].numpy()
    return nearest_images(row, seen.embeddings, SHOWN)


def _extractor(network: Network, compute: ComputeSettings) -> Extractor:
    device = choose_device(compute.device)
    layout = torch.channels_last if suits_channels_last(network.backbone) else torch.contiguous_format
    backbone = network.backbone.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    return Extractor.of(
        backbone,
        network.spec,
        network.preprocessing,
        device=device,
        precision=choose_precision(compute.precision, device),
    )


def _counter(tell: Callable[[int], None]) -> Callable[[int], None]:
    """Batches are told one by one, a counter wants the sum."""
    done = 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        tell(done)

    return count
