"""A run into a bundle: written beside its final place, compared with the run, and only then given its name."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import medcli
from medcli.bundles.bundle import MODEL, SELFTEST, Bundle
from medcli.bundles.manifest import MANIFEST, Format, Manifest, manifest_to_json
from medcli.data.dataset import Picture
from medcli.errors import RunFailure, UsageProblem
from medcli.export.comparing import TOLERANCE, Comparison, compare
from medcli.export.formats import NETWORK, WRITERS, Written, join_network, write_onnx
from medcli.export.graph import check_opset, require_export
from medcli.export.placing import drafted, facts_of_files
from medcli.export.readme import readme
from medcli.export.reference import Expected, expect, phantoms, real_pictures, stacks
from medcli.export.run_cases import RunCases, read_run_cases
from medcli.export.source import Source
from medcli.export.wishes import Quantize, Wishes
from medcli.models.provenance import made_by
from medcli.runs.directory import replace_text, writing
from medcli.runs.status import now

if TYPE_CHECKING:
    from medcli.export.quantising import Quantised

__all__ = ["Exported", "Reference", "ask_run", "export_run", "refuse_early"]


@dataclass(frozen=True)
class Reference:
    """What the run itself says, asked before anything was merged or written.

    Args:
        real: to real pictures; empty where nothing is compared.
        drawn: to those of the self-test.
        cases: of its own splits, for a network that is quantised.
    """

    real: tuple[Expected, ...]
    drawn: tuple[Expected, ...]
    cases: RunCases | None = None


@dataclass(frozen=True)
class Exported:
    """A bundle that was written.

    Args:
        path: its directory.
        manifest: what it says about itself.
        comparison: with the run, or None.
        quantised: what became of the network, or None.
    """

    path: Path
    manifest: Manifest
    comparison: Comparison | None
    quantised: Quantised | None = None

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(int(facts["bytes"]) for facts in self.manifest.files.values())


def refuse_early(kinds: Sequence[Format], wishes: Wishes) -> None:
    """What can be known to fail before anything is loaded. Raises `UsageProblem`."""
    if "onnx" in kinds:
        require_export("--format")
    if wishes.opset is not None and "onnx" not in kinds:
        raise UsageProblem(
            f"`--opset` is about ONNX, and the format is `{kinds[0]}`",
            where="--opset",
            hint="leave it out",
            code="idle-flag",
        )
    if wishes.opset is not None:
        check_opset(wishes.opset)
    if wishes.quantize == "none":
        return
    if tuple(kinds) != ("onnx",):
        raise UsageProblem(
            f"`--quantize` is about ONNX, and the format is `{next(kind for kind in kinds if kind != 'onnx')}`",
            where="--quantize",
            hint="leave `--format` out",
            code="idle-flag",
        )
    if not wishes.verify:
        raise UsageProblem(
            "a quantised network is kept for what it scores on the run's images, and `--no-verify` looks at none",
            where="--no-verify",
            hint="leave it out",
            code="contradiction",
        )


def ask_run(source: Source, wishes: Wishes) -> Reference:
    """What the run says to real pictures and to drawn ones.

    Raises:
        UsageProblem: there are no pictures to compare on (code `no-images`).
    """
    loaded = source.loaded
    how, target = loaded.preprocessing, loaded.spec.target
    batches: Sequence[Sequence[Picture]] = ()
    if wishes.verify:
        pictures = real_pictures(source.run, target, how.window, max(wishes.batch_size, 4), wishes.data)
        batches = stacks(pictures, wishes.batch_size)
    network = source.network()
    real, drawn = (
        tuple(expect(network, how, target, source.calibrator, asked))
        for asked in (batches, [[one] for one in phantoms()])
    )
    if wishes.quantize == "none":
        return Reference(real, drawn)
    return Reference(real, drawn, read_run_cases(source, wishes.data, calibrating=wishes.quantize == "int8-static"))


def export_run(
    source: Source,
    reference: Reference,
    kind: Format,
    path: Path,
    wishes: Wishes,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write one bundle, all of it or nothing.

    Args:
        source: the run. Its adapter, if any, is merged into its network by the first format that needs that.
        reference: of `ask_run`.
        kind: the format.
        path: the final place, free (see `free_place`) or an older bundle, which is replaced at the end.
        wishes: opset, tolerance, pictures, quantisation.
        tell: told what is tried.

    Raises:
        UsageProblem: a format that does not suit the run.
        RunFailure: the network cannot be exported, or a file cannot be written.
        Mismatch: the export answers otherwise than the run (exit status 4).
        TooMuchLost: every smaller network answers too badly (exit status 4).
    """
    with drafted(path) as draft:
        written = _written(source, kind, draft, wishes)
        comparison, drawn, quantised = None, reference.drawn, None
        if reference.real and written.run is not None:
            comparison = compare(
                written.run, reference.real, TOLERANCE if wishes.tolerance is None else wishes.tolerance
            )
        if reference.cases is not None:
            written, quantised = _quantised(source, reference, reference.cases, written, draft, wishes, tell)
            drawn = _answered(written, drawn)
        manifest = _manifest(source, kind, written, comparison, wishes.quantize)
        if written.run is not None:
            _write_selftest(draft / SELFTEST, drawn)
        if kind == "onnx":
            Bundle(draft, manifest).self_test()
        replace_text(draft / "README.md", readme(manifest, _build_arguments(source)))
        manifest = replace(manifest, files=facts_of_files(draft))
        replace_text(draft / MANIFEST, manifest_to_json(manifest))
    return Exported(path, manifest, comparison, quantised)


