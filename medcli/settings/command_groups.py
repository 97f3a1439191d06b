"""Settings of single commands, such as `data check`, `models recommend` and `search`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from medcli.settings.option import THIS, Option

__all__ = [
    "CacheSettings",
    "DataCheckSettings",
    "EnsembleSettings",
    "FormatSettings",
    "MethodSettings",
    "ModelListSettings",
    "ModelShowSettings",
    "NewPluginSettings",
    "PluginSettings",
    "RecommendSettings",
    "SearchSettings",
    "SynthSettings",
]


@dataclass(frozen=True, kw_only=True)
class EnsembleSettings:
    """Of what an ensemble is made, and what its members count."""

    members: Annotated[
        int, Option("members in all, shared out among the architectures named", THIS, "N", minimum=2, maximum=1000)
    ] = 5
    weights_by: Annotated[
        Literal["equal", "val"],
        Option("what members count: the same, or as makes the labels of the validation cases likeliest", THIS),
    ] = "equal"
    share_backbone: Annotated[
        bool,
        Option("members are heads on one frozen backbone, which sees every picture once and is stored once", THIS),
    ] = False


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """Which of several ways a command takes; each command lists its own words."""

    method: Annotated[
        Literal[
            "temperature",
            "vector",
            "platt",
            "beta",
            "isotonic",
            "gradcam",
            "gradcam++",
            "layercam",
            "hirescam",
            "attention",
            "rollout",
            "gradient-rollout",
            "occlusion",
            "integrated-gradients",
        ]
        | None,
        Option("how it is done (default: `calibrate` temperature, `explain` by what the network shows)", THIS),
    ] = None


@dataclass(frozen=True, kw_only=True)
class FormatSettings:
    """In which formats a command writes its result; each command lists its own words."""

    format: Annotated[
        tuple[
            Literal["html", "md", "onnx", "pt2", "safetensors", "adapter", "png", "nifti", "npy", "json", "dicom"], ...
        ],
        Option(
            "what is written (default of `report`: html, of `export`: onnx, of pairs: png, of maps: png,npy,json)",
            THIS,
            "NAME,…",
        ),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class DataCheckSettings:
    """What `data check` looks for beyond the obvious."""

    near_duplicates: Annotated[bool, Option("also look for images that are almost the same", THIS)] = False
    fix_report: Annotated[
        str | None,
        Option("write the rows to drop to this CSV, for `--leave-out`", THIS, "FILE", flag_only=True, completes="path"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """What `data cache clear` throws away."""

    with_weights: Annotated[bool, Option("fetched weights too", THIS)] = False


@dataclass(frozen=True, kw_only=True)
class SynthSettings:
    """How many synthetic images are drawn, and how large."""

    images: Annotated[
        int | None, Option("how many images (`data synth` draws 1000 where nothing is said)", THIS, "N", minimum=1)
    ] = None
    size: Annotated[int, Option("side of the drawn images in pixels", THIS, "PX", minimum=16, maximum=2048)] = 128


@dataclass(frozen=True, kw_only=True)
class ModelListSettings:
    """Which architectures `models list` shows."""

    family: Annotated[str | None, Option("only this family, such as `resnet`", THIS, "NAME")] = None
    max_params: Annotated[
        float | None, Option("only those with at most this many million parameters", THIS, "MILLIONS", minimum=0)
    ] = None
    difference: Annotated[bool, Option("only difference models: two images in, a map of what changed out", THIS)] = (
        False
    )


@dataclass(frozen=True, kw_only=True)
class ModelShowSettings:
    """How much `models show` tells."""

    layers: Annotated[bool, Option("build it and list every module with output shape, parameters and MACs", THIS)] = (
        False
    )
    classes: Annotated[int | None, Option("number of classes of the head that is counted", THIS, "K", minimum=1)] = None
    bibtex: Annotated[bool, Option("print its references as BibTeX and nothing else", THIS)] = False


@dataclass(frozen=True, kw_only=True)
class RecommendSettings:
    """What `models recommend` is asked for."""

    goal: Annotated[
        Literal["learn", "prototype", "accuracy", "production", "research", "competition", "speed", "edge"],
        Option("what it is for", THIS),
    ] = "accuracy"
    gpu_memory: Annotated[
        float | None,
        Option("memory of the GPU in GB, 0 for none (8 is assumed where nothing is said)", THIS, "GB", minimum=0),
    ] = None
    imbalance: Annotated[
        float | None, Option("cases of the largest class over those of the smallest", THIS, "RATIO", minimum=1)
    ] = None


@dataclass(frozen=True, kw_only=True)
class PluginSettings:
    """How patiently plugins are examined."""

    timeout: Annotated[
        float | None,
        Option(
            "seconds after which a name (`doctor`: 60) or a check (`check`: 600) counts as failed, or no further trial "
            "of a `search` begins",
            THIS,
            "S",
            minimum=0,
            exclusive=True,
        ),
    ] = None
    only: Annotated[tuple[str, ...], Option("make these checks alone", THIS, "CHECK,…")] = ()


@dataclass(frozen=True, kw_only=True)
class NewPluginSettings:
    """What a new plugin is made of."""

    kind: Annotated[
        Literal["torch", "timm", "transformers", "difference"],
        Option("a network of your own, one of timm's or transformers', or a model of what changed in two images", THIS),
    ] = "torch"


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What `search` tries, how often, and where its study is kept."""

    trials: Annotated[
        int, Option("trials of the study in all, those of earlier and other processes included", THIS, "N", minimum=1)
    ] = 20
    space: Annotated[
        str | None,
        Option(
            "file with a TOML table `[space]` of settings and what they may be (default: learning rate, batch size, "
            "dropout, and weight decay or the adapters' rank and alpha)",
            THIS,
            "FILE",
            completes="path",
        ),
    ] = None
    storage: Annotated[
        str | None,
        Option(
            "where the study is kept, so that several processes share it: `sqlite:///FILE`, `FILE.log` (a journal, for "
            "network drives) or the URL of a database (default: a file in the run)",
            THIS,
            "URL",
        ),
    ] = None
    study: Annotated[
        str | None, Option("name of the study in its storage (default: architecture and strategy)", THIS, "NAME")
    ] = None
    pruner: Annotated[
        Literal["median", "halving", "hyperband", "none"],
        Option("which trials are stopped after an epoch because others were better by then", THIS),
    ] = "median"
    search_sampler: Annotated[
        Literal["tpe", "random", "cmaes", "grid"],
        Option("how the settings of the next trial are chosen; drawn by `--seed`", THIS),
    ] = "tpe"
