"""`medcli evaluate`: figures with intervals, of a run, of predictions of any tool, or of published weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medcli.cli.options import Flags, Judged
from medcli.cli.output import Output
from medcli.errors import ExitCode, UsageProblem
from medcli.settings.commands import FIXED_BY_RUN, OF_WEIGHTS

if TYPE_CHECKING:
    from medcli.evaluation.clinical import Request
    from medcli.evaluation.figures import Evaluation, Section
    from medcli.evaluation.predictions import Predictions
    from medcli.prediction.asking import Asking
    from medcli.prediction.members import Jury
    from medcli.prediction.sources import Judgement
    from medcli.settings.groups import ComputeSettings, EvaluationSettings
    from medcli.settings.resolve import Resolved

__all__ = ["evaluate"]


def evaluate(source: Judged, flags: Flags) -> ExitCode | None:
    """Measure a run, stored predictions, the predictions of another tool, or published weights.

    A run without `--data` is measured on the predictions it stored (test, else val). With `--data`, once or several
    times as NAME=PATH, its model predicts those sets, and the difference to the internal test is shown. Every figure
    comes with its convention and a 95 % interval from resampled patients. `--min-auc` and `--max-ece` make the command
    end with status 4 when a figure misses them.

    With the figures comes a referral table: what leaving the least sure answers to a reader would change. Frozen
    thresholds (`--operating-point`), rules for what a reader gets (`--defer`) and subgroups (`--by`) are added on
    request, and decision curves where scores are calibrated; `-v` shows more, `--json` everything.

    A bundle of `medcli export` is measured with onnxruntime, without torch, at the operating points it brings along.

    An architecture with `--weights` is measured with the classifier that came with these weights, without training;
    labels are matched to its outputs by name.

    With `--data`, `--mc-dropout T` asks the model T times, each time with other units dropped (those of the head, and
    of dropout layers within the backbone where there are any; never stochastic depth), and `--tta` for the looks at a
    picture that its kind bears. What they say apart from their mean is shown as uncertainty, as are the members of an
    ensemble.

    Examples:
        medcli evaluate runs/NAME
        medcli evaluate runs/NAME --data siteB=siteB.csv --data siteC=siteC/
        medcli evaluate runs/NAME --data siteB=siteB.csv --mc-dropout 30
        medcli evaluate bundles/NAME-onnx --data siteC/ --operating-point sens=0.95
        medcli evaluate predictions.npz --min-auc 0.85 --max-ece 0.05
        medcli evaluate chexnet.csv.gz --id-column 'Image Index' --prob-columns 'prob_*' --patient-column 'Patient ID'
        medcli evaluate runs/NAME --operating-point sens=0.95 --prevalence 0.01,0.1
        medcli evaluate chexnet.csv.gz --id-column 'Image Index' --operating-point spec=0.9 --choose-on chexnet.csv.gz
        medcli evaluate chexnet.csv.gz --id-column 'Image Index' --by 'Patient Gender' --defer budget=0.2
        medcli evaluate densenet121 --weights densenet121.safetensors --class-names NORMAL,PNEUMONIA --task binary
            --data xrays/ --ten-crop
    """
    from medcli.evaluation.generalisation import gaps, render_comparison
    from medcli.evaluation.render import render
    from medcli.evaluation.report import evaluate as figures_of
    from medcli.prediction.clinical_request import read_wishes
    from medcli.settings.groups import ClinicalSettings, ComputeSettings, EvaluationSettings
    from medcli.settings.resolve import resolve

    settings = flags.output()
    output = Output(settings, "evaluate")
    resolved = resolve("evaluate", flags.given)
    wanted = resolved.group(EvaluationSettings)
    wishes = read_wishes(resolved.group(ClinicalSettings))
    _check_destinations(wanted, settings.out, settings.overwrite)
    judged = _judged(source, resolved, output)
    predictions = judged.all()
    if wanted.save_predictions and len(judged.others) > 1:
        raise UsageProblem(
            "`--save-predictions` is one file, and there are several data sets",
            hint="evaluate them one by one",
            code="several-data-sets",
        )
    if settings.dry_run:
        sizes = ", ".join(
            f"{one.data_name or source} {one.split} ({len(one)} cases)".replace("  ", " ") for one in predictions
        )
        output.answer({"cases": sum(len(one) for one in predictions)}, f"would be evaluated: {sizes}")
        return None
    _warn_top_k(output, wanted, predictions[0])
    seed = resolved.group(ComputeSettings).seed
    sections = [_sections(one, wishes, source, resolved, output) for one in predictions]
    evaluations = [
        replace(figures_of(one, wanted, seed=seed), sections=more)
        for one, more in zip(predictions, sections, strict=True)
    ]
    differences = gaps(evaluations[0], evaluations[1:]) if judged.internal is not None and judged.others else ()
    missed = [problem for one in evaluations for problem in _missed(one, wanted)]
    if wanted.save_predictions:
        from medcli.prediction.tables import write_any

        write_any(wanted.save_predictions, predictions[-1], overwrite=settings.overwrite)
        output.note(f"predictions written to {wanted.save_predictions}")
        if predictions[-1].member_logits is not None and not wanted.save_predictions.lower().endswith(".npz"):
            output.note("note: a table holds their mean alone; an .npz keeps every member's answers")
    for problem in missed:
        output.warn(problem)
    result = {
        "evaluations": [one.to_dict() for one in evaluations],
        "gaps": [gap.to_dict() for gap in differences],
        "missed_limits": missed,
    }
    if settings.out:
        import json

        from medcli.runs.directory import replace_text

        replace_text(Path(settings.out), json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
        output.note(f"figures written to {settings.out}")

    def text() -> str:
        width = output.answer_width()
        parts = [render(one, verbose=settings.verbose, width=width) for one in evaluations]
        if len(evaluations) > 1:
            parts.append(render_comparison(evaluations, differences, width))
        return ("\n\n" + "-" * 40 + "\n\n").join(parts)

    status = ExitCode.LIMIT if missed else ExitCode.DONE
    output.answer(result, text, identifier=source, run_dir=source if Path(source).is_dir() else None, status=status)
    return status


def _sections(
    predictions: Predictions, wishes: Request, source: str, resolved: Resolved, output: Output
) -> tuple[Section, ...]:
    from medcli.bundles.manifest import is_bundle, read_manifest
    from medcli.evaluation.clinical import clinical_sections
    from medcli.evaluation.uncertainty_section import uncertainty_section
    from medcli.prediction.clinical_request import request_for
    from medcli.prediction.foreign import columns_from
    from medcli.settings.groups import ClinicalSettings, EvaluationSettings

    settings, raw = resolved.group(ClinicalSettings), resolved.group(EvaluationSettings).raw
    columns = columns_from(resolved.values)
    bundle = read_manifest(Path(source)) if is_bundle(source) else None
    request = request_for(wishes, settings, predictions, source, columns, output, raw=raw, bundle=bundle)
    doubt = uncertainty_section(predictions)
    return clinical_sections(predictions, request) + (() if doubt is None else (doubt,))


def _judged(source: str, resolved: Resolved, output: Output) -> Judgement:
    """What is to be judged, by what the source is: a bundle, a run, a file, or else an architecture."""
    from medcli.bundles.manifest import is_bundle

    if is_bundle(source):
        return _of_bundle(source, resolved, output)
    if Path(source).is_dir():
        return _of_run(source, resolved, output)
    if Path(source).is_file():
        if resolved.values["data"]:
            raise UsageProblem(
                "`--data` needs a model that can predict it; predictions bring their own labels",
                where="--data",
                hint="`medcli evaluate runs/NAME --data PATH`",
                code="predictions-with-data",
            )
        _refuse(
            resolved,
            (*_IMAGES, *FIXED_BY_RUN, *_ASKING, "runtime", "raw"),
            "is about images, and predictions have none",
            "no-images",
        )
        _refuse(resolved, ("on",), "chooses a split of a run or of `--data`, and a file is one", "no-splits")
        _refuse(resolved, OF_WEIGHTS, "builds a network, and predictions need none", "no-model")
        from medcli.prediction.sources import Judgement

        return Judgement(None, (_read_file(source, resolved, output),))
    return _of_architecture(source, resolved, output)


def _of_run(source: str, resolved: Resolved, output: Output) -> Judgement:
    from medcli.prediction.run_calibration import calibrated_judgement
    from medcli.prediction.sources import Judgement, stored_predictions
    from medcli.runs.directory import open_run
    from medcli.settings.groups import DataSettings, EvaluationSettings

    joined = ("id_column",) if resolved.values["by_table"] else ()
    _refuse(resolved, [name for name in _FOREIGN if name not in joined], "reads another tool's table", "not-a-table")
    run = open_run(source)
    raw = resolved.group(EvaluationSettings).raw
    base = resolved.values["weights"] if run.adapter.is_dir() else None
    of_weights = tuple(name for name in OF_WEIGHTS if name != "weights" or base is None)
    _refuse(resolved, of_weights, "belongs to an architecture; a run has its own weights", "fixed-by-run")
    _refuse(resolved, FIXED_BY_RUN, "is fixed by the run: with another it would be another model", "fixed-by-run")
    on = resolved.values["on"]
    if resolved.values["data"]:
        from medcli.prediction.judging import judge_run

        asking, compute, through = _asked(source, resolved)
        judged = judge_run(
            source,
            resolved.group(DataSettings),
            compute,
            output,
            data_tables=resolved.data_tables,
            own_window=resolved.origin("window").layer == "default",
            asking=asking,
            base=base,
            on=on,
            through=through,
        )
        return judged if raw else calibrated_judgement(run, judged, output)
    named = "name the images with `--data PATH`, those of the run too; without it its stored predictions are read"
    _refuse(resolved, ("weights",), "says on what base `--data` is predicted, and there is none", "no-data", named)
    asked = (*_IMAGES, *_LABELS, *_ASKING, "runtime")
    _refuse(resolved, asked, "says how `--data` is predicted, and there is none", "no-data", named)
    stored = stored_predictions(run, on)
    if stored.split != "test" and on is None:
        output.warn(f"the run has no test predictions: these are of `{stored.split}`, which chose its best epoch")
    judged = Judgement(None, (stored,))
    return judged if raw else calibrated_judgement(run, judged, output)


def _of_bundle(source: str, resolved: Resolved, output: Output) -> Judgement:
    """A bundle, with onnxruntime and without torch."""
    from medcli.prediction.bundles import judge_bundle, ready_bundle, refuse_of_bundles
    from medcli.settings.groups import ComputeSettings, DataSettings, EvaluationSettings

    joined = ("id_column",) if resolved.values["by_table"] else ()
    _refuse(resolved, [name for name in _FOREIGN if name not in joined], "reads another tool's table", "not-a-table")
    refuse_of_bundles(resolved, (*OF_WEIGHTS, *FIXED_BY_RUN))
    if not resolved.values["data"]:
        raise UsageProblem(
            f"`{source}` is a bundle, and no data was named to judge it by",
            where="--data",
            hint=f"`medcli evaluate {source} --data PATH`",
            code="no-data",
        )
    return judge_bundle(
        ready_bundle(source),
        resolved.group(DataSettings),
        resolved.group(ComputeSettings),
        output,
        data_tables=resolved.data_tables,
        own_window=resolved.origin("window").layer == "default",
        raw=resolved.group(EvaluationSettings).raw,
        on=resolved.values["on"],
    )


def _of_architecture(source: str, resolved: Resolved, output: Output) -> Judgement:
    from medcli.registry.discovery import discover, find
    from medcli.settings.groups import DataSettings, ModelSettings

    try:
        find(discover(), source)
    except UsageProblem as problem:
        raise UsageProblem(
            f"there is neither a run nor a predictions file `{source}`, and no architecture of that name",
            where=problem.where,
            hint=f"{problem.hint}; `medcli runs list` shows the runs here",
            code="missing-path",
        ) from None
    _refuse(resolved, ("raw",), "does without the calibrator of a run, and an architecture has none", "no-calibrator")
    joined = ("id_column",) if resolved.values["by_table"] else ()
    _refuse(resolved, [name for name in _FOREIGN if name not in joined], "reads another tool's table", "not-a-table")
    if not resolved.values["data"]:
        raise UsageProblem(
            f"`{source}` is an architecture, and no data was named to judge it by",
            where="--data",
            hint=f"`medcli evaluate {source} --weights FILE --data PATH`",
            code="no-data",
        )
    from medcli.prediction.judging import judge_published

    asking, compute, through = _asked(source, resolved)
    return judge_published(
        source,
        resolved.group(DataSettings),
        resolved.group(ModelSettings),
        compute,
        output,
        data_tables=resolved.data_tables,
        asking=asking,
        on=resolved.values["on"],
        through=through,
    )


def _asked(source: str, resolved: Resolved) -> tuple[Asking, ComputeSettings, Callable[[Jury], Jury]]:
    """How a model is asked, where it runs, and with what."""
    from medcli.prediction.asking import asking_from, onnx_compute
    from medcli.settings.groups import ComputeSettings

    asking, compute = asking_from(resolved.values, source), resolved.group(ComputeSettings)
    if resolved.values["runtime"] != "onnx":
        return asking, compute, lambda jury: jury
    from medcli.export.running import through_onnx

    return asking, onnx_compute(compute, asking), through_onnx


_FOREIGN = ("id_column", "prob_columns", "logit_columns")
_IMAGES = (
    "image_dir",
    "image_column",
    "patient_pattern",
    "split_column",
    "split_seed",
    "ignore_class",
    "limit",
    "leave_out",
    "skip_unreadable",
    "window",
)
_ASKING = ("ten_crop", "mc_dropout", "tta", "modality")
_LABELS = ("label_column", "patient_column", "class_names", "positive_class", "task", "ordinal_column")


def _refuse(resolved: Resolved, names: Sequence[str], why: str, code: str, hint: str = "leave out `{flag}`") -> None:
    for name in names:
        if resolved.origin(name).layer == "flag":
            flag = "--" + name.replace("_", "-")
            raise UsageProblem(f"`{flag}` {why}", where=flag, hint=hint.format(flag=flag), code=code)


def _read_file(source: str, resolved: Resolved, output: Output) -> Predictions:
    from medcli.data.tables import is_table
    from medcli.prediction.foreign import columns_from
    from medcli.prediction.tables import read_any

    columns = columns_from(resolved.values)
    if resolved.values["by_table"] and not is_table(source):
        # It names the column of the joined table: predictions of ours know their own.
        columns = replace(columns, identifier="")
    read = read_any(source, columns)
    for note in read.notes:
        output.note(f"note: {note}")
    return read.predictions


def _check_destinations(wanted: EvaluationSettings, out: str | None, overwrite: bool) -> None:
    """Before any work: whatever will be written may be written."""
    for flag, path, endings in (
        ("--save-predictions", wanted.save_predictions, (".npz", ".csv", ".tsv", ".csv.gz", ".tsv.gz")),
        ("--out", out, (".json",)),
    ):
        if path is None:
            continue
        if not path.lower().endswith(endings):
            raise UsageProblem(f"`{path}` ends in none of {', '.join(endings)}", where=flag, code="unknown-format")
        if Path(path).exists() and not (overwrite and Path(path).is_file()):
            raise UsageProblem(
                f"`{path}` exists already", where=flag, hint="`--overwrite` replaces it", code="out-occupied"
            )


def _warn_top_k(output: Output, wanted: EvaluationSettings, predictions: Predictions) -> None:
    target = predictions.target
    useless = [k for k in wanted.top_k if target.task == "multilabel" or k >= target.num_classes]
    if useless:
        why = "labels do not exclude each other" if target.task == "multilabel" else f"{target.num_classes} classes"
        output.warn(f"top-{', '.join(map(str, useless))} says nothing here: {why}")


def _missed(evaluation: Evaluation, wanted: EvaluationSettings) -> list[str]:
    where = " ".join(part for part in (evaluation.data_name, evaluation.split) if part)
    place = f" on {where}" if where else ""
    problems = []
    auc, ece = evaluation.value("auc"), evaluation.value("ece")
    # Written so that an undefined figure misses the limit too.
    if wanted.min_auc is not None and not auc >= wanted.min_auc:
        problems.append(f"auc{place} is {auc:.4f}, below the limit {wanted.min_auc:g} (`--min-auc`)")
    if wanted.max_ece is not None and not ece <= wanted.max_ece:
        problems.append(f"ece{place} is {ece:.4f}, above the limit {wanted.max_ece:g} (`--max-ece`)")
    return problems
