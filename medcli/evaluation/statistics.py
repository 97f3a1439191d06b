"""Every figure as a function of patient weights: all ones give the estimate, drawn weights give its interval.

One code path for both means that an interval can never belong to a slightly different figure than the estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.target import Task
from medcli.evaluation.calibration import assign_bins, brier_terms, nll_terms
from medcli.evaluation.discrimination import top_k_accuracy
from medcli.evaluation.resampling import Binned, RankPlan, Sums
from medcli.evaluation.scores import Column
from medcli.evaluation.selective import identity_augrc
from medcli.settings.groups import EvaluationSettings

__all__ = ["Figures", "LabelStatistics", "SingleStatistics"]

Floats = npt.NDArray[np.float64]

Rows = npt.NDArray[Any] | Binned

_SMALLEST_BIN = 10


@dataclass(frozen=True)
class Figures:
    """Figures for r weightings of the patients.

    Args:
        overall: name -> [r].
        classes: name -> [K, r], one row per class or label.
    """

    overall: Mapping[str, Floats]
    classes: Mapping[str, Floats]


class SingleStatistics:
    """Figures of a question with one answer per case (binary, multiclass or ordinal), all labels known.

    Args:
        column: labels [n] in 0..K-1 and scores [n, K].
        clusters: int64 [n], the patient of each case.
        count: number of patients, of whom some may have no case here.
        settings: bins, binning and top-k.
    """

    def __init__(
        self, column: Column, clusters: npt.NDArray[np.int64], count: int, settings: EvaluationSettings
    ) -> None:
        labels, scores = column.labels.astype(np.int64), column.scores
        self._task: Task = column.target.task
        self._positive = column.target.positive
        self._classes = classes = scores.shape[1]
        self._top = tuple(k for k in settings.top_k if k < classes)
        predicted = scores.argmax(axis=1)
        truth = labels == np.arange(classes)[:, None]
        called = predicted == np.arange(classes)[:, None]
        self._occurs = truth.any(axis=1)
        own = np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
        surprise, self.clipped = nll_terms(own)
        rows: dict[str, Rows] = {
            "n": np.ones(len(labels)),
            "support": truth,
            "called": called,
            "hits": truth & called,
            "brier": brier_terms(scores, labels),
            "nll": surprise,
            "brier_class": (scores.T - truth) ** 2,
        }
        self._bins = settings.bins
        rows |= _bin_rows("top", scores.max(axis=1), predicted == labels, settings)
        for index in range(classes):
            rows |= _bin_rows(f"class {index}", scores[:, index], truth[index], settings)
        for k in self._top:
            rows[f"top_{k}_accuracy"] = top_k_accuracy(scores, labels, k)
        if self._task == "ordinal":
            expected = scores @ np.arange(classes)
            rounded = np.clip(np.floor(expected + 0.5).astype(np.int64), 0, classes - 1)
            distance = np.abs(predicted - labels)
            rows |= {
                "mae": distance,
                "off_by_2": distance >= 2,
                "squared": distance.astype(np.float64) ** 2,
                "mae_expected": np.abs(expected - labels),
                "squared_expected": (rounded - labels).astype(np.float64) ** 2,
                "called_expected": rounded == np.arange(classes)[:, None],
            }
        self._sums = Sums(rows, clusters, count)
        self._ranks = [RankPlan(scores[:, index], truth[index], clusters, count) for index in range(classes)]
        self._doubt = RankPlan(-scores.max(axis=1), predicted != labels, clusters, count)

    def __call__(self, weights: Floats) -> Figures:
        """The figures for weights [patients, r]."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._figures(weights)

    def _figures(self, weights: Floats) -> Figures:
        sums = self._sums(weights)
        n, support, called, hits = sums["n"], sums["support"], sums["called"], sums["hits"]
        ranks = [plan(weights) for plan in self._ranks]
        aucs, auprcs = np.stack([area for area, _ in ranks]), np.stack([average for _, average in ranks])
        if self._task == "binary":
            auc, auprc = aucs[self._positive], auprcs[self._positive]
        else:
            auc, auprc = aucs.mean(axis=0), auprcs.mean(axis=0)
        recall = hits / support
        precision = np.where(support > 0, np.divide(hits, called, out=np.zeros_like(hits), where=called > 0), np.nan)
        f1 = np.where(support > 0, 2 * hits / (support + called), np.nan)
        specificity = (n - support - called + hits) / (n - support)
        occurs = self._occurs
        top = _Bins(sums, "top")
        per_class = [_Bins(sums, f"class {index}") for index in range(self._classes)]
        class_ece = np.stack([bins.ece for bins in per_class])
        overall: dict[str, Floats] = {"auc": auc, "auprc": auprc}
        if self._task != "binary" and not occurs.all():
            judged = occurs & (occurs.sum() > 1)
            overall |= {"auc_present": _mean(aucs, judged), "auprc_present": _mean(auprcs, judged)}
        overall |= {
            "accuracy": hits.sum(axis=0) / n,
            **{f"top_{k}_accuracy": sums[f"top_{k}_accuracy"] / n for k in self._top},
            "balanced_accuracy": _mean(recall, occurs),
            "precision_macro": _mean(precision, occurs),
            "recall_macro": _mean(recall, occurs),
            "f1_macro": _mean(f1, occurs),
            **_weighted(precision, recall, f1, support, occurs),
            "kappa": _chance_corrected(n - hits.sum(axis=0), support, called, n, quadratic=False),
        }
        if self._task == "binary":
            positive = self._positive
            overall |= {
                "sensitivity": recall[positive],
                "specificity": specificity[positive],
                "precision_positive": precision[positive],
                "f1_positive": f1[positive],
                "ece_positive": class_ece[positive],
            }
        if self._task == "ordinal":
            overall |= {
                "qwk": _chance_corrected(sums["squared"], support, called, n, quadratic=True),
                "qwk_expected": _chance_corrected(
                    sums["squared_expected"], support, sums["called_expected"], n, quadratic=True
                ),
                "mae": sums["mae"] / n,
                "mae_expected": sums["mae_expected"] / n,
                "off_by_2": sums["off_by_2"] / n,
            }
        overall |= {
            "ece": top.ece,
            "ece_average": top.average,
            "ece_classwise": class_ece.mean(axis=0),
            "mce": top.largest(_SMALLEST_BIN),
            "mce_unfiltered": top.largest(0),
            "brier": sums["brier"] / n,
            "brier_half": sums["brier"] / n / 2,
            "nll": sums["nll"] / n,
            **_error_figures(self._doubt.with_prefix_risk(weights), 1.0 - hits.sum(axis=0) / n),
        }
        classes = {
            "auc": aucs,
            "auprc": auprcs,
            "precision": precision,
            "recall": recall,
            "specificity": specificity,
            "f1": f1,
            "ece": class_ece,
            "brier": sums["brier_class"] / n,
        }
        return Figures(overall, classes)


