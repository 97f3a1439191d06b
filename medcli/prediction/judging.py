"""What a model predicts on the sets it is judged by: the model of a run, or published weights with their classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from medcli.data.dataset import DataSet
from medcli.data.load import load_data
from medcli.evaluation.predictions import Predictions, load_predictions
from medcli.prediction.asking import Asking
from medcli.prediction.members import Jury, load_jury, predict_samples_by
from medcli.prediction.published import load_published, match_labels
from medcli.prediction.sources import Judgement, judged_cases, refuse_other_classes
from medcli.runs.directory import open_run
from medcli.settings.groups import ComputeSettings, DataSettings, ModelSettings

__all__ = ["Teller", "judge_published", "judge_run"]

ONCE = Asking()


class Teller(Protocol):
    """Whoever passes sentences and progress on to the user."""

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def progress(self, what: str, total: int) -> Callable[[int], None]: ...


def judge_run(
    source: str,
    settings: DataSettings,
    compute: ComputeSettings,
    teller: Teller,
    *,
    data_tables: Mapping[str, Mapping[str, Any]],
    own_window: bool,
    asking: Asking = ONCE,
    base: str | None = None,
    on: str | None = None,
    through: Callable[[Jury], Jury] = lambda jury: jury,
) -> Judgement:
    """Predict data sets with a run's model, or with the models of an ensemble.

    Args:
        source: the run directory.
        settings: which sets, and how they are read.
        compute: device, precision, batch size, workers.
        teller: told what the user should know.
        data_tables: `[data.NAME]` tables of configuration files.
        own_window: read DICOM files with the window the run was trained with, not with that of `settings`.
        asking: how the model is asked: once, with dropout, for several views.
        base: the weights that an adapter run was trained on, where they are no longer where they were.
        on: the split of the sets that is judged; None for test, else val, else all.
        through: what becomes of the models before they are asked, such as another runtime.

    Raises:
        UsageProblem: no such run, data of another target.
        RunFailure: unreadable images, outputs that are no numbers.
    """
    run = open_run(source)
    stored = run.predictions(on or "test")
    before = load_predictions(stored) if stored.is_file() else None
    if before is None:
        teller.note(f"note: the run has no stored {on or 'test'} predictions, so there is no gap to show")
    jury = load_jury(run, weights=base)
    for caution in dict.fromkeys(one.caution for one in jury.models if one.caution):
        teller.warn(caution)
    if own_window:
        settings = replace(settings, window=jury.first.preprocessing.window)
    target = jury.target
    jury = through(jury).asked(asking)
    for sentence in asking.sentences(jury.first):
        teller.note(sentence)
    internal, found = before, []
    # The limit comes after the choice: drawn before it, training cases could be all that is left of the run's own data.
    for dataset in load_data(replace(settings, limit=None), data_tables=data_tables, target=target):
        refuse_other_classes(dataset, target, settings.class_names)
        predictions = _predicted(jury, dataset, before, settings, compute, teller, on)
        rows = None if before is None or internal is not before else _own_rows(before, predictions, settings)
        if before is not None and rows is not None:
            teller.note(f"note: `{dataset.name}` is the run's own {on or 'test'}, predicted again")
            # The run remembers its patients even where this command line does not say how to find them.
            known = None if before.patients is None else before.patients[rows]
            internal = replace(predictions, patients=known if predictions.patients is None else predictions.patients)
            continue
        found.append(predictions)
    # Alone, the run's own test is simply what is judged; beside other sets it is what they are compared with.
    return Judgement(internal, tuple(found)) if found or internal is None else Judgement(None, (internal,))


def judge_published(
    architecture: str,
    settings: DataSettings,
    model: ModelSettings,
    compute: ComputeSettings,
    teller: Teller,
    *,
    data_tables: Mapping[str, Mapping[str, Any]],
    asking: Asking = ONCE,
    on: str | None = None,
    through: Callable[[Jury], Jury] = lambda jury: jury,
) -> Judgement:
    """Predict data sets with the classifier that came with published weights; see `load_published`."""
    published = load_published(architecture, data=settings, model=model)
    teller.note(f"weights: {published.summary}")
    found = []
    for matched in match_labels(published.model, replace(settings, limit=None), data_tables):
        for note in matched.notes:
            teller.note(f"note: {note}")
        jury = through(Jury((matched.model,))).asked(asking)
        for sentence in asking.sentences(jury.first):
            teller.note(sentence)
        found.append(_predicted(jury, matched.data, None, settings, compute, teller, on))
    return Judgement(None, tuple(found))


def _predicted(
    jury: Jury,
    dataset: DataSet,
    before: Predictions | None,
    settings: DataSettings,
    compute: ComputeSettings,
    teller: Teller,
    on: str | None,
) -> Predictions:
    for note in dataset.notes:
        teller.note(f"note: {dataset.name}: {note}")
    chosen, notes = judged_cases(dataset, before, settings, on)
    for note in notes:
        teller.note(f"note: {note}")
    samples = chosen.samples
    show = teller.progress(f"images of {dataset.name} read", len(samples))
    predictions, skipped = predict_samples_by(
        jury,
        samples,
        compute,
        split=chosen.split,
        data_name=dataset.name,
        skip_unreadable=settings.skip_unreadable,
        progress=lambda done, _: show(done),
    )
    for name, reason in skipped:
        teller.warn(f"{name} left out: {reason}")
    return predictions


def _own_rows(stored: Predictions, predictions: Predictions, settings: DataSettings) -> Sequence[int] | None:
    """Where the run's test cases stand among its stored ones, or None for cases that are not they.

    All of them, unless a limit or a table leaves some out.
    """
    place = {name: row for row, name in enumerate(stored.ids.tolist())}
    rows = [place.get(name, -1) for name in predictions.ids.tolist()]
    some = settings.limit is not None or settings.leave_out is not None
    if -1 in rows or (not some and len(rows) != len(stored)):
        return None
    same = np.array_equal(stored.labels[rows], predictions.labels, equal_nan=stored.labels.dtype.kind == "f")
    return rows if same else None
