"""`models list` and `models show`: what can be built, and the facts about one architecture or difference model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medcli.cli.options import ArchitectureArgument, Flags
from medcli.cli.output import Output
from medcli.errors import UsageProblem
from medcli.plugin import ArchitectureCard, Normalisation, WeightCard
from medcli.registry.cards import parse_options, read_card
from medcli.registry.catalogue import Catalogue, Listed, catalogue, facts, head_parameters
from medcli.registry.discovery import CORE, DIFFERENCE_MODELS, Entry, Registry, discover, find
from medcli.registry.layout import install_line

if TYPE_CHECKING:
    from medcli.models.layers import LayerTable

__all__ = ["list_models", "show_model"]


def list_models(flags: Flags) -> None:
    """List the architectures and difference models that can be built.

    Built-ins and those of installed plugins, from their cards: nothing is imported and nothing is downloaded. A plugin
    that is broken is named in a warning and stops nothing else. Difference models, which `diffmap` takes, have a table
    of their own.

    Examples:
        medcli models list
        medcli models list --family vit
        medcli models list --max-params 10 --json
        medcli models list --difference
    """
    output = Output(flags.output(), "models list")
    given = flags.given
    found = catalogue(
        discover(),
        family=given.get("family"),
        modality=given.get("modality"),
        max_params=given.get("max_params"),
    )
    for problem in found.problems:
        error = problem.as_error()
        output.warn(f"{error.where}: {error.message}")
    if found.unknown:
        output.note(f"{found.unknown} left out because their card does not say; `medcli models list` shows them")
    only_differences = bool(given.get("difference"))
    output.answer(
        _listing(found, only_differences),
        lambda: _tables(output, found, only_differences),
        identifier="\n".join(one.label for one in (found.differences if only_differences else found.listed)),
    )


def show_model(architecture: ArchitectureArgument, flags: Flags) -> None:
    """Show what is known about an architecture or difference model.

    Parameters, feature width, preprocessing, weights, options, recipes with their sources, and the paper; what its card
    does not say is called unknown. `--layers` builds it, without memory for its weights, and lists every module.

    Examples:
        medcli models show resnet50 --classes 5
        medcli models show custom1 --layers
        medcli models show timm/resnet26d --json
        medcli models show siamese-unet
    """
    output = Output(flags.output(), "models show")
    given = flags.given
    idle = [name for name in ("image_size", "in_channels", "arch_opt") if name in given and not given.get("layers")]
    if idle:
        flag = f"--{idle[0].replace('_', '-')}"
        raise UsageProblem(
            f"`{flag}` changes the network that `--layers` builds, and that was not asked for",
            where=flag,
            hint=f"medcli models show {architecture} --layers {flag} …",
            code="idle-flag",
        )
    registry = discover()
    entry = _found(registry, architecture)
    card = read_card(entry)
    classes: int | None = given.get("classes")
    if classes is not None and entry.group == DIFFERENCE_MODELS:
        raise UsageProblem(
            f"`{entry.name}` is a difference model, which has no classes",
            where="--classes",
            hint=f"medcli models show {architecture}",
            code="idle-flag",
        )
    options = parse_options(entry, card, given.get("arch_opt", ()))
    if given.get("bibtex"):
        references = [one.bibtex() for one in card.references] if card else []
        if not references:
            output.warn(f"the card of `{entry.name}` names no paper")
        text = "\n\n".join(references)
        output.answer({"name": entry.name, "bibtex": references}, text, identifier=text)
        return
    result = facts(entry, card, classes)
    layers = None
    if given.get("layers"):
        layers, built = _build(entry, card, given, options, classes)
        result["layers"] = [row.__dict__ for row in layers.rows]
        result["built"] = built
    output.answer(result, lambda: _page(output, entry, card, result, layers), identifier=entry.qualified)


def _found(registry: Registry, name: str) -> Entry:
    """The architecture of that name, or the difference model."""
    try:
        return find(registry, name)
    except UsageProblem:
        groups = {one.group for one in registry.entries if name in {one.name, one.qualified}}
        if groups == {DIFFERENCE_MODELS}:
            return find(registry, name, DIFFERENCE_MODELS)
        raise


def _listing(found: Catalogue, only_differences: bool) -> dict[str, Any]:
    return {
        "architectures": [] if only_differences else [_row(one) for one in found.listed],
        "difference_models": [_row(one) for one in found.differences],
        "namespaces": {} if only_differences else found.namespaces,
        "problems": [problem.__dict__ for problem in found.problems],
    }


def _row(one: Listed) -> dict[str, Any]:
    known = facts(one.entry, one.card)
    known = {
        name: known.get(name)
        for name in (
            "name", "qualified", "kind", "distribution", "version", "built_in", "summary", "family", "task", "params",
            "params_total", "feature_dim", "input_size", "in_channels", "modalities", "default_weights",
        )
    }  # fmt: skip
    card = "broken" if one.broken else "yes" if one.card else "none"
    return {**known, "label": one.label, "card": card, "missing": one.missing}


def _tables(output: Output, found: Catalogue, only_differences: bool) -> str:
    parts = [_table(output, found.listed)] if found.listed and not only_differences else []
    if found.differences:
        parts += [("difference models, for `medcli diffmap`\n" if parts else "") + _pairs(output, found.differences)]
    text = "\n\n".join(parts) or "nothing passes these filters"
    counts = [f"and {count:,} names behind `{name}/`" for name, count in found.namespaces.items() if count]
    return text if only_differences else "\n\n".join([text, *counts])


def _table(output: Output, listed: Sequence[Listed]) -> str:
    rows = [
        (
            one.label,
            card.family if (card := one.card) else None,
            _millions(card),
            card.feature_dim if card else None,
            card.input_size if card else None,
            (card.default_weights if card else "") or None,
            _summary(one),
        )
        for one in listed
    ]
    return output.table(("name", "family", "M params", "features", "input", "weights", "summary"), rows)


def _pairs(output: Output, listed: Sequence[Listed]) -> str:
    rows = [
        (
            one.label,
            _millions(one.card),
            one.card.input_size if one.card else None,
            (one.card.default_weights if one.card else "") or None,
            _summary(one),
        )
        for one in listed
    ]
    return output.table(("name", "M params", "input", "weights", "summary"), rows)


def _millions(card: ArchitectureCard | None) -> str | None:
    return None if card is None or card.params is None else _rounded(card.params / 1e6)


def _summary(one: Listed) -> str:
    if one.missing:
        return f"unavailable: {install_line(one.missing)}"
    return "card broken" if one.broken else one.card.summary if one.card else "no card"


def _rounded(millions: float) -> str:
    return f"{millions:.1f}" if millions >= 0.1 else f"{millions:.4f}" if millions else "0"


def _page(
    output: Output, entry: Entry, card: ArchitectureCard | None, result: Mapping[str, Any], layers: LayerTable | None
) -> str:
    origin = "built in" if entry.distribution == CORE else f"plugin {entry.origin}"
    lines = [f"{entry.qualified}  ({origin})"]
    if card is None:
        lines.append("its distribution says nothing about it: there is no card; `--layers` builds it and counts")
    else:
        told = _difference_facts(card) if entry.group == DIFFERENCE_MODELS else _facts(card, result)
        lines += [card.summary, "", output.facts(told), *_lists(output, card)]
        if card.note:
            lines += ["", f"note: {card.note}"]
        if result["missing"]:
            lines += ["", f"unavailable: {install_line(result['missing'])}"]
    if layers is not None:
        built = result["built"]
        rows = [
            (row.module or "(itself)", row.kind, "×".join(map(str, row.output_shape)), row.parameters, row.macs)
            for row in layers.rows
        ]
        classes = f", {built['classes']} classes" if "classes" in built else ", for a pair"
        share = (
            f"{built['backbone']:,} backbone, {built['head']:,} head"
            if "head" in built
            else f"{built['encoder']:,} in the encoder"
        )
        lines += [
            "",
            f"layers at {built['image_size']} px, {built['in_channels']} channels{classes}",
            output.table(("module", "kind", "output", "parameters", "MACs"), rows),
            f"total {layers.parameters:,} parameters ({share}), "
            f"{layers.macs / 1e9:.3f} G MACs, {built['stages']} stages in {built['blocks']} groups",
        ]
    return "\n".join(lines)


def _facts(card: ArchitectureCard, result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """One line per fact; `unknown` where the card is silent."""
    total = "" if card.params_total is None else f"; {card.params_total:,} with its published 1000-class head"
    rows = [
        ("family", card.family or "unknown"),
        ("parameters", "unknown" if card.params is None else f"{card.params:,} in the backbone{total}"),
    ]
    if "classes" in result:
        head = head_parameters(card, result["classes"])
        counted = "unknown" if result["params_with_head"] is None else f"{result['params_with_head']:,}"
        rows.append((f"with {result['classes']} classes", f"{counted} ({head or 0:,} in the head), all trainable"))
    rows += [
        ("multiply-adds", "unknown" if card.gmacs is None else f"{card.gmacs:g} G at {card.input_size} px"),
        ("features", str(card.feature_dim or "unknown")),
        ("layer groups", f"{card.blocks} in {card.stages} stages" if card.stages else "unknown"),
        ("input", _input(card)),
        ("normalisation", _normalisation(card.normalisation)),
        ("drop path", {True: "yes", False: "no", None: "unknown"}[card.drop_path]),
        ("attention maps", {True: "yes", False: "no", None: "unknown"}[card.attention_maps]),
        ("made for", ", ".join(card.modalities) or "any kind of picture"),
        ("licence of the code", card.licence or "unknown"),
    ]
    if card.scaling:
        scaling = card.scaling
        rows.append(
            ("compound scaling", f"depth × {scaling.depth:g}, width × {scaling.width:g}, {scaling.resolution} px")
        )
    return rows


def _difference_facts(card: ArchitectureCard) -> list[tuple[str, str]]:
    """The facts of a difference model; `unknown` where the card is silent."""
    return [
        ("kind", "difference model: two images in, a map of what changed out"),
        ("family", card.family or "unknown"),
        ("parameters", "unknown" if card.params is None else f"{card.params:,}"),
        ("multiply-adds", "unknown" if card.gmacs is None else f"{card.gmacs:g} G for a pair at {card.input_size} px"),
        ("layer groups", f"{card.blocks} in {card.stages} stages" if card.stages else "unknown"),
        ("input", _input(card)),
        ("normalisation", _normalisation(card.normalisation)),
        ("made for", ", ".join(card.modalities) or "any kind of picture"),
        ("trained", "yes" if card.trainable else "no, there is nothing to train"),
        ("licence of the code", card.licence or "unknown"),
    ]


def _lists(output: Output, card: ArchitectureCard) -> list[str]:
    lines: list[str] = []
    if card.weights:
        rows = [
            (
                weights.tag + (" (default)" if weights.tag == card.default_weights else ""),
                weights.data,
                weights.source,
                weights.licence or "not stated",
                _weight_note(weights, card),
            )
            for weights in card.weights
        ]
        lines += ["", "weights", output.table(("tag", "trained on", "source", "licence", ""), rows)]
    else:
        lines += ["", "weights: none are known"]
    if card.options:
        rows_of_options = [
            (name, option.default, ", ".join(map(str, option.choices)) or option.type, option.help)
            for name, option in card.options.items()
        ]
        lines += ["", "options (`--arch-opt KEY=VALUE`)"]
        lines += [output.table(("key", "default", "values", ""), rows_of_options)]
    if card.recipes:
        recipes = [
            ("every strategy" if strategy == "any" else strategy, key, _plain(one.value), one.source)
            for strategy in sorted(card.recipes, key=lambda name: (name != "any", name != "train", name))
            for key, one in card.recipes[strategy].items()
        ]
        lines += ["", "recipes", output.table(("strategy", "setting", "value", "source"), recipes)]
    if card.memory:
        notes = [(f"{one.gpu_gb:g} GB", one.batch_size, one.source) for one in card.memory]
        lines += ["", "batch sizes that others report, not measured here; `train --dry-run` measures"]
        lines += [output.table(("GPU", "batch", "source"), notes)]
    for reference in card.references:
        first = reference.authors[0].partition(",")[0] if reference.authors else ""
        others = " et al." if len(reference.authors) > 1 else ""
        lines += ["", f"{first}{others}: {reference.title} ({reference.year}), {reference.url}"]
    return lines


def _input(card: ArchitectureCard) -> str:
    size = f"{card.input_size} × {card.input_size} px" if card.input_size else "size unknown"
    channels = f", {card.in_channels} channels" if card.in_channels else ""
    rule = card.size
    limits = []
    if rule.multiple > 1:
        by = f"`{rule.multiple_option}` ({rule.multiple})" if rule.multiple_option else str(rule.multiple)
        limits.append(f"any multiple of {by}")
    elif rule.minimum > 1:
        limits.append(f"any from {rule.minimum} px")
    return size + channels + (f"; takes {', '.join(limits)}" if limits else "")


def _normalisation(normalisation: Normalisation | None) -> str:
    if normalisation is None:
        return "unknown"
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (normalisation.mean, normalisation.std))
    return f"mean {mean}; standard deviation {std}; {normalisation.interpolation}"


def _weight_note(weights: WeightCard, card: ArchitectureCard) -> str:
    notes = ["needs registration"] if weights.gated else []
    own, usual = weights.normalisation, card.normalisation
    if own and (usual is None or (own.mean, own.std) != (usual.mean, usual.std)):
        notes.append(_normalisation(own))
    return "; ".join(notes)


def _plain(value: Any) -> str:
    return (
        ",".join(map(str, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _build(
    entry: Entry,
    card: ArchitectureCard | None,
    given: Mapping[str, Any],
    options: Mapping[str, Any],
    classes: int | None,
) -> tuple[LayerTable, dict[str, Any]]:
    """The layer table of the network, built without memory for its weights."""
    channels = given.get("in_channels") or (card.in_channels if card else None) or 3
    size = given.get("image_size") or (card.input_size if card else None) or 224
    if entry.group == DIFFERENCE_MODELS:
        from medcli.diffmap.network import describe_difference

        return describe_difference(entry.qualified, in_channels=channels, image_size=size, options=options)
    from medcli.data.target import Target
    from medcli.models.build import build_outline
    from medcli.models.layers import layer_table
    from medcli.models.spec import ModelSpec

    names = tuple(str(index) for index in range(classes or 2))
    spec = ModelSpec(
        architecture=entry.qualified,
        in_channels=channels,
        image_size=size,
        target=Target("multiclass", names),
        options=dict(options),
    )
    classifier = build_outline(spec)
    counts = classifier.parameter_counts()
    groups = classifier.layer_groups()[:-1]  # the head is the last one
    table = layer_table(classifier, spec.image_size, spec.in_channels)
    return table, {
        "image_size": spec.image_size,
        "in_channels": spec.in_channels,
        "classes": len(names),
        "parameters": counts.total,
        "backbone": counts.backbone,
        "head": counts.head,
        "macs": table.macs,
        "stages": len({group.stage for group in groups}),
        "blocks": len(groups),
    }
