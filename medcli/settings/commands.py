"""Which settings each command takes. Plain standard library: help, completion and the JSON schema read it.

A flag appears only where it acts, so a command may take part of a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from medcli.settings.fields import Field, fields_of
from medcli.settings.groups import (
    BenchmarkSettings,
    CacheSettings,
    CalibrationSettings,
    ClinicalSettings,
    CompareSettings,
    ComputeSettings,
    DataCheckSettings,
    DataSettings,
    DifferenceLossSettings,
    DifferenceSettings,
    EnsembleSettings,
    EvaluationSettings,
    ExplainSettings,
    ExportSettings,
    FeatureSettings,
    ForeignSettings,
    FormatSettings,
    FoundMapSettings,
    LoraSettings,
    MapScoreSettings,
    MaskSettings,
    MethodSettings,
    ModelListSettings,
    ModelSettings,
    ModelShowSettings,
    NewPluginSettings,
    OutputSettings,
    PairSettings,
    PairSynthSettings,
    PluginSettings,
    RecommendSettings,
    ReportSettings,
    RuntimeSettings,
    SearchSettings,
    StrategySettings,
    SynthSettings,
    TrainingSettings,
)

__all__ = ["COMMANDS", "FIXED_BY_RUN", "IMAGE_STORE", "OF_WEIGHTS", "CommandSettings", "Part"]


@dataclass(frozen=True)
class Part:
    """A group, or some of its fields.

    Args:
        group: one of the dataclasses of `medcli.settings.groups`.
        only: the fields taken; empty for all.
        without: the fields left out.
        words: for a field whose words are not all meant here, those that are.
    """

    group: type
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def fields(self) -> tuple[Field, ...]:
        """The fields taken, in the group's order."""
        return tuple(
            replace(item, choices=self.words[item.name]) if item.name in self.words else item
            for item in fields_of(self.group)
            if (not self.only or item.name in self.only) and item.name not in self.without
        )


@dataclass(frozen=True)
class CommandSettings:
    """What one command takes.

    Args:
        name: as typed, such as `models list`.
        parts: groups or parts of them, in the order of its help.
        layered: whether files and variables may set its fields (others take flags alone).
        architecture: whether it takes an architecture, so that a file may name one and a card's recipe applies.
    """

    name: str
    parts: tuple[Part, ...]
    layered: bool = False
    architecture: bool = False

    @property
    def groups(self) -> tuple[type, ...]:
        """The dataclasses that `Resolved.group` can fill."""
        return tuple(part.group for part in self.parts)

    @cached_property
    def fields(self) -> Mapping[str, Field]:
        """Every setting of the command by name, in the order of its help."""
        return {item.name: item for part in self.parts for item in part.fields()}

    @property
    def table(self) -> str:
        """Its table in a configuration file: `train`, `data-check`."""
        return self.name.replace(" ", "-")

    @property
    def variable_prefix(self) -> str:
        """The start of its own variables: `MEDCLI_TRAIN_`, `MEDCLI_DATA_CHECK_`."""
        return f"MEDCLI_{self.name.replace(' ', '_').upper()}_"


_ANSWER = ("json", "quiet", "debug", "no_color")
_SOURCES = ("config",)
_OF_IMAGES = ("png", "nifti")
_OF_MAPS = ("png", "npy", "nifti", "json", "dicom")
_WRITING = ("out", "overwrite", "yes", "no_input")

# A run fixes how its images become tensors, so another size or normalisation would measure another model. An
# architecture with weights of its own has no run, and takes them.
FIXED_BY_RUN = ("image_size", "fit", "in_channels", "mean", "std")
OF_WEIGHTS = ("weights", "pretrained", "arch_opt")
IMAGE_STORE = ("cache", "cache_limit")