def _written(source: Source, kind: Format, draft: Path, wishes: Wishes) -> Written:
    try:
        if wishes.quantize == "none":
            return WRITERS[kind](source, draft, wishes.opset)
        return write_onnx(source, draft, wishes.opset, keep_network=True)
    except RunFailure as problem:
        if problem.code == "not-exportable":
            problem.hint = _instead(source)
        raise


def _instead(source: Source) -> str:
    """What can be had of a network that cannot be traced."""
    run, architecture = source.run.path, source.loaded.spec.architecture
    if source.jury.joined:
        return f"`medcli predict {run} IMAGES` runs the ensemble as it is"
    ways = [f"`medcli export {run} --format safetensors` keeps weights and configuration"]
    if (made_by(architecture) or {}).get("distribution") != "medcli":
        ways.append(f"`medcli plugins check {architecture} --only onnx` is for its author")
    return "; ".join(ways)


def _quantised(
    source: Source,
    reference: Reference,
    cases: RunCases,
    written: Written,
    draft: Path,
    wishes: Wishes,
    tell: Callable[[str], None],
) -> tuple[Written, Quantised]:
    """Replace the network in the draft by a smaller one; preprocessing and calibrator are as before."""
    from medcli.export.quantising import quantise

    assert wishes.quantize != "none"
    work = draft / "work"
    with writing(work):
        work.mkdir()
    found = quantise(
        source,
        cases,
        draft / NETWORK,
        work,
        wishes.quantize,
        max_drop=wishes.max_drop,
        batch_size=wishes.batch_size,
        tell=tell,
    )
    with writing(draft):
        for name in (NETWORK, MODEL, f"{MODEL}.data"):
            (draft / name).unlink(missing_ok=True)
            if (work / name).is_file() and name != NETWORK:
                (work / name).rename(draft / name)
        shutil.rmtree(work)
    smaller = join_network(source, draft, {"opset": written.facts["opset"]})
    assert smaller.run is not None
    # Shapes of every batch are checked, and what is no number; how far the answers moved is told, not judged.
    moved = compare(smaller.run, reference.real, sys.float_info.max)
    facts = {
        **found.to_dict(),
        "largest_difference": {"probability": moved.probability, "logit": moved.logit, "images": moved.images},
    }
    return replace(smaller, facts={**smaller.facts, "quantization": facts}), found


def _answered(written: Written, drawn: Sequence[Expected]) -> tuple[Expected, ...]:
    """The self-test of a quantised network is what that network says."""
    assert written.run is not None
    found = []
    for one in drawn:
        answers, logits, features = written.run(one.images)
        found.append(Expected(one.images, answers, logits, features))
    return tuple(found)


def _manifest(
    source: Source, kind: Format, written: Written, comparison: Comparison | None, quantized: Quantize
) -> Manifest:
    loaded = source.loaded
    return Manifest(
        format=kind,
        name=source.run.path.resolve().name,
        created=now(),
        medcli=medcli.__version__,
        architecture=loaded.spec.architecture,
        target=loaded.spec.target,
        preprocessing=loaded.preprocessing,
        outputs=written.outputs,
        calibrator=source.calibrator,
        conformal=source.conformal,
        thresholds=source.thresholds,
        verification=None if comparison is None else comparison.to_dict(),
        facts={**source.facts, **written.facts, "quantized": quantized},
    )


def _write_selftest(file: Path, drawn: Sequence[Expected]) -> None:
    arrays = {f"image_{row}": one.images[0] for row, one in enumerate(drawn)}
    answers = np.stack([one.probabilities[0].astype(np.float32) for one in drawn])
    logits = np.stack([one.logits[0] for one in drawn])
    with writing(file):
        np.savez_compressed(file, allow_pickle=False, answers=answers, logits=logits, **arrays)


def _build_arguments(source: Source) -> str:
    """How `medcli.build` makes the base of an adapter."""
    spec = source.loaded.spec
    parts = [f'"{spec.architecture}"', f"num_classes={max(2, spec.target.num_classes)}"]
    parts += [f"image_size={spec.image_size}", f"in_channels={spec.in_channels}", 'weights="BASE_WEIGHTS"']
    parts += [f"{name}={value!r}" for name, value in spec.options.items()]
    return ", ".join(parts)
