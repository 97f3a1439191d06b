"""`medcli data synth`: a built-in synthetic set as files, to look at, to share, or to try a table of one's own with."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict
from pathlib import Path

from medcli.cli.commands.diffmap_synth import make_pairs
from medcli.cli.options import Flags, OptionalSynthetic
from medcli.cli.output import Output
from medcli.errors import UsageProblem
from medcli.settings.groups import ComputeSettings, DataSettings, SynthSettings

__all__ = ["synth"]

SYNTHETIC_PAIRS = "synthetic/chest-pairs"
OF_IMAGES = frozenset({"images", "task"})
OF_PAIRS = frozenset({"pairs", "source", "nuisance", "nuisance_only", "format", "patient_pattern"})
MOST_THREADS = 4  # drawing holds the interpreter's lock for much of the time, so more do not help


def synth(name: OptionalSynthetic, flags: Flags) -> None:
    """Write a synthetic data set as image files and a table.

    Phantom chest radiographs of made-up patients, one to four images each, with findings that a network has to learn:
    opacity, effusion, pneumothorax, enlarged heart. The same seed writes the same images. The folder gets `labels.csv`
    with image, labels, patient and split. Training needs no files: `--data synthetic/chest` draws the images itself.
    `synthetic/chest-pairs` makes pairs with the true map of what changed: see `medcli diffmap synth --help`.

    Examples:
        medcli data synth --images 200 --size 64 --out phantoms
        medcli data synth synthetic/chest --task multilabel --seed 7 --out phantoms-multilabel
        medcli data synth synthetic/chest-pairs --pairs 50 --size 128 --out pairs
    """
    from medcli.data.synthetic.folder import Recipe, claim_folder, plan_set, write_set
    from medcli.data.synthetic.source import DEFAULT_IMAGES, check_name, phantom_target
    from medcli.settings.resolve import resolve

    settings = flags.output()
    output = Output(settings, "data synth")
    chosen = name or "synthetic/chest"
    foreign = OF_IMAGES if chosen == SYNTHETIC_PAIRS else OF_PAIRS
    for field in foreign & set(flags.given):
        flag = "--" + field.replace("_", "-")
        other = "synthetic/chest" if chosen == SYNTHETIC_PAIRS else SYNTHETIC_PAIRS
        raise UsageProblem(f"`{flag}` belongs to `{other}`, not to `{chosen}`", where=flag, code="foreign-flag")
    if chosen == SYNTHETIC_PAIRS:
        make_pairs(flags, "data synth", flags.given.get("size"))
        return
    check_name(chosen)
    resolved = resolve("data synth", flags.given)
    wanted, compute = resolved.group(SynthSettings), resolved.group(ComputeSettings)
    task = phantom_target(resolved.group(DataSettings).task).task
    recipe = Recipe(chosen, wanted.images or DEFAULT_IMAGES, wanted.size, compute.seed, task)
    plan = plan_set(recipe)
    folder = Path(settings.out or chosen.replace("/", "-"))
    claim_folder(folder, overwrite=settings.overwrite, confirm=output.confirm)
    threads = min(MOST_THREADS, os.cpu_count() or 1) if compute.workers is None else max(1, compute.workers)
    written = write_set(folder, plan, threads=threads, progress=output.progress("images drawn", recipe.images))
    counts = ", ".join(f"{part} {count}" for part, count in written.counts.items())
    rows = [(label, count) for label, count in written.labels.items()]
    output.answer(
        {**asdict(recipe), **asdict(written)},
        lambda: (
            f"{recipe.images:,} images of {written.patients:,} patients in {written.folder} ({counts})\n"
            + output.table(("finding", "images"), rows)
        ),
        identifier=written.table,
    )
    columns = " ".join(f"--label-column {shlex.quote(column)}" for column in written.label_columns)
    output.hint(
        f"medcli train resnet18 --data {shlex.quote(written.table)} --image-column image {columns} "
        f"--patient-column patient --split-column split --image-size {recipe.size}"
    )