# What learns classes has other losses and figures than what learns maps of change.
_OF_CLASSES = {
    "loss": ("ce", "focal", "bce", "asl", "corn", "coral"),
    "monitor": ("auc", "qwk", "accuracy", "balanced_accuracy", "f1", "loss"),
}
# Of what is said about images, what pairs and masked pictures have too.
_OF_PAIRS = (
    "data",
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
_FINETUNED = ("frozen", "layerwise", "gradual", "full", "lp-ft", "knn")
_REPORTED = ("html", "md")
_SEARCHED = ("scratch", "frozen", "layerwise", "gradual", "full", "lp-ft", "lora")
_BENCHED = ("scratch", "frozen", "layerwise", "gradual", "full", "lp-ft", "knn", "lora")


def _output(*names: str) -> Part:
    return Part(OutputSettings, only=(*_ANSWER, *names))


_TABLE: tuple[CommandSettings, ...] = (
    CommandSettings(
        "train",
        (
            Part(DataSettings),
            Part(ModelSettings),
            Part(TrainingSettings, words=_OF_CLASSES),
            Part(ComputeSettings),
            Part(OutputSettings),
        ),
        layered=True,
        architecture=True,
    ),
    CommandSettings(
        "finetune",
        (
            Part(DataSettings),
            Part(ModelSettings),
            Part(StrategySettings, words={"strategy": _FINETUNED}),
            # A strategy says what is frozen and for how long; only whole stages may be left out besides.
            Part(TrainingSettings, without=("freeze_backbone",), words=_OF_CLASSES),
            Part(ComputeSettings),
            Part(OutputSettings),
        ),
        layered=True,
        architecture=True,
    ),
    CommandSettings(
        "lora",
        (
            Part(DataSettings),
            Part(ModelSettings),
            Part(LoraSettings),
            # The backbone never learns here; whole stages may be left without adapters.
            Part(TrainingSettings, without=("freeze_backbone",), words=_OF_CLASSES),
            Part(ComputeSettings),
            Part(OutputSettings),
        ),
        layered=True,
        architecture=True,
    ),
    CommandSettings(
        "search",
        (
            Part(SearchSettings),
            Part(PluginSettings, only=("timeout",)),
            Part(StrategySettings, words={"strategy": _SEARCHED}),
            Part(LoraSettings),
            Part(DataSettings),
            Part(ModelSettings),
            # A trial is a training of its own, begun and ended by the search, in one process.
            Part(
                TrainingSettings,
                without=(
                    "extend",
                    "accept_data_change",
                    "overfit_batch",
                    "checkpoint_every",
                    "processes",
                    "log_with",
                ),
                words=_OF_CLASSES,
            ),
            Part(ComputeSettings),
            Part(OutputSettings),
        ),
        layered=True,
        architecture=True,
    ),
    CommandSettings(
        "ensemble",
        (
            Part(EnsembleSettings),
            Part(StrategySettings, words={"strategy": _SEARCHED}),
            Part(LoraSettings),
            Part(DataSettings),
            Part(ModelSettings),
            # Members are trained one after another, each in one process, to their end.
            Part(TrainingSettings, without=("extend", "overfit_batch", "processes", "log_with"), words=_OF_CLASSES),
            Part(ComputeSettings),
            Part(ForeignSettings),
            Part(OutputSettings),
        ),
        layered=True,
        architecture=True,
    ),
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
            Part(
                DataSettings,
                only=("label_column", "ordinal_column", "patient_column", "class_names", "positive_class", "task"),
            ),
            Part(ComputeSettings, only=("seed",)),
            _output(*_SOURCES, "out", "overwrite", "verbose"),
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
            Part(
                DataSettings,
                only=("label_column", "ordinal_column", "patient_column", "class_names", "positive_class", "task"),
            ),
            Part(ComputeSettings, only=("seed",)),
            _output(*_SOURCES, "out", "overwrite"),
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
            _output(*_SOURCES, "out", "overwrite", "no_progress"),
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
            _output(*_SOURCES, "out", "overwrite", "no_progress"),
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
                words=_OF_CLASSES,
            ),
            Part(ComputeSettings),
            Part(RuntimeSettings),
            Part(EvaluationSettings, only=("bootstrap",)),
            _output(*_SOURCES, *_WRITING, "verbose", "no_progress"),
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
            _output(*_SOURCES, "out", "overwrite", "verbose", "dry_run"),
        ),
        layered=True,
    ),
    CommandSettings(
        "data check",
        (
            Part(DataSettings, without=(*FIXED_BY_RUN, *IMAGE_STORE, "skip_unreadable", "limit", "positive_class")),
            Part(DataCheckSettings),
            Part(ComputeSettings, only=("workers",)),
            _output(*_SOURCES, "verbose", "no_progress"),
        ),
        layered=True,
    ),
    CommandSettings(
        "data inspect",
        (Part(DataSettings, only=("window",)), _output(*_SOURCES, "out", "overwrite")),
        layered=True,
    ),
    CommandSettings(
        "data synth",
        (
            Part(SynthSettings),
            Part(PairSynthSettings),
            Part(FormatSettings, words={"format": _OF_IMAGES}),
            Part(DataSettings, only=("task", "patient_pattern")),
            Part(ComputeSettings, only=("seed", "workers")),
            _output(*_SOURCES, *_WRITING, "no_progress"),
        ),
        layered=True,
    ),
    CommandSettings(
        "diffmap synth",
        (
            Part(PairSynthSettings),
            Part(FormatSettings, words={"format": _OF_IMAGES}),
            Part(DataSettings, only=("image_size", "patient_pattern")),
            Part(ComputeSettings, only=("seed", "workers")),
            _output(*_SOURCES, *_WRITING, "no_progress"),
        ),
        layered=True,
    ),
    CommandSettings(
        "diffmap train",
        (
            Part(DifferenceSettings),
            Part(PairSettings),
            Part(DataSettings, only=_OF_PAIRS),
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
            Part(DataSettings, only=("data", "image_size", "window")),
            Part(ComputeSettings, only=("device", "precision", "workers")),
            _output(*_SOURCES, "out", "overwrite", "verbose", "no_progress"),
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
            Part(DataSettings, only=("data", "image_size", "window", "limit", "split_seed", "skip_unreadable")),
            Part(EvaluationSettings, only=("bootstrap",)),
            Part(ComputeSettings, without=("deterministic",)),
            _output(*_SOURCES, "out", "overwrite", "verbose", "no_progress"),
        ),
        layered=True,
    ),
    CommandSettings("data cache", (Part(CacheSettings), _output("yes", "no_input"))),
    CommandSettings("models list", (Part(ModelListSettings), Part(TrainingSettings, only=("modality",)), _output())),
    CommandSettings(
        "models show",
        (
            Part(ModelShowSettings),
            Part(DataSettings, only=("image_size", "in_channels")),
            Part(ModelSettings, only=("arch_opt",)),
            _output(),
        ),
    ),
    CommandSettings("models fetch", (Part(ModelSettings, only=("weights",)), _output("no_progress"))),
    CommandSettings(
        "models verify",
        (
            Part(ModelSettings, only=("weights", "arch_opt")),
            Part(DataSettings, only=("image_size", "in_channels")),
            _output(),
        ),
    ),
    CommandSettings(
        "models recommend",
        (
            Part(RecommendSettings),
            Part(SynthSettings, only=("images",)),
            Part(TrainingSettings, only=("modality",)),
            Part(
                DataSettings,
                only=(
                    "data",
                    "image_dir",
                    "image_column",
                    "label_column",
                    "ordinal_column",
                    "ignore_class",
                    "patient_column",
                    "patient_pattern",
                    "split_column",
                    "class_names",
                    "task",
                ),
            ),
            _output(),
        ),
    ),
    CommandSettings("plugins list", (_output(),)),
    CommandSettings("plugins doctor", (Part(PluginSettings, only=("timeout",)), _output("no_progress"))),
    CommandSettings(
        "plugins check",
        (
            Part(PluginSettings),
            Part(DataSettings, only=("image_size",)),
            Part(ModelSettings, only=("arch_opt",)),
            _output("no_progress"),
        ),
    ),
    CommandSettings("plugins new", (Part(NewPluginSettings), _output("out"))),
    CommandSettings("runs list", (_output(),)),
    CommandSettings("runs show", (_output("verbose"),)),
    CommandSettings(
        "runs compare",
        (
            Part(CompareSettings),
            Part(EvaluationSettings, only=("bootstrap",)),
            Part(ComputeSettings, only=("seed",)),
            _output(),
        ),
    ),
    CommandSettings("config show", (_output(*_SOURCES, "preset"),)),
    CommandSettings("config check", (_output(),)),
    CommandSettings("config init", (_output(),)),
    CommandSettings("config schema", (_output(),)),
    CommandSettings("config presets", (_output(),)),
    CommandSettings("completion show", (_output(),)),
    CommandSettings("completion install", (_output("yes", "no_input"),)),
    CommandSettings("doctor", (_output(),)),
    CommandSettings("help", (_output(),)),
    CommandSettings("man", (_output(),)),
)

COMMANDS: Mapping[str, CommandSettings] = {command.name: command for command in _TABLE}
