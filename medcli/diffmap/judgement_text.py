"""A judgement as a person reads it: rows of tables, and the sentences around them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medcli.diffmap.judgement import Judgement, Side
from medcli.diffmap.readers import PUBLISHED, Agreement
from medcli.evaluation.figures import Figure

__all__ = ["agreement_rows", "consistency_line", "figure_rows", "opening", "reader_rows", "stratum_rows"]

SHOWN = {
    "auprc": "change AUPRC, both signs",
    "auprc_positive": "  new or denser",
    "auprc_negative": "  gone or less dense",
    "auroc_positive": "pixel AUROC, new or denser",
    "auroc_negative": "pixel AUROC, gone or less dense",
    "auroc_any": "pixel AUROC",
    "dice": "Dice, changed pairs",
    "dice_positive": "  new or denser",
    "dice_negative": "  gone or less dense",
    "iou": "IoU, changed pairs",
    "sign_accuracy": "sign accuracy",
    "correlation": "correlation, changed area",
    "mae_changed": "MAE, changed area",
    "rmse_changed": "RMSE, changed area",
    "nuisance_area": "false area, unchanged pairs",
    "nuisance_components": "false findings per unchanged pair",
    "cpm": "FROC, mean sensitivity (CPM)",
    "froc_0.5": "  at 0.5 false per image",
    "froc_2": "  at 2 false per image",
    "pointing_positive": "pointing game, new or denser",
    "pointing_negative": "pointing game, gone or less dense",
    "pointing_any": "pointing game",
    "image_auroc": "any change in the pair, AUROC",
    "mae": "MAE, whole image",
    "psnr": "PSNR, whole image (dB, range 2)",
    "ssim": "SSIM, whole image (range 2)",
}
FINE = ("froc_0.125", "froc_0.25", "froc_1", "froc_4", "froc_8")
PERCENT = ("nuisance_area",)


def opening(judged: Judgement) -> str:
    """What was judged, on what, and at which thresholds."""
    scores = judged.model.scores
    what = " ".join(part for part in (judged.data, judged.split) if part)
    lines = [
        f"{what}: {len(scores.maps):,} pairs of {judged.patients:,} patients "
        f"({int(scores.changed.sum())} changed, {int(scores.quiet.sum())} unchanged), "
        f"{judged.size} pixels, registered: {judged.register}",
        f"changed: |truth| > {scores.above:g}; findings: {scores.froc.findings} of at least {scores.min_area} pixels",
    ]
    lines += [f"threshold of {one.name}: {one.threshold.value:g}, {one.threshold.origin}" for one in _sides(judged)]
    return "\n".join(lines)


def figure_rows(judged: Judgement, *, verbose: bool = False) -> list[tuple[str, str, str, str]]:
    """(figure, model, subtraction, difference) with 95 % intervals; figures that are undefined are left out."""
    rows = []
    names = {**SHOWN, **{name: f"  at {name.removeprefix('froc_')} false per image" for name in FINE}}
    order = [name for name in judged.model.figures if name in names and (verbose or name not in FINE)]
    for name in order:
        model, plain = judged.model.figures[name], judged.plain.figures[name]
        if math.isnan(model.value) and math.isnan(plain.value):
            continue
        unit = 100 if name in PERCENT else 1
        label = names[name] + (" (%)" if name in PERCENT else "")
        cells = (_cell(one, unit) for one in (model, plain, judged.differences[name]))
        rows.append((label, *cells))
    return rows  # type: ignore[return-value]


def stratum_rows(judged: Judgement) -> list[tuple[str, ...]]:
    """By kind, course, and what stays: pairs, findings hit, AUPRC and Dice or false area, model / subtraction."""
    rows: list[tuple[str, ...]] = []
    for one in judged.strata:
        pair = {name: " / ".join(_plain(value, name) for value in both) for name, both in one.figures.items()}
        quiet = one.by == "unchanged"
        rows.append(
            (
                f"{one.by}: {one.name}",
                str(one.pairs),
                "" if quiet else f"{one.hit[0]} / {one.hit[1]} of {one.findings}",
                "" if quiet else pair["auprc"],
                "" if quiet else pair["dice"],
                pair["nuisance_area"] if quiet else "",
            )
        )
    return rows


def consistency_line(judged: Judgement) -> str:
    """What antisymmetry is broken by, and what the model makes of an image and itself."""
    one = judged.consistency
    if one is None:
        return ""
    same = f"largest |f(c, c)| {one.same_image:.2g} (one pass {one.same_image_raw:.2g})"
    if math.isnan(one.antisymmetry):
        return f"consistency, {one.pairs} pairs: {same}"
    return (
        f"consistency, {one.pairs} pairs: mean |f(p, c) + f(c, p)| {one.antisymmetry:.2g} "
        f"(one pass {one.antisymmetry_raw:.2g}); {same}"
    )


def agreement_rows(agreed: Agreement) -> list[tuple[str, str, str, str]]:
    """(agreement, readers with each other, model with readers, published readers)."""
    published = PUBLISHED["pai_per_finding"]
    return [
        (
            "PAI per finding, 2M / (2M + U)",
            _number(agreed.per_finding),
            _number(agreed.model_per_finding),
            f"{published['value']:.2f} [{published['low']:.2f}, {published['high']:.2f}]",
        ),
        (
            "PAI per pair, both empty agree",
            _number(agreed.per_pair),
            _number(agreed.model_per_pair),
            f"{PUBLISHED['pai_per_pair']['value']:.2f}",
        ),
    ]


def reader_rows(agreed: Agreement) -> list[tuple[str, str, str, str]]:
    """(sign and k, model's sensitivity, one reader's against the others, published readers')."""
    published = PUBLISHED["one_reader_against_the_others"]
    rows = []
    for sign, held in agreed.consensus.items():
        for k, (share, count) in held.items():
            left = agreed.left_out[sign].get(k, (math.nan, 0))
            known = published[sign].get(str(k))
            rows.append(
                (
                    f"{sign}, at least {k}",
                    f"{_number(share)} of {count}",
                    f"{_number(left[0])} of {left[1]}" if left[1] else "–",
                    "–" if known is None else f"{known:.2f}",
                )
            )
    return rows


def _sides(judged: Judgement) -> Sequence[Side]:
    return (judged.model, judged.plain)


def _cell(figure: Figure, unit: int) -> str:
    if math.isnan(figure.value):
        return "–"
    value = _number(figure.value * unit)
    if math.isnan(figure.low):
        return value
    return f"{value} [{_number(figure.low * unit)}, {_number(figure.high * unit)}]"


def _plain(value: float, name: str) -> str:
    return _number(value * (100 if name in PERCENT else 1))


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"
