"""`medcli diffmap synth`: pairs of radiographs with the true map of what changed, made offline."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict
from pathlib import Path

from medcli.cli.options import Flags
from medcli.cli.output import Output
from medcli.errors import UsageProblem
from medcli.settings.groups import ComputeSettings, DataSettings, FormatSettings, PairSynthSettings

__all__ = ["make_pairs", "synth"]

MOST_THREADS = 4  # drawing holds the interpreter's lock for much of the time, so more do not help
DEFAULT_SIZE, SMALLEST_SIZE, LARGEST_SIZE = 256, 16, 2048


def synth(flags: Flags) -> None:
    """Make pairs of chest radiographs with the true map of what changed between them.

    Each pair is one patient twice: as a procedural phantom, or as a real radiograph (`--source FOLDER`) into which
    findings are painted. Opacities, effusions, pneumothoraces, fluid overload and enlarged hearts appear, vanish, grow,
    shrink or stay; pose, exposure and devices differ as well, and count nothing. The map is the later image minus what
    it would have been without the change: positive where it is denser, in its own coordinates, zero elsewhere. No
    patient (and no source radiograph) stands in two splits, and the same seed makes the same pairs.

    Each pair lies in its own folder as prior, current and diff_map (16-bit PNG: 32768 is no change, 32767 steps to 1;
    or NIfTI with the values themselves), with valid.png and all parameters in params.json; pairs.csv lists them.
    The same command: `medcli data synth synthetic/chest-pairs`.

    Examples:
        medcli diffmap synth --pairs 200 --out pairs
        medcli diffmap synth --pairs 500 --source chest-xrays/ --patient-pattern '^([0-9]+)_' --out painted-pairs
        medcli diffmap synth --pairs 100 --nuisance 2 --nuisance-only 0.5 --seed 7 --format nifti --out hard-pairs
        medcli diffmap synth --pairs 700 --nuisance 0.5,2 --nuisance-only 0.4 --out mixed-pairs
    """
    make_pairs(flags, "diffmap synth")


def make_pairs(flags: Flags, command: str, size: int | None = None) -> None:
    """Plan, write and tell; what both names of the command have in common."""
    from medcli.data.synthetic.folder import claim_folder
    from medcli.diffmap.sources import MANIFEST
    from medcli.diffmap.synth import PairRecipe, plan_pairs, remove_pairs, write_pairs
    from medcli.settings.resolve import resolve

    settings = flags.output()
    output = Output(settings, command)
    resolved = resolve(command, flags.given)
    wanted, compute = resolved.group(PairSynthSettings), resolved.group(ComputeSettings)
    data = resolved.group(DataSettings)
    recipe = PairRecipe(
        wanted.pairs,
        size or data.image_size or DEFAULT_SIZE,
        compute.seed,
        wanted.source,
        _factors(wanted.nuisance),
        wanted.nuisance_only,
        data.patient_pattern,
        resolved.group(FormatSettings).format or ("png",),  # type: ignore[arg-type]
    )
    if not SMALLEST_SIZE <= recipe.size <= LARGEST_SIZE:
        raise UsageProblem(
            f"pairs are made with {SMALLEST_SIZE} to {LARGEST_SIZE} pixels, not {recipe.size}",
            where="--image-size",
            hint="--image-size 256",
            code="bad-size",
        )
    plan = plan_pairs(recipe)
    folder = Path(settings.out or "synthetic-chest-pairs")
    claim_folder(folder, overwrite=settings.overwrite, confirm=output.confirm, manifest=MANIFEST, remove=remove_pairs)
    threads = min(MOST_THREADS, os.cpu_count() or 1) if compute.workers is None else max(1, compute.workers)
    written = write_pairs(folder, plan, threads=threads, progress=output.progress("pairs drawn", recipe.pairs))
    counts = ", ".join(f"{part} {count}" for part, count in written.counts.items())
    rows = [(*name.split(", "), count) for name, count in written.courses.items()]
    if written.left_out:
        output.warn(f"radiographs left out because no frontal chest fits them: {len(written.left_out):,}")
    output.answer(
        {**asdict(recipe), **asdict(written)},
        lambda: (
            f"{recipe.pairs:,} pairs of {written.patients:,} patients in {written.folder} ({counts}); "
            f"nothing changed in {written.nuisance_only:,}\n" + output.table(("finding", "course", "pairs"), rows)
        ),
        identifier=written.table,
    )
    output.hint(f"medcli diffmap train --data {shlex.quote(written.folder)} --image-size {recipe.size}")


def _factors(given: tuple[float, ...]) -> float | tuple[float, float]:
    """One factor for all pairs, or the two ends between which each pair draws its own."""
    if len(given) == 1:
        return given[0]
    if len(given) != 2 or given[0] > given[1]:
        raise UsageProblem(
            f"`{','.join(f'{value:g}' for value in given)}` is neither one factor nor two in rising order",
            where="--nuisance",
            hint="--nuisance 0.5,2",
            code="bad-range",
        )
    return given[0], given[1]
