"""Pooled features of any pictures by any backbone, computed once: training on them, neighbours and plots share them.

A cached file is named by a hash of everything that decides about the numbers in it, so that it can never be out of
date: weights and buffers, architecture and package, preprocessing, number format, the pictures and their view.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from medcli.data.batches import Batch, Batches
from medcli.data.dataset import Preprocessing, Samples
from medcli.errors import RunFailure
from medcli.models.device import Precision
from medcli.models.provenance import made_by
from medcli.models.spec import ModelSpec
from medcli.prediction.feature_cache import DamagedFeatures, FeatureCache
from medcli.prediction.predict import raw_outputs

__all__ = ["PLAIN", "Augment", "Extractor", "Features", "View", "weights_digest"]

FORMAT = 1


class Augment(Protocol):
    """Changes images [B, C, S, S] in [0, 1] units by their positions [B] and an epoch alone, as training does.

    Its `repr` must name every setting: it is what tells one augmentation's features from another's.
    """

    def __call__(self, images: Tensor, index: Tensor, epoch: int, /) -> Tensor: ...


@dataclass(frozen=True)
class View:
    """How the pictures are looked at.

    Args:
        number: 0 for the pictures as they are; v >= 1 for what training would see of them in epoch v.
        augment: the change; None for view 0 alone.
    """

    number: int = 0
    augment: Augment | None = None


PLAIN = View()


@dataclass(frozen=True)
class Features:
    """Features of a set.

    Args:
        rows: float32 [n, D] on the CPU, in the order of the samples.
        cached: whether they were found rather than computed.
        notes: sentences the user should read (a damaged file, a cache that cannot be written).
    """

    rows: Tensor
    cached: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Extractor:
    """A backbone with all that decides about its features. Made by `Extractor.of`.

    Args:
        backbone: images [B, C, S, S] -> [B, D], on `device`.
        weights: digest of its parameters and buffers.
        identity: digest of these, architecture, package, preprocessing, device and number format.
        name: of the architecture, for people.
        preprocessing: from picture to input.
        device: where it runs.
        precision: with what numbers.
    """

    backbone: nn.Module
    weights: str
    identity: str
    name: str
    preprocessing: Preprocessing
    device: torch.device
    precision: Precision

    @classmethod
    def of(
        cls,
        backbone: nn.Module,
        spec: ModelSpec,
        preprocessing: Preprocessing,
        *,
        device: torch.device,
        precision: Precision,
    ) -> Extractor:
        """Read every weight once to know the backbone by; about a second per gigabyte.

        Args:
            backbone: as built from `spec`, with any weights.
            spec: architecture and options; target and head do not matter.
        """
        weights = weights_digest(backbone)
        facts = {
            "format": FORMAT,
            "torch": torch.__version__,
            "weights": weights,
            "class": f"{type(backbone).__module__}.{type(backbone).__qualname__}",
            "architecture": spec.architecture,
            "options": sorted((key, repr(value)) for key, value in spec.options.items()),
            "size": [spec.image_size, spec.in_channels],
            "package": made_by(spec.architecture),
            "preprocessing": asdict(preprocessing),
            "device": device.type,
            "precision": precision,
        }
        identity = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return cls(backbone, weights, identity, spec.architecture, preprocessing, device, precision)

    def key(self, samples: Samples, view: View = PLAIN) -> str | None:
        """The name under which these features are kept, or None where the augmentation does not say what it does."""
        augment = repr(view.augment)
        if " object at 0x" in augment or "<lambda>" in augment or "<function" in augment:
            return None
        digest = hashlib.sha256(f"{self.identity} {view.number} {augment} {len(samples)}".encode())
        for index in range(len(samples)):
            fingerprint = samples.images.fingerprint(index)
            digest.update(len(fingerprint).to_bytes(4, "little") + fingerprint)
        return digest.hexdigest()[:40]

    def features(
        self,
        batches: Batches,
        view: View = PLAIN,
        *,
        key: str | None = None,
        cache: FeatureCache | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> Features:
        """Features of every picture of `batches.samples`, from the cache or by one pass in eval mode.

        Args:
            batches: of one split, shuffled or not; the pass is in their order of samples, with their batch size.
            view: which changes the pictures go through.
            key: what `key` said, where it is known; fingerprints read every file.
            cache: where features are kept; None computes and keeps nothing.
            on_batch: told the number of pictures after every batch of a pass.

        Raises:
            RunFailure: a feature is no number (code `not-finite`); an image can no longer be read.
        """
        samples = batches.samples
        if cache is not None and key is None:
            key = self.key(samples, view)
        notes = []
        if cache is not None and key is not None:
            try:
                if (found := cache.read(key, len(samples))) is not None:
                    return Features(found, True)
            except DamagedFeatures as problem:
                notes.append(f"cached features are damaged and were computed again: {cache.path(key)} ({problem})")
        rows = self._compute(batches, view, on_batch)
        if cache is not None and key is not None:
            about = f"{self.name}, {len(samples)} pictures, view {view.number}"
            try:
                cache.write(key, rows, about)
            except (RunFailure, OSError) as problem:
                notes.append(f"features are not kept: `{cache.directory}` cannot be written ({problem})")
        return Features(rows, False, tuple(notes))

    def _compute(self, batches: Batches, view: View, on_batch: Callable[[int], None] | None) -> Tensor:
        samples = batches.samples
        rows = raw_outputs(
            self.backbone,
            _seen(batches.in_order().epoch(0), view, self.device),
            samples,
            preprocessing=self.preprocessing,
            device=self.device,
            precision=self.precision,
            on_batch=on_batch,
        )
        bad = ~rows.isfinite().all(dim=1)
        if bad.any():
            raise RunFailure(
                f"the features of `{samples.ids[int(bad.int().argmax())]}` are no numbers "
                f"({int(bad.sum())} of {len(samples)} pictures)",
                hint="try `--precision fp32`",
                code="not-finite",
            )
        return rows


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over every parameter and buffer with its name, kind and shape, those that no file keeps included."""
    digest = hashlib.sha256()
    named: dict[str, Any] = dict(module.named_parameters()) | dict(module.named_buffers())
    for name in sorted(named):
        tensor: Tensor = named[name].detach()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        flat = tensor.cpu().contiguous().reshape(-1)
        if flat.numel():
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _seen(batches: Iterable[Batch], view: View, device: torch.device) -> Iterator[Batch]:
    for batch in batches:
        if view.augment is None:
            yield batch
        else:
            images = batch.images.to(device, non_blocking=True)
            yield replace(batch, images=view.augment(images, batch.index, view.number))
