"""Every setting once, with type, default and help; flags, variables, keys, schema and man pages are made of them.

Only the standard library is imported, so that help and completion can read them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from medcli.settings.adaptation_groups import LoraSettings, StrategySettings
from medcli.settings.benchmark_group import BenchmarkSettings
from medcli.settings.command_groups import (
    CacheSettings,
    DataCheckSettings,
    EnsembleSettings,
    FormatSettings,
    MethodSettings,
    ModelListSettings,
    ModelShowSettings,
    NewPluginSettings,
    PluginSettings,
    RecommendSettings,
    SearchSettings,
    SynthSettings,
)
from medcli.settings.diffmap_groups import (
    DifferenceLossSettings,
    DifferenceSettings,
    FoundMapSettings,
    MapScoreSettings,
    MaskSettings,
    PairSettings,
    PairSynthSettings,
    PairTableSettings,
)
from medcli.settings.explanation_groups import ExplainSettings, FeatureSettings
from medcli.settings.export_group import ExportSettings, RuntimeSettings
from medcli.settings.judging_groups import (
    CalibrationSettings,
    ClinicalSettings,
    CompareSettings,
    EvaluationSettings,
    ForeignSettings,
    ReportSettings,
)
from medcli.settings.option import COMPUTE, DATA, LEARN, MODEL, REGULARISE, RUN, Option
from medcli.settings.output_group import OutputSettings

__all__ = [
    "BenchmarkSettings",
    "CacheSettings",
    "CalibrationSettings",
    "ClinicalSettings",
    "CompareSettings",
    "ComputeSettings",
    "DataCheckSettings",
    "DataSettings",
    "DifferenceLossSettings",
    "DifferenceSettings",
    "EnsembleSettings",
    "EvaluationSettings",
    "ExplainSettings",
    "ExportSettings",
    "FeatureSettings",
    "ForeignSettings",
    "FormatSettings",
    "FoundMapSettings",
    "LoraSettings",
    "MapScoreSettings",
    "MaskSettings",
    "MethodSettings",
    "ModelListSettings",
    "ModelSettings",
    "ModelShowSettings",
    "NewPluginSettings",
    "Option",
    "OutputSettings",
    "PairSettings",
    "PairSynthSettings",
    "PairTableSettings",
    "PluginSettings",
    "RecommendSettings",
    "ReportSettings",
    "RuntimeSettings",
    "SearchSettings",
    "StrategySettings",
    "SynthSettings",
    "TrainingSettings",
]


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which images and labels are read, and how."""

    data: Annotated[
        tuple[str, ...],
        Option(
            "folder of class folders, table, MedMNIST .npz or built-in set (`synthetic/chest`); `NAME=PATH` names it; "
            "for `diffmap` pairs: folder, table or `synthetic/chest-pairs`",
            DATA,
            "[NAME=]PATH",
            completes="data",
        ),
    ] = ()
    image_dir: Annotated[
        tuple[str, ...],
        Option("folder that a table's image paths are relative to", DATA, "DIR", per_data_set=True, completes="dir"),
    ] = ()
    image_column: Annotated[
        tuple[str, ...], Option("table column with image paths or names", DATA, "COLUMN", per_data_set=True)
    ] = ()
    label_column: Annotated[
        tuple[str, ...],
        Option("table column with labels; several as `A,B` or by repeating it", DATA, "COLUMN", per_data_set=True),
    ] = ()
    ordinal_column: Annotated[
        tuple[str, ...], Option("of several label columns, one whose classes are ordered", DATA, "COLUMN")
    ] = ()
    ignore_class: Annotated[
        tuple[str, ...],
        Option("class that means 'no label here' (such as `ungradable`); never reaches loss or metrics", DATA, "CLASS"),
    ] = ()
    patient_column: Annotated[
        tuple[str, ...],
        Option("table column with the patient; splits never share a patient", DATA, "COLUMN", per_data_set=True),
    ] = ()
    patient_pattern: Annotated[
        str | None, Option("regular expression whose first group is the patient in the file name", DATA, "REGEX")
    ] = None
    split_column: Annotated[str | None, Option("table column with train, val or test", DATA, "COLUMN")] = None
    split: Annotated[
        tuple[float, ...], Option("shares of train, val, test for data without splits", DATA, "A,B,C", minimum=0)
    ] = (0.7, 0.15, 0.15)
    split_seed: Annotated[int, Option("seed of the split, apart from the training seed", DATA, minimum=0)] = 0
    class_names: Annotated[
        tuple[str, ...], Option("class names in order, where the data does not name them", DATA, "A,B,…")
    ] = ()
    positive_class: Annotated[str | None, Option("which of two classes counts as the finding", DATA, "CLASS")] = None
    task: Annotated[
        Literal["binary", "multiclass", "ordinal", "multilabel", "multioutput"] | None,
        Option("what is predicted, where the data leaves it open", DATA),
    ] = None
    image_size: Annotated[
        int | None,
        Option("side in pixels to which images are resized (default: the architecture's own)", DATA, "PX", minimum=1),
    ] = None
    fit: Annotated[
        Literal["squash", "pad", "crop"] | None,
        Option(
            "how a picture becomes square: stretched, padded, or short side then centre crop (default: as its weights "
            "want it, else stretched)",
            DATA,
        ),
    ] = None
    in_channels: Annotated[
        int | None,
        Option("1 or 3 (default: the architecture's own; grey pictures are repeated)", DATA, minimum=1, maximum=3),
    ] = None
    mean: Annotated[tuple[float, ...], Option("normalisation mean, one value or one per channel", DATA, "M[,M,M]")] = ()
    std: Annotated[
        tuple[float, ...],
        Option(
            "normalisation standard deviation, one value or one per channel", DATA, "S[,S,S]", minimum=0, exclusive=True
        ),
    ] = ()
    window: Annotated[
        str,
        Option(
            "DICOM display window: `auto` (the file's own), `full` (whole declared range) or CENTRE,WIDTH",
            DATA,
            "WINDOW",
        ),
    ] = "auto"
    limit: Annotated[
        int | None, Option("use only N images of each split, drawn by the split seed", DATA, "N", minimum=1)
    ] = None
    leave_out: Annotated[
        str | None,
        Option(
            "leave out the cases that this table lists by `id`: what `data check --fix-report` writes",
            DATA,
            "FILE",
            completes="path",
        ),
    ] = None
    skip_unreadable: Annotated[
        bool, Option("leave out images that cannot be read and record them, instead of stopping", DATA)
    ] = False
    cache: Annotated[
        Literal["auto", "memory", "disk", "off"],
        Option("where decoded, resized images are kept between epochs", DATA, safe_on_resume=True),
    ] = "auto"
    cache_limit: Annotated[
        float | None,
        Option(
            "most memory in GiB that decoded images may take (default: a quarter of what is free)",
            DATA,
            "GIB",
            minimum=0,
            safe_on_resume=True,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which weights the network starts from and how its head is made."""

    weights: Annotated[str | None, Option("weight tag of the card, or a file", MODEL, "TAG|FILE", completes="path")] = (
        None
    )
    pretrained: Annotated[bool, Option("start from the card's default weights, from the local cache", MODEL)] = False
    arch_opt: Annotated[
        tuple[str, ...], Option("option of the architecture, as its card lists them", MODEL, "KEY=VALUE")
    ] = ()
    head_norm: Annotated[bool, Option("put a LayerNorm before the head's dropout", MODEL, from_recipe=True)] = False
    dropout: Annotated[
        float, Option("dropout before the final linear layer", MODEL, minimum=0, maximum=0.95, from_recipe=True)
    ] = 0.0
    drop_path: Annotated[
        float, Option("stochastic depth, where the family has it", MODEL, minimum=0, maximum=0.95, from_recipe=True)
    ] = 0.0


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How the network learns."""

    epochs: Annotated[int, Option("passes over the training images", LEARN, minimum=1, from_recipe=True)] = 30
    lr: Annotated[float, Option("peak learning rate", LEARN, minimum=0, exclusive=True, from_recipe=True)] = 1e-3
    optimizer: Annotated[Literal["adam", "adamw", "sgd"], Option("optimiser", LEARN, from_recipe=True)] = "adamw"
    weight_decay: Annotated[
        float, Option("weight decay; norms and biases have none", LEARN, minimum=0, from_recipe=True)
    ] = 0.01
    scheduler: Annotated[
        Literal["cosine", "plateau", "step", "onecycle", "constant"],
        Option("how the learning rate changes", LEARN, from_recipe=True),
    ] = "cosine"
    warmup_epochs: Annotated[
        float, Option("epochs in which the learning rate rises from near zero", LEARN, minimum=0, from_recipe=True)
    ] = 1.0
    min_lr: Annotated[
        float, Option("learning rate at the end of a cosine, and the floor of a plateau", LEARN, minimum=0)
    ] = 1e-6
    step_at: Annotated[
        tuple[float, ...],
        Option("for `step`: shares of the run at which the rate drops", LEARN, "A,B", minimum=0, maximum=1),
    ] = (0.5, 0.75)
    step_gamma: Annotated[
        float, Option("for `step` and `plateau`: factor of each drop", LEARN, minimum=0, maximum=1, exclusive=True)
    ] = 0.1
    accumulate: Annotated[
        int, Option("batches whose gradients are added before one step", LEARN, minimum=1, from_recipe=True)
    ] = 1
    clip_grad: Annotated[float, Option("largest gradient norm; 0 for no clipping", LEARN, minimum=0)] = 1.0
    ema: Annotated[bool, Option("keep and use an exponential moving average of the weights", LEARN)] = False
    ema_decay: Annotated[float, Option("decay of that average once it has warmed up", LEARN, minimum=0, maximum=1)] = (
        0.9998
    )
    patience: Annotated[
        int, Option("stop after this many epochs without improvement; 0 for never", LEARN, minimum=0, from_recipe=True)
    ] = 10
    monitor: Annotated[
        Literal["auc", "qwk", "accuracy", "balanced_accuracy", "f1", "auprc", "loss"] | None,
        Option(
            "validation figure that chooses the best epoch (default: auc, qwk for ordinal, auprc of change for maps)",
            LEARN,
        ),
    ] = None
    loss: Annotated[
        Literal["ce", "focal", "bce", "asl", "corn", "coral", "weighted-l1-l2", "l1-l2"] | None,
        Option("loss (default: ce, corn for ordinal, bce for multilabel, weighted-l1-l2 for maps)", REGULARISE),
    ] = None
    focal_gamma: Annotated[float, Option("focusing strength of the focal loss", REGULARISE, minimum=0)] = 2.0
    class_weights: Annotated[
        str,
        Option(
            "`none`, `balanced` (inverse frequency), `sqrt`, `effective`, or one weight per class: 1,1,0.3",
            REGULARISE,
            "NAME|LIST",
        ),
    ] = "none"
    sampler: Annotated[
        Literal["none", "balanced"],
        Option("`balanced`: draw every class equally often, with repetition; epochs stay as long", REGULARISE),
    ] = "none"
    logit_adjust: Annotated[
        float,
        Option(
            "add this times the logarithm of each class's frequency to the outputs while training (1 is usual)",
            REGULARISE,
            "TAU",
            minimum=0,
        ),
    ] = 0.0
    label_smoothing: Annotated[float, Option("label smoothing", REGULARISE, minimum=0, maximum=0.9)] = 0.0
    mixup: Annotated[
        float,
        Option("blend pairs of images and their labels; shares come from Beta(A, A)", REGULARISE, "A", minimum=0),
    ] = 0.0
    cutmix: Annotated[
        float,
        Option("exchange patches between pairs of images, labels by area from Beta(A, A)", REGULARISE, "A", minimum=0),
    ] = 0.0
    augment: Annotated[
        Literal["none", "light", "medium", "heavy", "modality", "randaugment", "autoaugment"],
        Option(
            "strength of shift, rotation, scale and contrast changes; `modality`: what that kind of picture bears; "
            "`randaugment`, `autoaugment`: as published, without what `--modality` does not bear",
            REGULARISE,
        ),
    ] = "light"
    modality: Annotated[str | None, Option("kind of picture, such as `chest-xray` or `fundus`", DATA, "NAME")] = None
    flip: Annotated[
        Literal["none", "horizontal", "vertical", "both"] | None,
        Option(
            "mirror images too; refused where labels name a side of the body (default: none, with `--augment modality` "
            "as that kind of picture allows)",
            REGULARISE,
        ),
    ] = None
    swap_on_flip: Annotated[
        tuple[str, ...],
        Option("labels that change places when an image is mirrored left-right", REGULARISE, "LEFT:RIGHT,…"),
    ] = ()
    freeze_layers: Annotated[
        int, Option("keep the first K stages as they are (stem = stage 0)", REGULARISE, "K", minimum=0)
    ] = 0
    freeze_backbone: Annotated[bool, Option("train the head alone", REGULARISE)] = False
    grad_checkpointing: Annotated[
        bool, Option("recompute activations in the backward pass: less memory, more time", COMPUTE)
    ] = False
    compile: Annotated[bool, Option("compile the network with torch.compile", COMPUTE)] = False
    processes: Annotated[
        int,
        Option(
            "processes that share every batch, one for each GPU (or on CPU cores); results mean the same",
            COMPUTE,
            "N",
            minimum=1,
            safe_on_resume=True,
        ),
    ] = 1
    log_with: Annotated[
        tuple[str, ...],
        Option("also send figures to tensorboard, wandb, mlflow, trackio", RUN, "NAME,…", safe_on_resume=True),
    ] = ()
    checkpoint_every: Annotated[int, Option("epochs between checkpoints", RUN, "N", minimum=1, safe_on_resume=True)] = 1
    resume: Annotated[
        str | None,
        Option(
            "continue this run exactly where it stopped",
            RUN,
            "RUN",
            flag_only=True,
            completes="run",
        ),
    ] = None
    extend: Annotated[
        int | None,
        Option(
            "with --resume: train N epochs longer, at the final learning rate",
            RUN,
            "N",
            minimum=1,
            flag_only=True,
        ),
    ] = None
    init_from: Annotated[str | None, Option("start from the best weights of this run", RUN, "RUN", completes="run")] = (
        None
    )
    accept_data_change: Annotated[
        bool,
        Option(
            "with --resume: go on although the data has changed, and record it",
            RUN,
            flag_only=True,
        ),
    ] = False
    overfit_batch: Annotated[
        bool, Option("train on one fixed batch without augmentation; the loss must fall to near zero", RUN)
    ] = False


@dataclass(frozen=True, kw_only=True)
class ComputeSettings:
    """Where and with what numbers it runs."""

    device: Annotated[
        str, Option("`auto`, `cpu`, `cuda`, `cuda:N` or `mps`", COMPUTE, "DEVICE", safe_on_resume=True)
    ] = "auto"
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        Option("number format (auto: bf16 or fp16 on a GPU, fp32 on a CPU)", COMPUTE),
    ] = "auto"
    batch_size: Annotated[
        int, Option("images per batch, of all processes together", COMPUTE, minimum=1, from_recipe=True)
    ] = 32
    workers: Annotated[
        int | None,
        Option("processes that decode images (default: by number of cores)", COMPUTE, minimum=0, safe_on_resume=True),
    ] = None
    # The largest seed that numpy's old generators take.
    seed: Annotated[
        int, Option("seed of everything drawn at random, the split apart", COMPUTE, minimum=0, maximum=2**32 - 1)
    ] = 0
    deterministic: Annotated[bool, Option("use deterministic kernels only; slower on a GPU", COMPUTE)] = False
