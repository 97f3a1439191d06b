"""`medcli runs compare`: runs, or predictions of any tool, side by side in one figure, and their differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.cli.commands.runs import number_text
from medcli.cli.options import ComparedRuns, Flags
from medcli.cli.output import Output
from medcli.errors import MedcliError, UsageProblem
from medcli.runs.directory import open_run
from medcli.runs.listing import StoredFigure, compare
from medcli.settings.commands import OF_TABLES

if TYPE_CHECKING:
    from medcli.evaluation.paired import Difference
    from medcli.evaluation.predictions import Predictions
    from medcli.settings.resolve import Resolved

__all__ = ["compare_runs"]


def compare_runs(runs: ComparedRuns, flags: Flags) -> None:
    """Compare runs, or predictions of any tool, by one figure of their evaluations.

    The intervals are those of each one alone; two that overlap may still differ. `--paired` judges every one against
    the first on the cases both predicted, drawing the same patients for both: the interval of the difference. Areas
    under the ROC curve are also compared as DeLong does (by patient), per class or label with Holm's adjustment.

    A run brings the figures and predictions it stored. A file of predictions is measured as `medcli evaluate` does;
    files of two tools are paired by their case identifiers.

    Examples:
        medcli runs compare runs/A runs/B --metric auc
        medcli runs compare runs/A runs/B runs/C --metric accuracy --paired
        medcli runs compare predictions.npz other.npz --paired
    """
    from medcli.settings.groups import CompareSettings
    from medcli.settings.resolve import resolve

    output = Output(flags.output(), "runs compare")
    resolved = resolve("runs compare", flags.given)
    chosen = resolved.group(CompareSettings)
    files = _files(runs, resolved, output)
    for name in ("bootstrap", "seed"):
        if name in flags.given and not chosen.paired and not files:
            raise UsageProblem(
                f"`--{name}` is for the interval of a difference, and none was asked for",
                where=f"`--{name}`",
                hint=f"add `--paired`, or leave `--{name}` out",
                code="idle-flag",
            )
    if len(runs) < 2:
        hint = (
            f"`medcli {'evaluate' if files else 'runs show'} {runs[0]}` shows its figures; name two or more to compare"
        )
        raise UsageProblem("one run has nothing to be compared with", hint=hint, code="one-run")
    # Files know no splits, and what is compared among them alone is all they hold.
    on = "" if len(files) == len(set(runs)) else chosen.on or "test"
    figures = _figures(runs, files, resolved, on)
    _warn_about_other_data(output, [run for run in runs if run not in files], on)
    differences = _differences(runs, files, resolved, on) if chosen.paired else ()
    result = {
        "metric": chosen.metric,
        "split": on or None,
        "convention": figures[0].convention,
        "runs": [_figure_facts(one) for one in figures],
        "differences": [
            {
                "run": run,
                "minus": runs[0],
                **{name: getattr(one, name) for name in ("value", "low", "high", "n", "patients", "left_out")},
                **({} if one.areas is None else {"delong": one.areas.to_dict()}),
            }
            for run, one in zip(runs[1:], differences, strict=False)
        ],
    }
    output.answer(
        result,
        lambda: _comparison(output, chosen.metric, on, figures, differences),
        identifier="\n".join(str(one.run) for one in figures),
    )


def _files(runs: Sequence[str], resolved: Resolved, output: Output) -> dict[str, Predictions]:
    """What the named files of predictions hold; flags that fit none of the named are refused."""
    held = [run for run in runs if Path(run).is_file()]
    if not held:
        for name in OF_TABLES:
            if resolved.origin(name).layer == "flag":
                flag = "--" + name.replace("_", "-")
                raise UsageProblem(
                    f"`{flag}` is about predictions in files; a run has its own", where=flag, code="fixed-by-run"
                )
        return {}
    if len(set(held)) == len(set(runs)) and resolved.origin("on").layer == "flag":
        raise UsageProblem("`--on` is for runs; a file holds one set of cases", where="--on", code="no-splits")
    from medcli.prediction.compared import read_files
    from medcli.prediction.foreign import columns_from

    return read_files(held, columns_from(resolved.values), lambda text: output.note(f"note: {text}"))


def _figures(
    runs: Sequence[str], files: Mapping[str, Predictions], resolved: Resolved, on: str
) -> tuple[StoredFigure, ...]:
    """In the order given: of runs as stored, of files as `evaluate` finds them."""
    metric = resolved.values["metric"]
    stored = iter(compare([run for run in runs if run not in files], metric, on))
    if not files:
        return tuple(stored)
    from medcli.prediction.compared import figure_of_file

    how = resolved.values["bootstrap"], resolved.values["seed"]
    return tuple(figure_of_file(run, files[run], metric, *how) if run in files else next(stored) for run in runs)


def _differences(
    runs: Sequence[str], files: Mapping[str, Predictions], resolved: Resolved, on: str
) -> tuple[Difference, ...]:
    from medcli.evaluation.paired import paired_difference
    from medcli.prediction.compared import run_split
    from medcli.settings.groups import EvaluationSettings

    values = resolved.values
    first, *others = (files[run] if run in files else run_split(run, on) for run in runs)
    settings = EvaluationSettings(bootstrap=values["bootstrap"])
    return tuple(paired_difference(first, other, values["metric"], settings, seed=values["seed"]) for other in others)


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


def _figure_facts(one: StoredFigure) -> dict[str, Any]:
    return {
        "run": str(one.run),
        "architecture": one.architecture,
        "value": one.value,
        "low": one.low,
        "high": one.high,
        "n": one.n,
    }


def _comparison(
    output: Output, metric: str, split: str, figures: Sequence[StoredFigure], differences: Sequence[Difference]
) -> str:
    rows = [
        (
            str(one.run),
            *([one.architecture or "-"] if split else []),
            number_text(one.value),
            f"[{number_text(one.low)}, {number_text(one.high)}]" if math.isfinite(one.low) else "-",
            one.n,
        )
        for one in figures
    ]
    what = ("run", "architecture", f"{metric} on {split}") if split else ("predictions", metric)
    parts = [output.table((*what, "95 % interval", "cases"), rows)]
    if differences:
        first = figures[0].run
        areas = any(one.areas is not None for one in differences)
        parts += [
            "",
            output.table(
                (
                    f"minus {first.name}",
                    "difference",
                    "95 % interval",
                    *(["p (DeLong)"] if areas else []),
                    "common cases",
                    "patients",
                ),
                [
                    (
                        str(figure.run),
                        f"{one.value:+.4f}",
                        f"[{one.low:+.4f}, {one.high:+.4f}]" if math.isfinite(one.low) else "-",
                        *([_p_text(one)] if areas else []),
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
            if one.areas is not None and one.areas.classes:
                apart = [name for name, p in one.areas.adjusted.items() if p < 0.05]
                which = ", ".join(f"{name} ({one.areas.classes[name].value:+.4f})" for name in apart) or "none"
                parts.append(f"{figure.run}: areas that differ (DeLong, p < 0.05 after Holm): {which}")
    return "\n".join(parts)


def _p_text(one: Difference) -> str:
    p = math.nan if one.areas is None else one.areas.overall.p
    return "-" if math.isnan(p) else "<0.0001" if p < 0.0001 else f"{p:.4f}"
