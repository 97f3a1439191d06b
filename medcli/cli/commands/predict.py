"""`medcli predict`: a run applied to image files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medcli.cli.options import Flags, InputsArgument, RunArgument
from medcli.cli.output import Output
from medcli.errors import ExitCode, RunFailure, UsageProblem

__all__ = ["predict"]


def predict(run: RunArgument, inputs: InputsArgument, flags: Flags) -> ExitCode | None:
    """Apply a run to image files and print a score per class.

    Files, folders (searched to the bottom, in sorted order), DICOM files and .npz archives; the answer is a table in
    the order of the inputs, as CSV or JSON. A file that cannot be read is named on stderr and the others are done
    (exit status 3). The columns are scores, not probabilities, as long as nobody has calibrated the run.

    Examples:
        medcli predict runs/NAME scan.dcm
        medcli predict runs/NAME images/ --out scores.csv
        medcli predict runs/NAME a.png b.png --json
    """
    from medcli.runs.directory import open_run
    from medcli.settings.groups import ComputeSettings, DataSettings
    from medcli.settings.resolve import resolve

    settings = flags.output()
    output = Output(settings, "predict")
    resolved = resolve("predict", flags.given)
    directory = open_run(run)
    out = _destination(settings.out, settings.overwrite)

    from medcli.models.build import load_model
    from medcli.prediction.files import list_inputs, predict_files

    loaded = load_model(directory.model_file)
    window = resolved.group(DataSettings).window
    if resolved.origin("window").layer == "default":
        window = loaded.preprocessing.window
    entries = list_inputs(inputs, window)
    how = loaded.preprocessing
    output.detail(
        f"{loaded.spec.architecture}: {how.channels} x {how.image_size} x {how.image_size} px, "
        f"made square by `{how.fit}`, window `{window}`"
    )
    if settings.dry_run:
        count = f"{len(entries)} image{'s' if len(entries) != 1 else ''}"
        output.answer({"images": len(entries)}, f"{count} would be predicted with {loaded.spec.architecture}")
        return None
    found = predict_files(
        loaded, entries, resolved.group(ComputeSettings), progress=output.progress("images predicted", len(entries))
    )
    for name, reason in found.failures:
        output.warn(f"{name}: {reason}")
    if not found.names:
        raise RunFailure(f"none of the {len(entries)} inputs could be read", code="unreadable-images")
    output.note("the scores are the network's own and were not calibrated: do not read them as probabilities")
    status = ExitCode.PARTIAL if found.failures else ExitCode.DONE
    _answer(output, loaded.spec.target, found, out, str(directory.path), status)
    return status


def _answer(output: Output, target: Any, found: Any, out: Path | None, run: str, status: ExitCode) -> None:
    import json

    from medcli.cli.output import plain
    from medcli.prediction.score_table import as_csv, score_columns, score_rows
    from medcli.runs.directory import replace_text

    columns = score_columns(target)
    rows = score_rows(found.names, found.logits, target)
    result = {
        "task": target.task,
        "calibrated": False,
        "columns": list(columns),
        "predictions": [dict(zip(columns, row, strict=True)) for row in rows],
        "failures": [{"image": name, "reason": reason} for name, reason in found.failures],
    }
    if out is None:
        output.answer(result, lambda: as_csv(columns, rows), identifier=run, run_dir=run, status=status)
        return
    if out.suffix.lower() == ".json":
        replace_text(out, json.dumps(plain(result), ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    else:
        replace_text(out, as_csv(columns, rows))
    output.answer(
        {**result, "file": str(out)},
        f"{len(rows)} prediction{'s' if len(rows) != 1 else ''} written to {out}",
        identifier=str(out),
        run_dir=run,
        status=status,
    )


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
