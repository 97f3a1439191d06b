"""`medcli evaluate`: figures with intervals, of a run, of stored predictions, or of another tool's table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medcli.cli.options import Flags, RunOrPredictions
from medcli.cli.output import Output
from medcli.errors import ExitCode, UsageProblem

if TYPE_CHECKING:
    from medcli.evaluation.figures import Evaluation
    from medcli.evaluation.predictions import Predictions
    from medcli.settings.groups import EvaluationSettings
    from medcli.settings.resolve import Resolved

__all__ = ["evaluate"]


def evaluate(source: RunOrPredictions, flags: Flags) -> ExitCode | None:
    """Measure a run, stored predictions, or the predictions of another tool.

    A run without `--data` is measured on the predictions it stored (test, else val). With `--data`, once or several
    times as NAME=PATH, its model predicts those sets, and the difference to the internal test is shown. Every figure
    comes with its convention and a 95 % interval from resampled patients. `--min-auc` and `--max-ece` make the command
    end with status 4 when a figure misses them.

    Examples:
        medcli evaluate runs/NAME
        medcli evaluate runs/NAME --data siteB=siteB.csv --data siteC=siteC/
        medcli evaluate predictions.npz --min-auc 0.85 --max-ece 0.05
        medcli evaluate chexnet.csv.gz --id-column 'Image Index' --prob-columns 'prob_*' --patient-column 'Patient ID'
    """
    from medcli.evaluation.generalisation import gaps, render_comparison
    from medcli.evaluation.render import render
    from medcli.evaluation.report import evaluate as figures_of
    from medcli.settings.groups import ComputeSettings, EvaluationSettings
    from medcli.settings.resolve import resolve

    settings = flags.output()
    output = Output(settings, "evaluate")
    resolved = resolve("evaluate", flags.given)
    wanted = resolved.group(EvaluationSettings)
    _check_destinations(wanted, settings.out, settings.overwrite)
    is_run = Path(source).is_dir()
    external = is_run and bool(resolved.values["data"])
    if wanted.save_predictions and external and len(resolved.values["data"]) > 1:
        raise UsageProblem(
            "`--save-predictions` is one file, and there are several data sets",
            hint="evaluate them one by one",
            code="several-data-sets",
        )
    internal, others = _predictions(source, is_run, resolved, output)
    judged = [one for one in (internal, *others) if one is not None]
    if settings.dry_run:
        sizes = ", ".join(
            f"{one.data_name or source} {one.split} ({len(one)} cases)".replace("  ", " ") for one in judged
        )
        output.answer({"cases": sum(len(one) for one in judged)}, f"would be evaluated: {sizes}")
        return None
    _warn_top_k(output, wanted, judged[0])
    seed = resolved.group(ComputeSettings).seed
    evaluations = [figures_of(one, wanted, seed=seed) for one in judged]
    differences = gaps(evaluations[0], evaluations[1:]) if internal is not None and others else ()
    missed = [problem for one in evaluations for problem in _missed(one, wanted)]
    if wanted.save_predictions:
        from medcli.prediction.tables import write_any

        write_any(wanted.save_predictions, judged[-1], overwrite=settings.overwrite)
        output.note(f"predictions written to {wanted.save_predictions}")
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
        parts = [render(one, verbose=settings.verbose) for one in evaluations]
        if len(evaluations) > 1:
            parts.append(render_comparison(evaluations, differences))
        return ("\n\n" + "-" * 40 + "\n\n").join(parts)

    status = ExitCode.LIMIT if missed else ExitCode.DONE
    output.answer(result, text, identifier=source, run_dir=source if is_run else None, status=status)
    return status


def _predictions(
    source: str, is_run: bool, resolved: Resolved, output: Output
) -> tuple[Predictions | None, list[Predictions]]:
    """(the run's own stored predictions or None, what else is to be judged)."""
    if is_run:
        from medcli.prediction.sources import stored_predictions
        from medcli.runs.directory import open_run

        _refuse(resolved, _FOREIGN, "reads another tool's table", "not-a-table")
        run = open_run(source)
        if not resolved.values["data"]:
            _refuse(resolved, (*_IMAGES, *_LABELS), "says how `--data` is read, and there is none", "no-data")
            stored = stored_predictions(run)
            if stored.split != "test":
                output.warn(
                    f"the run has no test predictions: these are of `{stored.split}`, which chose its best epoch"
                )
            return None, [stored]
        return _predict_sets(source, resolved, output)
    if resolved.values["data"]:
        raise UsageProblem(
            "`--data` needs a run whose model can predict it; predictions bring their own labels",
            where="--data",
            hint="`medcli evaluate runs/NAME --data PATH`",
            code="predictions-with-data",
        )
    if not Path(source).is_file():
        raise UsageProblem(
            f"there is neither a run nor a predictions file `{source}`",
            hint="`medcli runs list` shows the runs here",
            code="missing-path",
        )
    _refuse(resolved, _IMAGES, "is about images, and predictions have none", "no-images")
    return None, [_read_file(source, resolved, output)]


_FOREIGN = ("id_column", "prob_columns", "logit_columns")
_IMAGES = (
    "image_dir",
    "image_column",
    "patient_pattern",
    "split_column",
    "split_seed",
    "ignore_class",
    "limit",
    "skip_unreadable",
    "window",
)
_LABELS = ("label_column", "patient_column", "class_names", "positive_class", "task", "ordinal_column")


def _refuse(resolved: Resolved, names: Sequence[str], why: str, code: str) -> None:
    for name in names:
        if resolved.origin(name).layer == "flag":
            flag = "--" + name.replace("_", "-")
            raise UsageProblem(f"`{flag}` {why}", where=flag, code=code)


def _read_file(source: str, resolved: Resolved, output: Output) -> Predictions:
    from medcli.prediction.foreign import Columns
    from medcli.prediction.tables import read_any

    values = resolved.values
    patients = values["patient_column"]
    columns = Columns(
        identifier=values["id_column"] or "",
        probabilities=values["prob_columns"] or "",
        logits=values["logit_columns"] or "",
        labels=tuple(values["label_column"]),
        patient=patients[0] if patients else "",
        class_names=tuple(values["class_names"]),
        task=values["task"],
        positive=values["positive_class"],
        ordinal=tuple(values["ordinal_column"]),
    )
    read = read_any(source, columns)
    for note in read.notes:
        output.note(f"note: {note}")
    return read.predictions


def _predict_sets(source: str, resolved: Resolved, output: Output) -> tuple[Predictions | None, list[Predictions]]:
    from medcli.data.load import load_data
    from medcli.data.splits import draw
    from medcli.data.subset import take
    from medcli.evaluation.predictions import load_predictions
    from medcli.models.build import load_model
    from medcli.prediction.datasets import predict_samples
    from medcli.prediction.sources import choose_cases, refuse_other_classes
    from medcli.runs.directory import open_run
    from medcli.settings.groups import ComputeSettings, DataSettings

    run = open_run(source)
    stored = run.predictions("test")
    internal = load_predictions(stored) if stored.is_file() else None
    if internal is None:
        output.note("note: the run has no stored test predictions, so there is no gap to show")
    before = internal
    loaded = load_model(run.model_file)
    settings = resolved.group(DataSettings)
    if resolved.origin("window").layer == "default":
        settings = replace(settings, window=loaded.preprocessing.window)
    found: list[Predictions] = []
    # The limit comes after the choice: drawn before it, training cases could be all that is left of the run's own data.
    for dataset in load_data(
        replace(settings, limit=None), data_tables=resolved.data_tables, target=loaded.spec.target
    ):
        refuse_other_classes(dataset, loaded.spec.target, settings.class_names)
        for note in dataset.notes:
            output.note(f"note: {dataset.name}: {note}")
        chosen = choose_cases(dataset, before)
        if chosen.note:
            output.note(f"note: {chosen.note}")
        samples = chosen.samples
        if settings.limit is not None:
            samples = take(samples, draw(samples.labels, settings.limit, settings.split_seed))
            output.note(f"note: {dataset.name}: limited to {len(samples)} of {len(chosen.samples)}")
        progress = output.progress(f"images of {dataset.name} read", len(samples))
        predictions, skipped = predict_samples(
            loaded,
            samples,
            resolved.group(ComputeSettings),
            split=chosen.split,
            data_name=dataset.name,
            skip_unreadable=settings.skip_unreadable,
            progress=lambda done, total, show=progress: show(done),  # type: ignore[misc]
        )
        for name, reason in skipped:
            output.warn(f"{name} left out: {reason}")
        rows = None if before is None or internal is not before else _own_rows(before, predictions, settings.limit)
        if before is not None and rows is not None:
            output.note(f"note: `{dataset.name}` is the run's own test, predicted again")
            # The run remembers its patients even where this command line does not say how to find them.
            known = None if before.patients is None else before.patients[rows]
            internal = replace(predictions, patients=known if predictions.patients is None else predictions.patients)
            continue
        found.append(predictions)
    # Alone, the run's own test is simply what is judged; beside other sets it is what they are compared with.
    return (internal, found) if found or internal is None else (None, [internal])


def _own_rows(stored: Predictions, predictions: Predictions, limit: int | None) -> Sequence[int] | None:
    """Where the run's test cases stand among its stored ones, or None for cases that are not they.

    All of them, unless a limit leaves some out.
    """
    import numpy as np

    place = {name: row for row, name in enumerate(stored.ids.tolist())}
    rows = [place.get(name, -1) for name in predictions.ids.tolist()]
    if -1 in rows or (limit is None and len(rows) != len(stored)):
        return None
    same = np.array_equal(stored.labels[rows], predictions.labels, equal_nan=stored.labels.dtype.kind == "f")
    return rows if same else None


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
