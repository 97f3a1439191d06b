"""A difference model in a run directory: one safe file with all that is needed to build it again, and the way back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from medcli.diffmap.network import build_difference, build_reconstruction
from medcli.diffmap.registration import HOW
from medcli.diffmap.spec import SCHEMA, DifferenceSpec, Kind, Map
from medcli.errors import UsageProblem
from medcli.models.provenance import check_package
from medcli.models.tensor_file import damaged, write_tensors
from medcli.registry.discovery import DIFFERENCE_MODELS, discover, find
from medcli.runs.directory import RunDirectory, open_run

__all__ = [
    "DifferenceSpec",
    "LoadedDifference",
    "MapNetwork",
    "build_network",
    "difference_map",
    "load_difference",
    "load_difference_run",
    "prepared_images",
    "run_tensors",
    "save_difference",
]


@dataclass(frozen=True)
class LoadedDifference:
    """A trained difference model.

    Args:
        network: in eval mode.
        spec: how it was made.
        extra: further facts that were saved with it: the best epoch, the threshold chosen on validation pairs.
        path: of its file.
        caution: what the user should know about the package that builds it, or empty.
    """

    network: nn.Module
    spec: DifferenceSpec
    extra: Mapping[str, Any]
    path: Path
    caution: str = ""

    @torch.inference_mode()
    def map(self, baseline: Tensor, followup: Tensor, antisymmetric: bool = True) -> Tensor:
        """What changed, float32 [B, 1, H, W].

        Args:
            baseline: float32 [B, 1 or C, H, W] in [0, 1], registered to the follow-up.
            followup: likewise.
            antisymmetric: of a signed map take ½ [f(p, c) − f(c, p)], so that equal images give zero and exchanged ones
                the opposite. A map of magnitudes has no opposite and is left as it is.
        """
        return difference_map(self.network, self.spec, baseline, followup, antisymmetric=antisymmetric)


class MapNetwork(nn.Module):
    """A trained difference model with everything between two pictures in [0, 1] and the map of them."""

    def __init__(self, loaded: LoadedDifference) -> None:
        super().__init__()
        self.network, self._spec = loaded.network, loaded.spec
        self.eval()

    def forward(self, baseline: Tensor, followup: Tensor) -> Tensor:
        """[B, 1, S, S] twice -> [B, 1, S, S], see `LoadedDifference.map`."""
        return difference_map(self.network, self._spec, baseline, followup)


def difference_map(
    network: nn.Module, spec: DifferenceSpec, baseline: Tensor, followup: Tensor, *, antisymmetric: bool = True
) -> Tensor:
    """See `LoadedDifference.map`; with gradients where they are asked for."""
    before, after = prepared_images(baseline, spec), prepared_images(followup, spec)
    found: Tensor = network(before, after).float()
    if antisymmetric and spec.map == "signed":
        # Two passes of one size: one of both together may round differently at its two places.
        found = 0.5 * (found - network(after, before).float())
    return found


def prepared_images(images: Tensor, spec: DifferenceSpec) -> Tensor:
    """Images [B, 1 or C, H, W] in [0, 1] as the network takes them: its channels, normalised."""
    mean, std = (images.new_tensor(values).view(1, -1, 1, 1) for values in (spec.mean, spec.std))
    return images.expand(-1, spec.in_channels, -1, -1).sub(mean).div(std)


def build_network(spec: DifferenceSpec, *, weights: str | None = None) -> tuple[nn.Module, nn.Module]:
    """The difference model of a specification, and what is trained: itself, or the reconstruction around its encoder.

    Raises:
        UsageProblem: unknown model, options, image size or weights; a model that cannot be pretrained.
        RunFailure: its package is broken.
    """
    model = build_difference(
        spec.model,
        in_channels=spec.in_channels,
        image_size=spec.image_size,
        map=spec.map,
        weights=weights,
        options=spec.options,
    )
    return model, build_reconstruction(model, spec.model) if spec.kind == "reconstruction" else model


def save_difference(path: Path, network: nn.Module, spec: DifferenceSpec, extra: Mapping[str, Any]) -> None:
    """Write the network, all at once or not at all.

    Raises:
        RunFailure: the file cannot be written.
    """
    entry = find(discover(), spec.model, DIFFERENCE_MODELS)
    document = {
        "schema": SCHEMA,
        "spec": {**asdict(spec), "options": dict(spec.options)},
        "package": {"distribution": entry.distribution, "version": entry.version},
        "extra": dict(extra),
    }
    tensors = {
        name: tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    write_tensors(path, tensors, {"medcli": json.dumps(document, allow_nan=False, sort_keys=True)})


def load_difference_run(path: str | Path, device: str | torch.device = "cpu") -> LoadedDifference:
    """The trained difference model of a run.

    Raises:
        UsageProblem: no run, a run of another kind, or one whose file is damaged or of another build.
    """
    run = open_run(path)
    if not run.model_file.is_file():
        raise UsageProblem(
            f"`{run.path}` holds no trained model yet",
            where=str(run.model_file),
            hint=f"`medcli diffmap train --resume {run.path}` goes on with it",
            code="no-model-file",
        )
    loaded = load_difference(run.model_file, device)
    if loaded.spec.kind != "difference":
        raise UsageProblem(
            f"`{run.path}` is a pretraining: it has an encoder, but makes no maps",
            where=str(run.model_file),
            hint=f"`medcli diffmap train --model {loaded.spec.model} --encoder-from {run.path} --data …`",
            code="no-difference-model",
        )
    return loaded


def load_difference(path: Path, device: str | torch.device = "cpu") -> LoadedDifference:
    """The network of a file that `save_difference` wrote, of either kind.

    Raises:
        UsageProblem: see `load_difference_run`.
    """
    document, state = _read(path)
    if document.get("schema") != SCHEMA:
        raise UsageProblem(
            f"`{path}` holds no difference model",
            where=str(path),
            hint="name a run of `medcli diffmap train`; `medcli runs list` shows which command made a run",
            code="no-difference-model",
        )
    spec = _spec(document.get("spec"), path)
    caution = check_package(spec.model, document.get("package"), str(path))
    with torch.random.fork_rng(devices=[]):
        _, network = build_network(spec)
    expected = network.state_dict()
    wrong = [
        name
        for name in sorted(expected.keys() | state.keys())
        if name not in state or name not in expected or state[name].shape != expected[name].shape
    ]
    if wrong:
        raise UsageProblem(
            f"`{path}` was written for another build of `{spec.model}`: {len(wrong)} of {len(expected)} tensors differ "
            f"({', '.join(wrong[:3])}{', …' if len(wrong) > 3 else ''})",
            where=caution or None,
            hint="install the versions that the run's `environment.json` names",
            code="bad-model-file",
        )
    network.load_state_dict(state)
    extra = document.get("extra")
    return LoadedDifference(network.to(device).eval(), spec, extra if isinstance(extra, dict) else {}, path, caution)


def run_tensors(path: str | Path, flag: str) -> dict[str, Tensor]:
    """The best weights of a run of any kind, by name.

    Raises:
        UsageProblem: no run, or one without a whole model; `flag` is named.
    """
    try:
        run: RunDirectory = open_run(path)
    except UsageProblem as problem:
        problem.where = flag
        raise
    if not run.model_file.is_file():
        adapter = (run.path / "adapter").is_dir()
        raise UsageProblem(
            f"`{run.path}` holds " + ("an adapter, not a whole network" if adapter else "no trained weights yet"),
            where=flag,
            hint="name a run of `diffmap pretrain`, `diffmap train` or `train` that has finished an epoch",
            code="no-model-file",
        )
    return _read(run.model_file)[1]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(str(path), framework="pt") as handle:
            metadata = handle.metadata() or {}
            state = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (no mapping)
        document = json.loads(metadata.get("medcli", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, error) from error
    return document if isinstance(document, dict) else {}, state


def _spec(given: Any, path: Path) -> DifferenceSpec:
    """A specification as `save_difference` wrote it.

    Raises:
        UsageProblem: naming the field that is wrong.
    """
    known = {entry.name for entry in fields(DifferenceSpec)}
    problem = ""
    if not isinstance(given, dict) or set(given) != known:
        problem = "its specification has missing or unknown fields"
    else:
        words = {"kind": get_args(Kind), "map": get_args(Map), "register": HOW}
        types = {"model": str, "in_channels": int, "image_size": int, "options": dict, "mean": list, "std": list}
        bad = [name for name, allowed in words.items() if given[name] not in allowed]
        bad += [name for name, kind in types.items() if not isinstance(given[name], kind)]
        bad += [name for name in ("mean", "std") if not all(isinstance(one, int | float) for one in given[name])]
        problem = f"its `{bad[0]}` is {given[bad[0]]!r}, which medcli never writes" if bad else ""
    if problem:
        raise UsageProblem(f"`{path}` is not as medcli wrote it: {problem}", code="bad-model-file")
    return DifferenceSpec(**{**given, "mean": tuple(given["mean"]), "std": tuple(given["std"])})
