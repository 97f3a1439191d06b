"""`medcli predict`: a run, or published weights, applied to image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.cli.options import Flags, InputsArgument, RunOrArchitecture
from medcli.cli.output import Output
from medcli.errors import ExitCode, RunFailure, UsageProblem
from medcli.settings.commands import FIXED_BY_RUN, OF_WEIGHTS

if TYPE_CHECKING:
    import numpy.typing as npt

    from medcli.data.dataset import Preprocessing
    from medcli.evaluation.conformal import Conformal
    from medcli.prediction.files import Input
    from medcli.prediction.members import Jury
    from medcli.settings.resolve import Resolved

__all__ = ["predict"]


def predict(run: RunOrArchitecture, inputs: InputsArgument, flags: Flags) -> ExitCode | None:
    """Apply a run, or published weights, to image files and print a score per class.

    Files, folders (searched to the bottom, in sorted order), DICOM files and .npz archives; the answer is a table in
    the order of the inputs, as CSV or JSON. A file that cannot be read is named on stderr and the others are done
    (exit status 3). The columns are scores, not probabilities, until `medcli calibrate` was run, and with `--raw`.
    After `medcli calibrate --conformal` there are the columns `set` (the classes of the conformal set, `|` between
    them) and `set_size`, of the labels of a multilabel target each (`absent`, `present`, both or neither). An
    architecture with `--weights` predicts with the classifier that came with these weights. Several runs of
    `medcli lora` on one base may be named; the base is loaded once, and the columns are named by run.

    A bundle of `medcli export` is run by onnxruntime, without torch, after its files were compared with their hashes
    and its self-test was computed on this machine. `--runtime onnx` runs the network of a run so.

    An ensemble, `--mc-dropout T` (T passes, each with other units dropped) and `--tta` (several looks at each picture)
    add columns: `total` uncertainty (entropy of the mean score), its `aleatoric` and `epistemic` parts, `std` of the
    answer's score, and the `disagreement` of answers.

    Examples:
        medcli predict runs/NAME scan.dcm
        medcli predict runs/NAME images/ --out scores.csv
        medcli predict runs/NAME a.png b.png --json
        medcli predict runs/NAME images/ --mc-dropout 30
        medcli predict bundles/NAME-onnx images/
        medcli predict runs/APTOS runs/MESSIDOR images/
        medcli predict densenet121 a.png --weights densenet121.safetensors --class-names NORMAL,PNEUMONIA --task binary
    """
    from medcli.settings.groups import ComputeSettings, DataSettings, EvaluationSettings
    from medcli.settings.resolve import resolve

    settings = flags.output()
    output = Output(settings, "predict")
    resolved = resolve("predict", flags.given)
    out = _destination(settings.out, settings.overwrite)
    from medcli.bundles.manifest import is_bundle

    if is_bundle(run):
        return _with_bundle(run, inputs, resolved, output, out)
    from medcli.prediction.together import split_runs

    runs, inputs = split_runs(run, inputs)
    if len(runs) > 1:
        return _together(runs, inputs, resolved, output, out)
    jury = _jury(run, resolved, output)

    from medcli.prediction.asking import asking_from, onnx_compute
    from medcli.prediction.files import list_inputs
    from medcli.prediction.members import predict_files_by

    asking = asking_from(resolved.values, run)
    compute = resolved.group(ComputeSettings)
    if resolved.values["runtime"] == "onnx":
        from medcli.export.running import through_onnx

        compute = onnx_compute(compute, asking)
        jury = through_onnx(jury)
    jury = jury.asked(asking)
    loaded = jury.first
    own_window = resolved.origin("window").layer == "default"
    window = resolved.group(DataSettings).window

    def entries_for(how: Preprocessing) -> tuple[Input, ...]:
        return list_inputs(inputs, how.window if own_window else window)

    entries = entries_for(loaded.preprocessing)
    for model in jury.models:
        how = model.preprocessing
        output.detail(
            f"{model.spec.architecture}: {how.channels} x {how.image_size} x {how.image_size} px, "
            f"made square by `{how.fit}`, window `{how.window if own_window else window}`"
        )
    who = f"{len(jury.models)} members" if jury.joined else loaded.spec.architecture
    if settings.dry_run:
        count = f"{len(entries)} image{'s' if len(entries) != 1 else ''}"
        output.answer({"images": len(entries)}, f"{count} would be predicted with {who}")
        return None
    for sentence in asking.sentences(loaded):
        output.note(sentence)
    found = predict_files_by(jury, entries_for, compute, progress=output.progress("images predicted", len(entries)))
    for name, reason in found.failures:
        output.warn(f"{name}: {reason}")
    if not found.names:
        raise RunFailure(f"none of the {len(entries)} inputs could be read", code="unreadable-images")
    from medcli.prediction.score_table import doubt_table, score_columns, score_rows

    target = jury.target
    logits, calibrated, conformal = found.logits, "", None
    if Path(run).is_dir() and not resolved.group(EvaluationSettings).raw:
        from medcli.prediction.conformal_sets import run_conformal
        from medcli.prediction.run_calibration import calibrated_scores, other_members, run_calibrator
        from medcli.runs.directory import open_run

        logits, calibrated = calibrated_scores(open_run(run), found.logits, target)
        calibrator = run_calibrator(open_run(run))
        if calibrator is not None and (misfit := other_members(calibrator, found.member_logits)) is not None:
            output.warn(misfit)
        conformal = run_conformal(open_run(run))
    rows = score_rows(found.names, logits, target)
    columns = score_columns(target, calibrated=bool(calibrated))
    about: dict[str, Any] = {"task": target.task, "calibrated": bool(calibrated), "calibrator": calibrated or None}
    columns, rows = _with_sets(conformal, found.names, logits, columns, rows, about)
    if found.member_logits is not None:
        names, doubts = doubt_table(found.member_logits, target, found.member_weights)
        columns = (*columns, *names)
        rows = [(*row, *doubt) for row, doubt in zip(rows, doubts, strict=True)]
        about["answers_per_image"] = len(found.member_logits)
    return _answer(output, about, columns, rows, found.failures, out, run)


def _with_bundle(
    source: str, inputs: tuple[str, ...], resolved: Resolved, output: Output, out: Path | None
) -> ExitCode | None:
    """A bundle, with onnxruntime and without torch."""
    from medcli.prediction.bundles import calibrated_by_bundle, predict_with_bundle, ready_bundle, refuse_of_bundles
    from medcli.prediction.conformal_sets import thresholds_from
    from medcli.prediction.inputs import list_inputs
    from medcli.prediction.score_table import score_columns, score_rows
    from medcli.settings.groups import ComputeSettings, DataSettings, EvaluationSettings

    refuse_of_bundles(resolved, (*OF_WEIGHTS, *FIXED_BY_RUN, "class_names", "task"))
    bundle = ready_bundle(source)
    manifest = bundle.manifest
    own = resolved.origin("window").layer == "default"
    entries = list_inputs(inputs, manifest.preprocessing.window if own else resolved.group(DataSettings).window)
    output.detail(f"{manifest.architecture}, exported by medcli {manifest.medcli}; its self-test agrees here")
    if output.settings.dry_run:
        count = f"{len(entries)} image{'s' if len(entries) != 1 else ''}"
        text = (
            f"the bundle computes its self-test as it should; {count} would be predicted with {manifest.architecture}"
        )
        output.answer({"images": len(entries)}, text)
        return None
    compute = resolved.group(ComputeSettings)
    found = predict_with_bundle(bundle, entries, compute, progress=output.progress("images predicted", len(entries)))
    for name, reason in found.failures:
        output.warn(f"{name}: {reason}")
    if not found.names:
        raise RunFailure(f"none of the {len(entries)} inputs could be read", code="unreadable-images")
    raw = resolved.group(EvaluationSettings).raw
    logits, calibrated = (found.logits, "") if raw else calibrated_by_bundle(bundle, found.logits)
    about: dict[str, Any] = {
        "task": manifest.target.task,
        "calibrated": bool(calibrated),
        "calibrator": calibrated or None,
    }
    columns = score_columns(manifest.target, calibrated=bool(calibrated))
    rows = score_rows(found.names, logits, manifest.target)
    # Without the calibrator the thresholds mean nothing.
    conformal = thresholds_from(manifest.conformal, source) if calibrated else None
    columns, rows = _with_sets(conformal, found.names, logits, columns, rows, about)
    return _answer(output, about, columns, rows, found.failures, out, source)


def _together(
    runs: tuple[str, ...], inputs: tuple[str, ...], resolved: Resolved, output: Output, out: Path | None
) -> ExitCode:
    """Several adapter runs on one base."""
    from medcli.prediction.asking import asking_from
    from medcli.prediction.together import calibrated_runs, load_runs, predict_with_each, wide_table
    from medcli.settings.groups import ComputeSettings, DataSettings, EvaluationSettings

    _refuse_flags_of_architectures(resolved, adapted=True)
    if resolved.values["runtime"] == "onnx":
        raise UsageProblem(
            "adapters are exchanged on one base, and a graph holds one of them",
            where="--runtime",
            hint="name one run",
            code="several-runs",
        )
    asking = asking_from(resolved.values, runs[0])
    if asking.several:
        raise UsageProblem(
            "several runs give a table of their scores, without columns for uncertainty",
            where="--mc-dropout" if asking.mc_dropout else "--tta",
            hint="name one run",
            code="several-runs",
        )
    models = load_runs(runs, weights=resolved.values["weights"])
    own_window = resolved.origin("window").layer == "default"
    if output.settings.dry_run:
        text = f"the inputs would be predicted with {', '.join(models)}, on one base"
        output.answer({"runs": list(models)}, text)
        return ExitCode.DONE
    found = predict_with_each(
        models,
        inputs,
        resolved.group(ComputeSettings),
        window=None if own_window else resolved.group(DataSettings).window,
        prepare=asking.of,
        progress=lambda name, total: output.progress(f"images predicted by {name}", total),
    )
    failures = found[0].found.failures
    for name, reason in failures:
        output.warn(f"{name}: {reason}")
    if not found[0].found.names:
        raise RunFailure("none of the inputs could be read", code="unreadable-images")
    if not resolved.group(EvaluationSettings).raw:
        found = calibrated_runs(runs, found)
    columns, rows = wide_table(found)
    described = {
        one.run: {
            "task": one.target.task,
            "classes": list(one.target.class_names),
            "calibrator": one.calibrated or None,
        }
        for one in found
    }
    about = {"calibrated": all(one.calibrated for one in found), "runs": described}
    return _answer(output, about, columns, rows, failures, out, runs[0])


def _with_sets(
    conformal: Conformal | None,
    names: Sequence[str],
    logits: npt.NDArray[Any],
    columns: tuple[str, ...],
    rows: list[tuple[str | float, ...]],
    about: dict[str, Any],
) -> tuple[tuple[str, ...], list[tuple[str | float, ...]]]:
    """Columns and rows with conformal sets behind them, where there are thresholds; `about` then says what they are."""
    if conformal is None:
        return columns, rows
    from medcli.prediction.conformal_sets import about_sets, set_columns, set_rows

    about["conformal"] = about_sets(conformal)
    sets = set_rows(conformal, names, logits)
    more = [(*row, *cells) for row, cells in zip(rows, sets, strict=True)]
    return (*columns, *set_columns(conformal.target)), more


def _jury(source: str, resolved: Resolved, output: Output) -> Jury:
    """The models of a run, or an architecture with the classifier its weights brought."""
    from medcli.prediction.members import Jury, load_jury
    from medcli.runs.directory import open_run
    from medcli.settings.groups import DataSettings, ModelSettings

    if not Path(source).exists() and _is_architecture(source):
        from medcli.prediction.published import load_published

        if resolved.origin("raw").layer == "flag":
            what = "`--raw` does without the calibrator of a run, and an architecture has none"
            raise UsageProblem(what, where="--raw", hint="leave it out", code="no-calibrator")
        published = load_published(source, data=resolved.group(DataSettings), model=resolved.group(ModelSettings))
        output.note(f"weights: {published.summary}")
        return Jury((published.model,))
    run = open_run(source)
    _refuse_flags_of_architectures(resolved, adapted=run.adapter.is_dir())
    jury = load_jury(run, weights=resolved.values["weights"] if run.adapter.is_dir() else None)
    for caution in dict.fromkeys(one.caution for one in jury.models if one.caution):
        output.warn(caution)
    return jury


def _refuse_flags_of_architectures(resolved: Resolved, *, adapted: bool) -> None:
    """A run has its own weights; of an adapter run `--weights` may name the base."""
    for name in (*OF_WEIGHTS, *FIXED_BY_RUN, "class_names", "task"):
        if resolved.origin(name).layer == "flag" and not (adapted and name == "weights"):
            flag = "--" + name.replace("_", "-")
            raise UsageProblem(
                f"`{flag}` belongs to an architecture; a run has its own weights and its own way with images",
                where=flag,
                code="fixed-by-run",
            )


def _is_architecture(name: str) -> bool:
    from medcli.registry.discovery import discover, find

    try:
        find(discover(), name)
    except UsageProblem as problem:
        if problem.code == "ambiguous-architecture":
            raise
        return False
    return True


def _answer(
    output: Output,
    about: dict[str, Any],
    columns: tuple[str, ...],
    rows: list[tuple[str | float, ...]],
    failures: tuple[tuple[str, str], ...],
    out: Path | None,
    run: str,
) -> ExitCode:
    import json

    from medcli.cli.output import plain
    from medcli.prediction.score_table import as_csv
    from medcli.runs.directory import replace_text

    if about["calibrated"]:
        how = about.get("calibrator")
        output.note(f"probabilities calibrated{f': {how}' if how else ''}")
        if "conformal" in about:
            promised = 1 - about["conformal"]["miscoverage"]
            each = ", of each class by itself" if about["conformal"]["by_class"] else ""
            output.note(
                f"conformal sets: each holds the true answer in {100 * promised:g} % of cases like those it was "
                f"calibrated on{each}"
            )
    else:
        output.note("scores of the network itself were not calibrated: do not read them as probabilities")
    status = ExitCode.PARTIAL if failures else ExitCode.DONE
    directory = run if Path(run).is_dir() else None
    result = {
        **about,
        "columns": list(columns),
        "predictions": [dict(zip(columns, row, strict=True)) for row in rows],
        "failures": [{"image": name, "reason": reason} for name, reason in failures],
    }
    if out is None:
        output.answer(
            result,
            lambda: as_csv(columns, rows),
            identifier=run,
            run_dir=directory,
            status=status,
        )
        return status
    if out.suffix.lower() == ".json":
        replace_text(out, json.dumps(plain(result), ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    else:
        replace_text(out, as_csv(columns, rows))
    output.answer(
        {**result, "file": str(out)},
        f"{len(rows)} prediction{'s' if len(rows) != 1 else ''} written to {out}",
        identifier=str(out),
        run_dir=directory,
        status=status,
    )
    return status


def _destination(out: str | None, overwrite: bool) -> Path | None:
    if out is None:
        return None
    path = Path(out)
    if path.suffix.lower() not in {".csv", ".json"}:
        raise UsageProblem(f"`{out}` ends in neither .csv nor .json", where="--out", code="unknown-format")
    if path.is_dir() or (path.exists() and not overwrite):
        raise UsageProblem(
            f"`{out}` exists already", where="--out", hint="`--overwrite` replaces it", code="out-occupied"
        )
    return path
