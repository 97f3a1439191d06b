"""What the commands take that use networks or predictions that exist: to judge, ask, explain, time or export them."""

from __future__ import annotations

from medcli.settings.command_rows.command import (
    FIXED_BY_RUN,
    IMAGE_STORE,
    OF_CLASSES,
    OF_LABELS,
    OF_WEIGHTS,
    SOURCES,
    WRITING,
    CommandSettings,
    Part,
    answering,
)
from medcli.settings.groups import (
    BenchmarkSettings,
    CalibrationSettings,
    ClinicalSettings,
    CompareSettings,
    ComputeSettings,
    DataSettings,
    EvaluationSettings,
    ExplainSettings,
    ExportSettings,
    FeatureSettings,
    ForeignSettings,
    FormatSettings,
    LoraSettings,
    MethodSettings,
    ModelSettings,
    ModelShowSettings,
    OutputSettings,
    ReportSettings,
    RuntimeSettings,
    StrategySettings,
    TrainingSettings,
)

__all__ = ["TRAINED"]

_CALIBRATED = ("temperature", "vector", "platt", "beta", "isotonic")
_EXPLAINED = (
    "gradcam",
    "gradcam++",
    "layercam",
    "hirescam",
    "attention",
    "rollout",
    "gradient-rollout",
    "occlusion",
    "integrated-gradients",
)
_REPORTED = ("html", "md")
_BENCHED = ("scratch", "frozen", "layerwise", "gradual", "full", "lp-ft", "knn", "lora")

TRAINED: tuple[CommandSettings, ...] = (
    CommandSettings(
        "evaluate",
        (
            # Nothing is drawn for a model that exists: a set without splits is judged whole.
            Part(DataSettings, without=(*IMAGE_STORE, "split")),
            Part(ModelSettings, only=OF_WEIGHTS),
            Part(TrainingSettings, only=("modality",)),
            Part(ComputeSettings),
            Part(RuntimeSettings),
            Part(EvaluationSettings),
            Part(CompareSettings, only=("on",)),
            Part(ClinicalSettings),
            Part(ForeignSettings),
            Part(OutputSettings, without=("preset",)),
        ),
        layered=True,
    ),
    CommandSettings(
        "calibrate",
        (
            Part(MethodSettings, words={"method": _CALIBRATED}),
            Part(CalibrationSettings),
            Part(EvaluationSettings, only=("bootstrap", "bins", "binning", "max_ece", "save_predictions")),
            Part(ForeignSettings),
            Part(DataSettings, only=OF_LABELS),
            Part(ComputeSettings, only=("seed",)),
            answering(*SOURCES, "out", "overwrite", "verbose"),
        ),
        layered=True,
    ),
    CommandSettings(
        "report",
        (
            Part(FormatSettings, words={"format": _REPORTED}),
            Part(ReportSettings),
            Part(MethodSettings, words={"method": _CALIBRATED}),
            Part(CalibrationSettings, only=("cross_fit",)),
            Part(EvaluationSettings, only=("bootstrap", "bins", "binning", "top_k", "raw")),
            Part(CompareSettings, only=("on",)),
            Part(ClinicalSettings),
            Part(ForeignSettings),
            Part(DataSettings, only=OF_LABELS),
            Part(ComputeSettings, only=("seed",)),
            answering(*SOURCES, "out", "overwrite"),
        ),
        layered=True,
    ),
    CommandSettings(
        "predict",
        (
            Part(DataSettings, only=("window", "class_names", "task", *FIXED_BY_RUN)),
            Part(ModelSettings, only=OF_WEIGHTS),
            Part(TrainingSettings, only=("modality",)),
            Part(EvaluationSettings, only=("ten_crop", "mc_dropout", "tta", "raw")),
            Part(ComputeSettings),
            Part(RuntimeSettings),
            Part(OutputSettings, without=("preset",)),
        ),
        layered=True,
    ),
    CommandSettings(
        "explain",
        (
            Part(MethodSettings, words={"method": _EXPLAINED}),
            Part(ExplainSettings),
            Part(DataSettings, only=("data", "image_dir", "window")),
            Part(ModelSettings, only=("weights",)),
            Part(EvaluationSettings, only=("raw",)),
            Part(ComputeSettings, only=("device", "batch_size", "seed")),
            answering(*SOURCES, "out", "overwrite", "no_progress"),
        ),
        layered=True,
    ),
    CommandSettings(
        "features",
        (
            Part(FeatureSettings),
            Part(ExplainSettings, only=("target",)),
            # Nothing is drawn for features: a set without splits is taken whole.
            Part(DataSettings, without=("split",)),
            Part(ModelSettings, only=OF_WEIGHTS),
            Part(LoraSettings, only=("random_weights",)),
            Part(ComputeSettings),
            answering(*SOURCES, "out", "overwrite", "no_progress"),
        ),
        layered=True,
    ),
    CommandSettings(
        "benchmark",
        (
            Part(BenchmarkSettings),
            Part(ModelShowSettings, only=("classes",)),
            Part(StrategySettings, only=("strategy",), words={"strategy": _BENCHED}),
            Part(LoraSettings, only=("random_weights",)),
            Part(DataSettings),
            Part(
                TrainingSettings,
                only=(
                    "epochs",
                    "lr",
                    "weight_decay",
                    "monitor",
                    "loss",
                    "class_weights",
                    "augment",
                    "modality",
                    "compile",
                    "resume",
                ),
                words=OF_CLASSES,
            ),
            Part(ComputeSettings),
            Part(RuntimeSettings),
            Part(EvaluationSettings, only=("bootstrap",)),
            answering(*SOURCES, *WRITING, "verbose", "no_progress"),
        ),
        layered=True,
    ),
    CommandSettings(
        "export",
        (
            Part(FormatSettings, words={"format": ("onnx", "pt2", "safetensors", "adapter")}),
            Part(ExportSettings),
            Part(ModelSettings, only=("weights",)),
            Part(DataSettings, only=("data",)),
            Part(ComputeSettings, only=("batch_size",)),
            answering(*SOURCES, "out", "overwrite", "verbose", "dry_run"),
        ),
        layered=True,
    ),
)
