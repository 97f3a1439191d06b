"""An exported difference model: two pictures in, the map of what changed out, with onnxruntime alone."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from medcli.bundles.bundle import MODEL, SELFTEST, compare_files, open_session, selftest_limit
from medcli.bundles.extra import require_onnx
from medcli.bundles.manifest import DIFFERENCE_SCHEMA, bad_bundle, listed_files, read_document, require_fields
from medcli.errors import RunFailure

__all__ = [
    "MAP",
    "SELFTEST_LIMIT",
    "SIDES",
    "DifferenceBundle",
    "DifferenceManifest",
    "deep_input",
    "difference_manifest_to_json",
    "open_difference_bundle",
    "read_difference_manifest",
]

MAP = "map"
SIDES = ("baseline", "followup")
"""What the graph takes: bytes under these names; see `deep_input` for pictures above eight bits."""

SELFTEST_LIMIT = 1e-3
"""Most that a value of the self-test's maps may differ: ten times what an export may, for other processors."""

Kind = Literal["signed", "magnitude"]
Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DifferenceManifest:
    """What a bundle of a difference model says about itself.

    Args:
        format: `onnx`.
        name: of the run it was made from.
        created: UTC time.
        medcli: the version that wrote it.
        model: qualified name.
        map: `signed` or `magnitude`.
        image_size: side of the square that the map lies on.
        in_channels: channels that the network takes; grey pictures are repeated inside the graph.
        mean: of the normalisation inside the graph.
        std: likewise.
        register: how the pairs lay over each other that it learnt from.
        antisymmetric: whether the graph gives half the map less half that of the exchanged pictures.
        threshold: pixels of a finding have at least this |map|, chosen on validation pairs, or None.
        outputs: what the graph gives.
        verification: how far it was from the run; None where nobody looked.
        facts: everything else: `model`, `card`, `data`, `figures`, `opset`, `runtime`.
        files: name -> {sha256, bytes}.
    """

    format: Literal["onnx"]
    name: str
    created: str
    medcli: str
    model: str
    map: Kind
    image_size: int
    in_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    register: str
    antisymmetric: bool
    threshold: float | None = None
    outputs: tuple[str, ...] = (MAP,)
    verification: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def difference_manifest_to_json(manifest: DifferenceManifest) -> str:
    """The text of `bundle.json`."""
    document = {"schema": DIFFERENCE_SCHEMA, **{one.name: getattr(manifest, one.name) for one in fields(manifest)}}
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_difference_manifest(path: Path) -> DifferenceManifest:
    """Read and check the `bundle.json` of a bundle that compares pictures; raises as `read_manifest`."""
    return read_document(path, DIFFERENCE_SCHEMA, _parsed)


def _parsed(document: Mapping[str, Any]) -> DifferenceManifest:
    texts = ("format", "name", "created", "medcli", "model", "map", "register")
    require_fields(document, DifferenceManifest, texts, ("facts", "files"))
    if document["format"] != "onnx":
        raise ValueError(f"its format is `{document['format']}`, not `onnx`")
    if document["map"] not in get_args(Kind) or not isinstance(document["antisymmetric"], bool):
        raise ValueError("its kind of map is none that medcli writes")
    numbers = {name: tuple(float(value) for value in document[name]) for name in ("mean", "std")}
    whole = {name: int(document[name]) for name in ("image_size", "in_channels")}
    if min(whole.values()) < 1 or not numbers["mean"] or any(value <= 0 for value in numbers["std"]):
        raise ValueError("its preprocessing holds impossible numbers")
    threshold = None if document["threshold"] is None else float(document["threshold"])
    if threshold is not None and not (math.isfinite(threshold) and 0 < threshold <= 1):
        raise ValueError("its threshold lies outside 0 to 1")
    return DifferenceManifest(
        **{name: document[name] for name in (*texts, "antisymmetric", "verification", "facts")},
        **numbers,  # type: ignore[arg-type]
        **whole,  # type: ignore[arg-type]
        threshold=threshold,
        outputs=tuple(str(name) for name in document["outputs"]),
        files=listed_files(document),
    )


def deep_input(side: str) -> str:
    """The optional input beside `baseline` or `followup`: units in [0, 1] that are added to the bytes / 255."""
    return f"{side}_deep"


@dataclass(frozen=True)
class DifferenceBundle:
    """An exported difference model.

    Args:
        path: its directory.
        manifest: what it says about itself.
        threads: of ONNX Runtime; 0 for its own choice.
    """

    path: Path
    manifest: DifferenceManifest
    threads: int = 0

    @cached_property
    def session(self) -> Any:
        """The `onnxruntime.InferenceSession`."""
        return open_session(self.path / MODEL, threads=self.threads)

    def run(self, baseline: npt.NDArray[Any], followup: npt.NDArray[Any]) -> Image:
        """What changed, float32 [n, S, S] on the square that holds the follow-up.

        Args:
            baseline: uint8 [n, h, w, 1 or 3], or float32 of that shape in [0, 1]; laid over the follow-up.
            followup: likewise.
        """
        feed = {}
        for side, images in zip(SIDES, (baseline, followup), strict=True):
            feed[side] = images if images.dtype == np.uint8 else np.zeros(images.shape, dtype=np.uint8)
            if images.dtype != np.uint8:
                feed[deep_input(side)] = images
        (found,) = self.session.run([MAP], feed)
        answer: Image = found
        return answer

    def self_test(self) -> float:
        """Make the maps that came with the bundle again; the largest difference of a value.

        Raises:
            UsageProblem: the example is damaged (code `bad-bundle`).
            RunFailure: a difference above `selftest_limit` (code `selftest-failed`).
        """
        file = self.path / SELFTEST
        try:
            with np.load(file, allow_pickle=False) as archive:
                expected = archive["maps"]
                pairs = [[archive[f"{side}_{row}"] for side in SIDES] for row in range(len(expected))]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as problem:
            raise bad_bundle(file, "its self-test is damaged") from problem
        worst = 0.0
        for (baseline, followup), values in zip(pairs, expected, strict=True):
            # Unlike `max`, this keeps what is no number.
            worst = float(np.maximum(worst, np.abs(self.run(baseline[None], followup[None])[0] - values).max()))
        # Written so that what is no number fails too.
        if not worst <= selftest_limit(SELFTEST_LIMIT, self.manifest.verification):
            raise RunFailure(
                f"this machine makes other maps than the one that exported: they differ by {worst:.2g}",
                where=str(file),
                hint=f"compare the versions: exported with {self.manifest.facts.get('runtime', 'onnxruntime')}",
                code="selftest-failed",
            )
        return worst


def open_difference_bundle(path: str | Path, *, threads: int = 0) -> DifferenceBundle:
    """Open a bundle that compares pictures, its files compared with their hashes.

    Raises:
        UsageProblem: no bundle, one of a newer medcli or of another kind, a changed file, onnxruntime missing.
    """
    folder = Path(path)
    manifest = read_difference_manifest(folder)
    compare_files(folder, manifest.files)
    require_onnx("running a bundle", "onnxruntime")
    return DifferenceBundle(folder, manifest, threads)
