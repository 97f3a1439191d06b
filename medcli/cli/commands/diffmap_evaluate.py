"""`medcli diffmap evaluate`: how well maps show what changed, beside plain subtraction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from medcli.cli.options import Flags, ScoredMaps
from medcli.cli.output import Output
from medcli.errors import ExitCode, UsageProblem

if TYPE_CHECKING:
    from medcli.diffmap.judgement import Judgement
    from medcli.settings.groups import MapScoreSettings

__all__ = ["evaluate"]


def evaluate(source: ScoredMaps, flags: Flags) -> ExitCode | None:
    """Measure maps of what changed, beside plain subtraction.

    The maps are those of a run, or lie in a folder, made by any tool: `PAIR.npy`, `.nii.gz` or 16-bit `.png`, called as
    the pair is, positive where the later image is denser. Precision, Dice and errors count changed pairs alone, since a
    map of nothing would do well on all others; pairs where nothing changed show how much is found wrongly. Findings are
    connected areas at the threshold: one is hit by a centroid inside it or an overlap (IoU) of 0.1. Every figure has a
    95 % interval from resampled patients, and so has the difference to subtraction of the same registered pairs.

    A set with splits is judged on `test`, at thresholds chosen on `val` (largest Dice), one for the maps and one for
    subtraction; for a set without splits a run brings its own, and maps from files need `--threshold`. With
    `--readers`, agreement with what readers marked as ellipses is shown beside that of the readers with each other:
    `PAIR/READER.json`, in pixels of the later image's file, labelled Appearance or Disappearance (or -3 to 3; 0 and
    Persistence are no change), the angle in degrees, clockwise.

    Examples:
        medcli diffmap evaluate runs/20261121T101500Z-diffmap-train-siamese-unet-1a2b --data pairs/
        medcli diffmap evaluate runs/20261121T101500Z-diffmap-train-siamese-unet-1a2b --data pairs/ --figure curves.png
            --save-maps found --min-auprc 0.01
        medcli diffmap evaluate maps/ --data pairs/ --threshold 0.05 --readers readers/
    """
    from medcli.diffmap.scoring import ScoreRequest, is_run, score
    from medcli.settings.diffmap_groups import PairTableSettings
    from medcli.settings.groups import (
        ComputeSettings,
        DataSettings,
        EvaluationSettings,
        FoundMapSettings,
        MapScoreSettings,
    )
    from medcli.settings.resolve import resolve

    settings = flags.output()
    output = Output(settings, "diffmap evaluate")
    resolved = resolve("diffmap evaluate", flags.given)
    wanted = resolved.group(MapScoreSettings)
    _check_destinations(wanted, settings.out, settings.overwrite)
    if is_run(source) and resolved.origin("map").layer == "flag":
        raise UsageProblem("`--map` is fixed by the run", where="--map", code="fixed-by-run")
    scored = score(
        ScoreRequest(
            source,
            resolved.group(DataSettings),
            resolved.data_tables,
            resolved.group(FoundMapSettings),
            wanted,
            resolved.group(ComputeSettings),
            resolved.values["on"],
            None if resolved.origin("register").layer == "default" else resolved.values["register"],
            resolved.values["map"] == "signed",
            resolved.group(EvaluationSettings).bootstrap,
            resolved.group(PairTableSettings),
        ),
        output.progress,
    )
    judged = scored.judgement
    for note in scored.notes:
        output.note(note)
    missed = _missed(judged, wanted)
    for problem in missed:
        output.warn(problem)
    if wanted.figure:
        from medcli.diffmap.judgement_plot import draw_judgement

        draw_judgement(judged, Path(wanted.figure))
        output.note(f"curves drawn into {wanted.figure}")
    result = {**judged.to_dict(), "missed_limits": missed}
    if settings.out:
        from medcli.runs.directory import replace_text

        replace_text(Path(settings.out), json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
        output.note(f"figures written to {settings.out}")
    status = ExitCode.LIMIT if missed else ExitCode.DONE
    output.answer(
        result,
        lambda: _text(judged, output, settings.verbose),
        identifier=source,
        run_dir=source if is_run(source) else None,
        status=status,
    )
    return status


def _text(judged: Judgement, output: Output, verbose: bool) -> str:
    from medcli.diffmap import judgement_text as words

    parts = [words.opening(judged)]
    rows = words.figure_rows(judged, verbose=verbose)
    if rows and judged.model.scores.known.any():
        heads = ("figure", judged.model.name, "subtraction", "difference")
        parts.append(output.table(heads, rows))
        parts.append("[95 % interval of resampled patients]" if judged.resamples else "no intervals: `--bootstrap 0`")
    if judged.strata:
        columns = ("pairs by", "pairs", "findings hit", "AUPRC", "Dice", "false area, %")
        parts.append(output.table(columns, words.stratum_rows(judged)) + f"\n({judged.model.name} / subtraction)")
    if judged.consistency is not None:
        parts.append(words.consistency_line(judged))
    if judged.agreement is not None:
        agreed = judged.agreement
        heads = (f"{agreed.readers} readers, {agreed.pairs} pairs", "readers", judged.model.name, "published")
        parts.append(output.table(heads, words.agreement_rows(agreed)))
        heads = ("findings of readers", judged.model.name, "one reader, of the others'", "published")
        parts.append(output.table(heads, words.reader_rows(agreed)))
        parts.append("published: five readers of other pairs, matched by rules of their own; a scale, no comparison")
    return "\n\n".join(parts)


def _missed(judged: Judgement, wanted: MapScoreSettings) -> list[str]:
    if wanted.min_auprc is None:
        return []
    value = judged.model.figures["auprc"].value
    if value >= wanted.min_auprc:
        return []
    return [f"change AUPRC {value:.4f} is not at least {wanted.min_auprc:g} (`--min-auprc`)"]


def _check_destinations(wanted: MapScoreSettings, out: str | None, overwrite: bool) -> None:
    """Before anything is computed."""
    if wanted.figure and not wanted.figure.lower().endswith(".png"):
        raise UsageProblem(f"`{wanted.figure}` is no .png", where="--figure", code="bad-suffix")
    for flag, path in (("--out", out), ("--figure", wanted.figure)):
        if path and Path(path).exists() and not (overwrite and Path(path).is_file()):
            raise UsageProblem(
                f"`{path}` exists already", where=flag, hint="`--overwrite` replaces it", code="out-occupied"
            )
    folder = Path(wanted.save_maps) if wanted.save_maps else None
    if folder is not None and (folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not overwrite)):
        raise UsageProblem(
            f"`{folder}` " + ("is a file" if folder.is_file() else "is not empty"),
            where="--save-maps",
            hint="`--overwrite` writes into it",
            code="out-occupied",
        )
