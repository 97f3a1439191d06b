"""`medcli runs`: what was trained, how it stands, and how several compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.cli.options import Flags, OptionalFolder, RunArgument, RunsArgument
from medcli.cli.output import Output
from medcli.errors import MedcliError, UsageProblem
from medcli.runs import listing
from medcli.runs.directory import MANIFEST, RunDirectory, open_run
from medcli.runs.listing import Resumption, StoredFigure, Summary, compare, read_figures, resumptions, summarise

if TYPE_CHECKING:
    from medcli.evaluation.paired import Difference
    from medcli.settings.saved import SavedConfig

__all__ = ["compare_runs", "list_runs", "show_run"]

ROOT = "runs"
SPLITS = ("test", "val")
SHOWN = 5
"""Left-out images that are named before the rest is counted."""


def list_runs(folder: OptionalFolder, flags: Flags) -> None:
    """List the runs of a folder, newest first.

    A run whose process is gone without a word counts as failed, one whose files cannot be read as broken.

    Examples:
        medcli runs list
        medcli runs list experiments/runs --json
    """
    output = Output(flags.output(), "runs list")
    if folder is not None and (Path(folder) / MANIFEST).is_file():
        raise UsageProblem(f"`{folder}` is itself a run", hint=f"medcli runs show {folder}", code="one-run")
    found = () if folder is None and not Path(ROOT).exists() else listing.list_runs(folder or ROOT)
    result = {"runs": [_summary_facts(one) for one in found]}
    output.answer(result, lambda: _listing(output, found), identifier="\n".join(str(one.path) for one in found))
    if not found:
        output.note(f"there are no runs in `{folder or ROOT}`")
        output.hint("`medcli train ARCH --data PATH` makes one")


def show_run(run: RunArgument, flags: Flags) -> None:
    """Show one run: how it stands, its figures, its settings and where they came from.

    `-v` also shows the settings that stayed at their defaults.

    Examples:
        medcli runs show runs/20261121T101500Z-train-resnet18-1a2b
        medcli runs show runs/20261121T101500Z-train-resnet18-1a2b --json
    """
    settings = flags.output()
    output = Output(settings, "runs show")
    directory = open_run(run)
    summary = summarise(directory)
    saved, problem = _saved(directory)
    if summary.problem and summary.state == "broken":
        output.warn(summary.problem)
    elif problem:
        output.warn(problem)
    figures = _all_figures(directory)
    data = _data_facts(directory)
    resumed = resumptions(directory)
    result = {
        **_summary_facts(summary),
        "data": data,
        "resumed": resumed,
        "evaluation": figures,
        "settings": {}
        if saved is None
        else {
            name: {
                "value": value,
                "layer": saved.origins[name].layer if name in saved.origins else "default",
                "where": saved.origins[name].where if name in saved.origins else "",
            }
            for name, value in saved.values.items()
        },
    }

    def text() -> str:
        parts = [
            _head(summary, data, resumed),
            _figure_table(output, figures),
            _settings(output, saved, settings.verbose),
        ]
        return "\n\n".join(part for part in parts if part)

    output.answer(result, text, identifier=str(directory.path), run_dir=str(directory.path))
    for hint in _next_steps(summary):
        output.hint(hint)


def compare_runs(runs: RunsArgument, flags: Flags) -> None:
    """Compare runs by one figure of their evaluations.

    The intervals are those of each run alone; two that overlap may still differ. `--paired` judges every run against
    the first on the cases both predicted, drawing the same patients for both: the interval of the difference.

    Examples:
        medcli runs compare runs/A runs/B --metric auc
        medcli runs compare runs/A runs/B runs/C --metric accuracy --paired
    """
    from medcli.settings.groups import CompareSettings
    from medcli.settings.resolve import resolve

    output = Output(flags.output(), "runs compare")
    resolved = resolve("runs compare", flags.given)
    chosen = resolved.group(CompareSettings)
    for name in ("bootstrap", "seed"):
        if name in flags.given and not chosen.paired:
            raise UsageProblem(
                f"`--{name}` is for the interval of a difference, and none was asked for",
                where=f"`--{name}`",
                hint=f"add `--paired`, or leave `--{name}` out",
                code="idle-flag",
            )
    if len(runs) < 2:
        raise UsageProblem(
            "one run has nothing to be compared with",
            hint=f"`medcli runs show {runs[0]}` shows its figures; name two or more to compare",
            code="one-run",
        )
    figures = compare(runs, chosen.metric, chosen.on)
    _warn_about_other_data(output, runs, chosen.on)
    differences = _differences(runs, resolved.values, chosen) if chosen.paired else ()
    result = {
        "metric": chosen.metric,
        "split": chosen.on,
        "convention": figures[0].convention,
        "runs": [_figure_facts(one) for one in figures],
        "differences": [
            {
                "run": run,
                "minus": runs[0],
                **{name: getattr(one, name) for name in ("value", "low", "high", "n", "patients", "left_out")},
            }
            for run, one in zip(runs[1:], differences, strict=False)
        ],
    }
    output.answer(
        result,
        lambda: _comparison(output, chosen.metric, chosen.on, figures, differences),
        identifier="\n".join(str(one.run) for one in figures),
    )


def _differences(runs: Sequence[str], values: Mapping[str, Any], chosen: Any) -> tuple[Difference, ...]:
    from medcli.evaluation.paired import paired_difference
    from medcli.evaluation.predictions import load_predictions
    from medcli.settings.groups import EvaluationSettings

    files = {run: open_run(run).predictions(chosen.on) for run in runs}
    for run, file in files.items():
        if not file.is_file():
            raise UsageProblem(
                f"`{run}` has no stored predictions of `{chosen.on}`, so its cases cannot be paired",
                where=str(file),
                hint="leave `--paired` out",
                code="not-pairable",
            )
    first, *others = (load_predictions(files[run]) for run in runs)
    settings = EvaluationSettings(bootstrap=values["bootstrap"])
    return tuple(paired_difference(first, other, chosen.metric, settings, seed=values["seed"]) for other in others)


def _warn_about_other_data(output: Output, runs: Sequence[str], split: str) -> None:
    """Figures on other images are no comparison; say so rather than leave it to the reader."""
    from medcli.runs.records import read_data

    seen: dict[str, Any] = {}
    for run in runs:
        try:
            seen[run] = read_data(open_run(run))["splits"][split]
        except (MedcliError, KeyError, TypeError):
            continue
    prints = {run: repr([(key, one[key]) for key in sorted(one) if "hash" in key]) for run, one in seen.items()}
    if len(set(prints.values())) > 1:
        output.warn(f"the runs were not evaluated on the same {split} images, so their figures are not comparable")


def _summary_facts(one: Summary) -> dict[str, Any]:
    return {
        "run": str(one.path),
        "state": one.state,
        "command": one.command,
        "architecture": one.architecture,
        "started": one.started,
        "updated": one.updated,
        "epoch": one.epoch,
        "epochs": one.epochs,
        "monitor": one.monitor,
        "value": one.value,
        "best_epoch": one.best_epoch,
        "data": one.data,
        "test": {"auc": one.auc, "accuracy": one.accuracy},
        "problem": one.problem,
    }


def _figure_facts(one: StoredFigure) -> dict[str, Any]:
    return {
        "run": str(one.run),
        "architecture": one.architecture,
        "value": one.value,
        "low": one.low,
        "high": one.high,
        "n": one.n,
    }


def _listing(output: Output, found: Sequence[Summary]) -> str:
    if not found:
        return ""
    rows = [
        (
            str(one.path),
            one.state,
            one.architecture or "-",
            one.data or "-",
            f"{one.epoch}/{one.epochs}" if one.epochs else "-",
            f"{one.monitor} {_number(one.value)}" if one.monitor else "-",
            _number(one.auc),
            _number(one.accuracy),
            _when(one.started),
        )
        for one in found
    ]
    columns = ("run", "state", "architecture", "data", "epochs", "best on val", "test auc", "test acc", "started (UTC)")
    text = output.table(columns, rows)
    reasons = [f"{one.path}: {one.problem}" for one in found if one.problem]
    return "\n".join([text, *(["", *reasons] if reasons else [])])


def _when(time: str) -> str:
    try:
        return datetime.fromisoformat(time).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return "-"


def _head(one: Summary, data: Mapping[str, Any], resumed: Sequence[Resumption]) -> str:
    best = f"{one.monitor} {_number(one.value)}" if one.monitor else ""
    at = f" in epoch {one.best_epoch}" if one.best_epoch else ""
    unnamed = len(data.get("skipped", ())) - SHOWN
    rows = [
        ("run", str(one.path)),
        ("state", one.state + (f": {one.problem}" if one.problem else "")),
        ("architecture", one.architecture),
        ("made by", f"medcli {one.command}" if one.command else ""),
        ("started", _when(one.started) + " UTC" if one.started else ""),
        ("updated", _when(one.updated) + " UTC" if one.updated else ""),
        ("epochs", f"{one.epoch} of {one.epochs}" if one.epochs else ""),
        ("best on val", best and best + at),
        ("data", data.get("text", "")),
        *(("left out", f"{name}: {reason}") for name, reason in data.get("skipped", ())[:SHOWN]),
        ("left out", f"{unnamed} more images, named in data.json" if unnamed > 0 else ""),
        *(("resumed", _resumption(row)) for row in resumed),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows if value)


def _resumption(one: Resumption) -> str:
    longer = f", to train {one.extend} more" if one.extend else ""
    changes = f", with changed data: {'; '.join(one.data_changes)}" if one.data_changes else ""
    return f"{_when(one.time)} UTC after epoch {one.after_epoch}{longer}{changes}"


def _data_facts(run: RunDirectory) -> dict[str, Any]:
    from medcli.runs.records import read_data

    try:
        record = read_data(run)
        counts = {split: int(part["count"]) for split, part in record["splits"].items()}
        target = record["target"]
        classes = target["class_names"] or [output["name"] for output in target["outputs"]]
        text = f"{record['name']} ({record['origin']}), {target['task']}: {', '.join(map(str, classes))}"
        skipped = [(str(name), str(reason)) for name, reason in record.get("skipped", ())]
    except (MedcliError, KeyError, TypeError, ValueError, AttributeError):
        return {}
    parts = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    return {
        "name": record["name"],
        "origin": record["origin"],
        "counts": counts,
        "skipped": skipped,
        "text": f"{text}; {parts}",
    }


def _all_figures(run: RunDirectory) -> dict[str, dict[str, Any]]:
    held: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        try:
            held[split] = dict(read_figures(run, split)["figures"])
        except MedcliError:
            continue
    return held


def _figure_table(output: Output, figures: Mapping[str, Mapping[str, Any]]) -> str:
    names = [name for split in figures.values() for name, one in split.items() if one.get("headline")]
    rows = [
        (name, *(_with_interval(figures[split].get(name, {})) for split in figures)) for name in dict.fromkeys(names)
    ]
    return output.table(("figure", *figures), rows) if rows else ""


def _with_interval(figure: Mapping[str, Any]) -> str:
    if figure.get("value") is None:
        return "-"
    interval = ""
    if figure.get("low") is not None and figure.get("high") is not None:
        interval = f" [{figure['low']:.4f}, {figure['high']:.4f}]"
    return f"{figure['value']:.4f}{interval}"


def _saved(run: RunDirectory) -> tuple[SavedConfig | None, str]:
    from medcli.runs.records import read_config

    try:
        return read_config(run), ""
    except MedcliError as problem:
        return None, str(problem).partition("\nhint:")[0].replace("\n", " ")


def _settings(output: Output, saved: SavedConfig | None, every: bool) -> str:
    from medcli.cli.commands.config import value_text

    if saved is None:
        return ""
    rows = [
        (name, value_text(value), str(saved.origins[name]) if name in saved.origins else "default")
        for name, value in saved.values.items()
        if every or name in saved.origins
    ]
    hidden = len(saved.values) - len(rows)
    note = f"{hidden} more settings have their defaults (`-v` shows them)" if hidden else ""
    table = output.table(("setting", "value", "origin"), rows) if rows else ""
    return "\n".join(part for part in (table, note) if part)


def _next_steps(one: Summary) -> tuple[str, ...]:
    if one.state == "completed":
        return (
            f"`medcli evaluate {one.path}` shows every figure; `medcli predict {one.path} IMAGES` uses the model",
            f"`medcli train --resume {one.path} --extend 10` trains 10 epochs longer",
        )
    if one.state in ("interrupted", "failed") and RunDirectory(one.path).checkpoint_file.is_file():
        return (f"`medcli train --resume {one.path}` continues it",)
    return ()


def _comparison(
    output: Output, metric: str, split: str, figures: Sequence[StoredFigure], differences: Sequence[Difference]
) -> str:
    rows = [
        (str(one.run), one.architecture or "-", _number(one.value), f"[{_number(one.low)}, {_number(one.high)}]", one.n)
        for one in figures
    ]
    parts = [output.table(("run", "architecture", f"{metric} on {split}", "95 % interval", "cases"), rows)]
    if differences:
        first = figures[0].run
        parts += [
            "",
            output.table(
                (f"minus {first.name}", "difference", "95 % interval", "common cases", "patients"),
                [
                    (
                        str(figure.run),
                        f"{one.value:+.4f}",
                        f"[{one.low:+.4f}, {one.high:+.4f}]" if math.isfinite(one.low) else "-",
                        one.n,
                        one.patients,
                    )
                    for figure, one in zip(figures[1:], differences, strict=True)
                ],
            ),
        ]
        for figure, one in zip(figures[1:], differences, strict=True):
            if one.left_out:
                parts.append(f"{figure.run}: {one.left_out} cases that only one of the two has were left out")
    return "\n".join(parts)


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "-"
