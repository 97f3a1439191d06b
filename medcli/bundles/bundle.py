"""Opening an exported model and running it with onnxruntime alone: hashes compared, its own example computed again.

That the example is computed at every opening is the point: this machine is not the one that exported.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.bundles.extra import require_onnx
from medcli.bundles.manifest import Manifest, bad_bundle, file_facts, read_manifest
from medcli.errors import RunFailure, UsageProblem
from medcli.evaluation.calibrator import calibrate_logits
from medcli.evaluation.scores import sigmoid, softmax

__all__ = [
    "MODEL",
    "QUANTISED_LIMIT",
    "SELFTEST",
    "SELFTEST_LIMIT",
    "Answers",
    "Bundle",
    "compare_files",
    "open_bundle",
    "open_session",
    "selftest_limit",
]

MODEL, SELFTEST = "model.onnx", "selftest.npz"

SELFTEST_LIMIT = 1e-4
"""Most that a probability of the self-test may differ: ten times what an export may, for processors of another kind."""


def selftest_limit(usual: float, verification: Mapping[str, Any] | None) -> float:
    """What a self-test may differ by: as usual, or ten times what this export was allowed, where that is more."""
    return max(usual, 10 * float((verification or {}).get("tolerance", 0.0)))


QUANTISED_LIMIT = 2e-2
"""The same of a quantised network, where a last digit of a float moves a whole step of its whole numbers."""


@dataclass(frozen=True)
class Answers:
    """What the graph gives for n pictures.

    Args:
        answers: float32 [n, ...], `probabilities` or `scores` as the graph computes them.
        logits: float32 [n, ...] of the network itself.
        features: float32 [n, D].
    """

    answers: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Bundle:
    """An exported model.

    Args:
        path: its directory.
        manifest: what it says about itself.
        threads: of ONNX Runtime; 0 for its own choice.
    """

    path: Path
    manifest: Manifest
    threads: int = 0

    @cached_property
    def session(self) -> Any:
        """The `onnxruntime.InferenceSession`."""
        return open_session(self.path / MODEL, threads=self.threads)

    def run(self, images: npt.NDArray[Any]) -> Answers:
        """Run the graph on pictures of one size.

        Args:
            images: uint8 [n, h, w, 1 or 3], or float32 of that shape in [0, 1] (see `medcli.bundles.pictures`).
        """
        feed = {"image": images}
        if images.dtype != np.uint8:
            feed = {"image": np.zeros(images.shape, dtype=np.uint8), "deep": images}
        found = self.session.run(list(self.manifest.outputs), feed)
        return Answers(*found)

    def probabilities(self, logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Calibrated probabilities (or scores) of logits, by the definition that everything else uses."""
        calibrator = self.manifest.calibrator
        wide = logits if calibrator is None else calibrate_logits(calibrator, logits)
        return sigmoid(wide) if self.manifest.target.task == "multilabel" else softmax(wide)

    def self_test(self) -> float:
        """Compute the example that came with the bundle again; the largest difference of a probability.

        Raises:
            UsageProblem: the example is damaged (code `bad-bundle`).
            RunFailure: a difference above `selftest_limit`, or `QUANTISED_LIMIT` (code `selftest-failed`).
        """
        file = self.path / SELFTEST
        try:
            with np.load(file, allow_pickle=False) as archive:
                images = [archive[f"image_{row}"] for row in range(len(archive["answers"]))]
                expected, logits = archive["answers"], archive["logits"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as problem:
            raise bad_bundle(file, "its self-test is damaged") from problem
        worst = 0.0
        for image, answer, raw in zip(images, expected, logits, strict=True):
            found = self.run(image[None])
            both = (found.answers[0] - answer, self.probabilities(found.logits)[0] - self.probabilities(raw[None])[0])
            # Unlike `max`, this keeps what is no number.
            worst = float(np.maximum.reduce([worst, *(np.abs(one).max() for one in both)]))
        # Written so that what is no number fails too.
        quantised = self.manifest.facts.get("quantized", "none") != "none"
        if not worst <= selftest_limit(QUANTISED_LIMIT if quantised else SELFTEST_LIMIT, self.manifest.verification):
            raise RunFailure(
                f"this machine computes other probabilities than the one that exported: they differ by {worst:.2g}",
                where=str(file),
                hint=f"compare the versions: exported with {self.manifest.facts.get('runtime', 'onnxruntime')}",
                code="selftest-failed",
            )
        return worst


def open_bundle(path: str | Path, *, threads: int = 0, check: bool = True) -> Bundle:
    """Open a bundle that ONNX Runtime can run.

    Args:
        path: the directory.
        threads: of ONNX Runtime; 0 for its own choice.
        check: compare every file with its hash.

    Raises:
        UsageProblem: no bundle, one of a newer medcli, a changed or missing file (code `changed-bundle`), a format that
            is not ONNX (code `other-format`), onnxruntime missing.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    if check:
        compare_files(folder, manifest.files)
    if manifest.format != "onnx":
        raise UsageProblem(
            f"`{path}` is a bundle of the format `{manifest.format}`, and medcli runs those of `onnx`",
            hint=_OTHERWISE[manifest.format],
            code="other-format",
        )
    require_onnx("running a bundle", "onnxruntime")
    return Bundle(folder, manifest, threads)


_OTHERWISE = {
    "pt2": "its README shows the lines of torch that run it; `medcli export RUN` writes one that medcli runs",
    "safetensors": "its README shows the lines of Python that run it; `medcli export RUN` writes one that medcli runs",
    "adapter": "its README shows the lines of Python that run it; `medcli export RUN` writes one that medcli runs",
}


def open_session(model: Path, *, threads: int = 0) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU.

    Raises:
        UsageProblem: onnxruntime is missing, or the file is no graph that it can run.
    """
    require_onnx("running an ONNX graph", "onnxruntime")
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # It warns that an input has a value of its own, which is meant.
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as problem:
        first = str(problem).splitlines()[0][:200]
        raise UsageProblem(
            f"onnxruntime {onnxruntime.__version__} cannot run this graph: {first}",
            where=str(model),
            hint="a newer onnxruntime may; `medcli export RUN --opset 18` writes for older ones",
            code="bad-graph",
        ) from problem


def compare_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare the files of a bundle with what its `bundle.json` says of them.

    Raises:
        UsageProblem: one is missing or is another one (code `changed-bundle`), or cannot be read.
    """
    for name, expected in files.items():
        file = folder / name
        if not file.is_file():
            raise UsageProblem(
                f"`{name}` of the bundle is missing",
                where=str(folder),
                hint="copy the bundle again with all its files, or export the run again",
                code="changed-bundle",
            )
        try:
            found = file_facts(file)
        except OSError as problem:
            raise bad_bundle(file, (problem.strerror or str(problem)).lower()) from problem
        if found != expected:
            raise UsageProblem(
                f"`{name}` is not the file that was exported: its hash is {found['sha256'][:12]}…, not "
                f"{expected['sha256'][:12]}…",
                where=str(file),
                hint="copy the bundle again, or export the run again; nothing was run",
                code="changed-bundle",
            )
