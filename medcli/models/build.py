"""From a specification to a classifier, and from there to one safe file and back."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from medcli.data.dataset import Preprocessing
from medcli.errors import MedcliError, RunFailure, UsageProblem, nearest
from medcli.models.base import Origin
from medcli.models.classifier import Classifier
from medcli.models.nearest import NearestHead
from medcli.models.provenance import check_package, made_by
from medcli.models.spec import ModelSpec, preprocessing_from_json, preprocessing_to_json, spec_from_json, spec_to_json
from medcli.models.tensor_file import damaged, write_tensors
from medcli.models.weights import LoadReport
from medcli.plugin import Backbone

if TYPE_CHECKING:
    from medcli.registry.discovery import Entry
    from medcli.runs.directory import RunDirectory

__all__ = [
    "SCHEMA",
    "Built",
    "LoadedModel",
    "ModelSpec",
    "build_classifier",
    "build_outline",
    "check_options",
    "describe_model",
    "describe_run",
    "load_model",
    "load_run",
    "save_model",
]

SCHEMA = "medcli-model/1"
_KEY = "medcli"
_DIFFERENCE = "medcli-difference/"  # what `medcli diffmap train` and `pretrain` write
_COMMON = ("in_channels", "image_size", "pretrained", "weights", "drop_path", "name")


@dataclass(frozen=True)
class Built:
    """A classifier, what its weights came from (None: random), and the installed entry that made its backbone."""

    classifier: Classifier
    load_report: LoadReport | None
    entry: Entry


@dataclass(frozen=True)
class LoadedModel:
    """What a model file holds.

    Args:
        classifier: in eval mode.
        spec: how it was made.
        preprocessing: what its images went through.
        extra: further facts that were saved with it, plain JSON.
        caution: what the user should know about the package that builds it, or empty.
        views: what predicts in the classifier's place, giving logits: the classifier asked several times per picture.
            It gives their mean [B, ...], or all of them [B, answers, ...].
    """

    classifier: Classifier
    spec: ModelSpec
    preprocessing: Preprocessing
    extra: Mapping[str, Any]
    caution: str = ""
    views: nn.Module | None = None

    @property
    def predictor(self) -> nn.Module:
        """What images go through: images [B, C, S, S], normalised -> outputs that `spec.head_kind` decodes."""
        return self.classifier if self.views is None else self.views


def build_classifier(
    spec: ModelSpec, *, weights: str | None = None, pretrained: bool = False, seed: int | None = None
) -> Built:
    """Build the network a specification describes.

    Args:
        spec: what to build; its architecture may be any name the registry finds.
        weights: a weight tag of the card whose file is on this machine, or a file or folder.
        pretrained: start from the card's default weights.
        seed: draws the initial weights from this seed alone and leaves the global generator as it was; None draws
            from the global generator.

    Raises:
        UsageProblem: unknown architecture, options, image size or weights.
        RunFailure: the architecture's package is broken, or does not keep the contract of `medcli.plugin.Backbone`.
    """
    from medcli.models.pretrained import factory_weights
    from medcli.registry.cards import read_card
    from medcli.registry.discovery import discover, find, load_factory

    entry = find(discover(), spec.architecture)
    factory = load_factory(entry)
    asked, named = weights is not None, weights
    card = read_card(entry) if pretrained or weights else None
    weights = factory_weights(entry.name, card, weights, pretrained)
    check_options(entry.name, factory, spec.options, _COMMON)
    with _seeded(seed):
        try:
            backbone = factory(
                in_channels=spec.in_channels,
                image_size=spec.image_size,
                pretrained=pretrained,
                weights=weights,
                drop_path=spec.drop_path,
                **spec.options,
            )
        except MedcliError as error:
            if card and card.weights and error.code == "unknown-weights":
                error.hint = f"its weight tags: {', '.join(known.tag for known in card.weights)}; or give a file"
            if error.where == "--weights" and not asked:
                error.where = "--pretrained"
            raise
        except Exception as error:
            raise RunFailure(
                f"`{entry.name}` cannot be built: {type(error).__name__}: {error}",
                where=f"{entry.origin}, entry point `{entry.reference}`",
                hint="`--debug` shows its traceback",
                code="broken-plugin",
            ) from error
        if not isinstance(backbone, nn.Module) or not isinstance(backbone, Backbone):
            raise RunFailure(
                f"`{entry.name}` gave a {type(backbone).__name__} without `feature_dim` or `layer_groups()`",
                where=f"{entry.origin}, entry point `{entry.reference}`",
                code="broken-plugin",
            )
        classifier = Classifier(
            backbone, spec.target, head_kind=spec.head_kind, dropout=spec.dropout, head_norm=spec.head_norm
        )
    found = getattr(backbone, "load_report", None)
    report = found if isinstance(found, LoadReport) else None
    classifier.origin = _origin(
        spec, named or (card.default_weights if card else ""), weights, report, pretrained=pretrained, seed=seed
    )
    return Built(classifier, report, entry)


def _origin(
    spec: ModelSpec,
    named: str,
    weights: str | None,
    report: LoadReport | None,
    *,
    pretrained: bool,
    seed: int | None,
) -> Origin:
    """How the backbone came to its weights; `named` by the user, `weights` as the factory was given them."""
    if not (weights or pretrained):
        return Origin(spec, seed=seed)
    files = (Path(name) for name in (weights, report.source if report else None) if name)
    file = next((path for path in files if path.exists()), None)
    adapted = (*report.resized, *report.converted) if report else ()
    return Origin(spec, "file" if file else "tag", named, file, seed, adapted)


def build_outline(spec: ModelSpec) -> Classifier:
    """The network on the meta device: shapes and names without memory for weights. Raises as `build_classifier`."""
    with torch.device("meta"):
        return build_classifier(spec).classifier


def check_options(name: str, factory: Callable[..., Any], options: Mapping[str, Any], common: Collection[str]) -> None:
    """Refuse an option that has a flag of its own, or that the factory, where its signature can be read, lacks.

    Args:
        name: of what the factory builds.
        factory: of an architecture or a difference model.
        options: as `--arch-opt` gave them.
        common: parameters of every such factory, which have flags of their own.

    Raises:
        UsageProblem: naming the flag, or the options there are.
    """
    for key in options:
        if key in common:
            raise UsageProblem(
                f"`{key}` is no option of `{name}`: it has a flag of its own",
                code="bad-option",
                where="--arch-opt",
                hint=f"--{key.replace('_', '-')}" if key != "name" else None,
            )
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    own = [key for key in parameters if key not in common]
    for key in options:
        if key not in own:
            close = nearest(key, own) or own
            raise UsageProblem(
                f"`{name}` has no option `{key}`",
                code="bad-option",
                where="--arch-opt",
                hint=f"its options: {', '.join(close)}" if close else "it has no options",
            )


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def save_model(
    path: str | Path,
    classifier: nn.Module,
    spec: ModelSpec,
    preprocessing: Preprocessing,
    extra: Mapping[str, Any] | None = None,
    *,
    state: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write one safetensors file, all at once or not at all.

    Args:
        path: the file; an older one is replaced.
        classifier: a network of `build_classifier`, or a copy of one with other weights.
        spec: how it was made.
        preprocessing: what its images go through.
        extra: further facts, plain JSON.
        state: its tensors, where they do not all lie in this process.

    Raises:
        RunFailure: the file cannot be written.
    """
    path = Path(path)
    document = {
        "schema": SCHEMA,
        "spec": spec_to_json(spec),
        "preprocessing": preprocessing_to_json(preprocessing),
        "package": made_by(spec.architecture),
        "extra": dict(extra or {}),
    }
    # Copies: safetensors refuses memory that two names share, and stores channels-first tensors only.
    tensors = {
        name: tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)
        for name, tensor in (classifier.state_dict() if state is None else state).items()
    }
    write_tensors(path, tensors, {_KEY: json.dumps(document, allow_nan=False, sort_keys=True)})


