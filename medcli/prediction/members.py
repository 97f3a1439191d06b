"""Several models that answer together: each with its own preprocessing, a backbone that several share run once.

One model is the simplest case, so that whatever predicts with a run predicts with an ensemble too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medcli.data.dataset import Preprocessing, Samples
from medcli.data.target import Target
from medcli.errors import RunFailure, UsageProblem
from medcli.evaluation.members import mean_logits, pooled
from medcli.evaluation.predictions import Predictions
from medcli.models.build import LoadedModel, load_run
from medcli.models.heads import decode
from medcli.prediction.asking import Asking
from medcli.prediction.datasets import predict_samples
from medcli.prediction.files import FilePredictions, Input, predict_files
from medcli.prediction.mc_dropout import McDropout
from medcli.runs.directory import RunDirectory
from medcli.runs.members import is_ensemble, member_run, read_ensemble
from medcli.settings.groups import ComputeSettings

__all__ = ["HEAD_FILE", "Jury", "Together", "load_jury", "predict_files_by", "predict_samples_by"]

HEAD_FILE = "head.safetensors"
"""What a member keeps instead of a whole model where another member holds the backbone of all."""


@dataclass(frozen=True)
class Jury:
    """The models that answer, and what each of them counts.

    Args:
        models: one or more; all of one target.
        weights: their shares, summing to one.
        joined: whether they are an ensemble, whose answers are kept beside their mean.
    """

    models: tuple[LoadedModel, ...]
    weights: tuple[float, ...] = (1.0,)
    joined: bool = False

    @property
    def first(self) -> LoadedModel:
        """The model whose target, window and description stand for all."""
        return self.models[0]

    @property
    def target(self) -> Target:
        """What is predicted."""
        return self.first.spec.target

    def asked(self, asking: Asking) -> Jury:
        """The same models, each asked that way. Raises as `Asking.of`."""
        return replace(self, models=tuple(asking.of(one, place) for place, one in enumerate(self.models)))


def load_jury(run: RunDirectory, *, weights: str | None = None) -> Jury:
    """The models of a run: its own, or those of the members of an ensemble.

    Args:
        run: of any kind.
        weights: the base of an adapter run, where it is no longer where it was.

    Raises:
        UsageProblem: as `load_run`; an ensemble of predictions (code `no-model-file`), or without members that
            completed (`not-finished`).
    """
    if not is_ensemble(run.path):
        return Jury((load_run(run, weights=weights),))
    ensemble = read_ensemble(run)
    if ensemble.kind == "predictions":
        raise UsageProblem(
            f"`{run.path}` joins files of predictions: there is no model that could look at a picture",
            hint="join runs instead: `medcli ensemble RUN RUN …`",
            code="no-model-file",
        )
    if len(ensemble.ready) < 2:
        raise UsageProblem(
            f"`{run.path}` has {len(ensemble.ready)} of {len(ensemble.members)} members: its training did not finish",
            hint=f"`medcli ensemble --resume {run.path}` finishes it",
            code="not-finished",
        )
    models: list[LoadedModel] = []
    holder = None
    if ensemble.backbone:
        named = next(one for one in ensemble.members if one.name == ensemble.backbone)
        holder = load_run(member_run(run, named))
    for member in ensemble.ready:
        place = member_run(run, member)
        if holder is None:
            models.append(load_run(place, weights=weights if place.adapter.is_dir() else None))
        elif member.name == ensemble.backbone:
            models.append(holder)
        else:
            models.append(_with_head(holder, place))
    shares = np.array([member.weight for member in ensemble.ready])
    if not shares.sum() > 0:
        shares = np.ones(len(shares))
    return Jury(tuple(models), tuple((shares / shares.sum()).tolist()), joined=True)


def _with_head(holder: LoadedModel, run: RunDirectory) -> LoadedModel:
    """The holder's backbone, shared, under the head of another member."""
    import copy

    path = run.path / HEAD_FILE
    classifier = copy.copy(holder.classifier)
    head = copy.deepcopy(holder.classifier.medcli_head)
    try:
        head.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UsageProblem(
            f"the head of a member cannot be read: {error}", where=str(path), code="bad-model-file"
        ) from (error)
    classifier._modules = {**holder.classifier._modules, "medcli_head": head.eval()}
    return replace(holder, classifier=classifier)


class Together(nn.Module):
    """Models that see the same tensor: images [B, C, S, S] -> logits [B, answers, ...] of all of them, in their order.

    A backbone that several of them share runs once.
    """

    def __init__(self, models: Sequence[LoadedModel]) -> None:
        super().__init__()
        self.networks = nn.ModuleList([one.predictor for one in models])
        self._models = tuple(models)

    def forward(self, images: Tensor) -> Tensor:
        """The answers; a model that is asked several times has as many, one after another."""
        features: dict[int, Tensor] = {}
        found = []
        for one, network in zip(self._models, self.networks, strict=True):
            target, kind = one.spec.target, one.spec.head_kind
            logits = decode(self._raw(one, network, images, features), target, kind)
            found.append(logits if logits.ndim == len(target.logits_shape) + 2 else logits[:, None])
        return torch.cat(found, dim=1)

    def _raw(self, one: LoadedModel, network: nn.Module, images: Tensor, features: dict[int, Tensor]) -> Tensor:
        backbone = one.classifier.backbone
        shared = sum(other.classifier.backbone is backbone for other in self._models) > 1
        dropping = isinstance(network, McDropout) and network.shares_features
        if not shared or not (dropping or one.views is None):
            raw: Tensor = network(images)
            return raw
        if id(backbone) not in features:
            features[id(backbone)] = backbone(images)
        if isinstance(network, McDropout):
            return network.from_features(features[id(backbone)])
        answer: Tensor = one.classifier.medcli_head(features[id(backbone)])
        return answer


