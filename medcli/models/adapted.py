"""Classifiers with adapters: put in, saved, loaded on their own base and on no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from medcli.errors import UsageProblem
from medcli.models.adapter_file import About, StoredAdapter, read_adapter, write_adapter
from medcli.models.base import Base, Origin, base_of, state_digest
from medcli.models.heads import Head
from medcli.models.lora import DEFAULT, Adapters, LoraOptions
from medcli.models.lora_checks import refuse_dead, sample_images
from medcli.models.weight_files import looks_like_file

if TYPE_CHECKING:
    from medcli.models.build import LoadedModel
    from medcli.models.classifier import Classifier
    from medcli.models.spec import ModelSpec
    from medcli.plugin import ArchitectureCard

__all__ = [
    "add_adapter",
    "continue_adapter",
    "is_adapted",
    "load_adapted",
    "load_adapter",
    "load_together",
    "save_adapter",
    "store",
]


def is_adapted(run: Path) -> bool:
    """Whether a run directory holds an adapter instead of a whole model."""
    return (run / "adapter").is_dir()


def add_adapter(
    classifier: Classifier,
    options: LoraOptions,
    *,
    name: str = DEFAULT,
    card: ArchitectureCard | None = None,
    without: Sequence[str] = (),
) -> None:
    """Put a fresh adapter in, and see that all of it learns.

    Args:
        card: the architecture's card; looked up where it is None and the classifier knows its architecture.
        without: modules within the backbone that are not adapted.

    Raises:
        UsageProblem: see `Adapters.add` and `refuse_dead`; the classifier is as before.
    """
    origin = classifier.origin
    if card is None and origin is not None:
        from medcli.registry.cards import read_card
        from medcli.registry.discovery import discover, find

        card = read_card(find(discover(), origin.spec.architecture))
    fresh = classifier.adapters is None
    adapters = classifier.adapters or Adapters(_identity(classifier), channels=_channels(classifier))
    adapters.add(classifier, options, card.lora_targets if card else {}, name=name, without=without)
    classifier.adapters = adapters
    classifier.train(classifier.training)
    if next(classifier.parameters()).is_meta:
        return
    try:
        refuse_dead(classifier, sample_images(origin, classifier))
    except UsageProblem:
        adapters.remove(name)
        if fresh:
            classifier.adapters = None
            classifier.requires_grad_(True)
        raise


def load_adapter(classifier: Classifier, path: Path, name: str = DEFAULT) -> tuple[str, ...]:
    """Load a stored adapter into a classifier; see `Classifier.load_adapter`.

    Returns:
        names of tensors of a foreign adapter that are no part of a classifier of medcli, and were left out.
    """
    stored = read_adapter(path)
    adapters = classifier.adapters or Adapters(_identity(classifier), channels=_channels(classifier))
    if stored.about is not None:
        _refuse_other_base(stored, classifier, adapters.base)
    return _put_in(classifier, adapters, stored, name)


def continue_adapter(classifier: Classifier, path: Path, *, dropout: float) -> tuple[str, ...]:
    """Load an adapter to train it further: a head for other classes stays new.

    Args:
        dropout: of the adapter from now on.

    Returns:
        sentences the user should read.
    """
    stored = read_adapter(path)
    stored.config.lora_dropout = dropout
    adapters = Adapters(_identity(classifier), channels=_channels(classifier))
    notes = []
    keep_head = True
    if stored.about is None:
        notes.append(f"adapter: {path}, which does not say what base it was trained on")
    else:
        _refuse_other_base(stored, classifier, adapters.base)
        spec, own = stored.about.spec, classifier.origin.spec if classifier.origin else stored.about.spec
        keep_head = (spec.target, spec.head_kind, spec.head_norm) == (own.target, own.head_kind, own.head_norm)
        notes.append(
            f"adapter: a copy of {path}, " + ("head included" if keep_head else "with a new head: the targets differ")
        )
    left_out = _put_in(classifier, adapters, stored, DEFAULT, head=None if keep_head else classifier.medcli_head)
    if left_out:
        notes.append(f"adapter: {len(left_out)} tensors of another head were left out ({left_out[0]}, …)")
    refuse_dead(classifier, sample_images(classifier.origin, classifier))
    return tuple(notes)


def save_adapter(classifier: Classifier, path: Path) -> None:
    """Write the active adapter of a classifier; see `Classifier.save_adapter`."""
    adapters = classifier.adapters
    if adapters is None or classifier.origin is None:
        raise UsageProblem("this classifier has no adapter", code="no-adapter", hint="`add_adapter` first")
    head = classifier.medcli_head
    spec = replace(
        classifier.origin.spec,
        target=classifier.target,
        head_kind=classifier.head_kind,
        head_norm=isinstance(head.norm, torch.nn.LayerNorm),
        dropout=head.dropout.p,
    )
    store(path, classifier, classifier, About(spec, adapters.base, None))


def store(
    folder: Path,
    classifier: Classifier,
    network: torch.nn.Module,
    about: About,
    extra: Mapping[str, Any] | None = None,
    *,
    state: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write an adapter.

    Args:
        folder: where.
        classifier: the one with the adapter.
        network: whose numbers are written: the classifier, or its moving average.
        about: what else is kept.
        extra: further facts, plain JSON.
        state: the network's state where it lies on several devices.
    """
    adapters = classifier.adapters
    if adapters is None:
        raise UsageProblem("this classifier has no adapter", code="no-adapter")
    about = replace(about, base=adapters.base)
    write_adapter(folder, adapters.config(), adapters.tensors(network, state), about, extra)


