"""`medcli calibrate`: scores to probabilities, of a run or of predictions of any tool, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medcli.cli.options import Flags, RunOrPredictions
from medcli.cli.output import Output
from medcli.errors import ExitCode, UsageProblem
from medcli.settings.commands import OF_TABLES

if TYPE_CHECKING:
    from medcli.evaluation.calibration_result import CalibrationResult
    from medcli.evaluation.calibrator import Origin
    from medcli.evaluation.predictions import Predictions
    from medcli.settings.groups import OutputSettings
    from medcli.settings.resolve import Resolved

__all__ = ["calibrate"]


def calibrate(source: RunOrPredictions, flags: Flags) -> ExitCode | None:
    """Fit a map from scores to probabilities on validation cases, and report on others, before and after.

    A run is fitted on its stored validation predictions and reported on its test predictions; `predict` and `evaluate`
    use the calibrator from then on (`--raw` does without). Predictions of any tool are fitted and, with `--apply-to`,
    reported on other ones; alone they are cross-fitted by patient. Labels and outputs are calibrated each by itself.

    `temperature` (the default) and `vector` suit every kind of classes, `platt`, `beta` and `isotonic` a yes-or-no
    question or labels. A temperature never changes which class is predicted. `--conformal` adds sets of classes that
    hold the true one as often as asked. `--out DIR` writes calibrator, figures and
    reliability diagram of predictions that belong to no run.

    Examples:
        medcli calibrate runs/NAME
        medcli calibrate val.npz --apply-to test.npz --method platt --out calibrated
        medcli calibrate chexnet.csv.gz --id-column 'Image Index' --patient-column 'Patient ID' --method beta
        medcli calibrate val.npz --cross-fit 10 --max-ece 0.1
        medcli calibrate val.npz --apply-to test.npz --conformal aps --miscoverage 0.1
    """
    from medcli.settings.groups import EvaluationSettings
    from medcli.settings.resolve import resolve

    settings = flags.output()
    output = Output(settings, "calibrate")
    resolved = resolve("calibrate", flags.given)
    wanted = resolved.group(EvaluationSettings)
    folder = _folder(source, settings)
    _check_save(wanted, settings.overwrite)
    fitted_on, reported_on, origin = _inputs(source, resolved, output)
    result = _calibrated(fitted_on, reported_on, origin, resolved)
    if folder is not None:
        from medcli.prediction.run_calibration import write_calibration

        replaced = (folder / "calibrator.json").is_file()
        write_calibration(folder, result)
        output.note(f"calibrator {'replaced' if replaced else 'written'}: {folder / 'calibrator.json'}")
    if wanted.save_predictions:
        from medcli.prediction.tables import write_any

        write_any(wanted.save_predictions, result.predictions, overwrite=settings.overwrite)
        output.note(f"calibrated predictions written to {wanted.save_predictions}")
    missed = _missed(result, wanted.max_ece)
    for problem in missed:
        output.warn(problem)

    def text() -> str:
        from medcli.evaluation.calibration_text import render_calibration

        return render_calibration(result, verbose=settings.verbose, width=output.answer_width())

    status = ExitCode.LIMIT if missed else ExitCode.DONE
    directory = source if Path(source).is_dir() else None
    output.answer(
        {**result.to_dict(), "missed_limits": missed}, text, identifier=source, run_dir=directory, status=status
    )
    return status


def _calibrated(
    fitted_on: Predictions, reported_on: Predictions | None, origin: Origin, resolved: Resolved
) -> CalibrationResult:
    from medcli.evaluation.calibration_result import Sets
    from medcli.evaluation.calibration_result import calibrate as fit
    from medcli.settings.groups import CalibrationSettings, ComputeSettings, EvaluationSettings

    how = resolved.group(CalibrationSettings)
    for name in ("miscoverage", "by_class"):
        if how.conformal is None and resolved.origin(name).layer == "flag":
            flag = "--" + name.replace("_", "-")
            raise UsageProblem(
                f"`{flag}` is about conformal sets, and none are asked for",
                where=flag,
                hint="add `--conformal lac`",
                code="no-conformal",
            )
    if reported_on is not None and resolved.origin("cross_fit").layer == "flag":
        raise UsageProblem(
            "`--cross-fit` is for predictions that have no others to report on, and here are some",
            where="--cross-fit",
            hint="leave it out",
            code="not-cross-fitted",
        )
    return fit(
        resolved.values["method"] or "temperature",
        fitted_on,
        reported_on,
        parts=how.cross_fit,
        settings=resolved.group(EvaluationSettings),
        seed=resolved.group(ComputeSettings).seed,
        origin=origin,
        allow_test=how.allow_test,
        sets=None if how.conformal is None else Sets(how.conformal, how.miscoverage, how.by_class),
    )


def _inputs(source: str, resolved: Resolved, output: Output) -> tuple[Predictions, Predictions | None, Origin]:
    """(predictions to fit on, those to report on, where the first lie)."""
    from medcli.prediction.foreign import columns_from
    from medcli.prediction.run_calibration import origin_of, run_splits
    from medcli.prediction.tables import read_any
    from medcli.registry.unknown import named_for_a_run
    from medcli.runs.directory import open_run

    other = resolved.values["apply_to"]
    if Path(source).is_dir():
        for name in (*OF_TABLES, "apply_to"):
            if resolved.origin(name).layer == "flag":
                flag = "--" + name.replace("_", "-")
                raise UsageProblem(
                    f"`{flag}` is about predictions in files; a run has its own",
                    where=flag,
                    code="fixed-by-run",
                )
        return run_splits(open_run(source))
    columns = columns_from(resolved.values)
    found = []
    for path in (source, other):
        if path is None:
            continue
        if Path(path).is_dir() or not Path(path).is_file():
            raise named_for_a_run(path) or UsageProblem(
                f"there is no predictions file `{path}`",
                where="--apply-to" if path == other else None,
                hint="`medcli runs list` shows the runs here; `medcli evaluate RUN --save-predictions FILE` writes one",
                code="missing-path",
            )
        read = read_any(path, columns)
        for note in read.notes:
            output.note(f"note: {note}")
        found.append(read.predictions)
    return found[0], found[1] if len(found) > 1 else None, origin_of(source)


def _folder(source: str, settings: OutputSettings) -> Path | None:
    """Where the calibrator goes: into the run, to `--out`, or nowhere."""
    if Path(source).is_dir():
        if settings.out is not None:
            raise UsageProblem(
                "the calibrator of a run belongs into the run",
                where="--out",
                hint=f"`medcli calibrate {Path(source) / 'predictions' / 'val.npz'} --out {settings.out}`",
                code="fixed-by-run",
            )
        return Path(source)
    if settings.out is None:
        return None
    folder = Path(settings.out)
    ours = (folder / "calibrator.json").is_file()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (settings.overwrite and ours)):
        raise UsageProblem(
            f"`{folder}` is not empty" if folder.is_dir() else f"`{folder}` is a file",
            where="--out",
            hint="`--overwrite` replaces an earlier calibration" if ours else "name a new directory",
            code="out-occupied",
        )
    return folder


def _check_save(wanted: object, overwrite: bool) -> None:
    path = getattr(wanted, "save_predictions", None)
    if path is None:
        return
    if not path.lower().endswith((".npz", ".csv", ".tsv", ".csv.gz", ".tsv.gz")):
        raise UsageProblem(f"`{path}` ends in neither .npz nor .csv", where="--save-predictions", code="unknown-format")
    if Path(path).exists() and not (overwrite and Path(path).is_file()):
        raise UsageProblem(
            f"`{path}` exists already",
            where="--save-predictions",
            hint="`--overwrite` replaces it",
            code="out-occupied",
        )


def _missed(result: CalibrationResult, limit: float | None) -> list[str]:
    if limit is None:
        return []
    ece = result.after.figures[f"ece_{result.binning}"].value
    # Written so that an undefined figure misses the limit too.
    if ece <= limit:
        return []
    return [f"ece after calibration is {ece:.4f}, above the limit {limit:g} (`--max-ece`)"]
