"""`medcli diffmap predict`: what changed between two radiographs, as files for people and for programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.cli.options import BaselineArgument, Flags, FollowupArgument
from medcli.cli.output import Output
from medcli.errors import ExitCode, MedcliError, RunFailure, UsageProblem

if TYPE_CHECKING:
    from medcli.diffmap.outputs import Written
    from medcli.diffmap.pairs import PairSet
    from medcli.diffmap.prediction import Mapper
    from medcli.settings.resolve import Resolved

__all__ = ["predict"]

MOST_LISTED = 10
ALLOWING = "`--allow-mismatch` compares pairs that are refused"


def predict(baseline: BaselineArgument, followup: FollowupArgument, flags: Flags) -> ExitCode | None:
    """Show what changed between two radiographs of one patient.

    BASELINE, the earlier image, is laid over FOLLOWUP, and the map says per pixel of FOLLOWUP what became denser
    (positive) or less dense (negative). Without `--run` the map is a subtraction after alignment, which needs no
    weights; with a run of `medcli diffmap train`, or the bundle that `medcli export` made of it (run by onnxruntime,
    without torch), its network makes it. PNG, JPEG, TIFF, NIfTI and DICOM are read.
    Another patient, another view, a wrong order in time, a turned or inverted image and a failed alignment are refused
    unless `--allow-mismatch` is given. `--data` maps many pairs: a table with columns baseline and followup, or a
    folder of pairs or of DICOM files; pairs that cannot be compared are named, and the others done (exit status 3).

    The folder gets map.npy (NaN where not both images show something), map.png (16 bits, 32768 is no change),
    overlay.png, sheet.png (prior, current, overlay, checkerboard) and findings.json; with `--format`, map.nii.gz and
    overlay.dcm (a secondary capture) too. For research only: not for diagnosis.

    Examples:
        medcli diffmap predict baseline.png followup.png --out change
        medcli diffmap predict baseline.png followup.png --format nifti,json --threshold 0.3 --out change-nifti
        medcli diffmap predict --run runs/20261121T101500Z-diffmap-train-siamese-unet-1a2b --data pairs/ --out changes
    """
    from medcli.diffmap.checks import reasons
    from medcli.diffmap.outputs import check_free, claim, folder_name, folder_names, require_formats, write_map
    from medcli.diffmap.pairs import PairSet
    from medcli.diffmap.prediction import Wanted, map_pairs, mapper_for
    from medcli.diffmap.sources import pair_of_files
    from medcli.settings.groups import ComputeSettings, DataSettings, FormatSettings, FoundMapSettings, PairSettings
    from medcli.settings.resolve import resolve

    settings = flags.output()
    output = Output(settings, "diffmap predict")
    resolved = resolve("diffmap predict", flags.given)
    asked, compute = resolved.group(FoundMapSettings), resolved.group(ComputeSettings)
    named = _named(baseline, followup, many=bool(resolved.group(DataSettings).data))
    formats = require_formats(resolved.group(FormatSettings).format)
    pairs = PairSet("", (pair_of_files(*named),)) if named else _listed(resolved)
    wanted = Wanted(
        run=asked.run,
        register=_if_said(resolved, "register", resolved.group(PairSettings).register),
        antisymmetric=_if_said(resolved, "antisymmetric", asked.antisymmetric),
        threshold=asked.threshold,
        min_area=asked.min_area,
        dead_zone=asked.dead_zone,
        image_size=resolved.group(DataSettings).image_size,
        window=resolved.group(DataSettings).window,
        allow_mismatch=asked.allow_mismatch,
    )
    mapper = mapper_for(wanted, compute)
    for caution in mapper.cautions:
        output.warn(caution)
    folder = Path(settings.out or f"diffmap-{folder_name(pairs.pairs[0].identifier if named else pairs.name)}")
    places = [folder] if named else [folder / name for name in folder_names(pairs.pairs)]
    for place in places:
        check_free(place, overwrite=settings.overwrite)
    _introduce(output, mapper)
    if not named:
        _say_limits(output, mapper, None)
    done: list[Written] = []
    failures: list[tuple[str, str]] = []
    allowing = False  # whether any of them could be compared all the same
    progress = output.progress("pairs mapped", len(pairs))
    for (pair, found), place in zip(map_pairs(pairs.pairs, mapper, compute.workers), places, strict=True):
        about = "" if named else f"{pair.identifier}: "
        if isinstance(found, MedcliError):
            if named:
                raise found
            reason = reasons(found)
            allowing |= "--allow-mismatch" in str(found)
            failures.append((pair.identifier, reason))
            output.warn(f"{about}{reason}")
        else:
            for concern in found.concerns:
                output.warn(about + (f"{concern.message}; {concern.hint}" if concern.hint else concern.message))
            claim(place, overwrite=settings.overwrite)
            done.append(write_map(found, mapper, place, formats, asked.colour_limit))
            if named:
                _say_limits(output, mapper, done[0])
        progress(len(done) + len(failures))
    if not done:
        raise RunFailure(
            f"none of the {len(pairs)} pairs could be compared",
            hint=ALLOWING if allowing else None,
            code="no-maps",
        )
    status = _answer(output, mapper, done, failures, folder, one=named is not None)
    if allowing:
        output.hint(ALLOWING)
    return status


def _listed(resolved: Resolved) -> PairSet:
    """The set of pairs that `--data` names."""
    from medcli.data.named_sets import named_sets
    from medcli.diffmap.sources import columns_of, load_pairs
    from medcli.settings.diffmap_groups import PairTableSettings
    from medcli.settings.groups import DataSettings

    sets = named_sets(resolved.group(DataSettings), resolved.data_tables)
    if len(sets) > 1:
        raise UsageProblem("several sets of pairs are named", where="--data", hint="name one", code="two-inputs")
    return load_pairs(sets[0].path, columns_of(sets[0].settings, resolved.group(PairTableSettings)))


def _named(baseline: str | None, followup: str | None, *, many: bool) -> tuple[str, str] | None:
    """Both files, or None where a set of pairs is named instead."""
    if many and baseline is None:
        return None
    if many:
        raise UsageProblem("two files and a set of pairs are named", where="--data", hint="name one", code="two-inputs")
    if not baseline or not followup:
        raise UsageProblem(
            "one image is missing: a comparison needs BASELINE and FOLLOWUP"
            if baseline or followup
            else "no images are named",
            where="FOLLOWUP" if baseline else "BASELINE",
            hint="`medcli diffmap predict BASELINE FOLLOWUP`, or `--data PAIRS` for many",
            code="missing-image",
        )
    return baseline, followup


def _introduce(output: Output, mapper: Mapper) -> None:
    size = mapper.spec.image_size
    half = ", half the map less half that of the exchanged images" if mapper.antisymmetric else ""
    output.detail(f"{mapper.spec.model} at {size} x {size} px{half}; registration {mapper.how}")


def _say_limits(output: Output, mapper: Mapper, of: Written | None) -> None:
    """What counts as a finding, in the unit of the table of findings where there is one."""
    limits = mapper.limits
    least = f"{100 * limits.min_area / mapper.spec.image_size**2:.2g}% of the map"
    if of is not None:
        held = of.document["limits"]
        area = f"{held['min_area_px']} px" if held["min_area_mm2"] is None else f"{held['min_area_mm2']:.3g} mm²"
        least = f"{area} of the later image ({least})"
    output.note(f"findings: |map| of at least {limits.threshold:.3g} ({limits.source}) over at least {least}")


def _answer(
    output: Output, mapper: Mapper, done: list[Written], failures: list[tuple[str, str]], folder: Path, *, one: bool
) -> ExitCode:
    status = ExitCode.PARTIAL if failures else ExitCode.DONE
    result = {
        "out": str(folder),
        "model": mapper.spec.model,
        "run": mapper.wanted.run,
        "maps": [
            {"pair": each.document["pair"], "folder": each.folder, "files": each.files, **_facts(each)} for each in done
        ],
        "failures": [{"pair": name, "reason": reason} for name, reason in failures],
    }

    def text() -> str:
        return _of_one(output, done[0]) if one else _of_many(output, done, failures, folder)

    output.answer(result, text, identifier=str(folder), run_dir=mapper.wanted.run, status=status)
    pictures = [each for each in done if "sheet.png" in each.files]
    if pictures:
        output.hint(f"`{pictures[0].folder}/sheet.png` shows the alignment and the map; for research only")
    return status


def _facts(each: Written) -> dict[str, Any]:
    document = each.document
    return {
        "findings": document["findings"],
        "agreement": document["registration"]["ncc_after"],
        "spacing_mm": document["spacing_mm"],
    }


def _of_one(output: Output, each: Written) -> str:
    findings = each.document["findings"]
    count = f"{len(findings)} finding{'s' if len(findings) != 1 else ''}"
    lines = [f"{count}; {', '.join(each.files)} in {each.folder}"]
    signed = each.document["map"]["kind"] == "signed"
    if findings:
        rows = [
            (
                one["id"],
                ("denser" if one["sign"] > 0 else "less dense") if signed else "changed",
                one["area_px"] if one["area_mm2"] is None else round(one["area_mm2"]),
                one["peak"],
                one["side"],
            )
            for one in findings[:MOST_LISTED]
        ]
        area = "area, px" if findings[0]["area_mm2"] is None else "area, mm²"
        lines.append(output.table(("finding", "later image", area, "peak", "patient's side"), rows))
    if len(findings) > MOST_LISTED:
        lines.append(f"and {len(findings) - MOST_LISTED} more in findings.json")
    return "\n".join(lines)


def _of_many(output: Output, done: list[Written], failures: list[tuple[str, str]], folder: Path) -> str:
    rows = [
        (
            each.document["pair"],
            sum(one["sign"] > 0 for one in each.document["findings"]),
            sum(one["sign"] < 0 for one in each.document["findings"]),
            each.document["registration"]["ncc_after"],
        )
        for each in done
    ]
    left = f", {len(failures)} could not be compared" if failures else ""
    head = f"{len(done)} map{'s' if len(done) != 1 else ''} in {folder}{left}"
    return head + "\n" + output.table(("pair", "denser", "less dense", "agreement"), rows)


def _if_said(resolved: Resolved, name: str, value: Any) -> Any:
    """None where nobody chose, so that a run may."""
    return None if resolved.origin(name).layer == "default" else value