def load_adapted(
    run: Path, device: str | torch.device = "cpu", *, weights: str | None = None, name: str = DEFAULT
) -> LoadedModel:
    """The model of a run of `medcli lora`: its base, found and compared, with the adapter in it.

    Args:
        run: the run directory.
        device: where its weights go.
        weights: the base, where it is no longer where it was: a weight file, a tag, or a run.
        name: how `set_adapter` calls the adapter.

    Raises:
        UsageProblem: no base, another base, a damaged adapter.
    """
    from medcli.models.build import LoadedModel
    from medcli.models.provenance import check_package

    stored = read_adapter(run / "adapter")
    about = stored.about
    if about is None or about.preprocessing is None or about.base is None:
        raise UsageProblem(
            f"`{run}` does not say what its adapter was trained on", where=str(stored.folder), code="bad-adapter"
        )
    caution = check_package(about.spec.architecture, about.package, str(stored.folder))
    classifier = build_base(about.spec, about.base, run, weights)
    if _state(classifier) != about.base.state:
        _refuse_other_base(stored, classifier, _identity(classifier))
    adapters = Adapters(about.base, channels=about.spec.in_channels)
    _put_in(classifier, adapters, stored, name)
    classifier.to(device).eval()
    return LoadedModel(classifier, about.spec, about.preprocessing, stored.extra, caution)


def load_together(
    runs: Mapping[str, Path], device: str | torch.device = "cpu", *, weights: str | None = None
) -> dict[str, LoadedModel]:
    """The models of several adapter runs on one base, which is loaded once.

    They share one classifier: `set_adapter` with a run's name comes before its model is used.

    Args:
        runs: name -> run directory.
        device: where the weights go.
        weights: the base, where it is no longer where it was.

    Raises:
        UsageProblem: as `load_adapted`; a run that was trained on another base than the first.
    """
    names = list(runs)
    first = load_adapted(runs[names[0]], device, weights=weights, name=names[0])
    found = {names[0]: first}
    for name in names[1:]:
        stored = read_adapter(runs[name] / "adapter")
        adapters, about = first.classifier.adapters, stored.about
        if adapters is None or about is None or about.preprocessing is None:
            raise UsageProblem(f"`{runs[name]}` does not say what its adapter was trained on", code="bad-adapter")
        _refuse_other_base(stored, first.classifier, adapters.base)
        _put_in(first.classifier, adapters, stored, name)
        found[name] = replace(first, spec=about.spec, preprocessing=about.preprocessing, extra=stored.extra, caution="")
    first.classifier.to(device).eval()
    return found


def build_base(spec: ModelSpec, base: Base, run: Path, weights: str | None = None) -> Classifier:
    """Build a classifier with the weights an adapter was trained on, wherever they are now.

    Args:
        spec: the classifier.
        base: which weights.
        run: the run that holds the adapter; a base run may have moved with it.
        weights: where the user says they are.

    Raises:
        UsageProblem: code `base-missing`.
    """
    from medcli.models.build import build_classifier

    recorded = Path(base.file) if base.file else None
    beside = run.resolve().parent / recorded.parent.name / recorded.name if recorded and base.kind == "run" else None
    if weights is not None:
        found: Path | None = Path(weights)
        if not Path(weights).exists():
            found = None
        elif (Path(weights) / "model.safetensors").is_file() and base.kind == "run":
            found = Path(weights) / "model.safetensors"
    else:
        found = next((path for path in (recorded, beside) if path is not None and path.exists()), None)
    if found is not None and found.is_file() and _is_model_file(found):
        return from_model_file(spec, found)
    named = weights if found is None else str(found)
    with torch.random.fork_rng(devices=[]):
        if named is not None:
            return build_classifier(spec, weights=named, seed=base.seed).classifier
        if base.kind == "random":
            return build_classifier(spec, seed=base.seed).classifier
        if base.weights and base.kind != "run" and not looks_like_file(base.weights):
            try:
                return build_classifier(spec, weights=base.weights, seed=base.seed).classifier
            except UsageProblem as problem:
                raise _missing(base, run, f" ({problem.message})") from problem
    raise _missing(base, run)