def load_model(path: str | Path, device: str | torch.device = "cpu") -> LoadedModel:
    """Read a model file and build its network again.

    Raises:
        UsageProblem: no such file, not one of medcli's, damaged, of a later version, or its architecture is no longer
            installed.
    """
    path = Path(path)
    spec, preprocessing, package, extra, tensors = _read(path)
    caution = check_package(spec.architecture, package, str(path))
    with torch.random.fork_rng(devices=[]):
        classifier = build_classifier(spec).classifier
    if isinstance(classifier.medcli_head, NearestHead) and "medcli_head.stored" in tensors:
        classifier.medcli_head.make_room(tensors["medcli_head.stored"].shape[:1].numel())
    expected = classifier.state_dict()
    wrong = [
        name
        for name in sorted(expected.keys() | tensors.keys())
        if name not in tensors or name not in expected or tensors[name].shape != expected[name].shape
    ]
    if wrong:
        raise UsageProblem(
            f"`{path}` was written for another build of `{spec.architecture}`: {len(wrong)} of {len(expected)} tensors "
            f"differ ({', '.join(wrong[:3])}{', …' if len(wrong) > 3 else ''})",
            code="bad-model-file",
            where=caution or None,
            hint="install the versions that the run's `environment.json` names",
        )
    classifier.load_state_dict(tensors)
    classifier.origin = Origin(spec, "run", str(path), path)
    classifier.to(device).eval()
    return LoadedModel(classifier, spec, preprocessing, extra, caution)


