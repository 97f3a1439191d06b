"""`data check` and `data inspect`: what is wrong with a data set, and how one file becomes a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.cli.options import FileArgument, Flags
from medcli.cli.output import Output
from medcli.errors import ExitCode, RunFailure, UsageProblem
from medcli.settings.groups import ComputeSettings, DataCheckSettings, DataSettings
from medcli.settings.resolve import resolve

if TYPE_CHECKING:
    from medcli.data.audit import Audit, Finding
    from medcli.data.dataset import DataSet
    from medcli.data.decode import Explanation

__all__ = ["check_data", "inspect_file"]

_SHOWN = 5
_FIX_COLUMNS = ("data", "id", "split", "file", "reason")
_FAILED = frozenset({"unreadable", "impossible-label"})
_TITLES = {
    "patient-in-several-splits": "patients in several splits",
    "duplicate": "identical pictures",
    "conflicting-labels": "identical pictures with different labels",
    "near-duplicate": "pictures that look alike",
    "unreadable": "files that cannot be read",
    "blank": "blank pictures",
    "nearly-blank": "nearly blank pictures",
    "impossible-label": "impossible labels",
    "rare-class": "rare classes",
    "imbalance": "imbalance",
}


def check_data(flags: Flags) -> ExitCode | None:
    """Look for leakage, duplicates, unreadable files and bad labels.

    Every image is read once. Exit status 4 means leakage: a patient or a picture in more than one split. 3 means that
    files could not be read or labels fit no class. `--fix-report` lists the rows to drop,
    and `--leave-out` of `train`, `finetune`, `lora`, `search`, `ensemble` and `evaluate` leaves them out.

    Examples:
        medcli data check --data breastmnist.npz
        medcli data check --data chest/ --patient-pattern '^(person[0-9]+|IM-[0-9]+)' --near-duplicates
        medcli data check --data labels.csv --label-column grade --patient-column patient --fix-report drop.csv
        medcli data check --data labels.csv --label-column grade --patient-column patient --leave-out drop.csv
    """
    output = Output(flags.output(), "data check")
    resolved = resolve("data check", flags.given)
    wanted = resolved.group(DataCheckSettings)
    report = None if wanted.fix_report is None else Path(wanted.fix_report)
    if report is not None:
        _refuse_foreign(report)
    from medcli.data.audit import audit, fix_rows
    from medcli.data.load import load_data

    datasets = load_data(resolved.group(DataSettings), data_tables=resolved.data_tables, lenient=True)
    audits = []
    for dataset in datasets:
        tick = output.progress(f"images of {dataset.name} read", sum(map(len, dataset.splits.values())))
        workers = resolved.group(ComputeSettings).workers
        audits.append(audit(dataset, wanted.near_duplicates, workers=workers, progress=tick))
    rows = fix_rows(audits)
    if report is not None:
        _write_report(report, rows)
    findings = [finding for one in audits for finding in one.findings]
    if any(finding.leak for finding in findings):
        status = ExitCode.LIMIT
    else:
        status = ExitCode.PARTIAL if any(finding.kind in _FAILED for finding in findings) else ExitCode.DONE
    result = {
        "data": [_as_result(one, dataset) for one, dataset in zip(audits, datasets, strict=True)],
        "leakage": status == ExitCode.LIMIT,
        "rows_to_drop": len(rows),
        "fix_report": None if report is None else str(report),
    }
    verdict = {ExitCode.LIMIT: "leakage", ExitCode.PARTIAL: "problems", ExitCode.DONE: "clean"}[status]
    output.answer(
        result, lambda: _text(output, audits, datasets, rows, report, status), identifier=verdict, status=status
    )
    if rows and report is not None:
        output.hint(f"`--leave-out {report}` trains without them")
    return status


def inspect_file(file: FileArgument, flags: Flags) -> None:
    """Show step by step how one image file is decoded.

    Format, size, spacing and range, then the very steps that training and prediction take, then a preview. What
    identifies a patient is never shown. `--out` writes the preview as a PNG.

    Examples:
        medcli data inspect scan.dcm
        medcli data inspect scan.dcm --window 40,400 --out preview.png
        medcli data inspect slice.nii.gz --json
    """
    output = Output(flags.output(), "data inspect")
    settings = flags.output()
    window = resolve("data inspect", flags.given).group(DataSettings).window
    path = Path(file)
    if not path.is_file():
        what = "is a folder; one file is inspected at a time" if path.is_dir() else "does not exist"
        raise UsageProblem(f"`{file}` {what}", code="missing-path")
    target = None if settings.out is None else Path(settings.out)
    if target is not None and target.exists() and not settings.overwrite:
        raise UsageProblem(f"`{target}` exists", where="--out", hint="`--overwrite` replaces it", code="out-exists")
    from medcli.data.decode import UnreadableImage, explain, parse_window
    from medcli.data.preview import ASCII, BLOCKS, as_png, as_text

    try:
        parse_window(window)
    except ValueError as error:
        raise UsageProblem(str(error), where="--window", code="bad-window") from None
    try:
        explanation = explain(path, window)
    except UnreadableImage as problem:
        raise RunFailure(f"`{problem.path}` cannot be read: {problem.reason}", code="unreadable-image") from None
    picture = explanation.picture
    assert picture is not None
    if target is not None:
        _write(target, as_png(picture))
    figures = _figures(explanation)
    result = {
        "file": file,
        "facts": explanation.facts,
        "steps": list(explanation.steps),
        "picture": figures,
        "preview": None if target is None else str(target),
    }
    utf = (getattr(output.stdout, "encoding", None) or "ascii").lower().startswith("utf")
    output.answer(
        result,
        lambda: _inspection(file, explanation, figures, as_text(picture, shades=BLOCKS if utf else ASCII)),
        identifier=file if target is None else str(target),
    )


def _figures(explanation: Explanation) -> dict[str, Any]:
    import numpy as np

    picture = explanation.picture
    assert picture is not None
    pixels = picture.pixels
    return {
        "shape": list(pixels.shape),
        "type": str(pixels.dtype),
        "black": picture.low,
        "white": picture.high,
        "smallest": float(pixels.min()),
        "largest": float(pixels.max()),
        "mean": float(np.mean(pixels, dtype=np.float64)),
        "std": float(np.std(pixels, dtype=np.float64)),
    }


def _inspection(file: str, explanation: Explanation, figures: Mapping[str, Any], preview: str) -> str:
    lines = [file, ""]
    facts = dict(explanation.facts)
    identifying = facts.pop("identifying_tags", [])
    lines += [f"  {name:<26} {_fact(value)}" for name, value in facts.items()]
    if identifying:
        lines.append(f"  {'identifying tags':<26} {', '.join(identifying)} (values not shown)")
    if str(facts.get("BurnedInAnnotation", "")).upper() == "YES":
        lines.append("  the header says that text is burned into the picture")
    lines += ["", "Steps"]
    lines += [f"  {number}. {step}" for number, step in enumerate(explanation.steps, 1)]
    lines += [
        "",
        f"Picture: {'×'.join(map(str, figures['shape']))} {figures['type']}, "
        f"black {figures['black']:g}, white {figures['white']:g}; values {figures['smallest']:g} to "
        f"{figures['largest']:g}, mean {figures['mean']:.4g}, standard deviation {figures['std']:.4g}",
        "",
        preview,
    ]
    return "\n".join(lines)


def _fact(value: Any) -> str:
    return " × ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _as_result(one: Audit, dataset: DataSet) -> dict[str, Any]:
    return {
        "name": one.name,
        "origin": dataset.origin,
        "task": one.task,
        "images": one.images,
        "splits": one.counts,
        "patients": one.patients,
        "findings": [
            {
                "kind": finding.kind,
                "leak": finding.leak,
                "text": finding.text,
                "ids": [case.id for case in finding.cases],
                "splits": sorted({case.split for case in finding.cases}),
                "drop": [case.id for case in finding.drop],
            }
            for finding in one.findings
        ],
        "notes": list(one.notes),
    }


def _text(
    output: Output,
    audits: Sequence[Audit],
    datasets: Sequence[DataSet],
    rows: Sequence[tuple[str, ...]],
    report: Path | None,
    status: ExitCode,
) -> str:
    parts = []
    for one, dataset in zip(audits, datasets, strict=True):
        parts.append(f"{one.name} ({dataset.origin}): {one.images} images, {one.task}")
        parts += [_counts(output, one, name) for name in _tables(one)]
        parts += [f"  note: {note}" for note in one.notes]
        parts += _grouped(one.findings, verbose=output.settings.verbose)
    leaks = sum(len(one.leaks) for one in audits)
    verdict = {
        ExitCode.LIMIT: f"leakage: {leaks} finding{'' if leaks == 1 else 's'} let one split know another",
        ExitCode.PARTIAL: "no leakage, but files or labels that cannot be used",
        ExitCode.DONE: "no leakage found",
    }[status]
    parts.append(verdict)
    if rows:
        where = f"listed in {report}" if report else "`--fix-report FILE` lists them"
        parts.append(f"{len(rows)} row{'' if len(rows) == 1 else 's'} to drop: {where}")
    return "\n".join(parts)


def _tables(one: Audit) -> tuple[str, ...]:
    """The outputs of a multioutput target, or one nameless table."""
    first = next(iter(one.counts.values()), {})
    return tuple(first) if one.task == "multioutput" else ("",)


def _counts(output: Output, one: Audit, name: str) -> str:
    columns = {split: table[name] if name else table for split, table in one.counts.items()}
    classes = list(dict.fromkeys(label for table in columns.values() for label in table))
    rows = [[label, *(table.get(label, 0) for table in columns.values())] for label in classes]
    if not name and one.patients is not None:
        rows.append(["(patients)", *one.patients.values()])
    text = output.table([name or "class", *columns], rows)
    return "\n".join(f"  {line}" for line in text.splitlines())


def _grouped(findings: Sequence[Finding], *, verbose: bool) -> list[str]:
    groups: dict[tuple[str, bool], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.kind, finding.leak), []).append(finding)
    lines = []
    for (kind, leak), group in groups.items():
        lines.append(f"  {'LEAK' if leak else 'note'}  {_TITLES[kind]}: {len(group)}")
        shown = group if verbose else group[:_SHOWN]
        lines += [f"        {finding.text}" for finding in shown]
        if len(group) > len(shown):
            lines.append(f"        and {len(group) - len(shown)} more (`-v` lists all)")
    return lines


def _refuse_foreign(report: Path) -> None:
    """A report of ours may be replaced; anything else that lies there (the table itself, say) may not."""
    if report.is_dir():
        raise UsageProblem(f"`{report}` is a folder", where="--fix-report", code="out-exists")
    if not report.parent.is_dir():
        raise UsageProblem(f"folder `{report.parent}` does not exist", where="--fix-report", code="missing-path")
    if report.exists():
        with report.open("rb") as file:
            ours = file.readline().decode("utf-8", "replace").strip() == ",".join(_FIX_COLUMNS)
        if not ours:
            raise UsageProblem(
                f"`{report}` exists and is no fix report",
                where="--fix-report",
                hint="name another file",
                code="out-exists",
            )


def _write_report(report: Path, rows: Sequence[tuple[str, ...]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_FIX_COLUMNS)
    writer.writerows(rows)
    _write(report, text.getvalue().encode())


def _write(path: Path, contents: bytes) -> None:
    try:
        path.write_bytes(contents)
    except OSError as error:
        raise RunFailure(f"`{path}` cannot be written: {error.strerror}", code="cannot-write") from None
