"""What a card may say: static facts about an architecture, as plain values that need no torch and no plugin.

The dataclasses are the schema; `medcli.plugin` offers them to authors, `medcli.registry` reads them from TOML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "ArchitectureCard",
    "MemoryNote",
    "Normalisation",
    "OptionCard",
    "Recipe",
    "RecipeValue",
    "Reference",
    "Scaling",
    "SizeRule",
    "WeightCard",
]


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """How pixels in [0, 1] become the numbers a network was made for.

    Args:
        mean: one value, or one per channel.
        std: one value, or one per channel.
        interpolation: `bilinear` or `bicubic`, used when the picture is resized.
        crop: share of the resized picture that was kept in the weights' own evaluation; information, medcli keeps all.
        fit: how a picture becomes square for these weights (`--fit` overrides it); empty where that is open.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    crop: float = 1.0
    fit: Literal["squash", "pad", "crop", ""] = ""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A paper, with what a bibliography needs.

    Args:
        key: BibTeX key such as `he2016resnet`.
        title: full title.
        authors: family name first (`He, Kaiming`), in the paper's order.
        year: of the publication named by `venue`, or of the preprint.
        url: where it can be read, usually arXiv.
        venue: conference or journal; empty for a preprint.
        journal: whether the venue is a journal.
    """

    key: str
    title: str
    authors: tuple[str, ...]
    year: int
    url: str
    venue: str = ""
    journal: bool = False

    def bibtex(self) -> str:
        """One BibTeX entry, ending without a newline."""
        kind, place = ("article", "journal") if self.journal else ("inproceedings", "booktitle")
        title = self.title.replace("&", r"\&")
        parts = [
            ("title", f"{{{title}}}"),
            ("author", " and ".join(self.authors)),
            *([(place, self.venue)] if self.venue else []),
            ("year", str(self.year)),
            ("url", self.url),
        ]
        lines = ",\n".join(f"  {name} = {{{text}}}" for name, text in parts)
        return f"@{kind if self.venue else 'misc'}{{{self.key},\n{lines}\n}}"


@dataclass(frozen=True, kw_only=True)
class WeightCard:
    """One published set of weights.

    Args:
        tag: what `--weights` takes.
        source: repository on the Hugging Face hub (`timm/resnet50.a1_in1k`), or a URL.
        file: name of the file there.
        sha256: its checksum, where the publisher or a download confirmed it; empty if unknown.
        licence: as the publisher states it; empty if not stated.
        gated: whether the publisher asks for a registration first.
        data: what it was trained on.
        normalisation: where it differs from the architecture's.
    """

    tag: str
    source: str
    file: str = ""
    sha256: str = ""
    licence: str = ""
    gated: bool = False
    data: str = ""
    normalisation: Normalisation | None = None


@dataclass(frozen=True, kw_only=True)
class OptionCard:
    """One keyword of a factory that `--arch-opt KEY=VALUE` may set.

    Args:
        type: how the text is read.
        default: what the factory uses when the option is not given.
        help: one sentence, lower-case start, no full stop.
        choices: the only values allowed; empty for any.
        minimum: smallest value allowed, inclusive.
        maximum: largest value allowed, inclusive.
        normalisations: value of the option as text (`true`, `false`, `cls`) to how pictures are normalised under it,
            instead of the weights' or the architecture's own; values not named change nothing.
    """

    type: Literal["int", "float", "bool", "str"]
    default: int | float | bool | str
    help: str
    choices: tuple[int | float | str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    normalisations: Mapping[str, Normalisation] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RecipeValue:
    """One setting of a recipe and who says so; `place` is the card's file and line, filled in by the reader."""

    value: Any
    source: str
    place: str = ""


Recipe = Mapping[str, RecipeValue]
"""Settings for one strategy: name of a setting (`lr`, `batch_size`, ...) to its value and source."""


