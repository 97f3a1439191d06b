"""`medcli export`: a run as a folder that answers alike on another machine, compared with the run before it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.cli.options import Flags, RunArgument
from medcli.cli.output import Output
from medcli.errors import ExitCode, UsageProblem

if TYPE_CHECKING:
    from medcli.bundles.manifest import Format
    from medcli.export.bundling import Exported
    from medcli.export.differences import ExportedDifference
    from medcli.export.wishes import Wishes
    from medcli.settings.resolve import Resolved

__all__ = ["export"]


def export(run: RunArgument, flags: Flags) -> ExitCode | None:
    """Turn a run into a bundle: a folder with the model and all it needs, compared with the run on its own images.

    `onnx` (the default) holds preprocessing, network and calibrator in one graph: raw image in, calibrated
    probabilities out. `medcli predict` and `medcli evaluate` run it with onnxruntime alone, and its README has the
    lines for those without medcli. `pt2` holds programs of torch.export, `safetensors` weights and configuration. An
    adapter is merged in all of these; `adapter` writes it by itself.

    Beside the model lie class names, calibrator, operating points and conformal thresholds, card, figures, hashes and a
    self-test with drawn pictures. A bundle that answers otherwise than its run is not kept (exit status 4).

    A run of `medcli diffmap train` leaves as `onnx` alone: two pictures in, the map of what changed out, and `medcli
    diffmap predict BASELINE FOLLOWUP --run BUNDLE` runs it. Its maps may differ by 1e-4 from those of the run, or
    by twice what rounding to float32 does to these where that is more (0.01 at most).

    `--quantize` makes the network of an ONNX bundle smaller; preprocessing and calibrator stay as they are. What it
    loses is measured on the run's validation images, and more than `--max-drop` of AUC or accuracy is not kept (exit
    status 4). `int8-static` tries several ways, from the most that is shrunk to the least, with ranges from training
    images, and keeps the first whose loss of AUC is within that by its 95 % interval too; where none is, the one whose
    answers moved least. `int8-dynamic` shrinks linear layers only: half of a transformer's size or less, next to
    nothing of a convolutional network. `fp16` halves every file, and is slower on most CPUs. `--tolerance` stays what
    it is: how closely the network agrees with the run before it is quantised.

    Examples:
        medcli export runs/NAME
        medcli export runs/NAME --format onnx,safetensors --opset 20
        medcli export runs/APTOS --format adapter --out adapters/aptos
        medcli export runs/NAME --quantize int8-static --max-drop 0.01
        medcli export runs/NAME --data images/ --out bundles/ward-7 --overwrite
        medcli export runs/20261121T101500Z-diffmap-train-siamese-unet-1a2b --out bundles/change
    """
    from medcli.settings.resolve import resolve

    settings = flags.output()
    output = Output(settings, "export")
    resolved = resolve("export", flags.given)

    from medcli.export.named import holds_difference

    two = holds_difference(run)

    from medcli.export.bundling import ask_run, export_run, refuse_early
    from medcli.export.placing import free_place, planned_place
    from medcli.export.source import read_source
    from medcli.export.wishes import MAX_DROP, Wishes
    from medcli.settings.groups import ComputeSettings, DataSettings, ExportSettings, FormatSettings

    wanted = resolved.group(ExportSettings)
    kinds: tuple[Format, ...] = tuple(dict.fromkeys(resolved.group(FormatSettings).format)) or ("onnx",)  # type: ignore[arg-type]
    data = resolved.group(DataSettings).data
    if wanted.no_verify and (data or wanted.tolerance is not None):
        flag = "--data" if data else "--tolerance"
        raise UsageProblem(
            f"`{flag}` is about the comparison that `--no-verify` leaves out",
            where=flag,
            hint=f"leave out `{flag}` or `--no-verify`",
            code="contradiction",
        )
    if len(kinds) > 1 and settings.out is not None:
        raise UsageProblem(
            f"`--out` is one folder, and {len(kinds)} formats make as many",
            where="--out",
            hint="leave it out, or export one format at a time",
            code="several-formats",
        )
    if wanted.quantize == "none" and wanted.max_drop is not None:
        raise UsageProblem(
            "`--max-drop` is about a quantised network, and `--quantize` is `none`",
            where="--max-drop",
            hint="`--quantize int8-static`, or leave it out",
            code="idle-flag",
        )
    wishes = Wishes(
        wanted.opset,
        wanted.tolerance,
        not wanted.no_verify,
        data,
        resolved.group(ComputeSettings).batch_size,
        wanted.quantize,
        MAX_DROP if wanted.max_drop is None else wanted.max_drop,
    )
    if two:
        return _export_difference(run, kinds, wishes, resolved, output)
    refuse_early(kinds, wishes)
    places = [planned_place(Path(run), kind, settings.out) for kind in kinds]
    for place in places:
        free_place(place, overwrite=settings.overwrite)
    source = read_source(run, weights=resolved.values["weights"])
    if source.loaded.caution:
        output.warn(source.loaded.caution)
    if source.calibrator is None:
        output.note(f"the run was never calibrated, so the bundle gives scores; `medcli calibrate {run}` comes first")
    if settings.dry_run:
        output.answer(
            {"bundles": [{"path": str(place)} for place in places]}, f"would be written: {', '.join(map(str, places))}"
        )
        return None
    reference = ask_run(source, wishes)
    written = []
    for kind, place in zip(kinds, places, strict=True):
        output.note(f"writing {kind}")
        written.append(export_run(source, reference, kind, place, wishes, tell=output.note))
    for quantised in (one.quantised for one in written):
        for caution in () if quantised is None else quantised.cautions:
            output.warn(caution)
    result = {"bundles": [_facts(one) for one in written]}
    output.answer(result, lambda: "\n".join(_text(one) for one in written), identifier=str(places[0]), run_dir=run)
    if kinds[0] == "onnx":
        output.hint(f"medcli predict {places[0]} IMAGES")
    return None


def _export_difference(
    run: str, kinds: tuple[Format, ...], wishes: Wishes, resolved: Resolved, output: Output
) -> ExitCode | None:
    """A run that compares two pictures."""
    from medcli.export.bundling import refuse_early
    from medcli.export.differences import (
        ask_difference,
        export_difference,
        read_difference_source,
        refuse_for_difference,
    )
    from medcli.export.placing import free_place, planned_place

    settings = output.settings
    refuse_for_difference(kinds, wishes, resolved.values["weights"])
    refuse_early(kinds, wishes)
    place = planned_place(Path(run), "onnx", settings.out)
    free_place(place, overwrite=settings.overwrite)
    source = read_difference_source(run)
    if source.loaded.caution:
        output.warn(source.loaded.caution)
    if settings.dry_run:
        output.answer({"bundles": [{"path": str(place)}]}, f"would be written: {place}")
        return None
    asked = resolved.origin("batch_size").layer == "flag"
    reference = ask_difference(source, wishes, more=wishes.batch_size if asked else None)
    if reference.substituted:
        output.warn(f"compared on drawn pairs, since the run's own cannot be read: {reference.substituted}")
    output.note("writing onnx")
    one = export_difference(source, reference, place, wishes)
    found = one.comparison
    if found is not None and found.rounding is not None:
        output.warn(
            f"rounding to float32 alone moves the run's maps by {found.rounding:.1e}, so {found.tolerance:.1e} was "
            "allowed; `--tolerance P` sets a limit of yours"
        )
    output.answer(
        {"bundles": [_difference_facts(one)]}, lambda: _difference_text(one), identifier=str(place), run_dir=run
    )
    output.hint(f"medcli diffmap predict BASELINE FOLLOWUP --run {place}")
    return None


def _difference_facts(one: ExportedDifference) -> dict[str, Any]:
    manifest = one.manifest
    return {
        "path": str(one.path),
        "format": manifest.format,
        "bytes": one.size,
        "outputs": list(manifest.outputs),
        "map": manifest.map,
        "antisymmetric": manifest.antisymmetric,
        "threshold": manifest.threshold,
        "verification": manifest.verification,
        "files": dict(manifest.files),
    }


def _difference_text(one: ExportedDifference) -> str:
    size = f"{one.path}: {one.manifest.format}, {one.size / 1e6:.1f} MB"
    found = one.comparison
    if found is None:
        return f"{size}, not compared with the run"
    sizes = ", ".join(str(size) for size in found.batch_sizes)
    kind = "drawn pairs" if found.drawn else "pairs"
    return f"{size}, agrees with the run on {found.pairs} {kind} (batches of {sizes}): maps to {found.map:.1e}"


def _facts(one: Exported) -> dict[str, Any]:
    manifest = one.manifest
    return {
        "path": str(one.path),
        "format": manifest.format,
        "bytes": one.size,
        "outputs": list(manifest.outputs),
        "calibrated": manifest.calibrated or None,
        "thresholds": len(manifest.thresholds),
        "verification": manifest.verification,
        "quantized": manifest.facts["quantized"],
        "quantization": manifest.facts.get("quantization"),
        "files": dict(manifest.files),
    }


def _text(one: Exported) -> str:
    size = f"{one.path}: {one.manifest.format}, {one.size / 1e6:.1f} MB"
    found = one.comparison
    if found is None:
        return f"{size}, not compared with the run"
    sizes = ", ".join(str(size) for size in found.batch_sizes)
    agrees = (
        f"{size}, agrees with the run on {found.images} pictures (batches of {sizes}): probabilities to "
        f"{found.probability:.1e}, logits to {found.logit:.1e}, features to {found.feature:.1e}"
    )
    if one.quantised is None:
        return agrees
    return "\n".join([agrees.replace("agrees", "before it was quantised it agreed"), *one.quantised.lines()])
