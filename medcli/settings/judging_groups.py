"""Settings of what is found out from predictions: `evaluate`, `calibrate`, `report` and `runs compare`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from medcli.settings.option import CLINICAL, FOREIGN, REPORT, THIS, Option

__all__ = [
    "CalibrationSettings",
    "ClinicalSettings",
    "CompareSettings",
    "EvaluationSettings",
    "ForeignSettings",
    "ReportSettings",
]


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Which figures are computed from predictions, and the limits they must meet."""

    bootstrap: Annotated[
        int, Option("resamples of patients for the 95 % intervals; 0 for none", REPORT, "N", minimum=0)
    ] = 2000
    bins: Annotated[int, Option("bins of the calibration error", REPORT, minimum=1)] = 15
    binning: Annotated[Literal["width", "mass"], Option("bins of equal width or of equal count", REPORT)] = "width"
    top_k: Annotated[tuple[int, ...], Option("also report top-k accuracy for these k", REPORT, "K,…", minimum=1)] = ()
    min_auc: Annotated[
        float | None, Option("exit with status 4 if the AUC is below this", REPORT, minimum=0, maximum=1)
    ] = None
    max_ece: Annotated[
        float | None, Option("exit with status 4 if the ECE is above this", REPORT, minimum=0, maximum=1)
    ] = None
    ten_crop: Annotated[
        bool,
        Option("average ten views: the corners and the centre of an enlarged picture, each also mirrored", THIS),
    ] = False
    mc_dropout: Annotated[
        int | None,
        Option("ask T times, each time with other units dropped, and average", THIS, "T", minimum=2, maximum=1000),
    ] = None
    tta: Annotated[
        bool,
        Option(
            "average several looks at each picture, of those that its kind bears (that of the run, or `--modality`)",
            THIS,
        ),
    ] = False
    raw: Annotated[
        bool, Option("the network's own scores, although the run has a calibrator", THIS, flag_only=True)
    ] = False
    save_predictions: Annotated[
        str | None,
        Option("also write the predictions to this .npz or .csv", REPORT, "FILE", flag_only=True, completes="path"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What a report holds beside the figures."""

    checklist: Annotated[
        Literal["tripod-ai", "claim", "none"],
        Option("reporting checklist whose items are filled in as far as the run knows", THIS),
    ] = "tripod-ai"


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    """What `calibrate` fits on and reports on."""

    apply_to: Annotated[
        str | None,
        Option(
            "predictions to report on, of the same model as those that are fitted on",
            THIS,
            "TEST",
            flag_only=True,
            completes="path",
        ),
    ] = None
    cross_fit: Annotated[
        int,
        Option(
            "parts of the patients, each calibrated by a fit on the others, where there is nothing else to report on",
            THIS,
            "PARTS",
            minimum=2,
        ),
    ] = 5
    conformal: Annotated[
        Literal["lac", "aps", "raps"] | None,
        Option(
            "also find sets of classes that hold the true one as often as asked; half of the patients go to their "
            "thresholds",
            THIS,
        ),
    ] = None
    miscoverage: Annotated[
        float,
        Option(
            "share of conformal sets that may miss the true class",
            THIS,
            "ALPHA",
            minimum=0,
            maximum=0.5,
            exclusive=True,
        ),
    ] = 0.1
    by_class: Annotated[bool, Option("a conformal threshold for every class, so that each is held as often", THIS)] = (
        False
    )
    allow_test: Annotated[
        bool, Option("fit on predictions of a test split all the same, and mark the result", THIS, flag_only=True)
    ] = False


@dataclass(frozen=True, kw_only=True)
class ClinicalSettings:
    """Thresholds, referral and subgroups: what a ward asks of predictions."""

    operating_point: Annotated[
        tuple[str, ...],
        Option(
            "frozen threshold to report, once or several times: `sens=0.95`, `spec=0.9` (chosen on the run's "
            "validation cases, or on `--choose-on`), or `score=0.3`; for grades with the lowest that means yes, "
            "`sens=0.95@2`",
            CLINICAL,
            "RULE",
        ),
    ] = ()
    choose_on: Annotated[
        str | None,
        Option(
            "predictions of the same model that choose thresholds; with the judged file itself, figures are marked as "
            "too good",
            CLINICAL,
            "FILE",
            completes="path",
        ),
    ] = None
    prevalence: Annotated[
        tuple[float, ...],
        Option(
            "give PPV and NPV where this share of those examined has the finding",
            CLINICAL,
            "P,…",
            minimum=0,
            maximum=1,
            exclusive=True,
        ),
    ] = ()
    defer: Annotated[
        tuple[str, ...],
        Option(
            "what goes to a reader, once or several times: `below=0.7` (confidence), `budget=0.2` (share of the "
            "cases), `cost=100:2` (an error, a reading)",
            CLINICAL,
            "RULE",
        ),
    ] = ()
    by: Annotated[
        tuple[str, ...],
        Option("figures per value of this column, once or several times", CLINICAL, "COLUMN"),
    ] = ()
    by_table: Annotated[
        str | None,
        Option(
            "table that holds the `--by` columns, joined by its column `id` (`--id-column` names another)",
            CLINICAL,
            "FILE",
            completes="path",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ForeignSettings:
    """How the columns of another tool's predictions are called."""

    id_column: Annotated[str | None, Option("column with the case identifier", FOREIGN, "COLUMN")] = None
    prob_columns: Annotated[
        str | None,
        Option("pattern of the probability columns, such as `prob_*`; several as `A,B`", FOREIGN, "GLOB"),
    ] = None
    logit_columns: Annotated[
        str | None, Option("pattern of the logit columns, such as `logit_*`; several as `A,B`", FOREIGN, "GLOB")
    ] = None


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """How `runs compare` compares."""

    metric: Annotated[str, Option("figure to compare, as `evaluate --json` names it", THIS, "NAME")] = "auc"
    paired: Annotated[bool, Option("interval of the difference from the same resampled patients of both", THIS)] = False
    on: Annotated[
        Literal["val", "test"] | None,
        Option("split whose predictions are compared or judged (default: test; `evaluate` takes what there is)", THIS),
    ] = None
