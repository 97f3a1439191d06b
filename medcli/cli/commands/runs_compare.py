"""`medcli runs compare`: runs side by side in one figure, and the differences between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medcli.cli.commands.runs import number_text
from medcli.cli.options import Flags, RunsArgument
from medcli.cli.output import Output
from medcli.errors import MedcliError, UsageProblem
from medcli.runs.directory import open_run
from medcli.runs.listing import StoredFigure, compare

if TYPE_CHECKING:
    from medcli.evaluation.paired import Difference

__all__ = ["compare_runs"]


def compare_runs(runs: RunsArgument, flags: Flags) -> None:
    """Compare runs by one figure of their evaluations.

    The intervals are those of each run alone; two that overlap may still differ. `--paired` judges every run against
    the first on the cases both predicted, drawing the same patients for both: the interval of the difference. Areas
    under the ROC curve are also compared as DeLong does (by patient), per class or label with Holm's adjustment.

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
    on = chosen.on or "test"
    figures = compare(runs, chosen.metric, on)
    _warn_about_other_data(output, runs, on)
    differences = _differences(runs, resolved.values, chosen) if chosen.paired else ()
    result = {
        "metric": chosen.metric,
        "split": on,
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


def _differences(runs: Sequence[str], values: Mapping[str, Any], chosen: Any) -> tuple[Difference, ...]:
    from medcli.evaluation.paired import paired_difference
    from medcli.evaluation.predictions import load_predictions
    from medcli.settings.groups import EvaluationSettings

    on = chosen.on or "test"
    files = {run: open_run(run).predictions(on) for run in runs}
    for run, file in files.items():
        if not file.is_file():
            raise UsageProblem(
                f"`{run}` has no stored predictions of `{on}`, so its cases cannot be paired",
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
            one.architecture or "-",
            number_text(one.value),
            f"[{number_text(one.low)}, {number_text(one.high)}]",
            one.n,
        )
        for one in figures
    ]
    parts = [output.table(("run", "architecture", f"{metric} on {split}", "95 % interval", "cases"), rows)]
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
