"""Predictions: the one file on which evaluation, calibration, ensembles and reports work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medcli.data.target import Target

__all__ = ["SCHEMA", "Predictions"]

SCHEMA = "medcli-predictions/1"


@dataclass(frozen=True)
class Predictions:
    """Identifiers, labels and logits of one split.

    Args:
        ids: str [n].
        labels: see `Target`; NaN (multilabel) or -1 (others) where unknown, so unlabelled images fit too.
        logits: float32 [n, K] (binary, multiclass, ordinal: ordinal and CORN/CORAL store log class probabilities),
            [n, L] (multilabel) or [n, O, Kmax] padded with -inf (multioutput).
        target: what is predicted.
        split: `train`, `val`, `test` or `""`.
        data_name: the data set's name.
        patients: str [n] or None.
        member_logits: float32 [m, n, ...] or None.
        features: float32 [n, D] or None.
    """

    ids: npt.NDArray[np.str_]
    labels: npt.NDArray[np.int64] | npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]
    target: Target
    split: str = ""
    data_name: str = ""
    patients: npt.NDArray[np.str_] | None = None
    member_logits: npt.NDArray[np.float32] | None = None
    features: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.ids)