def from_model_file(spec: ModelSpec, file: Path) -> Classifier:
    """A classifier with the backbone of a model file of medcli; its head is new.

    Raises:
        UsageProblem: the file holds another architecture, or cannot be read.
    """
    from medcli.models.build import build_classifier, load_model

    loaded = load_model(file)
    if loaded.spec.architecture != spec.architecture:
        raise UsageProblem(
            f"`{file}` is a `{loaded.spec.architecture}`, and the adapter belongs to a `{spec.architecture}`",
            code="other-base",
        )
    with torch.random.fork_rng(devices=[]):
        classifier = build_classifier(spec).classifier
    if classifier.backbone.state_dict().keys() != loaded.classifier.backbone.state_dict().keys():
        raise UsageProblem(f"`{file}` holds another build of `{spec.architecture}`", code="other-base")
    classifier.backbone.load_state_dict(loaded.classifier.backbone.state_dict())
    classifier.origin = Origin(spec, "run", str(file), file)
    return classifier


def _put_in(
    classifier: Classifier, adapters: Adapters, stored: StoredAdapter, name: str, *, head: Head | None = None
) -> tuple[str, ...]:
    """Hand an adapter over; `head` takes the place of the stored one."""
    tensors, left_out = _own_names(stored, classifier)
    target, kind = classifier.target, classifier.head_kind
    if head is not None:
        tensors = {key: value for key, value in tensors.items() if not key.startswith("medcli_head.")}
        new = head
    elif stored.about is not None:
        spec = stored.about.spec
        target, kind = spec.target, spec.head_kind
        new = Head(classifier.feature_dim, target, kind, dropout=spec.dropout, norm=spec.head_norm)
    else:
        new = deepcopy(classifier.medcli_head)
    if not any(key.startswith("medcli_head.") for key in tensors):
        tensors |= {f"medcli_head.{key}": value for key, value in new.state_dict().items()}
    config = deepcopy(stored.config)
    config.target_modules = {key.partition(".lora_")[0] for key in tensors if ".lora_" in key}
    adapters.add_loaded(classifier, name, config, tensors, new, target=target, head_kind=kind)
    classifier.adapters = adapters
    classifier.train(classifier.training)
    return left_out


def _own_names(stored: StoredAdapter, classifier: Classifier) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Tensors under the classifier's names; a foreign adapter may belong to the bare network and have another head."""
    tensors = {key.removeprefix("base_model.model."): value for key, value in stored.tensors.items()}
    if stored.about is not None:
        return tensors, ()
    factors = {key: value for key, value in tensors.items() if ".lora_" in key}
    head = {key: value for key, value in tensors.items() if key.startswith("medcli_head.")}
    left_out = tuple(key for key in tensors if key not in factors and key not in head)
    modules = {name.replace(".base_layer", "") for name, _ in classifier.named_modules()}
    for prefix in ("", "backbone.", "backbone.net."):
        if factors and all(f"{prefix}{key.partition('.lora_')[0]}" in modules for key in factors):
            return {**{f"{prefix}{key}": value for key, value in factors.items()}, **head}, left_out
    return {**factors, **head}, left_out


def _refuse_other_base(stored: StoredAdapter, classifier: Classifier, base: Base | None) -> None:
    about = stored.about
    if about is None or about.base is None:
        return
    origin = classifier.origin
    own = None if origin is None else origin.spec
    if own is not None:
        for what, mine, theirs in (
            ("architecture", own.architecture, about.spec.architecture),
            ("options", dict(own.options), dict(about.spec.options)),
            ("number of channels", own.in_channels, about.spec.in_channels),
            ("image size", own.image_size, about.spec.image_size),
        ):
            if mine != theirs:
                raise UsageProblem(
                    f"the adapter was trained on another base: its {what} is `{theirs}`, not `{mine}`",
                    where=str(stored.folder),
                    code="other-base",
                )
    if base is not None and base.state != about.base.state:
        same = base.sha256 == about.base.sha256 and base.seed == about.base.seed
        raise UsageProblem(
            f"the adapter was trained on other weights: {about.base.sentence()}",
            where=str(stored.folder),
            hint="what is read is the same, so the packages that build the network have changed: install the versions "
            "that the run's `environment.json` names"
            if same
            else "give these weights with `--weights FILE`",
            code="other-base",
        )


def _missing(base: Base, run: Path, reason: str = "") -> UsageProblem:
    place = f" at `{base.file}`" if base.file else ""
    return UsageProblem(
        f"the weights this adapter was trained on, {base.sentence()}, are not{place or ' on this machine'}{reason}",
        where=str(run),
        hint="give them with `--weights FILE`",
        code="base-missing",
    )


def _identity(classifier: Classifier) -> Base | None:
    """The identity of a classifier's base, before any adapter."""
    origin = classifier.origin
    if origin is None or next(classifier.parameters()).is_meta:
        return None
    return base_of(origin, classifier.backbone.state_dict())


def _state(classifier: Classifier) -> str:
    adapted = classifier.origin.adapted if classifier.origin else ()
    return state_digest(classifier.backbone.state_dict(), adapted)


def _channels(classifier: Classifier) -> int:
    return classifier.origin.spec.in_channels if classifier.origin is not None else 3


def _is_model_file(file: Path) -> bool:
    if file.suffix != ".safetensors":
        return False
    try:
        with safe_open(str(file), framework="pt") as handle:
            return "medcli" in (handle.metadata() or {})
    except (SafetensorError, OSError):
        return False
