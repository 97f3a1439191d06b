"""A run of `medcli diffmap train` into a bundle: two pictures in, the map out, compared with the run first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import medcli
from medcli.bundles.bundle import MODEL, SELFTEST
from medcli.bundles.difference import MAP, SIDES, DifferenceBundle, DifferenceManifest, difference_manifest_to_json
from medcli.bundles.manifest import MANIFEST, Format
from medcli.data.dataset import Preprocessing
from medcli.diffmap.run import LoadedDifference, MapNetwork, load_difference_run
from medcli.errors import RunFailure, UsageProblem
from medcli.export.comparing import (
    MAP_TOLERANCE,
    ROUNDED_TOLERANCE,
    ExpectedMaps,
    MapComparison,
    Mismatch,
    compare_maps,
)
from medcli.export.difference_pairs import drawn_batches, real_batches
from medcli.export.difference_readme import difference_readme
from medcli.export.graph import DEFAULT_OPSET, write_traced
from medcli.export.named import nothing_to_export
from medcli.export.placing import drafted, facts_of_files
from medcli.export.source import card_facts, data_facts, figure_facts
from medcli.export.wishes import Wishes
from medcli.models.base import content_hash
from medcli.registry.cards import read_card
from medcli.registry.discovery import DIFFERENCE_MODELS, discover, find
from medcli.runs.directory import RunDirectory, open_run, replace_text, writing
from medcli.runs.status import now

__all__ = [
    "DifferenceReference",
    "DifferenceSource",
    "ExportedDifference",
    "ask_difference",
    "export_difference",
    "read_difference_source",
    "refuse_for_difference",
]


@dataclass(frozen=True)
class DifferenceSource:
    """A run, as far as an export needs it.

    Args:
        run: its directory.
        loaded: its network, on the CPU.
        facts: what a bundle tells about model, card, data and figures.
    """

    run: RunDirectory
    loaded: LoadedDifference
    facts: Mapping[str, Any]

    @property
    def antisymmetric(self) -> bool:
        """Whether half the map of the exchanged pictures is taken away: of maps with signs, as everywhere."""
        return self.loaded.spec.map == "signed"

    @property
    def threshold(self) -> float | None:
        """Of findings, as validation pairs chose it."""
        given = self.loaded.extra.get("threshold")
        return float(given) if isinstance(given, int | float) and 0 < given <= 1 else None

    @property
    def preprocessing(self) -> Preprocessing:
        """From a picture to what the network is given in [0, 1]; everything after that is part of it."""
        return Preprocessing(self.loaded.spec.image_size, 1, (0.0,), (1.0,), fit="pad")


@dataclass(frozen=True)
class DifferenceReference:
    """What the run itself says.

    Args:
        real: to pairs of its data; empty where nothing is compared.
        drawn: to those of the self-test.
        substituted: why `real` are drawn pairs too, or empty.
    """

    real: tuple[ExpectedMaps, ...]
    drawn: tuple[ExpectedMaps, ...]
    substituted: str = ""


@dataclass(frozen=True)
class ExportedDifference:
    """A bundle that was written.

    Args:
        path: its directory.
        manifest: what it says about itself.
        comparison: with the run, or None.
    """

    path: Path
    manifest: DifferenceManifest
    comparison: MapComparison | None

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(int(facts["bytes"]) for facts in self.manifest.files.values())


class _Difference(MapNetwork):
    """A difference model as a graph holds it: pictures [n, 1, S, S] in [0, 1] -> map [n, S, S]."""

    def forward(self, baseline: Tensor, followup: Tensor) -> Tensor:
        """Without an axis of channels."""
        return super().forward(baseline, followup)[:, 0]


def refuse_for_difference(kinds: Sequence[Format], wishes: Wishes, weights: str | None) -> None:
    """What cannot be had of a difference model. Raises `UsageProblem`."""
    other = next((kind for kind in kinds if kind != "onnx"), None)
    if other is not None:
        raise UsageProblem(
            f"the run holds a difference model, which leaves as `onnx`, not as `{other}`",
            where="--format",
            hint="leave `--format` out",
            code="one-format",
        )
    if wishes.quantize != "none":
        raise UsageProblem(
            "a quantised network is judged by AUC and accuracy, and a difference model has neither",
            where="--quantize",
            hint="leave it out",
            code="no-quantised-maps",
        )
    if weights is not None:
        raise UsageProblem(
            "`--weights` is the base of an adapter, and a difference model has none",
            where="--weights",
            hint="leave it out",
            code="idle-flag",
        )


def read_difference_source(path: str) -> DifferenceSource:
    """Read a run of a difference model for its export.

    Raises:
        UsageProblem: a pretraining, a model without weights (code `nothing-to-export`), a damaged file.
    """
    run = open_run(path)
    loaded = load_difference_run(path)
    spec = loaded.spec
    entry = find(discover(), spec.model, DIFFERENCE_MODELS)
    card = read_card(entry)
    if card is not None and not card.trainable:
        raise nothing_to_export(entry.name)
    facts = {
        "model": {
            "package": {"distribution": entry.distribution, "version": entry.version},
            "options": dict(spec.options),
            "parameters": sum(one.numel() for one in loaded.network.parameters()),
            "sha256": {run.model_file.name: content_hash(run.model_file)},
        },
        "card": card_facts(spec.model, DIFFERENCE_MODELS),
        "data": data_facts(run),
        "figures": figure_facts(run),
        "figures_of": "maps as the run made them",
    }
    return DifferenceSource(run, loaded, facts)


def ask_difference(source: DifferenceSource, wishes: Wishes, *, more: int | None = None) -> DifferenceReference:
    """What the run says to pairs of its data, or to drawn ones where its own are gone, and to those of the self-test.

    Args:
        source: the run.
        wishes: whether and on what it is compared.
        more: a batch size to compare beside 1 and 3.

    Raises:
        UsageProblem: the pairs of `--data` cannot be used (code `no-images`).
    """
    drawn = drawn_batches(source.loaded, source.preprocessing)
    if not wishes.verify:
        return DifferenceReference((), drawn)
    sizes = (3,) if more in (None, 1, 3) else (3, more)
    real, substituted = real_batches(source.run, source.loaded, source.preprocessing, wishes.data, sizes)
    return DifferenceReference(real, drawn, substituted)


def export_difference(
    source: DifferenceSource, reference: DifferenceReference, path: Path, wishes: Wishes
) -> ExportedDifference:
    """Write one bundle, all of it or nothing.

    Args:
        source: the run.
        reference: of `ask_difference`.
        path: the final place, free (see `free_place`) or an older bundle, which is replaced at the end.
        wishes: opset and tolerance.

    Raises:
        RunFailure: the network cannot be exported, or a file cannot be written.
        Mismatch: the export answers otherwise than the run (exit status 4).
    """
    with drafted(path) as draft:
        opset, file = wishes.opset or DEFAULT_OPSET, draft / MODEL
        _write_graph(source, file, opset)
        manifest = _manifest(source, {"opset": opset, "runtime": f"onnxruntime {_runtime_version()}"})
        bundle = DifferenceBundle(draft, manifest)
        comparison = None
        if reference.real:
            comparison = _compared(bundle, reference, wishes.tolerance)
            manifest = replace(manifest, verification=comparison.to_dict())
            bundle = replace(bundle, manifest=manifest)
        _write_selftest(draft / SELFTEST, reference.drawn)
        bundle.self_test()
        replace_text(draft / "README.md", difference_readme(manifest))
        manifest = replace(manifest, files=facts_of_files(draft))
        replace_text(draft / MANIFEST, difference_manifest_to_json(manifest))
    return ExportedDifference(path, manifest, comparison)


def _compared(bundle: DifferenceBundle, reference: DifferenceReference, tolerance: float | None) -> MapComparison:
    """The bundle beside the run. Where nobody named a tolerance, what float32 does to either of them is allowed too.

    Raises `Mismatch`.
    """
    drawn = bool(reference.substituted)
    try:
        usual = MAP_TOLERANCE if tolerance is None else tolerance
        return compare_maps(bundle.run, reference.real, usual, drawn=drawn)
    except Mismatch:
        rounding = max(one.rounding() for one in reference.real) if tolerance is None else 0.0
        if not usual < 2 * rounding <= ROUNDED_TOLERANCE:
            raise
    found = compare_maps(bundle.run, reference.real, 2 * rounding, drawn=drawn)
    return replace(found, rounding=rounding)


def _write_graph(source: DifferenceSource, file: Path, opset: int) -> None:
    from medcli.export.joining import join_pair

    how = source.preprocessing
    # One tensor for both would be traced as one input.
    pictures = {f"{side}_units": torch.zeros(2, 1, how.image_size, how.image_size) for side in SIDES}
    try:
        write_traced(_Difference(source.loaded), file, pictures, (MAP,), opset=opset)
    except RunFailure as problem:
        if problem.code == "not-exportable":
            problem.hint = "the author of the model can mend it; `medcli diffmap predict` runs the run as it is"
        raise
    join_pair(file, file, how)


def _runtime_version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def _manifest(source: DifferenceSource, facts: Mapping[str, Any]) -> DifferenceManifest:
    spec = source.loaded.spec
    return DifferenceManifest(
        format="onnx",
        name=source.run.path.resolve().name,
        created=now(),
        medcli=medcli.__version__,
        model=spec.model,
        map=spec.map,
        image_size=spec.image_size,
        in_channels=spec.in_channels,
        mean=spec.mean,
        std=spec.std,
        register=spec.register,
        antisymmetric=source.antisymmetric,
        threshold=source.threshold,
        facts={**source.facts, **facts},
    )


def _write_selftest(file: Path, drawn: Sequence[ExpectedMaps]) -> None:
    arrays = {}
    for row, one in enumerate(drawn):
        for side, images in zip(SIDES, (one.baselines, one.followups), strict=True):
            arrays[f"{side}_{row}"] = images[0]
    maps = np.concatenate([one.maps for one in drawn])
    with writing(file):
        np.savez_compressed(file, allow_pickle=False, maps=maps, **arrays)
