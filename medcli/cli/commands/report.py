"""`medcli report`: everything about a run, or about predictions of any tool, in one file for people."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.cli.options import Flags, Reported
from medcli.cli.output import Output
from medcli.errors import UsageProblem
from medcli.settings.commands import OF_TABLES

if TYPE_CHECKING:
    from medcli.evaluation.predictions import Predictions
    from medcli.report.document import Document
    from medcli.report.subject import Subject, Way
    from medcli.settings.resolve import Resolved

__all__ = ["report"]


def report(source: Reported, flags: Flags) -> None:
    """Write a report of a run, or of predictions of any tool: results, curves, calibration, data, training, limits.

    One HTML file that loads nothing and opens from disk, or Markdown with its pictures beside it. The figures are those
    of `medcli evaluate`, each with its interval and convention. What a run does not hold, such as explanations, is
    named with the command that adds it. A reporting checklist is filled in as far as the run knows; the rest is left
    to the authors.

    The report of a run goes into the run, that of a file into the working directory; `--out` names a file or folder.
    Operating points, subgroups and deferral rules are added by the flags of `medcli evaluate`. With `--method` the
    scores of a file are calibrated too, cross-fitted by patient, and shown before and after.

    Examples:
        medcli report runs/NAME
        medcli report runs/NAME --format html,md --checklist claim --out study
        medcli report predictions.npz --checklist none
        medcli report chexnet.csv.gz --id-column 'Image Index' --prob-columns 'prob_*' --patient-column 'Patient ID'
        medcli report chexnet.csv.gz --id-column 'Image Index' --method platt --by 'Patient Gender' --out chexnet.html
    """
    from medcli.report.compose import compose
    from medcli.report.files import destinations, write_report
    from medcli.settings.groups import FormatSettings, ReportSettings
    from medcli.settings.resolve import resolve

    settings = flags.output()
    output = Output(settings, "report")
    resolved = resolve("report", flags.given)
    is_run = Path(source).is_dir()
    _check_source(source, resolved, is_run)
    formats = resolved.group(FormatSettings).format
    places = destinations(source, formats, settings.out, run=is_run, overwrite=settings.overwrite)
    found = _of_run(source, resolved, output) if is_run else _of_file(source, resolved, output)
    subject = replace(found, again=_again(source, resolved))
    document = compose(subject, resolved.group(ReportSettings).checklist)
    for place in places:
        write_report(document, place)
    files = [str(place.path) for place in places]
    output.answer(
        _result(subject, document, files),
        lambda: _text(document, files),
        identifier="\n".join(files),
        run_dir=source if is_run else None,
    )


def _check_source(source: str, resolved: Resolved, is_run: bool) -> None:
    """Whether there is something to report on, and whether the flags given say something about it."""
    if not Path(source).exists():
        from medcli.registry.unknown import named_for_a_run

        raise named_for_a_run(source) or UsageProblem(
            f"there is neither a run nor a predictions file `{source}`",
            hint="`medcli runs list` shows the runs here; `medcli evaluate RUN --save-predictions FILE` writes a file",
            code="missing-path",
        )
    if is_run:
        from medcli.bundles.manifest import is_bundle

        if is_bundle(source):
            raise UsageProblem(
                f"`{source}` is a bundle, which holds a model and no results",
                hint=f"`medcli evaluate {source} --data PATH --save-predictions FILE.npz` writes what can be reported",
                code="not-a-run",
            )
        joined = ("id_column",) if resolved.values["by_table"] else ()
        named = [name for name in OF_TABLES if name not in joined]
        _refuse(resolved, named, "is about predictions in files; a run has its own", "fixed-by-run")
        _refuse(
            resolved,
            ("method", "cross_fit"),
            "calibrates predictions in files; a run keeps its calibrator",
            "fixed-by-run",
            f"`medcli calibrate {source}`",
        )
        return
    _refuse(resolved, ("on",), "chooses a split of a run, and a file is one", "no-splits")
    _refuse(resolved, ("raw",), "does without the calibrator of a run, and a file has none", "no-calibrator")
    if resolved.values["method"] is None:
        _refuse(
            resolved,
            ("cross_fit",),
            "is about a calibrator, and none is asked for",
            "idle-flag",
            "add `--method temperature`",
        )


def _refuse(resolved: Resolved, names: Sequence[str], why: str, code: str, hint: str | None = None) -> None:
    for name in names:
        if resolved.origin(name).layer == "flag":
            flag = "--" + name.replace("_", "-")
            raise UsageProblem(f"`{flag}` {why}", where=flag, hint=hint, code=code)


def _of_run(source: str, resolved: Resolved, output: Output) -> Subject:
    from medcli.report.subject import run_predictions, subject_of_run
    from medcli.settings.groups import EvaluationSettings

    raw = resolved.group(EvaluationSettings).raw
    stored = run_predictions(source, raw=raw, on=resolved.values["on"], teller=output)
    if stored is None:
        output.warn("the run has stored no predictions yet, so its report holds no results")
    elif stored.split != "test":
        output.warn(f"these are predictions of `{stored.split}`, which chose the run's best epoch")
    return subject_of_run(source, _way(source, resolved, stored, output), stored, output)


def _of_file(source: str, resolved: Resolved, output: Output) -> Subject:
    from medcli.data.tables import is_table
    from medcli.prediction.foreign import columns_from
    from medcli.prediction.tables import read_any
    from medcli.report.subject import subject_of_file

    columns = columns_from(resolved.values)
    if resolved.values["by_table"] and not is_table(source):
        # It names the column of the joined table: predictions of ours know their own.
        columns = replace(columns, identifier="")
    read = read_any(source, columns)
    for note in read.notes:
        output.note(f"note: {note}")
    return subject_of_file(source, read.predictions, _way(source, resolved, read.predictions, output), read.notes)


def _way(source: str, resolved: Resolved, predictions: Predictions | None, output: Output) -> Way:
    from medcli.prediction.clinical_request import read_wishes, request_for
    from medcli.prediction.foreign import columns_from
    from medcli.report.subject import Way
    from medcli.settings.groups import CalibrationSettings, ClinicalSettings, ComputeSettings, EvaluationSettings

    clinical, evaluation = resolved.group(ClinicalSettings), resolved.group(EvaluationSettings)
    request = read_wishes(clinical)
    if predictions is not None:
        columns = columns_from(resolved.values)
        request = request_for(request, clinical, predictions, source, columns, output, raw=evaluation.raw)
    return Way(
        evaluation,
        request,
        resolved.group(ComputeSettings).seed,
        resolved.values["method"],
        resolved.group(CalibrationSettings).cross_fit,
    )


def _again(source: str, resolved: Resolved) -> str:
    """The command with the flags that say how the source is read, to which others can be added."""
    words = ["medcli", "report", source]
    for name in OF_TABLES:
        value = resolved.values[name]
        for one in value if isinstance(value, tuple) else [value]:
            if one is not None:
                words += ["--" + name.replace("_", "-"), str(one)]
    return shlex.join(words)


def _result(subject: Subject, document: Document, files: Sequence[str]) -> dict[str, Any]:
    return {
        "files": list(files),
        "title": document.title,
        "sections": [section.identifier for section in document.sections],
        "absent": [
            {"section": section.identifier, "what": one.what, "why": one.why, "command": one.command or None}
            for section in document.sections
            for one in section.absences
        ],
        "evaluation": None if subject.judged is None else subject.judged.evaluation.to_dict(),
    }


def _text(document: Document, files: Sequence[str]) -> str:
    lines = [f"{document.title}: {document.subtitle}"]
    lines += [f"{tile.name} {tile.text}, {tile.below}" for tile in document.tiles]
    lacking = [(one.what, one.command) for section in document.sections for one in section.absences if one.command]
    lines += [f"without {what}: `{command}` adds it" for what, command in lacking]
    return "\n".join([*lines, *(f"report: {file}" for file in files)])
