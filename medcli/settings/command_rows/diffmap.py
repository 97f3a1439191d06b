"""What the commands take that make, learn and judge maps of change between two images."""

from __future__ import annotations

from medcli.settings.command_rows.command import OF_IMAGES, SOURCES, WRITING, CommandSettings, Part, answering
from medcli.settings.diffmap_groups import PairTableSettings
from medcli.settings.groups import (
    CompareSettings,
    ComputeSettings,
    DataSettings,
    DifferenceLossSettings,
    DifferenceSettings,
    EvaluationSettings,
    FormatSettings,
    FoundMapSettings,
    MapScoreSettings,
    MaskSettings,
    ModelSettings,
    OutputSettings,
    PairSettings,
    PairSynthSettings,
    TrainingSettings,
)

__all__ = ["DIFFMAP"]

# Of what is said about tables, what tables of pairs have too.
_OF_TABLES = ("image_dir", "patient_column", "split_column")
# Of what is said about images, what pairs and masked pictures have too.
_OF_PAIRS = (
    "data",
    *_OF_TABLES,
    "split",
    "split_seed",
    "image_size",
    "in_channels",
    "mean",
    "std",
    "window",
    "limit",
    "skip_unreadable",
    "cache",
    "cache_limit",
)
# Of what is said about learning, what is for classes alone, or for several processes.
_NOT_OF_MAPS = (
    "focal_gamma",
    "class_weights",
    "sampler",
    "logit_adjust",
    "label_smoothing",
    "mixup",
    "cutmix",
    "modality",
    "swap_on_flip",
    "freeze_layers",
    "freeze_backbone",
    "compile",
    "processes",
    "overfit_batch",
)
_PLAIN_AUGMENTS = ("none", "light", "medium", "heavy")
_OF_MAPS = ("png", "npy", "nifti", "json", "dicom")

DIFFMAP: tuple[CommandSettings, ...] = (
    CommandSettings(
        "diffmap synth",
        (
            Part(PairSynthSettings),
            Part(FormatSettings, words={"format": OF_IMAGES}),
            Part(DataSettings, only=("image_size", "patient_pattern")),
            Part(ComputeSettings, only=("seed", "workers")),
            answering(*SOURCES, *WRITING, "no_progress"),
        ),
        layered=True,
    ),
    CommandSettings(
        "diffmap train",
        (
            Part(DifferenceSettings),
            Part(PairSettings),
            Part(DataSettings, only=_OF_PAIRS),
            Part(PairTableSettings),
            Part(ModelSettings, only=("weights", "arch_opt")),
            Part(
                TrainingSettings,
                without=_NOT_OF_MAPS,
                words={"loss": ("weighted-l1-l2", "l1-l2"), "monitor": ("auprc", "loss"), "augment": _PLAIN_AUGMENTS},
            ),
            Part(DifferenceLossSettings),
            Part(ComputeSettings),
            Part(OutputSettings),
        ),
        layered=True,
        architecture=True,
    ),
    CommandSettings(
        "diffmap pretrain",
        (
            Part(MaskSettings),
            Part(DifferenceSettings, only=("model",)),
            Part(DataSettings, only=_OF_PAIRS),
            Part(PairTableSettings),
            Part(ModelSettings, only=("weights", "arch_opt")),
            # Whether the best epoch was found is judged by the loss alone.
            Part(TrainingSettings, without=(*_NOT_OF_MAPS, "loss", "monitor"), words={"augment": _PLAIN_AUGMENTS}),
            Part(DifferenceLossSettings, without=("map_scale", "changed_weight", "changed_above")),
            Part(ComputeSettings),
            Part(OutputSettings),
        ),
        layered=True,
        architecture=True,
    ),
    CommandSettings(
        "diffmap predict",
        (
            Part(FoundMapSettings),
            Part(PairSettings),
            Part(FormatSettings, words={"format": _OF_MAPS}),
            Part(DataSettings, only=("data", "image_dir", "image_size", "window")),
            Part(PairTableSettings, without=("map_column", "mask_column")),
            Part(ComputeSettings, only=("device", "precision", "workers")),
            answering(*SOURCES, "out", "overwrite", "verbose", "no_progress"),
        ),
        layered=True,
    ),
    CommandSettings(
        "diffmap evaluate",
        (
            Part(FoundMapSettings, only=("threshold", "min_area")),
            Part(MapScoreSettings),
            Part(CompareSettings, only=("on",)),
            Part(PairSettings),
            Part(DifferenceSettings, only=("map",)),
            Part(
                DataSettings,
                only=("data", *_OF_TABLES, "image_size", "window", "limit", "split_seed", "skip_unreadable"),
            ),
            Part(PairTableSettings),
            Part(EvaluationSettings, only=("bootstrap",)),
            Part(ComputeSettings, without=("deterministic",)),
            answering(*SOURCES, "out", "overwrite", "verbose", "no_progress"),
        ),
        layered=True,
    ),
)
