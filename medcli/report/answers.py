"""What a run can say to the items of reporting checklists, a function for each kind of question."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from medcli.evaluation.operating import OperatingPoint
from medcli.evaluation.render import interval_text, number_text
from medcli.report.limits import limits_of
from medcli.report.subject import Judged, Subject
from medcli.report.tables import spelled

__all__ = ["ANSWERS", "Answer"]


@dataclass(frozen=True)
class Answer:
    """How an item stands.

    Args:
        mark: filled in from the run, left to the authors, or not applicable.
        text: the answer, or what is to be written.
    """

    mark: Literal["auto", "author", "na"]
    text: str


def _auto(text: str) -> Answer:
    return Answer("auto", text)


def _author(text: str) -> Answer:
    return Answer("author", text)


def _setting(subject: Subject, name: str) -> Any:
    facts = subject.facts
    return None if facts is None or facts.saved is None else facts.saved.values.get(name)


def _needs_run(say: Callable[[Subject], Answer], ask: str) -> Callable[[Subject], Answer]:
    """For what only a run knows: predictions of another tool leave it to the authors."""

    def answer(subject: Subject) -> Answer:
        return _author(ask) if subject.facts is None else say(subject)

    return answer


def _needs_results(say: Callable[[Subject, Judged], Answer]) -> Callable[[Subject], Answer]:
    def answer(subject: Subject) -> Answer:
        if subject.judged is None:
            return _author("there are no predictions yet; report again when the training has finished")
        return say(subject, subject.judged)

    return answer


def _aims(subject: Subject) -> Answer:
    if subject.facts is None:
        return _auto("Evaluation of predictions of an existing model.")
    return _auto("Development of a model, with evaluation on its data's own held-out cases.")


def _source(subject: Subject) -> Answer:
    data = {} if subject.facts is None else subject.facts.data
    if not data:
        return _author("name the origin of the data, and whom they represent")
    return _auto(f"Data set {data.get('name')}, read from {data.get('origin')} (section Data).")


def _preparation(subject: Subject) -> Answer:
    model = None if subject.facts is None else subject.facts.model
    if model is None or not model.preprocessing:
        return _author("describe how images became the model's input")
    how = model.preprocessing
    augment = _setting(subject, "augment")
    text = (
        f"Images were resized to {how.get('image_size')} pixels ({how.get('fit')}, {how.get('interpolation')}) and "
        f"normalised by fixed means and standard deviations"
    )
    return _auto(f"{text}; augmentation while training: {augment or 'none'}.")


def _outcome(subject: Subject) -> Answer:
    if subject.judged is not None:
        target = subject.judged.predictions.target
        names = target.class_names or tuple(output.name for output in target.outputs)
        return _auto(f"Label of the image, {target.task}: {', '.join(names)}. There is no time horizon.")
    return _author("define the outcome")


def _predictors(subject: Subject) -> Answer:
    return _auto("The image alone; nothing was selected beforehand.")


def _splits(subject: Subject) -> str:
    splits = {} if subject.facts is None else subject.facts.data.get("splits") or {}
    return ", ".join(f"{name} {int(part['count']):,}" for name, part in splits.items())


def _size(subject: Subject) -> Answer:
    held = _splits(subject)
    if held:
        return _auto(f"All images of the data set: {held}." if not _setting(subject, "limit") else f"A part: {held}.")
    if subject.judged is not None:
        return _auto(f"{subject.judged.evaluation.n:,} labelled cases were judged.")
    return _author("say how the size came about")


def _missing(subject: Subject) -> Answer:
    parts = []
    if subject.facts is not None:
        skipped = len(subject.facts.data.get("skipped") or [])
        parts.append(f"{skipped} unreadable images were left out" if skipped else "no image was unreadable")
    if subject.judged is not None:
        evaluation = subject.judged.evaluation
        parts.append(f"{evaluation.excluded:,} cases without a label were left out of the evaluation")
        labels = subject.judged.predictions.labels
        if evaluation.target.task == "multilabel":
            absent = int((labels != labels).sum())
            parts.append(f"{absent:,} of {labels.size:,} labels are missing and count nowhere; nothing was imputed")
    return _auto(_sentence("; ".join(parts)))


def _partitions(subject: Subject) -> Answer:
    assert subject.facts is not None
    data = subject.facts.data
    if not data:
        return _author("say how data were divided")
    how = "drawn by medcli" if data.get("made_splits") else "those the data came with"
    seed = f", seed {_setting(subject, 'split_seed')}" if data.get("made_splits") else ""
    return _auto(
        f"Splits are {how}{seed}: {_splits(subject)}. Validation chose the best epoch; test was not looked at."
    )


def _disjoint(subject: Subject) -> Answer:
    assert subject.facts is not None
    splits = subject.facts.data.get("splits") or {}
    known = bool(splits) and all(part.get("patients") is not None for part in splits.values())
    if known and subject.facts.data.get("made_splits"):
        return _auto("Patients: no patient is in two splits.")
    if known:
        return _author("patients are recorded and the splits came with the data: `medcli data check` shows shared ones")
    return _author("no patients are recorded: say whether splits share any")


def _selection(subject: Subject) -> Answer:
    limit = _setting(subject, "limit")
    if subject.facts is None:
        return _author("say which parts were taken")
    if limit:
        return _auto(f"At most {limit} images of each split, drawn by the split's seed.")
    return _auto("Nothing was selected: all images of the data set were used.")


def _model(subject: Subject) -> Answer:
    assert subject.facts is not None
    facts = subject.facts
    size = "" if facts.model is None else f", {facts.model.parameters:,} parameters"
    strategy = _setting(subject, "strategy")
    how = f", strategy {strategy}" if strategy else ""
    return _auto(
        f"{facts.summary.architecture}{size}, made by `medcli {facts.summary.command}`{how}; every setting with its "
        "origin in section Training."
    )


def _clusters(subject: Subject) -> Answer:
    if subject.judged is not None and subject.judged.evaluation.patients is not None:
        return _auto("Patients are the clusters: resamples and exact bounds take them whole.")
    return _author("no clusters are known to the data")


def _measures(subject: Subject, judged: Judged) -> Answer:
    names = ", ".join(spelled(name) for name, figure in judged.evaluation.figures.items() if figure.headline)
    return _auto(
        f"{names}; curves of ROC, precision–recall, reliability and risk–coverage. Each with its convention in section "
        "Results."
    )


def _intervals(subject: Subject, judged: Judged) -> Answer:
    evaluation = judged.evaluation
    if not evaluation.resamples:
        return _author("no intervals were computed (`--bootstrap 0`)")
    unit = "images" if evaluation.patients is None else "patients"
    return _auto(
        f"95 % intervals, percentiles of {evaluation.resamples:,} resamples of {unit} (calibration errors less the "
        "bias of resampling); exact bounds for shares."
    )


def _updating(subject: Subject, judged: Judged) -> Answer:
    fitted = judged.calibration.calibrator
    if fitted is None:
        return Answer("na", "the model was not updated")
    cross = f", cross-fitted in {judged.calibration.parts} parts" if judged.calibration.parts else ""
    return _auto(f"Recalibration: {fitted.describe()}{cross} (section Calibration).")


def _computed(subject: Subject, judged: Judged) -> Answer:
    if subject.facts is None:
        return _author("say how the predictions were computed; the file holds their result")
    return _auto(
        f"`medcli predict {subject.source} IMAGES` computes them from the weights hashed in section Provenance."
    )


def _imbalance(subject: Subject) -> Answer:
    used = [
        f"{name.replace('_', ' ')} {value}"
        for name in ("class_weights", "sampler", "logit_adjust", "loss")
        if (value := _setting(subject, name)) not in (None, "none", 0, 0.0)
    ]
    if not used:
        return _auto("No correction of imbalance was used.")
    calibrated = subject.judged is not None and bool(subject.judged.predictions.calibrated)
    after = "recalibrated on validation cases" if calibrated else "not recalibrated"
    return _auto(f"Used: {', '.join(used)}; scores were {after}.")


def _fairness(subject: Subject) -> Answer:
    if subject.judged is not None and subject.judged.section("subgroups") is not None:
        return _auto("Figures are given by group at one threshold for all; nothing was mitigated (section Subgroups).")
    return _author("name the groups and examine them: `--by COLUMN` adds a section")


def _output(subject: Subject, judged: Judged) -> Answer:
    scores = judged.predictions.calibrated or "not calibrated, so scores and no probabilities"
    points = judged.section("operating_points") or judged.customary
    held: tuple[OperatingPoint, ...] = getattr(points, "points", ())
    how = ""
    if held:
        rules, on = ", ".join(dict.fromkeys(str(point.rule) for point in held)), getattr(points, "chosen_on", "")
        how = f" Thresholds: {rules}" + (f", chosen on {on}." if on else ".")
    labels = judged.predictions.target.task == "multilabel"
    what = "A score for each label" if labels else "A score for each class"
    return _auto(f"{what} ({scores}); {'yes above 0.5' if labels else 'the highest wins'}.{how}")


def _differences(subject: Subject) -> Answer:
    if subject.facts is None:
        return _author("compare with the data the model was developed on")
    return _auto("Development and test cases come from one data set; counts by class and split in section Data.")


def _code(subject: Subject) -> Answer:
    return _auto("Made with medcli, which is free software; versions in section Provenance.")


def _flow(subject: Subject) -> Answer:
    held = _splits(subject)
    parts = [f"images by split: {held}"] if held else []
    if subject.judged is not None:
        one = subject.judged.evaluation
        parts.append(f"judged: {one.n:,}, without a label: {one.excluded:,}")
    return _auto(_sentence("; ".join(parts))) if parts else _author("give the numbers")


def _characteristics(subject: Subject) -> Answer:
    if subject.judged is not None and subject.judged.section("subgroups") is not None:
        return _auto("Cases and findings by group in section Subgroups, classes by split in section Data.")
    return _author("describe the people; only classes and counts are known here (section Data)")


def _compared(subject: Subject) -> Answer:
    if subject.facts is None or not subject.facts.data.get("splits"):
        return _author("compare with the data the model was developed on")
    return _auto("Shares of the classes by split in section Data.")


def _events(subject: Subject) -> Answer:
    if subject.judged is None and subject.facts is None:
        return _author("give the numbers")
    return _auto("Cases by class and split in section Data, by class of the judged cases in section Results.")


def _specification(subject: Subject) -> Answer:
    assert subject.facts is not None
    return _auto("Weights, preprocessing and settings are files of the run, hashed in section Provenance.")


def _performance(subject: Subject, judged: Judged) -> Answer:
    groups = "" if judged.section("subgroups") is not None else " Groups were not examined (`--by COLUMN`)."
    shown = [one for one in judged.evaluation.figures.values() if one.headline][:2]
    known = [one for one in shown if math.isfinite(one.low)]
    text = ", ".join(f"{spelled(one.name)} {number_text(one.value)} {interval_text(one)}" for one in known)
    return _auto(f"{text + '; all' if text else 'All'} figures and plots in section Results.{groups}")


def _diagnostic(subject: Subject, judged: Judged) -> Answer:
    if judged.section("operating_points") is None and judged.customary is None:
        return _auto("By class with intervals in section Results; no operating point was chosen.")
    return _auto("Sensitivity, specificity, PPV and NPV at frozen thresholds in section Operating points.")


def _heterogeneity(subject: Subject) -> Answer:
    return _author("examine centres and devices: `--by COLUMN` does, where a column names them")


def _updated(subject: Subject, judged: Judged) -> Answer:
    if judged.calibration.calibrator is None:
        return Answer("na", "the model was not updated")
    return _auto("Before and after, with the change and its interval, in section Calibration.")


def _limits(subject: Subject) -> Answer:
    return _auto(f"{len(limits_of(subject))} that follow from the run are listed in section Limits.")


def _input(subject: Subject) -> Answer:
    return _auto("`medcli predict` names files it cannot read and answers for the others.")


def _software(subject: Subject) -> Answer:
    assert subject.facts is not None
    return _auto(f"medcli {subject.facts.environment.get('medcli', '')} and libraries in section Provenance.")


def _initialisation(subject: Subject) -> Answer:
    assert subject.facts is not None
    if subject.facts.ensemble is not None:
        return _auto("In the run of each member.")
    return _auto(_sentence(f"weights: {subject.facts.environment.get('weights') or 'random'}"))


def _training(subject: Subject) -> Answer:
    assert subject.facts is not None
    augment, seed = _setting(subject, "augment"), subject.facts.environment.get("seed")
    where = "Settings with their origins, history, time and hardware in section Training"
    return _auto(f"{where}; augmentation {augment}, seed {seed}.")


def _chosen(subject: Subject) -> Answer:
    assert subject.facts is not None
    one = subject.facts.summary
    if not one.best_epoch:
        return _author("say how the model was chosen")
    return _auto(f"The epoch with the best {one.monitor} on validation: epoch {one.best_epoch} of {one.epoch}.")


def _ensembling(subject: Subject) -> Answer:
    members = None if subject.judged is None else subject.judged.predictions.member_logits
    if members is None:
        return Answer("na", "one model, no ensemble")
    return _auto(f"{len(members)} answers per case, pooled by the mean of their probabilities (section Uncertainty).")


def _explained(subject: Subject) -> Answer:
    if subject.explained.cases:
        methods = ", ".join(dict.fromkeys(case.method for case in subject.explained.cases if case.method))
        return _auto(f"{len(subject.explained.cases)} pictures by {methods} in section Examples and errors.")
    return _author("nothing was explained; `medcli explain RUN --save 12` puts pictures into the run")


def _internal(subject: Subject, judged: Judged) -> Answer:
    if subject.facts is None:
        return _author("say whether the model has learnt from cases like these")
    return _auto(f"On the {judged.evaluation.split or 'stored'} cases of its own data set.")


def _external(subject: Subject) -> Answer:
    if subject.facts is None:
        return _author("say whether these cases are external to the model")
    return _author(f"not done here: `medcli evaluate {subject.source} --data NAME=PATH` judges other data")


def _failures(subject: Subject, judged: Judged) -> Answer:
    return _auto("Confusion and classes in section Results, the surest wrong answers in section Examples and errors.")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


ANSWERS: Mapping[str, Callable[[Subject], Answer]] = {
    "aims": _aims,
    "source": _source,
    "preparation": _preparation,
    "outcome": _outcome,
    "predictors": _predictors,
    "size": _size,
    "missing": _missing,
    "partitions": _needs_run(_partitions, "say how data were divided for development and evaluation"),
    "disjoint": _needs_run(_disjoint, "say whether patients are disjoint"),
    "selection": _selection,
    "model": _needs_run(_model, "describe the model and every step of building it"),
    "clusters": _clusters,
    "measures": _needs_results(_measures),
    "intervals": _needs_results(_intervals),
    "updating": _needs_results(_updating),
    "computed": _needs_results(_computed),
    "imbalance": _needs_run(_imbalance, "say whether imbalance was corrected"),
    "fairness": _fairness,
    "output": _needs_results(_output),
    "differences": _differences,
    "code": _code,
    "flow": _flow,
    "characteristics": _characteristics,
    "compared": _compared,
    "events": _events,
    "specification": _needs_run(_specification, "say how others can predict with the model"),
    "performance": _needs_results(_performance),
    "diagnostic": _needs_results(_diagnostic),
    "heterogeneity": _heterogeneity,
    "updated": _needs_results(_updated),
    "limits": _limits,
    "input": _input,
    "software": _needs_run(_software, "name software and versions"),
    "initialisation": _needs_run(_initialisation, "say how parameters were initialised"),
    "training": _needs_run(_training, "describe the training"),
    "chosen": _needs_run(_chosen, "say how the model was chosen"),
    "ensembling": _ensembling,
    "explained": _explained,
    "internal": _needs_results(_internal),
    "external": _external,
    "failures": _needs_results(_failures),
}
"""Who answers which rule of the checklists."""
