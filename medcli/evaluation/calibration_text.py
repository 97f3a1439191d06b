"""A calibration as plain aligned text."""

from __future__ import annotations

from medcli.evaluation.calibration_figures import Part
from medcli.evaluation.calibration_result import CalibrationResult
from medcli.evaluation.calibrator import Calibrator, Fit
from medcli.evaluation.figures import Figure
from medcli.evaluation.render import INTERVAL, aligned, interval_text, number_text, wrapped

__all__ = ["parameter_text", "render_calibration"]

_SHORT = (
    "ece_width",
    "ece_mass",
    "ece_classwise",
    "ece_debiased",
    "ece_smooth",
    "mce",
    "brier",
    "nll",
    "slope",
    "intercept",
    "observed_expected",
)


def render_calibration(result: CalibrationResult, *, verbose: bool = False, width: int | None = None) -> str:
    """Heading, parameters, figures before and after with the change, a row per label or output, notes.

    Args:
        result: what to show.
        verbose: whether all figures and their conventions are listed.
        width: columns there are; None where the text may be as wide as it is.
    """
    parts = [_heading(result), _figures(result, verbose, width)]
    if len(result.after.parts) > 1:
        parts.append(_rows(result, width))
    if result.conformal is not None:
        parts.append(result.conformal.text(width=width))
    if verbose:
        lines = [f"{figure.name}: {figure.remark}" for figure in result.after.figures.values() if figure.remark]
        parts.append("\n".join(lines))
    if result.notes:
        parts.append("\n".join(f"note: {note}" for note in result.notes))
    return wrapped("\n\n".join(parts), width)


def parameter_text(fit: Fit, method: str) -> str:
    """Such as `T 1.53`; `as it was` where nothing was fitted."""
    if not fit.parameters:
        return "as it was"
    if method == "isotonic":
        return f"{len(fit.parameters['logits'])} steps"
    if method == "temperature":
        return f"T {fit.parameters['temperature'][0]:.4f}"
    if method == "vector":
        return ", ".join(
            f"{name} {' '.join(f'{value:.3f}' for value in values)}" for name, values in fit.parameters.items()
        )
    return ", ".join(f"{name} {values[0]:.3f}" for name, values in fit.parameters.items())


def _heading(result: CalibrationResult) -> str:
    calibrator, after = result.calibrator, result.after
    origin = calibrator.origin
    fitted = " ".join(part for part in (origin.data_name, origin.split) if part) or "the predictions"
    lines = [f"{calibrator.method} calibration, fitted on {fitted}: {_count(origin.cases, origin.patients)}"]
    if result.parts:
        unit = "patients" if origin.patients is not None else "cases"
        lines.append(f"reported on the same cases, cross-fitted in {result.parts} parts of the {unit}")
    else:
        where = " ".join(part for part in (result.predictions.data_name, result.predictions.split) if part)
        lines.append(f"reported on {where or 'other predictions'}: {_count(after.n, after.patients)}")
    if len(calibrator.fits) == 1:
        lines.append(parameter_text(calibrator.fits[0], calibrator.method) + _spread(result))
    if result.resamples:
        unit = "patients" if after.patients is not None else "images"
        lines.append(
            f"95 % intervals: percentiles of {result.resamples} resamples of {unit}; centred ones (calibration errors) "
            "less the bias of resampling; of slope and intercept from the sandwich estimator"
        )
    edges = "equal width, (lo, hi], last closed" if result.binning == "width" else "equal count, equal values together"
    lines.append(
        f"{result.bins} bins; mce and class-wise error with bins of {edges}, mce over bins of at least 10 cases"
    )
    return "\n".join(lines)


def _count(cases: int, patients: int | None) -> str:
    return f"{cases} labelled cases" + (f" of {patients} patients" if patients is not None else "")


def _spread(result: CalibrationResult) -> str:
    """How far the parts of a cross-fit differ."""
    values = _temperatures(result.folds)
    return f" (in the parts {min(values):.4f} to {max(values):.4f})" if values else ""


def _temperatures(folds: tuple[Calibrator, ...]) -> list[float]:
    return [fit.parameters["temperature"][0] for fold in folds for fit in fold.fits if "temperature" in fit.parameters]


def _figures(result: CalibrationResult, verbose: bool, width: int | None) -> str:
    rows = []
    for name, after in result.after.figures.items():
        if not (verbose or name in _SHORT):
            continue
        before, moved = result.before.figures[name], result.change.get(name)
        rows.append(
            [
                name,
                number_text(before.value),
                interval_text(before),
                number_text(after.value),
                interval_text(after),
                *(["-", "-"] if moved is None else [_signed(moved.value), _signed_interval(moved)]),
            ]
        )
    columns = ["figure", "before", INTERVAL, "after", INTERVAL, "change", INTERVAL]
    if not result.resamples:
        kept = [0, 1, 3, 5]
        return aligned([columns[index] for index in kept], [[row[index] for index in kept] for row in rows])
    return aligned(columns, rows, width=width)


def _signed(value: float) -> str:
    return "-" if value != value else f"{value:+.4f}"


def _signed_interval(figure: Figure) -> str:
    return "-" if figure.low != figure.low else f"[{figure.low:+.4f}, {figure.high:+.4f}]"


def _rows(result: CalibrationResult, width: int | None) -> str:
    """A row per label, output or class: calibration error, slope and intercept, before → after."""
    task = result.after.target.task
    several = task in {"multilabel", "multioutput"}
    what = {"multilabel": "label", "multioutput": "output", "ordinal": "grade"}.get(task, "class")
    shown = [part for part in result.after.parts if part.name]
    old = {part.name: part for part in result.before.parts if part.name}
    fits = {fit.name: fit for fit in result.calibrator.fits}
    chosen = f"ece_{result.binning}"
    names = [chosen, "mce", *(["slope", "intercept"] if task != "multioutput" else []), "nll"]
    rows = []
    for part in shown:
        cells = [part.name, *([parameter_text(fits[part.name], result.calibrator.method)] if several else [])]
        cells += [str(part.n), str(part.events)]
        cells += [_pair(old[part.name], part, name) for name in names]
        rows.append(cells)
    events = "positives" if task != "multioutput" else "correct"
    columns = [what, *(["fit"] if several else []), "cases", events, *names]
    title = "" if several or task == "binary" else "each class against the others\n"
    return title + aligned(columns, rows, left=2 if several else 1, width=width)


def _pair(before: Part, after: Part, name: str) -> str:
    old, new = before.figures.get(name), after.figures.get(name)
    if old is None or new is None:
        return "-"
    return f"{number_text(old.value)} → {number_text(new.value)}"