def load_run(run: RunDirectory, device: str | torch.device = "cpu", *, weights: str | None = None) -> LoadedModel:
    """The model of a run of either kind: a whole network, or an adapter on a base that is found and compared.

    Args:
        run: the run.
        device: where its weights go.
        weights: the base of an adapter, where it is no longer where it was.

    Raises:
        UsageProblem: as `load_model`; for an adapter, no base or another one; `weights` for a whole network; an
            ensemble.
    """
    _refuse_several(run)
    if (run.path / "adapter").is_dir():
        from medcli.models.adapted import load_adapted

        return load_adapted(run.path, device, weights=weights)
    if weights is not None:
        raise UsageProblem(
            f"`--weights` names the base of an adapter, and `{run.path}` is a whole model",
            where="--weights",
            hint="leave it out",
            code="fixed-by-run",
        )
    return load_model(run.model_file, device)


def _refuse_several(run: RunDirectory) -> None:
    from medcli.runs.members import is_ensemble

    if is_ensemble(run.path):
        raise UsageProblem(
            f"`{run.path}` is an ensemble, and one model is needed here",
            hint=f"name one of its members: `medcli runs show {run.path}` lists them",
            code="is-an-ensemble",
        )


def describe_run(run: RunDirectory) -> tuple[ModelSpec, Preprocessing]:
    """How the model of a run was made, no tensor read. Raises as `load_run`."""
    _refuse_several(run)
    if (run.path / "adapter").is_dir():
        from medcli.models.adapter_file import describe_adapter

        about = describe_adapter(run.path)
        if about.preprocessing is not None:
            return about.spec, about.preprocessing
    return describe_model(run.model_file)


def describe_model(path: str | Path) -> tuple[ModelSpec, Preprocessing]:
    """How the model in a file was made, from its description alone; no tensor is read. Raises as `load_model`."""
    spec, preprocessing, _, _, _ = _read(Path(path), tensors=False)
    return spec, preprocessing


def _read(
    path: Path, *, tensors: bool = True
) -> tuple[ModelSpec, Preprocessing, Any, Mapping[str, Any], dict[str, torch.Tensor]]:
    if not path.is_file():
        raise UsageProblem(
            f"there is no model file `{path}`",
            hint="`medcli runs list` shows the runs here and how each ended",
            code="no-model-file",
        )
    try:
        with safe_open(str(path), framework="pt") as handle:
            metadata = handle.metadata() or {}
            names = handle.keys() if tensors else ()
            state = {name: handle.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from error
    if _KEY not in metadata:
        raise UsageProblem(
            f"`{path}` holds weights alone, not a model of medcli",
            code="bad-model-file",
            hint=f"start a training from it with `medcli train ARCH --weights {path}`",
        )
    try:
        document = json.loads(metadata[_KEY])
    except json.JSONDecodeError as error:
        raise UsageProblem(f"`{path}` has a damaged description: {error}", code="bad-model-file") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if isinstance(schema, str) and schema.startswith(_DIFFERENCE):
        raise UsageProblem(
            f"`{path}` holds a difference model, which takes two images of one patient",
            code="difference-model",
            hint=f"`medcli diffmap predict BASELINE FOLLOWUP --run {path.parent}`",
        )
    if schema != SCHEMA:
        raise UsageProblem(
            f"`{path}` has the format {schema!r}; this medcli reads {SCHEMA!r}",
            code="bad-model-file",
            hint="use the version of medcli that the run's `environment.json` names",
        )
    try:
        spec = spec_from_json(document.get("spec"))
        preprocessing = preprocessing_from_json(document.get("preprocessing"))
    except UsageProblem as error:
        raise UsageProblem(f"`{path}` is not as medcli wrote it: {error.message}", code="bad-model-file") from error
    extra = document.get("extra")
    return spec, preprocessing, document.get("package"), extra if isinstance(extra, dict) else {}, state