@dataclass(frozen=True, kw_only=True)
class MemoryNote:
    """A batch size that somebody reports for a GPU, at the architecture's own input size; a place to start, no promise.

    Args:
        gpu_gb: memory of the GPU in GB.
        batch_size: images per training batch.
        source: who reports it.
    """

    gpu_gb: float
    batch_size: int
    source: str


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Compound scaling of a family such as EfficientNet.

    Args:
        resolution: input side in pixels.
        depth: factor on the number of layers.
        width: factor on the number of channels.
    """

    resolution: int
    depth: float
    width: float


@dataclass(frozen=True, kw_only=True)
class SizeRule:
    """Which sides of a square picture, in pixels, the network can take.

    Args:
        minimum: smallest side.
        multiple: the side must be a multiple of this.
        multiple_option: name of an architecture option (`patch_size`) whose value, where given, replaces `multiple`
            and, where `minimum` equals `multiple`, that too.
        maximum: largest side, or None.
    """

    minimum: int = 1
    multiple: int = 1
    multiple_option: str = ""
    maximum: int | None = None

    def nearest(self, side: int, options: Mapping[str, Any] | None = None) -> int:
        """The valid side nearest to `side` (the larger of two equally near): `side` itself where it is valid.

        Args:
            side: pixels.
            options: the architecture options in use.
        """
        multiple, minimum = self.multiple, self.minimum
        given = (options or {}).get(self.multiple_option)
        if isinstance(given, int) and given > 0:
            minimum = given if minimum == multiple else minimum
            multiple = given
        lowest = -(-minimum // multiple) * multiple
        near = max(lowest, (side + multiple // 2) // multiple * multiple)
        if self.maximum is not None:
            near = min(near, self.maximum // multiple * multiple)
        return near


@dataclass(frozen=True, kw_only=True)
class ArchitectureCard:
    """Static facts about one architecture, read from `medcli-card.toml` without importing the plugin.

    Only `name` and `summary` are required; what a card does not say is unknown, never guessed. In TOML it is the table
    `[architectures.NAME]`, which may name a table `[defaults.OTHER]` with `inherits = "OTHER"` (and that one another):
    tables are merged key by key, everything else is replaced. A `source` may be a key of the table `[sources]`, which
    holds its full text. `[architectures.NAME.recipes.any]` holds for every strategy that says nothing else.

    Args:
        name: as the entry point calls it; not a TOML field.
        summary: one line.
        family: `resnet`, `vit`, ...; what `models list --family` takes.
        task: what it was made for.
        params: parameters of the backbone, without head.
        params_total: parameters as published, with the 1000-class head.
        gmacs: multiply-adds in 10^9 for one picture at `input_size`, convolutions and matrix products.
        input_size: side in pixels it was made for.
        in_channels: channels it was made for.
        feature_dim: width D of the pooled features [B, D].
        stages: stages of `layer_groups()` with the stem, which `--freeze-layers` counts.
        blocks: groups of `layer_groups()`.
        normalisation: for random weights and those of `weights` that say nothing else.
        modalities: kinds of pictures it was made for; empty for any.
        weights: published weights.
        default_weights: the tag that `--pretrained` means; empty where there are none.
        references: papers.
        licence: of the network's code.
        memory: reported batch sizes.
        scaling: compound scaling, for families that have it.
        recipes: strategy to recipe.
        options: keywords of the factory that a user may set.
        any_option: whether the factory takes more keywords than `options` lists.
        lora_targets: role (`qkv`, `attn`, `mlp`, `conv`) to patterns of module names within the backbone, `*` matching
            any text; `conv` means convolutions without groups among the modules matched.
        size: which image sizes it takes.
        drop_path: whether the family has stochastic depth; None if unknown.
        attention_maps: whether it can give attention maps; None if unknown.
        trainable: whether it makes sense to train it.
        requires: what must be installed beside the plugin itself, as `transformers>=5.0`; where it is not, the
            architecture is listed as unavailable with the line that installs it.
        note: one sentence that a user should know before using it.
        place: the card's file and line, filled in by the reader; not a TOML field.
    """

    name: str
    summary: str
    family: str = ""
    task: str = "classification"
    params: int | None = None
    params_total: int | None = None
    gmacs: float | None = None
    input_size: int | None = None
    in_channels: int | None = None
    feature_dim: int | None = None
    stages: int | None = None
    blocks: int | None = None
    normalisation: Normalisation | None = None
    modalities: tuple[str, ...] = ()
    weights: tuple[WeightCard, ...] = ()
    default_weights: str = ""
    references: tuple[Reference, ...] = ()
    licence: str = ""
    memory: tuple[MemoryNote, ...] = ()
    scaling: Scaling | None = None
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    options: Mapping[str, OptionCard] = field(default_factory=dict)
    any_option: bool = False
    lora_targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    size: SizeRule = SizeRule()
    drop_path: bool | None = None
    attention_maps: bool | None = None
    trainable: bool = True
    requires: tuple[str, ...] = ()
    note: str = ""
    place: str = ""

    def weight(self, tag: str) -> WeightCard | None:
        """The published weights of that tag, or None."""
        return next((weights for weights in self.weights if weights.tag == tag), None)

    def normalisation_for(self, tag: str | None, options: Mapping[str, Any] | None = None) -> Normalisation | None:
        """How pictures are normalised.

        Args:
            tag: of the weights in use; None, or one that the card does not list, for others.
            options: the architecture options in use; one that says how pictures are normalised has the last word.
        """
        for name, option in self.options.items():
            value = (options or {}).get(name, option.default)
            text = str(value).lower() if isinstance(value, bool) else str(value)
            if text in option.normalisations:
                return option.normalisations[text]
        weights = self.weight(tag) if tag else None
        return (weights.normalisation if weights else None) or self.normalisation
