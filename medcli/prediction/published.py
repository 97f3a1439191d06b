"""An architecture with the classifier its weights brought: a model that can be judged and applied without training.

Which output means what is never guessed: names come with the weights, from the card's options or from the user, and
data are matched to outputs by name alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from medcli.data.load import load_data
from medcli.data.medmnist import known_set
from medcli.data.named_sets import Named, named_sets
from medcli.data.tables import is_table, read_table
from medcli.data.target import Target, Task
from medcli.errors import UsageProblem, listed
from medcli.models.build import LoadedModel, build_classifier
from medcli.models.classifier import Classifier
from medcli.models.preprocessing import plan_preprocessing
from medcli.models.spec import ModelSpec
from medcli.plugin import ArchitectureCard, PretrainedHead
from medcli.registry.cards import parse_options, read_card
from medcli.registry.discovery import Entry, discover, find
from medcli.settings.groups import DataSettings, ModelSettings

if TYPE_CHECKING:
    from medcli.data.dataset import DataSet

__all__ = ["Matched", "Published", "load_published", "match_labels"]

# Stands in until the weights have said what their classifier tells apart; nothing of it is kept.
_ANY = Target("multiclass", ("0", "1"))


@dataclass(frozen=True)
class Published:
    """A model as its publishers left it.

    Args:
        model: with one output per named class of its own classifier.
        summary: what came out of the weight file, one line.
    """

    model: LoadedModel
    summary: str


@dataclass(frozen=True)
class Matched:
    """A data set and the model with just the outputs that its labels have.

    Args:
        model: its target is the data set's.
        data: the data set.
        notes: which outputs or labels had no counterpart.
    """

    model: LoadedModel
    data: DataSet
    notes: tuple[str, ...] = ()


def load_published(architecture: str, *, data: DataSettings, model: ModelSettings) -> Published:
    """Build an architecture from weights that bring a classifier.

    Args:
        architecture: any name of the registry.
        data: image size, channels, normalisation, and class names where the weights have none.
        model: weights and architecture options.

    Raises:
        UsageProblem: unknown architecture, no weights asked for, weights that do not fit, no classifier in them, or one
            whose outputs have no names.
    """
    entry = find(discover(), architecture)
    card = read_card(entry)
    if not (model.weights or model.pretrained):
        raise UsageProblem(
            f"`{architecture}` is an architecture: without weights it is random, and there is nothing to judge",
            hint=_weights_hint(architecture, card),
            code="no-weights",
        )
    options = parse_options(entry, card, model.arch_opt)
    preprocessing = plan_preprocessing(card, data, model, options)
    spec = ModelSpec(
        architecture=entry.qualified,
        in_channels=preprocessing.channels,
        image_size=preprocessing.image_size,
        target=_ANY,
        options=options,
    )
    built = build_classifier(spec, weights=model.weights, pretrained=model.pretrained, seed=0)
    backbone = built.classifier.backbone
    head = getattr(backbone, "pretrained_head", None)
    report = built.load_report
    if not isinstance(head, PretrainedHead):
        raise UsageProblem(
            f"these weights of `{architecture}` bring no classifier, only a backbone",
            where=report.source if report else "--weights",
            hint=f"train one with `medcli train {architecture} --weights … --data PATH`",
            code="no-pretrained-head",
        )
    target, rows = _own_target(entry, card, head, data)
    classifier = _with_rows(backbone, head, target, rows)
    loaded = LoadedModel(classifier.eval(), replace(spec, target=target), preprocessing, {})
    return Published(loaded, report.sentence() if report else f"weights of {entry.qualified}")


def match_labels(
    model: LoadedModel, settings: DataSettings, data_tables: Mapping[str, Mapping[str, Any]]
) -> tuple[Matched, ...]:
    """Load every data set and pick the outputs that its labels name.

    Labels and outputs are the same where they differ in capitals, blanks, `-` and `_` at most. One-label targets must
    agree as a whole.

    Raises:
        UsageProblem: a label that no output has, or no label in common.
    """
    found = []
    for one in named_sets(settings, data_tables):
        target, rows, notes = _chosen(model.spec.target, one)
        chosen = _select(model, target, rows)
        alone = replace(one.settings, data=(f"{one.name}={one.path}",), class_names=(), task=None)
        (loaded,) = load_data(alone, target=target)
        found.append(Matched(chosen, loaded, notes))
    return tuple(found)


def _own_target(
    entry: Entry, card: ArchitectureCard | None, head: PretrainedHead, data: DataSettings
) -> tuple[Target, list[int]]:
    """What the head tells apart, and which of its rows do."""
    outputs, given = len(head.weight), data.class_names
    names = head.class_names
    if given:
        if names and tuple(map(_plain, given)) != tuple(map(_plain, names)):
            raise UsageProblem(
                f"the outputs of these weights are {listed(names, 20)}, not {listed(given, 20)}",
                where="--class-names",
                code="other-classes",
            )
        names = tuple(given)
    if not names:
        options = f", or see the options in `medcli models show {entry.name}`" if card and card.options else ""
        raise UsageProblem(
            f"these weights bring a classifier of {outputs} outputs and do not say what each of them means",
            where="--weights",
            hint=f"`--class-names A,B,…` names all {outputs} in order{options}",
            code="unnamed-outputs",
        )
    if len(names) != outputs:
        raise UsageProblem(
            f"{len(names)} class names for a classifier of {outputs} outputs",
            where="--class-names" if given else entry.origin,
            code="class-names",
        )
    rows = [row for row, name in enumerate(names) if name]
    task = _own_task(head, data.task, outputs)
    if task != "multilabel" and len(rows) != outputs:
        raise UsageProblem(
            f"some outputs of a {task} classifier have no name, so its probabilities would not add up",
            where=entry.origin,
            code="unnamed-outputs",
        )
    return Target(task, tuple(names[row] for row in rows)), rows


def _own_task(head: PretrainedHead, asked: Task | None, outputs: int) -> Task:
    """Whether the outputs exclude each other, which the same numbers may or may not mean."""
    if asked in {"ordinal", "multioutput"}:
        raise UsageProblem(f"a classifier of {outputs} plain outputs is not {asked}", where="--task", code="bad-task")
    if head.task:
        if asked and asked != head.task:
            raise UsageProblem(
                f"the classifier of these weights is {head.task}, not {asked}", where="--task", code="bad-task"
            )
        return head.task
    if asked is None:
        raise UsageProblem(
            f"these weights do not say whether their {outputs} outputs exclude each other",
            where="--weights",
            hint="`--task multiclass` where exactly one class holds, `--task multilabel` where several may",
            code="unknown-task",
        )
    return "binary" if asked == "multiclass" and outputs == 2 else asked


def _chosen(target: Target, one: Named) -> tuple[Target, list[int], tuple[str, ...]]:
    """The target of a data set in its own words, the model's outputs for it, and what is left out."""
    everything = list(range(target.num_classes))
    offered = _label_names(one) if target.task == "multilabel" else None
    if offered is None:
        return target, everything, ()
    names, asked = offered
    position = {_plain(name): row for row, name in enumerate(target.class_names)}
    if not asked:
        names = tuple(name for name in names if _plain(name) in position)
    elif len(names) == 1 and _plain(names[0]) not in position:
        return target, everything, ()  # one column that holds several labels, such as `Effusion|Mass`
    unknown = [name for name in names if _plain(name) not in position]
    if unknown or not names:
        what = f"`{unknown[0]}` is none of its outputs" if unknown else f"`{one.path}` has a column for none of them"
        raise UsageProblem(
            f"the model's outputs are {listed(target.class_names, 20)}; {what}",
            where="--label-column" if asked else "--data",
            hint="`--label-column` names the columns that hold them",
            code="other-target",
        )
    rows = sorted((position[_plain(name)] for name in names), key=everything.index)
    words = {position[_plain(name)]: name for name in names}
    left_out = [target.class_names[row] for row in everything if row not in words]
    notes = (f"{one.name}: not judged, because it has no such label: {', '.join(left_out)}",) if left_out else ()
    return replace(target, class_names=tuple(words[row] for row in rows)), rows, notes


