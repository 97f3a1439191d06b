"""Predicting and judging with a bundle: what `predict` and `evaluate` do for a run, without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from medcli.bundles.batching import run_cases
from medcli.bundles.bundle import Bundle, open_bundle
from medcli.data.dataset import DataSet
from medcli.data.load import load_data
from medcli.data.subset import take
from medcli.errors import RunFailure, UsageProblem
from medcli.evaluation.calibrator import apply_calibrator, calibrate_logits
from medcli.evaluation.predictions import Predictions
from medcli.prediction.inputs import FilePredictions, Input
from medcli.prediction.sources import Judgement, judged_cases, refuse_other_classes
from medcli.settings.groups import ComputeSettings, DataSettings
from medcli.settings.resolve import Resolved

__all__ = ["calibrated_by_bundle", "judge_bundle", "predict_with_bundle", "ready_bundle", "refuse_of_bundles"]


class Teller(Protocol):
    """Whoever passes sentences and progress on to the user."""

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def progress(self, what: str, total: int) -> Callable[[int], None]: ...


def ready_bundle(path: str) -> Bundle:
    """Open a bundle, compare its files with their hashes and compute its self-test on this machine.

    Raises:
        UsageProblem: as `open_bundle`.
        RunFailure: this machine computes something else (code `selftest-failed`).
    """
    bundle = open_bundle(path)
    bundle.self_test()
    return bundle


def predict_with_bundle(
    bundle: Bundle,
    inputs: Sequence[Input],
    compute: ComputeSettings,
    *,
    progress: Callable[[int], None] | None = None,
) -> FilePredictions:
    """Predict every input that can be read; the logits are those of the network itself.

    Raises:
        UsageProblem: a device or precision that bundles do not have.
        RunFailure: an answer is no number.
    """
    refuse_compute(compute)
    found = run_cases(
        bundle.run,
        [(one.images, one.index) for one in inputs],
        batch_size=compute.batch_size,
        workers=compute.workers,
        progress=progress,
    )
    names = tuple(inputs[row].name for row in found.rows.tolist())
    failures = tuple((inputs[row].name, reason) for row, (_, reason) in sorted(found.failures.items()))
    return FilePredictions(names, found.logits, failures)


def calibrated_by_bundle(bundle: Bundle, logits: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], str]:
    """(logits, how they were calibrated): as they are, and `""`, where the bundle has no calibrator."""
    calibrator = bundle.manifest.calibrator
    return (logits, "") if calibrator is None else (calibrate_logits(calibrator, logits), calibrator.describe())


def refuse_of_bundles(resolved: Resolved, fixed: Sequence[str]) -> None:
    """Refuse flags that a bundle leaves no choice about.

    Args:
        resolved: the settings.
        fixed: those about weights and pictures.

    Raises:
        UsageProblem: code `fixed-by-bundle`.
    """
    for name in (*fixed, "ten_crop", "mc_dropout", "tta", "modality"):
        if resolved.origin(name).layer == "flag":
            flag = "--" + name.replace("_", "-")
            raise UsageProblem(
                f"`{flag}` cannot act on a bundle, whose weights, pictures and passes are part of its graph",
                where=flag,
                hint="the run it was exported from can",
                code="fixed-by-bundle",
            )


def refuse_compute(compute: ComputeSettings) -> None:
    """A bundle is run on the CPU in the precision it was exported in.

    Raises:
        UsageProblem: another wish.
    """
    if compute.device not in {"auto", "cpu"}:
        raise UsageProblem(
            f"a bundle is run on the CPU, not on `{compute.device}`", where="--device", code="no-such-device"
        )
    if compute.precision not in {"auto", "fp32"}:
        raise UsageProblem(
            f"a bundle has the numbers it was exported with, and `{compute.precision}` would be others",
            where="--precision",
            code="fixed-by-bundle",
        )


def judge_bundle(
    bundle: Bundle,
    settings: DataSettings,
    compute: ComputeSettings,
    teller: Teller,
    *,
    data_tables: Mapping[str, Mapping[str, Any]],
    own_window: bool,
    raw: bool = False,
    on: str | None = None,
) -> Judgement:
    """Predict data sets with a bundle.

    Args:
        bundle: an open one.
        settings: which sets, and how they are read.
        compute: batch size, workers.
        teller: told what the user should know.
        data_tables: `[data.NAME]` tables of configuration files.
        own_window: read DICOM files with the window the model was trained with, not with that of `settings`.
        raw: leave the calibrator aside.
        on: the split that is judged; None for test, else val, else everything.

    Raises:
        UsageProblem: data of another target.
        RunFailure: unreadable images, answers that are no numbers.
    """
    refuse_compute(compute)
    target = bundle.manifest.target
    if own_window:
        settings = replace(settings, window=bundle.manifest.preprocessing.window)
    found = []
    for dataset in load_data(replace(settings, limit=None), data_tables=data_tables, target=target):
        refuse_other_classes(dataset, target, settings.class_names)
        predictions = _predicted(bundle, dataset, settings, compute, teller, on)
        calibrator = bundle.manifest.calibrator
        found.append(predictions if raw or calibrator is None else apply_calibrator(calibrator, predictions))
    return Judgement(None, tuple(found))


def _predicted(
    bundle: Bundle,
    dataset: DataSet,
    settings: DataSettings,
    compute: ComputeSettings,
    teller: Teller,
    on: str | None,
) -> Predictions:
    for note in dataset.notes:
        teller.note(f"note: {dataset.name}: {note}")
    chosen, notes = judged_cases(dataset, None, settings, on)
    for note in notes:
        teller.note(f"note: {note}")
    samples = chosen.samples
    found = run_cases(
        bundle.run,
        [(samples.images, row) for row in range(len(samples))],
        batch_size=compute.batch_size,
        workers=compute.workers,
        progress=teller.progress(f"images of {dataset.name} predicted", len(samples)),
    )
    if (found.failures and not settings.skip_unreadable) or not len(found.rows):
        raise _unreadable(list(found.failures.values()), len(samples))
    for name, reason in found.failures.values():
        teller.warn(f"{name} left out: {reason}")
    kept = take(samples, found.rows) if found.failures else samples
    return Predictions(
        ids=np.asarray(kept.ids, dtype=np.str_),
        labels=kept.labels,
        logits=found.logits,
        target=bundle.manifest.target,
        split=chosen.split,
        data_name=dataset.name,
        patients=None if kept.patients is None else np.asarray(kept.patients, dtype=np.str_),
    )


def _unreadable(failures: Sequence[tuple[str, str]], total: int) -> RunFailure:
    listed = "".join(f"\n  {name}: {reason}" for name, reason in failures)
    number = "1 image" if len(failures) == 1 else f"{len(failures):,} images"
    return RunFailure(
        f"{number} of {total:,} cannot be read:{listed}",
        hint="mend or remove these files, or leave them out with `--skip-unreadable`"
        if len(failures) < total
        else "`medcli data inspect FILE` shows how one file is decoded",
        code="unreadable-images",
    )
