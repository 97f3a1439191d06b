"""What every figure means, in one place: evaluation, tables and JSON all quote these sentences."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from medcli.data.target import Task

__all__ = ["HEADLINES", "PER_CLASS", "convention"]

HEADLINES: Mapping[Task, tuple[str, ...]] = MappingProxyType(
    {
        "binary": (
            "auc",
            "auprc",
            "accuracy",
            "balanced_accuracy",
            "sensitivity",
            "specificity",
            "f1_macro",
            "ece",
            "ece_positive",
            "brier",
            "nll",
            "augrc",
        ),
        "multiclass": ("auc", "auprc", "accuracy", "balanced_accuracy", "f1_macro", "ece", "brier", "nll", "augrc"),
        "ordinal": (
            "qwk",
            "mae",
            "off_by_2",
            "auc",
            "accuracy",
            "balanced_accuracy",
            "f1_macro",
            "ece",
            "brier",
            "nll",
            "augrc",
        ),
        # Accuracy of rare findings is the rate of negatives; it stands below, beside that rate.
        "multilabel": ("auc", "auprc", "f1_macro", "balanced_accuracy", "ece", "brier", "nll"),
        "multioutput": ("auc", "qwk", "accuracy", "balanced_accuracy", "f1_macro", "ece", "nll"),
    }
)
"""The figures shown first, by task."""

PER_CLASS: tuple[str, ...] = (
    "auc",
    "auprc",
    "accuracy",
    "all_negative",
    "precision",
    "recall",
    "specificity",
    "f1",
    "ece",
    "brier",
    "nll",
)
"""Columns of the table per class or label, where the task has them."""

_MEAN = {
    "multiclass": "unweighted mean over classes, one against the rest",
    "ordinal": "unweighted mean over grades, one against the rest",
    "multilabel": "unweighted mean over labels, observed entries only",
    "multioutput": "unweighted mean over outputs",
}

_SENTENCES = {
    "accuracy": "highest score wins, the lower class among equals",
    "balanced_accuracy": "mean recall over the classes that occur",
    "precision_macro": "mean over the classes that occur; 0 for a class never predicted",
    "recall_macro": "mean over the classes that occur",
    "f1_macro": "mean over the classes that occur",
    "precision_weighted": "mean weighted by how often each class occurs",
    "recall_weighted": "mean weighted by how often each class occurs; equals accuracy",
    "f1_weighted": "mean weighted by how often each class occurs",
    "kappa": "Cohen's kappa, unweighted, over all {classes} classes",
    "qwk": "Cohen's kappa, weights (i-j)²/(K-1)², over all {classes} grades; highest score wins",
    "qwk_expected": "as qwk, but the grade is the rounded expectation of the scores",
    "mae": "mean distance in grades; highest score wins",
    "mae_expected": "mean distance in grades from the unrounded expectation of the scores",
    "off_by_2": "share of cases two or more grades off; highest score wins",
    "ece": "confidence of the predicted class, {bins}",
    "ece_positive": "score of `{positive}`, {bins}",
    "ece_classwise": "mean over classes of each class's own calibration error, {bins}",
    "ece_average": "as ece, but the bins count equally",
    "ece_debiased": "root of the squared gaps less their chance part, bins of equal count",
    "ece_smooth": "without bins: Gaussian smoothing as wide as the result, as relplot has it",
    "ece_by_chance": "95 % of perfectly calibrated samples of this size stay below, {bins}",
    "mce": "largest gap among bins of at least 10 cases, {bins}",
    "mce_unfiltered": "largest gap among all bins that hold a case, {bins}",
    "brier": "squared distance summed over the classes (0 to 2)",
    "brier_half": "half of brier (0 to 1); for two classes scikit-learn's",
    "nll": "negative log of the true class's score, natural logarithm, clipped at 1e-15",
    "intercept": "logit of the positive's score as offset; 0 is perfect, below 0 means scores too high",
    "slope": "coefficient of the logit of the positive's score; 1 is perfect, below 1 means scores too extreme",
    "observed_expected": "positives over the sum of their scores; 1 is perfect",
    "augrc": "risk if unsure cases are left out: area under errors kept / all cases against coverage (0 is best, 0.5 "
    "worst)",
    "aurc": "mean share of errors over the n prefixes of the ranking, averaged over the orders of equal confidences",
    "auroc_error": "area under the ROC curve of 1 - confidence for finding errors",
    "aupr_error": "average precision of 1 - confidence for finding errors; by chance 1 - accuracy",
    "sensitivity": "share of `{positive}` found; highest score wins",
    "specificity": "share of the others left alone; highest score wins",
    "precision_positive": "share of those called `{positive}` that are; highest score wins",
    "f1_positive": "of `{positive}`; highest score wins",
}

_MULTILABEL = {
    "accuracy": "mean over labels of the share of correct entries, score strictly above 0.5; compare with all_negative",
    "all_negative": "accuracy of never predicting any label",
    "balanced_accuracy": "mean over labels of (recall + specificity) / 2, score strictly above 0.5",
    "precision_macro": "mean over labels that occur, score strictly above 0.5; 0 for a label never predicted",
    "recall_macro": "mean over labels that occur, score strictly above 0.5",
    "f1_macro": "mean over labels that occur, score strictly above 0.5",
    "precision_weighted": "mean weighted by positives",
    "recall_weighted": "mean weighted by positives",
    "f1_weighted": "mean weighted by positives",
    "ece": "mean over labels of each label's own calibration error (score of the positive), {bins}",
    "ece_average": "mean over labels, bins count equally",
    "mce": "mean over labels of the largest gap among bins of at least 10 entries, {bins}",
    "mce_unfiltered": "mean over labels of the largest gap among all bins, {bins}",
    "ece_debiased": "mean over labels of the root of the squared gaps less their chance part, bins of equal count",
    "ece_smooth": "mean over labels, without bins: Gaussian smoothing as wide as the result, as relplot has it",
    "ece_by_chance": "95 % of perfectly calibrated samples of this size stay below, {bins}",
    "intercept": "logit of the score as offset; 0 is perfect, below 0 means scores too high",
    "slope": "coefficient of the score's logit; 1 is perfect, below 1 means scores too extreme",
    "observed_expected": "positives over the sum of the scores; 1 is perfect",
    "brier": "mean over labels of (score - label)², which is scikit-learn's binary form",
    "nll": "mean over labels of the binary negative log-likelihood, clipped at 1e-15",
    "augrc": "mean over labels of the area under errors kept / all entries against coverage, yes above 0.5",
    "aurc": "mean over labels of the mean share of errors over the n prefixes of the ranking, orders of equal "
    "confidences averaged",
    "auroc_error": "mean over labels with errors of the area under the ROC curve of 1 - confidence for finding errors",
    "aupr_error": "mean over labels with errors of the average precision of 1 - confidence for finding errors",
}


def convention(name: str, task: Task, *, bins: int, binning: str, classes: int = 0, positive: str = "") -> str:
    """One phrase that fixes what a figure is, empty for names that need none."""
    if name.startswith("top_"):
        return f"label among the {name.removeprefix('top_').removesuffix('_accuracy')} highest scores"
    if name.removesuffix("_present") in {"auc", "auprc"}:
        kind = "area under the ROC curve" if name.startswith("auc") else "average precision, no interpolation"
        over = f"of `{positive}`" if task == "binary" else _MEAN[task]
        if name.endswith("_present"):
            over += ", without those that cannot be judged"
        return f"{kind}, {over}"
    if task == "multioutput":
        return _MEAN[task]
    known = _MULTILABEL if task == "multilabel" else _SENTENCES
    edges = "equal width, (lo, hi], last closed" if binning == "width" else "equal count, equal values together"
    return known.get(name, "").format(bins=f"{bins} bins of {edges}", classes=classes, positive=positive)
