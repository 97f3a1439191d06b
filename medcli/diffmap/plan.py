"""From what the user typed to everything that is decided in advance about a training on pairs or on masked pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from medcli.data.dataset import DataSet, Preprocessing
from medcli.data.record import compare_records
from medcli.diffmap.learning_data import pairs_to_learn, pictures_to_learn, require_splits
from medcli.diffmap.prepared import pairs_record
from medcli.diffmap.run import DifferenceSpec
from medcli.errors import UsageProblem
from medcli.models.preprocessing import plan_preprocessing
from medcli.registry.cards import parse_options, read_card
from medcli.registry.discovery import DIFFERENCE_MODELS, Registry, discover, find
from medcli.registry.recipes import recipe_source
from medcli.runs.directory import RunDirectory, open_run
from medcli.runs.records import read_config, read_data
from medcli.runs.status import read_status
from medcli.settings.diffmap_groups import PairTableSettings
from medcli.settings.groups import (
    ComputeSettings,
    DataSettings,
    DifferenceLossSettings,
    DifferenceSettings,
    MaskSettings,
    ModelSettings,
    PairSettings,
    TrainingSettings,
)
from medcli.settings.resolve import Resolved, resolve, survey
from medcli.training.start import MAY_CHANGE, Finished, refuse_changes

__all__ = ["PRETRAIN", "TRAIN", "DifferencePlan", "DifferenceStart", "continued", "fresh"]

TRAIN, PRETRAIN = "diffmap train", "diffmap pretrain"


@dataclass(frozen=True)
class DifferencePlan:
    """Everything that is decided before the first step.

    Args:
        data: pairs as pictures of three planes, or pictures of one.
        spec: the network.
        preprocessing: how pictures are stored; the network's own normalisation is in `spec`.
        monitor: the validation figure that chooses the best epoch.
        weights: weight tag or file the network starts from, or None.
        masks: what is hidden; None where maps are learnt.
        notes: sentences the user should read.
    """

    data: DataSet
    spec: DifferenceSpec
    preprocessing: Preprocessing
    monitor: str
    weights: str | None
    data_settings: DataSettings
    training: TrainingSettings
    compute: ComputeSettings
    difference: DifferenceSettings
    loss: DifferenceLossSettings
    masks: MaskSettings | None = None
    notes: tuple[str, ...] = ()

    @property
    def image_size(self) -> int:
        """Side of the input in pixels."""
        return self.spec.image_size

    @property
    def record(self) -> dict[str, Any]:
        """What `data.json` holds."""
        return pairs_record(self.data, "masked pictures" if self.masks else f"{self.spec.map} map of change")


@dataclass(frozen=True)
class DifferenceStart:
    """A training that can begin.

    Args:
        plan: what will be done.
        resolved: the settings with their origins.
        run: the run to continue, or None for a new one.
        extend: epochs beyond the planned ones.
        data_changes: what differs from the data the run began with, accepted by the user.
    """

    plan: DifferencePlan
    resolved: Resolved
    run: RunDirectory | None = None
    extend: int = 0
    data_changes: tuple[str, ...] = ()


def fresh(command: str, given: Mapping[str, Any]) -> DifferenceStart:
    """Plan a new training.

    Args:
        command: `TRAIN` or `PRETRAIN`.
        given: the flags that were typed.

    Raises:
        UsageProblem: whatever is wrong with settings, model, options or data.
    """
    registry = discover()
    # Asked before there is a recipe, because a file may name the model whose recipe it is.
    named = survey(command, given)[0]
    model = named.architecture if named.architecture and "model" not in given else named.values["model"]
    recipe = recipe_source("pretrain" if command == PRETRAIN else "train", registry, group=DIFFERENCE_MODELS)
    resolved = resolve(command, given, architecture=model, recipe_for=recipe)
    return DifferenceStart(_plan(resolved, registry), resolved)


def continued(command: str, given: Mapping[str, Any]) -> DifferenceStart | Finished:
    """Plan the continuation of a run, or say that it has finished and is not to be extended.

    Raises:
        UsageProblem: no such run, a run of another command, a flag that would change what is learnt, changed data.
    """
    run = open_run(given["resume"])
    status, saved = read_status(run), read_config(run)
    if saved.command != command:
        raise UsageProblem(
            f"`{run.path}` was made by `medcli {saved.command}`",
            where="--resume",
            hint=f"`medcli {saved.command} --resume {run.path}`",
            code="other-command",
        )
    resolved = saved.resolved()
    refuse_changes(run, resolved, given)
    extend = int(given.get("extend") or 0)
    if status.state == "completed" and not extend:
        return Finished(run, status)
    values = {**resolved.values, **{name: given[name] for name in given if name in MAY_CHANGE}}
    resolved = replace(resolved, values=values)
    plan = _plan(resolved, discover())
    changes = tuple(compare_records(read_data(run), plan.record))
    if changes and not given.get("accept_data_change"):
        raise UsageProblem(
            "the data is not what this run began with: " + "; ".join(changes),
            where=str(run.data_file),
            hint="put the data back, or go on with `--accept-data-change` (recorded in the run)",
            code="data-changed",
        )
    return DifferenceStart(plan, resolved, run, extend, changes)


def _plan(resolved: Resolved, registry: Registry) -> DifferencePlan:
    entry = find(registry, str(resolved.architecture), DIFFERENCE_MODELS)
    card = read_card(entry)
    if card is not None and not card.trainable:
        raise UsageProblem(
            f"`{entry.name}` has nothing to train",
            where="--model",
            hint="`medcli diffmap evaluate` shows it beside every trained model; `--model siamese-unet` learns",
            code="not-trainable",
        )
    settings, model = resolved.group(DataSettings), resolved.group(ModelSettings)
    pretraining = resolved.command == PRETRAIN
    options = parse_options(entry, card, model.arch_opt)
    # Radiographs are grey; a card that says otherwise knows why.
    channels = settings.in_channels or (card.in_channels if card else None) or 1
    shown = plan_preprocessing(card, replace(settings, in_channels=channels), model, options)
    difference, training = resolved.group(DifferenceSettings), resolved.group(TrainingSettings)
    how = resolved.group(PairSettings).register
    spec = DifferenceSpec(
        model=entry.qualified,
        kind="reconstruction" if pretraining else "difference",
        map=difference.map,
        in_channels=shown.channels,
        image_size=shown.image_size,
        options=options,
        mean=shown.mean,
        std=shown.std,
        register="none" if pretraining else how,
    )
    tables, table = resolved.data_tables, resolved.group(PairTableSettings)
    data = (
        pictures_to_learn(settings, tables, size=spec.image_size, table=table)
        if pretraining
        else pairs_to_learn(settings, tables, size=spec.image_size, how=how, table=table)
    )
    require_splits(data)
    notes = [*data.notes]
    if not (model.weights or training.init_from or difference.encoder_from or options.get("encoder_weights")):
        notes.append("weights: random (`--encoder-from RUN` starts from a pretraining or a classifier)")
    if not pretraining and how == "none" and difference.order_swap:
        notes.append("pairs are not registered, so none change places while training: maps lie over one image alone")
    return DifferencePlan(
        data=data,
        spec=spec,
        # A pair is stored as three planes, a picture as one; what a picture is padded with lies outside of it anyway.
        preprocessing=Preprocessing(spec.image_size, 1 if pretraining else 3, (0.0,), (1.0,), fit="pad"),
        monitor="loss" if pretraining else training.monitor or "auprc",
        weights=model.weights,
        data_settings=settings,
        training=training,
        compute=resolved.group(ComputeSettings),
        difference=difference,
        loss=resolved.group(DifferenceLossSettings),
        masks=resolved.group(MaskSettings) if pretraining else None,
        notes=tuple(notes),
    )