def predict_samples_by(
    jury: Jury,
    samples: Samples,
    compute: ComputeSettings,
    *,
    split: str,
    data_name: str,
    skip_unreadable: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Predictions, tuple[tuple[str, str], ...]]:
    """The answers of a jury to the cases of a data set; see `predict_samples`.

    Members that want their pictures alike see the same tensors; for each other preprocessing the pictures are decoded
    once more.
    """
    found: list[tuple[tuple[int, ...], Predictions]] = []
    skipped: tuple[tuple[str, str], ...] = ()
    groups = _groups(jury)
    for number, (places, model) in enumerate(groups):
        watch = None if progress is None else _part(progress, number, len(groups))
        one, skipped = predict_samples(
            model,
            samples,
            compute,
            split=split,
            data_name=data_name,
            skip_unreadable=skip_unreadable,
            progress=watch,
        )
        if found and not np.array_equal(found[0][1].ids, one.ids):
            raise RunFailure("pictures became unreadable while they were predicted", code="incomplete")
        found.append((places, one))
    first = found[0][1]
    if first.member_logits is None:
        return first, skipped
    members, shares = _in_order(jury, [(places, one.member_logits) for places, one in found])
    return pooled(replace(first, member_logits=members), shares), skipped


def predict_files_by(
    jury: Jury,
    inputs: Callable[[Preprocessing], Sequence[Input]],
    compute: ComputeSettings,
    *,
    progress: Callable[[int], None] | None = None,
) -> FilePredictions:
    """The answers of a jury to files; see `predict_files`.

    Args:
        jury: from `load_jury`, asked in any way.
        inputs: the files as a model with that preprocessing reads them, the same ones for all.
        compute: device, precision, batch size, workers.
        progress: told the number of inputs done.

    Raises:
        RunFailure: as `predict_files`.
    """
    found: list[tuple[tuple[int, ...], FilePredictions]] = []
    groups = _groups(jury)
    for number, (places, model) in enumerate(groups):
        entries = inputs(model.preprocessing)
        watch = progress
        if progress is not None and len(groups) > 1:
            watch = _share(progress, number, len(groups), len(entries))
        found.append((places, predict_files(model, entries, compute, progress=watch)))
    first = found[0][1]
    if first.member_logits is None:
        return first
    # A file that one member cannot read gets no answer from the others either.
    failures = dict(failure for _, one in reversed(found) for failure in one.failures)
    names = tuple(name for name in first.names if name not in failures)
    parts = []
    for places, one in found:
        rows = [row for row, name in enumerate(one.names) if name not in failures]
        parts.append((places, None if one.member_logits is None else one.member_logits[:, rows]))
    members, shares = _in_order(jury, parts)
    logits = mean_logits(members, jury.target, shares)
    weights = None if np.ptp(shares) < 1e-12 else shares
    return FilePredictions(names, logits, tuple(failures.items()), members, weights)


def _groups(jury: Jury) -> list[tuple[tuple[int, ...], LoadedModel]]:
    """Models that want their pictures alike, as one; a single model that is asked once stays as it is."""
    if not jury.joined:
        return [((0,), jury.first)]
    kinds: list[Preprocessing] = []
    for one in jury.models:
        if one.preprocessing not in kinds:
            kinds.append(one.preprocessing)
    groups = []
    for kind in kinds:
        places = tuple(place for place, one in enumerate(jury.models) if one.preprocessing == kind)
        models = [jury.models[place] for place in places]
        spec = replace(models[0].spec, head_kind="linear")
        groups.append((places, replace(models[0], views=Together(models).eval(), spec=spec)))
    return groups


def _in_order(
    jury: Jury, parts: Sequence[tuple[tuple[int, ...], npt.NDArray[np.float32] | None]]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """(logits of all answers in the order of the models, their shares): a model's share is split among its answers."""
    own: dict[int, npt.NDArray[np.float32]] = {}
    for places, members in parts:
        if members is None:
            raise TypeError("a model gave one answer where the others gave several")
        each = len(members) // len(places)
        for number, place in enumerate(places):
            own[place] = members[number * each : (number + 1) * each]
    ordered = [own[place] for place in range(len(jury.models))]
    shares = [np.full(len(one), weight / len(one)) for one, weight in zip(ordered, jury.weights, strict=True)]
    return np.concatenate(ordered), np.concatenate(shares)


def _part(progress: Callable[[int, int], None], number: int, parts: int) -> Callable[[int, int], None]:
    return lambda done, total: progress((number * total + done) // parts, total)


def _share(progress: Callable[[int], None], number: int, parts: int, total: int) -> Callable[[int], None]:
    return lambda done: progress((number * total + done) // parts)