class LabelStatistics:
    """Figures of a multilabel target: one yes-or-no question per label, each on its observed entries.

    Args:
        labels: [n, L] with 0, 1 or NaN (missing).
        scores: float64 [n, L].
        clusters: int64 [n], the patient of each case.
        count: number of patients.
        settings: bins and binning.
    """

    def __init__(
        self,
        labels: npt.NDArray[Any],
        scores: Floats,
        clusters: npt.NDArray[np.int64],
        count: int,
        settings: EvaluationSettings,
    ) -> None:
        self._sums: list[Sums] = []
        self._ranks: list[RankPlan] = []
        self._doubts: list[RankPlan] = []
        erring: list[bool] = []
        truths = labels > 0.5
        self._seen: npt.NDArray[np.bool_] = np.logical_not(np.isnan(labels).all(axis=0))
        self._occurs: npt.NDArray[np.bool_] = np.any(truths, axis=0)
        self._judged: npt.NDArray[np.bool_] = np.logical_and(self._occurs, (labels < 0.5).any(axis=0))
        self.clipped = 0
        for index in range(labels.shape[1]):
            seen = ~np.isnan(labels[:, index])
            truth, values, owners = truths[seen, index], scores[seen, index], clusters[seen]
            called = values > 0.5
            surprise, clipped = nll_terms(np.where(truth, values, 1.0 - values))
            self.clipped += clipped
            rows: dict[str, Rows] = {
                "n": np.ones(len(truth)),
                "support": truth,
                "called": called,
                "hits": truth & called,
                "brier": (values - truth) ** 2,
                "nll": surprise,
            }
            rows |= _bin_rows("bins", values, truth, settings)
            self._sums.append(Sums(rows, owners, count))
            self._ranks.append(RankPlan(values, truth, owners, count))
            self._doubts.append(RankPlan(-np.maximum(values, 1.0 - values), called != truth, owners, count))
            erring.append(bool((called != truth).any() and (called == truth).any()))
        self._erring: npt.NDArray[np.bool_] = np.array(erring, dtype=bool)

    def __call__(self, weights: Floats) -> Figures:
        """The figures for weights [patients, r]."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._figures(weights)

    def _figures(self, weights: Floats) -> Figures:
        sums = [one(weights) for one in self._sums]
        n, support, called, hits, brier, nll = (
            np.stack([one[name] for one in sums]) for name in ("n", "support", "called", "hits", "brier", "nll")
        )
        areas = [plan(weights) for plan in self._ranks]
        aucs, auprcs = np.stack([area for area, _ in areas]), np.stack([average for _, average in areas])
        recall = hits / support
        precision = np.where(support > 0, np.divide(hits, called, out=np.zeros_like(hits), where=called > 0), np.nan)
        f1 = np.where(support > 0, 2 * hits / (support + called), np.nan)
        rejected = n - support - called + hits
        specificity = rejected / (n - support)
        bins = [_Bins(one, "bins") for one in sums]
        classes = {
            "auc": aucs,
            "auprc": auprcs,
            "accuracy": (hits + rejected) / n,
            "all_negative": (n - support) / n,
            "precision": precision,
            "recall": recall,
            "specificity": specificity,
            "f1": f1,
            "ece": np.stack([one.ece for one in bins]),
            "brier": brier / n,
            "nll": nll / n,
        }
        seen, occurs, judged = self._seen, self._occurs, self._judged
        overall: dict[str, Floats] = {"auc": aucs.mean(axis=0), "auprc": auprcs.mean(axis=0)}
        if not judged.all():
            overall |= {"auc_present": _mean(aucs, judged), "auprc_present": _mean(auprcs, judged)}
        overall |= {
            "accuracy": _mean(classes["accuracy"], seen),
            "all_negative": _mean(classes["all_negative"], seen),
            "balanced_accuracy": _mean((recall + specificity) / 2, judged),
            "precision_macro": _mean(precision, occurs),
            "recall_macro": _mean(recall, occurs),
            "f1_macro": _mean(f1, occurs),
            **_weighted(precision, recall, f1, support, occurs),
            "ece": _mean(classes["ece"], seen),
            "ece_average": _mean(np.stack([one.average for one in bins]), seen),
            "mce": _mean(np.stack([one.largest(_SMALLEST_BIN) for one in bins]), seen),
            "mce_unfiltered": _mean(np.stack([one.largest(0) for one in bins]), seen),
            "brier": _mean(classes["brier"], seen),
            "nll": _mean(classes["nll"], seen),
        }
        doubts = [
            _error_figures(doubt.with_prefix_risk(weights), 1.0 - right)
            for doubt, right in zip(self._doubts, classes["accuracy"], strict=True)
        ]
        for name in doubts[0]:
            # A label without errors has none to find; its augrc and aurc are 0 and count.
            rows = seen if name in {"augrc", "aurc"} else self._erring
            overall[name] = _mean(np.stack([one[name] for one in doubts]), rows)
        return Figures(overall, classes)


def _error_figures(areas: tuple[Floats, Floats, Floats], wrong: Floats) -> dict[str, Floats]:
    auroc, aupr, aurc = areas
    return {"augrc": identity_augrc(auroc, wrong), "aurc": aurc, "auroc_error": auroc, "aupr_error": aupr}


def _bin_rows(
    name: str, confidence: Floats, event: npt.NDArray[np.bool_], settings: EvaluationSettings
) -> dict[str, Rows]:
    index = assign_bins(confidence, settings.bins, settings.binning)
    return {
        f"{name} count": Binned(settings.bins, index, np.ones(len(index))),
        f"{name} excess": Binned(settings.bins, index, confidence - event),
    }


class _Bins:
    """Calibration errors from binned sums [B, r]; the bins are those of the whole sample in every resample."""

    def __init__(self, sums: Mapping[str, Floats], name: str) -> None:
        self._count = sums[f"{name} count"]
        self._distance = np.abs(sums[f"{name} excess"])
        self._gaps = np.divide(self._distance, self._count, out=np.zeros_like(self._distance), where=self._count > 0)

    @property
    def ece(self) -> Floats:
        result: Floats = self._distance.sum(axis=0) / self._count.sum(axis=0)
        return result

    @property
    def average(self) -> Floats:
        result: Floats = self._gaps.sum(axis=0) / (self._count > 0).sum(axis=0)
        return result

    def largest(self, minimum: int) -> Floats:
        kept = (self._count >= minimum) & (self._count > 0)
        gaps = np.where(kept, self._gaps, -1.0).max(axis=0)
        result: Floats = np.where(gaps >= 0, gaps, np.nan)
        return result


def _weighted(
    precision: Floats, recall: Floats, f1: Floats, support: Floats, occurs: npt.NDArray[np.bool_]
) -> dict[str, Floats]:
    shares = support[occurs] / support[occurs].sum(axis=0)
    named = {"precision_weighted": precision, "recall_weighted": recall, "f1_weighted": f1}
    # A class that a resample lacks has no weight in it, so its undefined figure does not count.
    return {name: np.where(shares > 0, shares * values[occurs], 0.0).sum(axis=0) for name, values in named.items()}


def _mean(values: Floats, rows: npt.NDArray[np.bool_]) -> Floats:
    if not rows.any():
        return np.full(values.shape[1], np.nan)
    result: Floats = values[rows].mean(axis=0)
    return result


def _chance_corrected(observed: Floats, support: Floats, called: Floats, n: Floats, *, quadratic: bool) -> Floats:
    grades = np.arange(len(support))
    distance = (grades[:, None] - grades) ** 2.0 if quadratic else (grades[:, None] != grades).astype(np.float64)
    chance = np.einsum("ir,ij,jr->r", support, distance, called, optimize=True) / n
    result: Floats = np.where(chance > 0, 1.0 - observed / chance, np.nan)
    return result