def _label_names(one: Named) -> tuple[tuple[str, ...], bool] | None:
    """The labels a data set may have and whether the user chose them; None where its source says nothing by name."""
    if is_table(one.path):
        table = read_table(one.path)
        wanted = table.named(one.settings.label_column)
        return (wanted, True) if wanted else (table.columns, False)
    facts = known_set(one.path) if one.path.lower().endswith(".npz") else None
    return (facts.classes, False) if facts and facts.task == "multilabel" else None


def _select(model: LoadedModel, target: Target, rows: Sequence[int]) -> LoadedModel:
    linear = model.classifier.medcli_head.linear
    head = PretrainedHead(linear.weight.detach(), linear.bias.detach())
    classifier = _with_rows(model.classifier.backbone, head, target, rows).eval()
    return replace(model, classifier=classifier, spec=replace(model.spec, target=target))


def _with_rows(backbone: torch.nn.Module, head: PretrainedHead, target: Target, rows: Sequence[int]) -> Classifier:
    classifier = Classifier(backbone, target)
    chosen = torch.tensor(list(rows), dtype=torch.long)
    with torch.no_grad():
        classifier.medcli_head.linear.weight.copy_(head.weight[chosen])
        classifier.medcli_head.linear.bias.copy_(head.bias[chosen])
    return classifier


def _weights_hint(architecture: str, card: ArchitectureCard | None) -> str:
    tags = [weights.tag for weights in card.weights] if card else []
    offered = f" (its tags: {', '.join(tags)})" if tags else ""
    return f"`--weights FILE`{offered}, or train it with `medcli train {architecture} --data PATH`"


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").split()).casefold()
