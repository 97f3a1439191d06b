"""2,000 resamples of patients on 22,433 cases of 14 labels, beside a loop over scikit-learn that does the same.

The loop draws the same kind of resample and computes the same headline figures, one resample after another; it is timed
on a few and multiplied, because all of them take most of an hour. Bars: 20 seconds, and a thirtieth of the loop.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from sklearn import metrics

from medcli.data.target import Target
from medcli.evaluation.clinical import Request, clinical_sections
from medcli.evaluation.operating import Rule
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.report import evaluate
from medcli.evaluation.scores import probabilities
from medcli.settings.groups import EvaluationSettings

SECONDS, TIMES = 20.0, 30.0
CASES, PATIENTS, LABELS = 22_433, 6_187, 14


def made() -> Predictions:
    """Labels of 0.2 % to 18 % of the cases, several images of a patient, scores of four significant digits."""
    random = np.random.default_rng(0)
    owners = np.sort(np.concatenate([np.arange(PATIENTS), random.integers(0, PATIENTS, CASES - PATIENTS)]))
    rates = np.geomspace(0.002, 0.18, LABELS)
    lean = random.normal(size=(PATIENTS, LABELS))[owners]
    truth = lean + random.normal(size=(CASES, LABELS)) > np.quantile(
        random.normal(scale=np.sqrt(2), size=100_000), 1 - rates
    )
    logits = np.round(1.5 * truth + random.normal(size=(CASES, LABELS)) + np.log(rates / (1 - rates)), 4)
    target = Target("multilabel", tuple(f"label {index}" for index in range(LABELS)))
    ids = np.array([f"{index}" for index in range(CASES)])
    return Predictions(ids, truth.astype(np.float32), logits, target, patients=owners.astype(np.str_))


def by_hand(truth: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """The headline figures of one resample with scikit-learn, and the binned error with numpy."""
    found: dict[str, list[float]] = {}
    for index in range(scores.shape[1]):
        y, p = truth[:, index], scores[:, index]
        called = p > 0.5
        bins = np.clip(np.ceil(p * 15).astype(int) - 1, 0, 14)
        gaps = np.abs(np.bincount(bins, p - y, 15)).sum() / len(y)
        wrong = called != y
        values = {
            "auc": metrics.roc_auc_score(y, p),
            "auprc": metrics.average_precision_score(y, p),
            "f1_macro": metrics.f1_score(y, called, zero_division=0.0),
            "balanced_accuracy": metrics.balanced_accuracy_score(y, called),
            "accuracy": metrics.accuracy_score(y, called),
            "ece": gaps,
            "brier": metrics.brier_score_loss(y, p),
            "nll": metrics.log_loss(y, p, labels=[False, True]),
            "auroc_error": metrics.roc_auc_score(wrong, -np.maximum(p, 1 - p)),
        }
        for name, value in values.items():
            found.setdefault(name, []).append(float(value))
    return {name: float(np.mean(values)) for name, values in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--loop", type=int, default=5, help="resamples of the scikit-learn loop that are timed")
    options = parser.parse_args()
    predictions = made()
    start = time.perf_counter()
    found = evaluate(predictions, EvaluationSettings(bootstrap=options.resamples))
    ours = time.perf_counter() - start
    truth, scores = predictions.labels > 0.5, probabilities(predictions)
    direct = by_hand(truth, scores)
    off = max(abs(direct[name] - found.value(name)) for name in direct)
    _, owners = np.unique(np.asarray(predictions.patients), return_inverse=True)
    rows = [np.flatnonzero(owners == index) for index in range(PATIENTS)]
    random = np.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(options.loop):
        chosen = np.concatenate([rows[index] for index in random.integers(0, PATIENTS, PATIENTS)])
        by_hand(truth[chosen], scores[chosen])
    loop = (time.perf_counter() - start) / options.loop * options.resamples
    start = time.perf_counter()
    clinical_sections(predictions, Request((Rule("score", 0.1),)))
    sections = time.perf_counter() - start
    print(f"{CASES} x {LABELS}, {PATIENTS} patients, {options.resamples} resamples of {len(found.figures)} figures")
    print(f"  medcli             {ours:8.1f} s   (bar {SECONDS:g} s at 2000 resamples)")
    print(f"  scikit-learn loop  {loop:8.1f} s   (extrapolated from {options.loop} resamples of {len(direct)} figures)")
    print(f"  ratio              {loop / ours:8.1f} x   (bar {TIMES:g} x)")
    print(f"  largest difference of an estimate {off:.1e}")
    print(f"  referral table and operating points, exact intervals: {sections:.1f} s")
    fine = ours * 2000 / options.resamples <= SECONDS and loop / ours >= TIMES and off < 1e-9
    print("ok" if fine else "FAILED")
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
