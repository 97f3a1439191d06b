"""The rules in `knowledge/` as typed values: what is advised under which conditions, and who says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from medcli.errors import RunFailure
from medcli.recommend.situation import Situation
from medcli.settings.toml_files import read_toml

__all__ = ["Choice", "Contradiction", "KnownSet", "Limit", "Package", "Preference", "Rules", "Source", "When", "rules"]


FILES = ("sources", "goals", "situations", "settings", "evidence", "facts")


@dataclass(frozen=True)
class Source:
    """Who says something.

    Args:
        short: a few words for a line of text.
        text: what it is, in full.
        kind: `evidence` (measured and published, or counted on published files), `document`, or `practice`.
    """

    short: str
    text: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class When:
    """Conditions that must all hold; one on something that is not known does not hold.

    Args:
        architectures: names or patterns; empty for any.
        goals: any of them.
        modalities: any of them.
        modalities_not: none of them.
        tasks: any of them; `""` is a task that is not known.
        sets: names of MedMNIST sets.
        min_images: training images, inclusive.
        below_images: training images, exclusive.
        min_gpu: GB, inclusive.
        below_gpu: GB, exclusive.
        min_imbalance: cases of the largest class over those of the smallest, inclusive.
        card_modality: only architectures of plugins that no rule knows, whose card names this kind of picture.
    """

    architectures: tuple[str, ...] = ()
    goals: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    modalities_not: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    min_images: int | None = None
    below_images: int | None = None
    min_gpu: float | None = None
    below_gpu: float | None = None
    min_imbalance: float | None = None
    card_modality: bool = False

    def names(self, architecture: str) -> bool:
        """Whether it is about this architecture."""
        return not self.architectures or any(fnmatchcase(architecture, one) for one in self.architectures)

    def holds(self, now: Situation) -> bool:
        """Whether the situation is the one meant, apart from the architecture."""
        return (
            (not self.goals or now.goal in self.goals)
            and (not self.modalities or now.modality in self.modalities)
            and now.modality not in self.modalities_not
            and (not self.tasks or (now.task or "") in self.tasks)
            and (not self.sets or now.known_set in self.sets)
            and _between(now.images, self.min_images, self.below_images)
            and _between(now.gpu_gb, self.min_gpu, self.below_gpu)
            and _between(now.imbalance, self.min_imbalance, None)
        )


@dataclass(frozen=True)
class Preference:
    """Points for some architectures, with the reason."""

    when: When
    points: int
    why: str
    source: str


@dataclass(frozen=True)
class Choice:
    """Settings; the first one that applies to a setting decides it.

    Args:
        set: name of a setting (or `strategy`) to its value; an `image_size` of 0 is the architecture's own.
    """

    when: When
    set: Mapping[str, Any]
    why: str
    source: str


@dataclass(frozen=True)
class Contradiction:
    """A document's advice that published evidence does not bear out.

    Args:
        id: a stable name.
        when: where it is worth saying; one about architectures is said only where one of them is recommended.
        document: source of the advice.
        says: the advice.
        evidence: source of the evidence.
        but: the evidence.
    """

    id: str
    when: When
    document: str
    says: str
    evidence: str
    but: str


@dataclass(frozen=True, kw_only=True)
class KnownSet:
    """What is known of a MedMNIST set by its name alone."""

    modality: str
    train: int | None = None
    task: str | None = None
    classes: int | None = None
    imbalance: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Package:
    """An architecture of a plugin that need not be installed to be recommended."""

    distribution: str
    modality: str
    family: str
    params: int
    gmacs: float
    input_size: int
    feature_dim: int


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The largest network that makes sense for a goal."""

    params: int | None = None
    gmacs: float | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Everything in these files.

    Args:
        words: spelling in lower case -> kind of picture.
        dicom: DICOM modality -> kind of picture.
        activations: family -> megabytes a training step keeps per 10^9 multiply-adds, in 32-bit numbers.
        activations_by_width: family -> the same times the width of the features, for transformers.
    """

    sources: Mapping[str, Source]
    preferences: tuple[Preference, ...]
    choices: tuple[Choice, ...]
    contradictions: tuple[Contradiction, ...]
    sets: Mapping[str, KnownSet]
    packages: Mapping[str, Package]
    limits: Mapping[str, Limit]
    words: Mapping[str, str]
    dicom: Mapping[str, str]
    activations: Mapping[str, float] = field(default_factory=dict)
    activations_by_width: Mapping[str, float] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The kinds of pictures that rules know."""
        return tuple(dict.fromkeys(self.words.values()))

    def modality(self, text: str) -> str | None:
        """The kind of picture that a word means, or None for an unknown word."""
        return self.words.get(_plain(text))

    def short(self, source: str) -> str:
        """A source in a few words; what is no key of the table is a source already."""
        return self.sources[source].short if source in self.sources else source


@cache
def rules() -> Rules:
    """The rules, read once.

    Raises:
        RunFailure: the installed file names a condition or a source that does not exist.
    """
    document: dict[str, Any] = {}
    for name in FILES:
        for key, table in read_toml(Path(__file__).with_name("knowledge") / f"{name}.toml").values.items():
            # `[[rules]]` stand in two files; what stands in the later one comes after.
            document[key] = [*document[key], *table] if key in document else table
    sources = {name: Source(**table) for name, table in document["sources"].items()}
    words: dict[str, str] = {}
    dicom: dict[str, str] = {}
    for name, table in document["modalities"].items():
        words |= {_plain(word): name for word in (name, *table.get("words", ()))}
        dicom |= dict.fromkeys(table.get("dicom", ()), name)
    read = Rules(
        sources=sources,
        preferences=tuple(
            Preference(_when(table), table["points"], table["why"], table["source"]) for table in document["rules"]
        ),
        choices=tuple(
            Choice(_when(table), table["set"], table["why"], table["source"]) for table in document["choices"]
        ),
        contradictions=tuple(
            Contradiction(table["id"], _when(table), table["document"], table["says"], table["evidence"], table["but"])
            for table in document["contradictions"]
        ),
        sets={name: KnownSet(**table) for name, table in document["sets"].items()},
        packages={name: Package(**table) for name, table in document["packages"].items()},
        limits={name: Limit(**table) for name, table in document["limits"].items()},
        words=words,
        dicom=dicom,
        activations=document["activations"],
        activations_by_width=document["activations_by_width"],
    )
    cited = {rule.source for rule in read.preferences} | {choice.source for choice in read.choices}
    cited |= {one for said in read.contradictions for one in (said.document, said.evidence)}
    if unknown := sorted(cited - set(sources)):
        raise RunFailure(
            f"the rules cite unknown sources: {', '.join(unknown)}",
            where="medcli/recommend/knowledge",
            code="bad-rules",
        )
    return read


_CONDITIONS = {item.name for item in fields(When)}
_OTHERS = {"points", "why", "source", "set", "id", "document", "says", "evidence", "but"}


def _when(table: Mapping[str, Any]) -> When:
    if unknown := sorted(set(table) - _CONDITIONS - _OTHERS):
        raise RunFailure(
            f"a rule has unknown conditions: {', '.join(unknown)}", where="medcli/recommend/knowledge", code="bad-rules"
        )
    given: dict[str, Any] = {name: value for name, value in table.items() if name in _CONDITIONS}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return When(**given)


def _between(value: float | None, low: float | None, below: float | None) -> bool:
    if low is None and below is None:
        return True
    return value is not None and (low is None or value >= low) and (below is None or value < below)


def _plain(text: str) -> str:
    return " ".join(text.lower().replace("-", " ").replace("_", " ").split())
