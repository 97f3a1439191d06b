"""The formats a network can leave in, each written into a folder and run again for the comparison."""

from __future__ import annotations

import io
import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from medcli.bundles.bundle import MODEL, open_session
from medcli.bundles.manifest import Format
from medcli.errors import UsageProblem
from medcli.evaluation.calibrator import calibrate_logits
from medcli.evaluation.scores import sigmoid, softmax
from medcli.export.graph import DEFAULT_OPSET, Network, cannot_trace, quiet_exporter, write_network
from medcli.models.build import load_model, save_model
from medcli.models.spec import preprocessing_to_json, spec_to_json
from medcli.runs.directory import replace_text, writing

if TYPE_CHECKING:
    from medcli.export.comparing import Run
    from medcli.export.source import Source

__all__ = ["NETWORK", "WRITERS", "Written", "join_network", "write_onnx"]

NETWORK = "network.onnx"
"""The network alone, for the time that a smaller one is made from it."""


@dataclass(frozen=True)
class Written:
    """What a format left in the folder.

    Args:
        outputs: names of what the graph gives, if it is one.
        run: the export as a function, for the comparison; None where there is nothing to compute.
        facts: for the manifest.
    """

    outputs: tuple[str, ...] = ()
    run: Run | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def write_onnx(source: Source, folder: Path, opset: int | None, *, keep_network: bool = False) -> Written:
    """`model.onnx`: preprocessing, network and calibrator; large weights in `model.onnx.data`.

    With `keep_network`, the network alone lies in `NETWORK` beside it, and shares those weights.
    """
    source.merge()
    loaded = source.loaded
    chosen, file, how = opset or DEFAULT_OPSET, folder / MODEL, loaded.preprocessing
    write_network(source.network(), file, channels=how.channels, image_size=how.image_size, opset=chosen)
    if keep_network:
        with writing(folder / NETWORK):
            shutil.copyfile(file, folder / NETWORK)
    return join_network(source, folder, {"opset": chosen})


def join_network(source: Source, folder: Path, facts: Mapping[str, Any]) -> Written:
    """Put preprocessing and calibrator around the network in `model.onnx`."""
    import onnxruntime

    from medcli.export.after import answer_name
    from medcli.export.joining import join

    file, loaded = folder / MODEL, source.loaded
    join(file, file, loaded.preprocessing, loaded.spec.target, source.calibrator)
    outputs = (answer_name(source.calibrator), "logits", "features")
    session = open_session(file)

    def run(images: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        feed = {"image": images}
        if images.dtype != np.uint8:
            feed = {"image": np.zeros(images.shape, dtype=np.uint8), "deep": images}
        answers, logits, features = session.run(list(outputs), feed)
        return answers, logits, features

    return Written(outputs, run, {**facts, "runtime": f"onnxruntime {onnxruntime.__version__}"})


def write_pt2(source: Source, folder: Path, _: int | None) -> Written:
    """`before.pt2` (bytes), `before_deep.pt2` (units) and `network.pt2` of `torch.export`; medcli never reads them."""
    from medcli.export.before_torch import Before

    source.merge()
    loaded = source.loaded
    how = loaded.preprocessing
    network, before = source.network(), Before(how).eval()
    batch = torch.export.Dim("n")
    picture = dict.fromkeys(range(3), torch.export.Dim.AUTO)
    side = max(2, how.image_size)
    try:
        with quiet_exporter(), torch.no_grad():
            first, deep = (
                torch.export.export(
                    before, (torch.zeros(2, side + 7, side + 13, 3, dtype=kind),), dynamic_shapes=(picture,)
                )
                for kind in (torch.uint8, torch.float32)
            )
            second = torch.export.export(
                network, (torch.zeros(2, how.channels, how.image_size, how.image_size),), dynamic_shapes=({0: batch},)
            )
    except Exception as error:
        raise cannot_trace(error) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for program, name in ((first, "before.pt2"), (deep, "before_deep.pt2"), (second, "network.pt2")):
            # Into memory first: torch's own writer ends the whole process where the disk is full.
            held = io.BytesIO()
            torch.export.save(program, held)
            with writing(folder / name):
                (folder / name).write_bytes(held.getbuffer())
    one, units, two = first.module(), deep.module(), second.module()

    def run(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found: tuple[torch.Tensor, torch.Tensor] = two(one(x) if x.dtype == torch.uint8 else units(x))
        return found

    return Written((), _in_colour(run, source), {"runtime": f"torch {torch.__version__}"})


def write_safetensors(source: Source, folder: Path, _: int | None) -> Written:
    """`model.safetensors`, as a run keeps it, an adapter merged into it, and `config.json` for other programs."""
    _refuse_ensemble(source, "safetensors")
    source.merge()
    loaded = source.loaded
    file = folder / "model.safetensors"
    save_model(file, loaded.classifier, loaded.spec, loaded.preprocessing)
    config = {"spec": spec_to_json(loaded.spec), "preprocessing": preprocessing_to_json(loaded.preprocessing)}
    replace_text(folder / "config.json", json.dumps(config, indent=1, ensure_ascii=False) + "\n")
    again = load_model(file)
    network = Network(again.classifier)

    from medcli.export.before_torch import Before

    before = Before(again.preprocessing)
    return Written((), _in_colour(lambda x: network(before(x)), source), {"runtime": f"torch {torch.__version__}"})


def write_adapter(source: Source, folder: Path, _: int | None) -> Written:
    """The adapter of a run in PEFT's layout, its head included, without the base it needs."""
    _refuse_ensemble(source, "adapter")
    if not source.run.adapter.is_dir():
        raise UsageProblem(
            f"`{source.run.path}` is a whole model and has no adapter",
            where="--format",
            hint="`--format safetensors` writes a whole model",
            code="no-adapter",
        )
    with writing(folder / "adapter"):
        shutil.copytree(source.run.adapter, folder / "adapter")
    return Written()


def _refuse_ensemble(source: Source, kind: Format) -> None:
    if source.jury.joined:
        raise UsageProblem(
            f"`{source.run.path}` is an ensemble, and the format `{kind}` holds one model",
            where="--format",
            hint="`--format onnx` joins its members in one graph; or export the members one by one",
            code="several-models",
        )


def _in_colour(network: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]], source: Source) -> Run:
    """A program of torch as a function of numpy arrays, its logits calibrated as those of the run."""
    target, calibrator = source.loaded.spec.target, source.calibrator

    def run(images: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        if images.shape[-1] == 1:
            images = np.repeat(images, 3, axis=-1)
        with torch.inference_mode():
            logits, features = (one.float().numpy() for one in network(torch.from_numpy(images)))
        wide = logits if calibrator is None else calibrate_logits(calibrator, logits)
        return sigmoid(wide) if target.task == "multilabel" else softmax(wide), logits, features

    return run


WRITERS: Mapping[Format, Callable[[Source, Path, int | None], Written]] = {
    "onnx": write_onnx,
    "pt2": write_pt2,
    "safetensors": write_safetensors,
    "adapter": write_adapter,
}
